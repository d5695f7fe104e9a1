"""One's own backbones: a file or an entry point, tried before its blocks are believed."""

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch

from studies.spaces import Depths
from transfer.backbones import custom
from transfer.backbones.find import (
    backbones_from_file,
    block_tensors,
    check_image_size,
    find_backbone,
    find_spec,
    split_into_blocks,
)

NET = """
from torch import nn
STD = (0.5, 0.5, 0.5)
def build():
    stem = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, bias=False), nn.BatchNorm2d(8), nn.ReLU())
    return nn.Sequential(stem, nn.Conv2d(8, 6, 1))
BACKBONES = {"my_net": build}
"""


@pytest.fixture(autouse=True)
def nothing_registered(monkeypatch):
    monkeypatch.setattr(custom, "from_files", {})


def write(folder: Path, text: str) -> Path:
    path = folder / "my_backbones.py"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_network_in_a_file_is_found_by_its_name(tmp_path):
    assert backbones_from_file(write(tmp_path, NET)) == ("my_net",)
    spec = find_spec("my_net")
    assert (spec.depth, spec.num_features, spec.num_parameters) == (2, 6, 216 + 16 + 54)
    assert (spec.mean, spec.std) == ((0.485, 0.456, 0.406), (0.5, 0.5, 0.5))
    assert spec.gmacs == round(111 * 111 * (216 + 48) / 1e9, 3)
    assert Depths()["my_net"] == 2
    network = find_backbone("my_net").build()
    blocks = split_into_blocks("my_net", network)
    assert block_tensors("my_net", network).keys() == network.state_dict().keys()
    assert blocks(torch.zeros(2, 3, 20, 20)).shape == (2, 6, 9, 9)


def test_a_network_of_ones_own_may_want_images_resized_otherwise(tmp_path):
    backbones_from_file(write(tmp_path, NET))
    assert find_spec("my_net").interpolation == "bilinear"
    backbones_from_file(write(tmp_path, 'INTERPOLATION = "bicubic"\n' + NET))
    assert find_spec("my_net").interpolation == "bicubic"
    with pytest.raises(ValueError, match=r"one of bilinear, bicubic, but got 'cubic'"):
        backbones_from_file(write(tmp_path, 'INTERPOLATION = "cubic"\n' + NET))


def test_each_build_has_tensors_of_its_own(tmp_path):
    shared = NET.replace("BACKBONES", "net = build()\nBACKBONES").replace(
        ": build", ": lambda: net"
    )
    backbones_from_file(write(tmp_path, shared))
    first, second = find_backbone("my_net").build(), find_backbone("my_net").build()
    with torch.no_grad():
        first[1].weight.zero_()
    assert second[1].weight.abs().sum() > 0


def test_a_file_is_not_read_before_it_is_given(tmp_path):
    write(tmp_path, NET)
    with pytest.raises(ValueError, match="Unknown backbone 'my_net'; choose from "):
        find_backbone("my_net")


def test_a_file_is_run_without_moving_the_global_random_state(tmp_path):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    backbones_from_file(write(tmp_path, NET))
    check_image_size("my_net", 64)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_network_of_one_image_size_refuses_others(tmp_path):
    fixed = NET.replace("nn.Conv2d(8, 6, 1)", "nn.Sequential(nn.Flatten(), nn.Linear(98568, 6))")
    backbones_from_file(write(tmp_path, fixed))
    assert find_backbone("my_net").image_size == 224
    check_image_size("my_net", 224)
    with pytest.raises(ValueError, match=r"'my_net' can't take images of 64 x 64 pixels .* 224"):
        check_image_size("my_net", 64)


def test_a_network_may_name_the_only_image_size_that_it_takes(tmp_path):
    fixed = NET.replace("nn.Conv2d(8, 6, 1)", "nn.Sequential(nn.Flatten(), nn.Linear(1800, 6))")
    backbones_from_file(write(tmp_path, fixed + "IMAGE_SIZE = 32"))
    check_image_size("my_net", 32)
    with pytest.raises(ValueError, match="its own size is 32 x 32: give --image-size 32"):
        check_image_size("my_net", 64)


BLOCKS = "nn.Sequential(stem, nn.Conv2d(8, 6, 1))"
BROKEN = {
    "running it raises SyntaxError": "def (",
    "running it raises ZeroDivisionError: division by zero.": "1 / 0",
    "running it raises SystemExit: 3.": "import sys; sys.exit(3)",
    "it defines no BACKBONES = {'my_net': build}.": "",
    "the name 'resnet18' is taken or none": NET.replace("my_net", "resnet18"),
    "the name 'timm:my_net' is taken or none": NET.replace("my_net", "timm:my_net"),
    "the name '../my_net' is taken or none": NET.replace("my_net", "../my_net"),
    "building it raises TypeError": NET.replace("def build()", "def build(size)"),
    "nn.Sequential of blocks, but gave a Conv2d": NET.replace(BLOCKS, "nn.Conv2d(3, 8, 1)"),
    "nn.Sequential of blocks, but gave a Sequential": NET.replace(BLOCKS, "nn.Sequential()"),
    "with images of 64 x 64 pixels RuntimeError": NET.replace("Conv2d(8,", "Conv2d(7,"),
    "block 1 gives tuple": NET.replace(
        "nn.Conv2d(8, 6, 1)", "nn.Sequential(nn.Flatten(2), nn.LSTM(961, 4))"
    ),
    "block 1 writes into its input": NET.replace("nn.ReLU()", "nn.PReLU()").replace(
        "nn.Conv2d(8, 6, 1)", "nn.ReLU(inplace=True)"
    ),
    "some of its blocks share weights": NET.replace(BLOCKS, "nn.Sequential(stem[0], stem)"),
    "its blocks have no parameters": NET.replace(BLOCKS, "nn.Sequential(nn.ReLU(), nn.ReLU())"),
    "the last block gives shape (2, 8, 961)": NET.replace("nn.Conv2d(8, 6, 1)", "nn.Flatten(2)"),
    "STD must be three numbers, but got 0.5": NET.replace("(0.5, 0.5, 0.5)", "0.5"),
    "IMAGE_SIZE must be a number of pixels, but got 'small'": NET + "IMAGE_SIZE = 'small'",
    "STD must be finite, and STD above 0": NET.replace("(0.5, 0.5, 0.5)", "(0.5, 0.5, 0)"),
}


@pytest.mark.parametrize("reason", BROKEN)
def test_a_file_that_does_not_work_is_named_with_the_reason_in_one_line(tmp_path, reason):
    path = write(tmp_path, BROKEN[reason])
    with pytest.raises(ValueError) as error:
        backbones_from_file(path)
    message = str(error.value)
    assert message.startswith(f"Backbones file {path} can't be used: ")
    assert reason in message
    assert "\n" not in message
    assert custom.from_files == {}


@pytest.mark.parametrize("name", ["missing.py", "my_backbones.txt", "."])
def test_what_is_no_python_file_is_refused(tmp_path, name):
    (tmp_path / "my_backbones.txt").write_text(NET, encoding="utf-8")
    with pytest.raises(ValueError, match="it is no Python file"):
        backbones_from_file(tmp_path / name)


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A package that calls its backbone by this file's name, so that no test finds another's."""

    def install(name: str, text: str) -> None:
        (tmp_path / f"package_of_{name}.py").write_text(text, encoding="utf-8")
        monkeypatch.syspath_prepend(tmp_path)
        point = EntryPoint(name, f"package_of_{name}:build", custom.GROUP)
        monkeypatch.setattr(custom, "entry_points", lambda group: [point])

    return install


def test_an_installed_package_is_imported_when_its_backbone_is_asked_for(installed):
    installed("installed_net", NET)
    assert custom.installed_names() == ["installed_net"]
    spec = find_spec("installed_net")
    assert (spec.name, spec.depth, spec.std) == ("installed_net", 2, (0.5, 0.5, 0.5))


def test_a_broken_package_is_only_met_by_those_who_ask_for_it(installed):
    installed("broken_net", "1 / 0")
    with pytest.raises(ValueError, match=r"Unknown backbone 'other_net'; choose .*, broken_net, "):
        find_backbone("other_net")
    with pytest.raises(ValueError) as error:
        find_backbone("broken_net")
    assert str(error.value) == (
        "Backbone 'broken_net' of package_of_broken_net:build does not work: "
        "ZeroDivisionError: division by zero; mend or uninstall the package."
    )


def test_a_name_of_the_table_can_not_be_taken_by_a_package(installed):
    installed("resnet18", "1 / 0")
    assert find_spec("resnet18").depth == 9
