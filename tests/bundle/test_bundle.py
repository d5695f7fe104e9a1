"""A bundle appears whole, can be moved, and is refused where anything in it doesn't fit."""

import os
import pickle
import shutil

import numpy as np
import pytest
import safetensors.torch
import torch
from bundles import (
    BACKBONE,
    bundle_config,
    edit,
    edit_tensors,
    head,
    make_bundle,
    replace_model,
    tree_hash,
)

from studies.bundle.bundle import read_bundle, refuse_to_replace, write_bundle
from studies.bundle.config import CARD, CONFIG, FILES, MODEL, ONNX, SCRIPT, read_config
from studies.errors import UserError
from transfer.backbones.catalog import BACKBONES
from transfer.backbones.find import find_spec
from transfer.inference import Classifier
from transfer.weights.find import find_weights

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("made") / "b")


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made, tmp_path / "b")


def images(num_images=5, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (num_images, 32, 32, 1), dtype=np.uint8)


def refused(folder, message, **given):
    with pytest.raises(UserError, match=message) as caught:
        read_bundle(folder, **given)
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)


def test_it_holds_these_files_and_others_may_read_them(made):
    assert {path.name for path in made.iterdir()} == set(FILES) - {ONNX}
    assert (made / MODEL).stat().st_mode == (made / CONFIG).stat().st_mode
    assert os.access(made / SCRIPT, os.X_OK)


def test_every_tensor_is_float32_and_the_head_is_the_trained_one(made):
    tensors = safetensors.torch.load_file(made / MODEL)
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    expected = head(2, find_spec(BACKBONE).num_features)
    assert all(torch.equal(tensors[key], tensor) for key, tensor in expected.items())


@pytest.mark.parametrize("link", [False, True])
def test_moved_or_behind_a_link_it_gives_the_same_bits(made, folder, tmp_path, link):
    before = read_bundle(made).classifier(CPU).logits(images())
    if link:
        moved = tmp_path / "link"
        moved.symlink_to(folder, target_is_directory=True)
    else:
        moved = folder.rename(tmp_path / "elsewhere")
    assert np.array_equal(before, read_bundle(moved).classifier(CPU).logits(images()))


def test_probabilities_and_classes_follow_calibration_and_threshold(made):
    bundle = read_bundle(made)
    shares_NC = bundle.probabilities(np.array([[0.0, 0.0], [2.0, 0.0]], dtype=np.float32))
    assert shares_NC[1, 1] == pytest.approx(1 / (1 + np.exp(1.0)))
    assert bundle.called(shares_NC).tolist() == [1, 0]


@pytest.mark.parametrize("name", [CONFIG, MODEL, SCRIPT])
def test_a_missing_file_is_refused(folder, name):
    (folder / name).unlink()
    refused(folder, f"{name}" if name == CONFIG else f"{name} is missing")


def test_a_missing_or_edited_card_is_not(folder):
    (folder / CARD).write_text("my notes")
    read_bundle(folder)
    (folder / CARD).unlink()
    read_bundle(folder)


@pytest.mark.parametrize("name", [MODEL, SCRIPT])
@pytest.mark.parametrize("place", [0, 0.5, -1])
def test_a_flipped_bit_anywhere_is_refused(folder, name, place):
    content = bytearray((folder / name).read_bytes())
    content[int(place * len(content)) if 0 < place < 1 else place] ^= 1
    (folder / name).write_bytes(content)
    refused(folder, f"{name} was changed or cut short")


def test_a_truncated_model_is_refused_with_its_hash_and_with_a_hash_that_fits(folder):
    content = (folder / MODEL).read_bytes()[:-1000]
    (folder / MODEL).write_bytes(content)
    refused(folder, "was changed or cut short")
    replace_model(folder, content)
    refused(folder, "no safetensors file")


def test_a_file_that_was_added_for_others_to_run_is_refused(folder):
    (folder / ONNX).write_bytes(b"x")
    refused(folder, "model.onnx is not in config.json")


class Loud:
    """Unpickled, it would leave a trace."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (self.trace,)


@pytest.mark.parametrize("save", [pickle.dumps, "torch"])
def test_a_pickle_in_place_of_the_model_is_refused_and_not_run(folder, tmp_path, save):
    trace = tmp_path / "trace"
    if save == "torch":
        torch.save({"head.1.weight": Loud(str(trace))}, tmp_path / "x.pth")
        content = (tmp_path / "x.pth").read_bytes()
    else:
        content = save(Loud(str(trace)))
    replace_model(folder, content)
    refused(folder, "no safetensors file")
    assert not trace.exists()


def header(text, data=b""):
    content = text.encode()
    return len(content).to_bytes(8, "little") + content + data


@pytest.mark.parametrize(
    "content",
    [
        b"",
        (2**62).to_bytes(8, "little"),
        header("{"),
        header('{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'),
        header(
            '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
            '"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
            b"\0" * 4,
        ),
        header('{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', b"\0" * 99),
        header('{"a":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4]}}', b"\0" * 4),
    ],
)
def test_tricks_in_the_header_are_refused(folder, content):
    replace_model(folder, content)
    refused(folder, "no safetensors file")


def pop(tensors):
    del tensors["head.1.bias"]


def poison(value):
    def change(tensors):
        tensors["features.0.0.weight"].view(-1)[7] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (pop, "'head.1.bias' is missing"),
        (lambda t: t.update(extra=torch.zeros(1)), "'extra' is unknown"),
        (
            lambda t: t.update({"head.1.bias": torch.zeros(3)}),
            r"has shape \(3,\), expected \(2,\)",
        ),
        (lambda t: t.update({"head.1.bias": torch.zeros(2).double()}), "type F64, expected F32"),
        (lambda t: t.update({"head.1.bias": torch.zeros(2).half()}), "type F16, expected F32"),
        (poison(float("nan")), "'features.0.0.weight' holds values that are not finite"),
        (poison(float("inf")), "not finite"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(folder, change, message):
    edit_tensors(folder, change)
    refused(folder, message)


def test_another_number_of_classes_is_refused(folder):
    scaling = {"scale": 0.5, "biases": [0.0, 0.0, 0.0]}
    edit(
        folder,
        lambda v: v.update(classes=["A", "B", "C"], threshold=None, calibration=scaling),
    )
    refused(folder, r"expected \(3, 1024\)")


def test_another_backbone_and_an_unknown_one_are_refused(folder):
    edit(folder, lambda v: v["configuration"].update(backbone="mobilenet_v2"))
    refused(folder, "does not fit its backbone|mean and std")
    edit(folder, lambda v: v["configuration"].update(backbone="nobodys_net"))
    refused(folder, "Unknown backbone 'nobodys_net'")


def test_another_normalisation_than_the_backbones_is_refused(folder):
    edit(folder, lambda v: v["preprocessing"].update(mean=[0.5, 0.5, 0.5]))
    refused(folder, "mean, std or interpolation are not those of backbone")


def test_another_interpolation_than_the_backbones_is_refused(folder):
    edit(folder, lambda v: v["preprocessing"].update(interpolation="bicubic"))
    refused(folder, "mean, std or interpolation are not those of backbone")


OTHERS = ["timm:test_resnet", "torchvision:shufflenet_v2_x0_5"]


@pytest.mark.parametrize(
    "name", [*OTHERS, *(pytest.param(name, marks=pytest.mark.slow) for name in BACKBONES)]
)
def test_of_any_backbone_the_bundle_is_the_network_to_the_last_bit(tmp_path, name):
    if name.startswith("timm:"):
        pytest.importorskip("timm", reason="needs timm (extra: timm)")
    bundle = read_bundle(make_bundle(tmp_path / "b", backbone=name))
    linear = head(2, find_spec(name).num_features)
    made = Classifier(find_weights(name, weights="random"), linear, CPU).logits(images())
    assert np.array_equal(made, bundle.classifier(CPU).logits(images()))


OWN = """
from pathlib import Path
from torch import nn

Path(__file__).with_suffix(".trace").touch()
BACKBONES = {"my_net": lambda: nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.Conv2d(4, 4, 3))}
"""


def test_ones_own_backbone_is_loaded_with_its_file_only(tmp_path):
    from studies.bundle.bundle import file_hash
    from studies.bundle.config import ModuleOrigin
    from transfer.backbones import custom

    module = tmp_path / "my_nets.py"
    module.write_text(OWN, encoding="utf-8")
    custom.backbones_from_file(module)
    origin = ModuleOrigin(file=str(module), sha256=file_hash(module))
    folder = make_bundle(tmp_path / "b", backbone="my_net", backbone_module=origin)
    custom.from_files.clear()
    module.with_suffix(".trace").unlink()
    refused(folder, "backbone 'my_net' comes from .*; give --backbone-module")
    other = tmp_path / "other.py"
    other.write_text(OWN + "\n", encoding="utf-8")
    with pytest.raises(UserError, match="is not the file that the bundle's backbone comes from"):
        read_bundle(folder, backbone_module=other)
    assert not module.with_suffix(".trace").exists() and not other.with_suffix(".trace").exists()
    assert read_bundle(folder, backbone_module=module).config.backbone == "my_net"


def write(out, **changes):
    def config(files):
        return bundle_config(dict(files), **changes)

    return write_bundle(out, config, {"a": torch.zeros(1)}, script="", card=lambda config: "card")


def test_a_bundle_of_the_same_study_is_replaced(folder):
    before = tree_hash(folder)
    write(folder)
    assert tree_hash(folder) != before
    assert [path.name for path in folder.parent.iterdir()] == ["b"]


def test_a_bundle_is_its_search_s_by_id_whatever_the_study_is_called(folder):
    """A study that was deleted and begun anew under its name is another one."""

    def of(search_id, name="s"):
        def change(values):
            values["study"] |= {"search_id": search_id, "name": name}

        return change

    edit(folder, of("one"))
    study = read_config(folder).study
    refuse_to_replace(folder, "renamed", study.storage, "one")
    with pytest.raises(UserError, match="bundle of another study 's'"):
        refuse_to_replace(folder, study.name, study.storage, "two")
    refuse_to_replace(folder, study.name, study.storage)


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "empty").mkdir()
    write(tmp_path / "empty")
    assert (tmp_path / "empty" / CONFIG).is_file()


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda path: (path / "thesis.tex").touch(), "holds 'thesis.tex'"),
        (lambda path: (path / CONFIG).unlink(), "has no config.json"),
        (lambda path: (path / CONFIG).write_text("{"), "can't be read"),
        (lambda path: edit(path, lambda v: v["study"].update(name="t")), "bundle of study 't'"),
        (lambda path: (shutil.rmtree(path), path.touch()), "no folder"),
    ],
)
def test_anything_else_is_left_as_it_is(folder, prepare, message):
    prepare(folder)
    before = tree_hash(folder) if folder.is_dir() else None
    with pytest.raises(UserError, match=f"{message}.*--out"):
        write(folder)
    assert (tree_hash(folder) if folder.is_dir() else None) == before
    assert [path.name for path in folder.parent.iterdir()] == ["b"]


def test_what_fails_on_the_way_leaves_the_bundle_that_was_there_and_nothing_else(folder):
    before = tree_hash(folder)

    def fail(path):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        write_bundle(
            folder,
            lambda files: bundle_config(dict(files)),
            {"a": torch.zeros(1)},
            script="",
            card=lambda config: "",
            add_onnx=fail,
        )
    assert tree_hash(folder) == before
    assert [path.name for path in folder.parent.iterdir()] == ["b"]
