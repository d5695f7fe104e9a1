"""What must be right before the first trial, and what a stored study refuses."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from studies.database.study import StudyRecord
from studies.errors import UserError
from studies.search.setup import Prepared, find_source, prepare
from studies.settings import StudyOptions
from studies.terminal.progress import LineProgress
from transfer.backbones.find import block_tensors, find_backbone
from transfer.weights.find import WeightsNotFoundError

DATA = "phantom:train=20,test=10,size=32"
SMALL = {"data": DATA, "backbones": ("mobilenet_v2",)}


class Said(LineProgress):
    """Keeps what a person would read."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def message(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture(autouse=True)
def nothing_at_hand(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No hub cache, no package, no network; the number of threads is put back."""
    threads = torch.get_num_threads()

    def unreachable(*args: object, **kwargs: object) -> None:
        raise URLError("unreachable")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    monkeypatch.setattr("transfer.weights.places._packaged_path", lambda *args: None)
    yield
    torch.set_num_threads(threads)


def write_weights(folder: Path, backbone: str, seed: int) -> None:
    folder.mkdir(exist_ok=True)
    torch.manual_seed(seed)
    tensors = block_tensors(backbone, find_backbone(backbone).build())
    contiguous = {key: tensor.contiguous() for key, tensor in tensors.items()}
    save_file(contiguous, folder / f"{backbone}.safetensors")


def prepared(
    tmp_path: Path,
    stored: StudyRecord | None = None,
    said: Said | None = None,
    **given: object,
) -> Prepared:
    options = StudyOptions(cache_dir=tmp_path / "cache", **{"data": DATA, **given})
    return prepare(options, find_source(options, stored), stored, said or Said())


def record(study: Prepared) -> StudyRecord:
    return StudyRecord(identity=study.identity, trials=8, timeout_seconds=None)


def test_backbones_without_weights_are_left_out_and_named_with_the_way_to_get_them(
    tmp_path: Path,
) -> None:
    write_weights(tmp_path / "w", "resnet18", seed=0)
    said = Said()
    options = StudyOptions(data=DATA, weights_dir=tmp_path / "w", cache_dir=tmp_path / "cache")
    # Not a phantom, so the default space: nobody asked for its backbones.
    folder = replace(find_source(options, None), name="images", kind="folder")
    study = prepare(options, folder, None, said)
    assert study.space.backbones == ("resnet18",)
    assert sorted(study.identity["left_out"]) == ["efficientnet_lite0", "mobilenet_v2", "resnet50"]
    assert [line for line in said.lines if "Left out" in line and "--weights-dir" in line]
    assert study.identity["opening"][0]["backbone"] == "resnet18"


@pytest.mark.parametrize("given", [{"backbones": ("resnet50",)}, {"space": "coursework"}, {}])
def test_what_was_asked_for_by_name_and_has_no_weights_ends_the_run(
    tmp_path: Path, given: dict[str, object]
) -> None:
    with pytest.raises(WeightsNotFoundError, match="--weights-dir"):
        prepared(tmp_path, **given)


def test_resuming_with_another_weight_file_of_the_same_backbone_is_refused(tmp_path: Path) -> None:
    given = {**SMALL, "weights_dir": tmp_path / "w"}
    write_weights(tmp_path / "w", "mobilenet_v2", seed=0)
    stored = record(prepared(tmp_path, **given))
    prepared(tmp_path, stored, **given)
    write_weights(tmp_path / "w", "mobilenet_v2", seed=1)
    with pytest.raises(UserError, match="weights of mobilenet_v2"):
        prepared(tmp_path, stored, **given)


def test_threads_are_those_of_the_created_study(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    stored = record(prepared(tmp_path, weights="random", **SMALL))
    torch.set_num_threads(2)
    prepared(tmp_path, stored, weights="random", **SMALL)
    assert torch.get_num_threads() == 1


def test_a_resumed_study_takes_what_is_not_given_from_the_stored_one(tmp_path: Path) -> None:
    stored = record(prepared(tmp_path, weights="random", epochs=3, seed=7, **SMALL))
    study = prepared(tmp_path, stored, data=None)
    assert (study.settings.epochs, study.settings.seed, study.settings.trials) == (3, 7, 8)
    assert study.identity == stored.identity


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"epochs": 4}, "epochs"),
        ({"seed": 1}, "seed"),
        ({"image_size": 64}, "image_size"),
        ({"data": "phantom:train=22,test=10,size=32"}, "other training images"),
        ({"data": "phantom:train=20,test=12,size=32"}, "other test images"),
        ({"strategies": ("fine_tuning",)}, "space"),
        ({"backbones": ("resnet18",)}, "space"),
        ({"set": ("batch_size=16",)}, "space"),
        ({"num_views": 2}, "num_views"),
        ({"flip": "none"}, r"flip \(stored horizontal, asked for none\)"),
        ({"resize": "pad"}, r"resize \(stored squeeze, asked for pad\)"),
    ],
)
def test_a_change_is_refused_by_name(
    tmp_path: Path, change: dict[str, object], named: str
) -> None:
    given = {**SMALL, "weights": "random", "epochs": 3}
    stored = record(prepared(tmp_path, **given))
    with pytest.raises(UserError, match=named):
        prepared(tmp_path, stored, **{**given, **change})


OWN = """
from torch import nn

def build():
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1))

BACKBONES = {"my_net": build}
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "my_nets.py"
    path.write_text(OWN, encoding="utf-8")
    return path


def test_backbones_of_ones_own_are_searched_beside_the_spaces_or_alone(
    tmp_path: Path, own: Path
) -> None:
    write_weights(tmp_path / "w", "efficientnet_lite0", seed=0)
    given = {"backbone_module": own, "weights_dir": tmp_path / "w"}
    assert prepared(tmp_path, **given).space.backbones == ("efficientnet_lite0", "my_net")
    assert prepared(tmp_path, backbones=("my_net",), **given).space.backbones == ("my_net",)


def test_running_ones_own_code_is_said(tmp_path: Path, own: Path) -> None:
    said = Said()
    prepared(tmp_path, said=said, backbone_module=own, backbones=("my_net",))
    assert any("Running the code in" in line and str(own) in line for line in said.lines)


def test_a_stored_study_never_runs_code_by_itself(tmp_path: Path, own: Path) -> None:
    given = {"backbone_module": own, "backbones": ("my_net",)}
    stored = record(prepared(tmp_path, **given))
    with pytest.raises(UserError, match="give --backbone-module FILE again"):
        prepared(tmp_path, stored, data=None)
    again = prepared(tmp_path, stored, data=None, backbone_module=own)
    assert again.identity == stored.identity
    own.write_text(OWN + "# changed", encoding="utf-8")
    with pytest.raises(UserError, match="has changed since the study was created"):
        prepared(tmp_path, stored, data=None, backbone_module=own)


def test_a_module_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"No file .*nowhere\.py"):
        prepared(tmp_path, backbone_module=tmp_path / "nowhere.py")


def test_images_are_resized_once_for_each_interpolation_and_enlarged_for_views_alone(
    tmp_path: Path,
) -> None:
    given = {**SMALL, "weights": "random", "backbones": ("resnet18",)}
    data = prepared(tmp_path, **given).data
    assert (list(data.resized), data.large_NHWC) == (["bilinear"], None)
    given = {**given, "backbones": ("efficientnet_b0", "resnet18"), "num_views": 2}
    data = prepared(tmp_path, **given).data
    assert list(data.resized) == ["bicubic", "bilinear"]
    assert data.large_NHWC is not None and data.large_NHWC.shape[1:3] == (64, 64)


def test_how_images_become_squares_is_kept_with_the_study(tmp_path: Path) -> None:
    given = {**SMALL, "weights": "random", "resize": "crop", "num_views": 2, "flip": "both"}
    study = prepared(tmp_path, **given)
    assert study.data.resize == "crop"
    again = prepared(tmp_path, record(study), data=None)
    assert (again.settings.resize, again.settings.flip) == ("crop", "both")
    assert again.data.resize == "crop"


def test_views_are_either_a_setting_or_searched(tmp_path: Path) -> None:
    assert prepared(tmp_path, weights="random", num_views=3, **SMALL).settings.num_views == 3
    with pytest.raises(UserError, match="--set num_views=3"):
        prepared(tmp_path, weights="random", space="extended", num_views=3)


def test_an_image_size_that_a_backbone_cannot_take_is_refused_before_the_data_are_decoded(
    tmp_path: Path,
) -> None:
    pytest.importorskip("timm")
    with pytest.raises(ValueError, match=r"timm:test_maxvit.*160"):
        prepared(tmp_path, weights="random", backbones=("timm:test_maxvit",), image_size=64)
    assert not (tmp_path / "cache" / "images").exists()


def test_a_study_from_before_a_setting_was_there_has_its_default(tmp_path: Path) -> None:
    given = {**SMALL, "weights": "random"}
    study = prepared(tmp_path, **given)
    before = {k: v for k, v in study.identity["settings"].items() if k != "num_views"}
    stored = StudyRecord(
        identity={**study.identity, "settings": before}, trials=8, timeout_seconds=None
    )
    assert prepared(tmp_path, stored, **given).settings.num_views == 1
    with pytest.raises(UserError, match=r"num_views \(stored 1, asked for 4\)"):
        prepared(tmp_path, stored, num_views=4, **given)


def test_the_identity_of_a_study_comes_back_from_json_as_it_is(tmp_path: Path) -> None:
    deep = tmp_path / "deep"
    deep.mkdir()
    for number, name in enumerate("AB"):
        values = np.arange(10 * 32 * 32, dtype=np.uint16).reshape(10, 32, 32) + number
        np.save(deep / f"{name}.npy", values)
    study = prepared(tmp_path, weights="random", **{**SMALL, "data": str(deep)}, image_size=32)
    assert study.identity["data"]["window"] is not None
    assert json.loads(json.dumps(study.identity)) == study.identity


def test_other_code_under_the_name_of_a_backbone_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("timm")
    given = {"weights": "random", "backbones": ("timm:test_resnet",)}
    stored = record(prepared(tmp_path, **given))
    prepared(tmp_path, stored, **given)
    other = replace(find_backbone("timm:test_resnet"), code="timm 99")
    monkeypatch.setattr("studies.search.setup.find_backbone", lambda name: other)
    with pytest.raises(UserError, match=r"code of timm:test_resnet \(code timm .*, now timm 99"):
        prepared(tmp_path, stored, **given)


@pytest.mark.parametrize("limit", [0, 5000])
def test_a_limit_of_the_cache_may_differ_on_resuming_and_is_no_part_of_the_identity(
    tmp_path: Path, limit: int
) -> None:
    given = {**SMALL, "weights": "random"}
    study = prepared(tmp_path, **given)
    again = prepared(tmp_path, record(study), cache_limit=limit, **given)
    assert again.cache_limit == limit
    assert again.identity == study.identity


def test_without_a_limit_of_the_cache_it_is_that_of_the_cache_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def limit_of(folder: Path) -> int:
        return {tmp_path / "cache": 321}[folder]

    monkeypatch.setattr("studies.search.setup.default_limit", limit_of)
    assert prepared(tmp_path, weights="random", **SMALL).cache_limit == 321


@pytest.fixture
def half(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, int]]:
    """A machine on which every backbone is said to train faster in bfloat16; what it was asked."""
    asked: list[tuple[str, str, int]] = []

    def choose(wanted: str, backbone: str, device: torch.device, **given: Any) -> str:
        asked.append((wanted, backbone, given["image_size"]))
        return "bf16" if wanted == "auto" else wanted

    monkeypatch.setattr("studies.search.setup.choose_precision", choose)
    return asked


def test_precision_is_decided_when_a_study_is_created_and_said(
    tmp_path: Path, half: list[tuple[str, str, int]]
) -> None:
    said = Said()
    study = prepared(tmp_path, said=said, weights="random", image_size=32, **SMALL)
    assert half == [("auto", "mobilenet_v2", 32)]
    assert study.identity["precision"] == {"mobilenet_v2": "bf16"}
    assert study.settings.precision == "auto"
    line = "Layers train in bfloat16: mobilenet_v2 (--precision fp32 turns it off)."
    assert line in said.lines


def test_nothing_is_said_of_float32(tmp_path: Path, half: list[tuple[str, str, int]]) -> None:
    said = Said()
    study = prepared(tmp_path, said=said, weights="random", precision="fp32", **SMALL)
    assert study.identity["precision"] == {"mobilenet_v2": "fp32"}
    assert not [line for line in said.lines if "Layers" in line]


def test_without_fine_tuning_there_is_no_precision_to_choose(
    tmp_path: Path, half: list[tuple[str, str, int]]
) -> None:
    given = {**SMALL, "weights": "random", "strategies": ("feature_extraction",)}
    assert prepared(tmp_path, **given).identity["precision"] == {}
    assert half == []


def test_a_resumed_study_keeps_its_precision_whatever_the_machine_would_choose(
    tmp_path: Path, half: list[tuple[str, str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = record(prepared(tmp_path, weights="random", **SMALL))
    monkeypatch.setattr(
        "studies.search.setup.choose_precision",
        lambda *a, **k: pytest.fail("chosen anew"),
    )
    said = Said()
    again = prepared(tmp_path, stored, said=said, weights="random", **SMALL)
    assert again.identity["precision"] == {"mobilenet_v2": "bf16"}
    # What can't be turned off any more is not offered.
    assert "Layers train in bfloat16: mobilenet_v2." in said.lines


@pytest.mark.parametrize(("created", "asked"), [(None, "fp32"), ("bf16", "auto")])
def test_another_precision_is_refused_by_name(
    tmp_path: Path, half: list[tuple[str, str, int]], created: str | None, asked: str
) -> None:
    given = {**SMALL, "weights": "random"}
    stored = record(prepared(tmp_path, precision=created, **given))
    with pytest.raises(UserError, match=rf"precision \(stored .*, asked for {asked}\)"):
        prepared(tmp_path, stored, precision=asked, **given)


@pytest.mark.parametrize(
    ("changed", "refused"),
    [
        ({"set": ("batch_size=1",)}, True),
        ({"set": ("batch_size=1..8",)}, True),
        ({"set": ("batch_size@feature_extraction=1",)}, False),
        ({"set": ("batch_size=1", "batch_norm=frozen")}, False),
        ({"set": ("batch_size=1",), "strategies": ("feature_extraction",)}, False),
        ({"set": ("batch_size=1",), "backbones": ("squeezenet1_1",)}, False),
    ],
    ids=str,
)
def test_batches_of_one_image_are_refused_where_batch_norm_would_train(
    tmp_path: Path, changed: dict[str, Any], refused: bool
) -> None:
    options = StudyOptions(
        **{**SMALL, "weights": "random", "cache_dir": tmp_path / "cache", **changed}
    )
    source = find_source(options, None)
    if refused:
        with pytest.raises(UserError, match=r"`batch_size >= 2` must hold .* mobilenet_v2"):
            prepare(options, source, None, Said())
    else:
        prepare(options, source, None, Said())
