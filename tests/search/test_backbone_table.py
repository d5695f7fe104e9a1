"""Task A's table: every backbone in one row, within 80 columns, without building what is known."""

import io

import pytest
from rich.console import Console

from studies.search import preview
from studies.search.preview import backbone_rows, look_at_backbones
from studies.terminal.backbones import print_backbones
from transfer.backbones import custom
from transfer.backbones import table as layouts
from transfer.backbones.catalog import BACKBONES
from transfer.training.throughput import Throughput


def printed(rows, width=80):
    out = io.StringIO()
    print_backbones(Console(file=out, width=width), rows)
    return out.getvalue()


@pytest.fixture
def fake_speed(monkeypatch):
    def measure(name, *, image_size, device, on_progress):
        on_progress(f"speed of {name} at {image_size} on {device}", 2, 2)
        return Throughput(images_per_second_frozen=123.4, images_per_second_training=45.6)

    monkeypatch.setattr(preview, "measure_throughput", measure)


class FakeProgress:
    def __init__(self):
        self.seen = []

    def message(self, text):
        self.seen.append(text)

    def work(self, what, done, total):
        self.seen.append(what)


def test_the_table_has_every_backbone_and_builds_none(monkeypatch):
    monkeypatch.setattr(layouts.Backbone, "__getattribute__", refuse_to_build)
    rows = backbone_rows()
    assert [row["name"] for row in rows] == list(BACKBONES)
    for row in rows:
        spec = BACKBONES[row["name"]]
        assert (row["layers"], row["parameters"]) == (spec.depth, spec.num_parameters)
        assert (row["gmacs"], row["imagenet_accuracy"]) == (spec.gmacs, spec.imagenet_accuracy)
        assert "images_per_second_frozen" not in row


def refuse_to_build(self, name):
    assert name not in ("build", "split"), "a network was built"
    return object.__getattribute__(self, name)


def test_weights_in_a_folder_are_at_hand(tmp_path):
    (tmp_path / "densenet121.pth").write_bytes(b"weights")
    (row,) = backbone_rows(["densenet121"], weights_dir=tmp_path)
    assert (row["weights"], row["at_hand"]) == ("weights folder", True)


def test_the_table_fits_into_80_columns_with_every_name_whole():
    lines = printed(backbone_rows()).splitlines()
    assert max(map(len, lines)) <= 80
    for name in BACKBONES:
        assert any(line.startswith(f"{name} ") for line in lines)


def test_what_torchvision_does_not_state_is_a_dash():
    row = {**backbone_rows(["resnet18"])[0], "imagenet_accuracy": None}
    assert " - " in printed([row])


def test_speed_is_measured_only_if_asked_for(fake_speed):
    seen = []
    rows = backbone_rows(
        ["resnet18"],
        measure=True,
        image_size=96,
        device="cpu",
        on_progress=lambda what, done, total: seen.append(what),
    )
    assert rows[0]["images_per_second_frozen"] == 123.4
    assert rows[0]["images_per_second_training"] == 45.6
    assert seen == ["speed of resnet18 at 96 on cpu"]
    assert "123" in printed(rows, width=100)


def test_an_unknown_backbone_is_refused():
    with pytest.raises(ValueError, match="Unknown backbone 'resnet51'; choose from"):
        backbone_rows(["resnet51"])


def test_a_file_of_ones_own_is_run_and_said_to_be(tmp_path, monkeypatch):
    monkeypatch.setattr(custom, "from_files", {})
    path = tmp_path / "own.py"
    path.write_text(
        "from torch import nn\nBACKBONES = {'own_net': lambda: nn.Sequential(nn.Conv2d(3, 4, 1))}",
        encoding="utf-8",
    )
    progress = FakeProgress()
    rows = look_at_backbones(
        [],
        module=path,
        weights_dir=None,
        measure=False,
        image_size=224,
        progress=progress,
    )
    assert [row["name"] for row in rows] == [*BACKBONES, "own_net"]
    assert (rows[-1]["weights"], rows[-1]["at_hand"]) == ("own module", True)
    assert progress.seen == [f"Running the code in {path}, for its backbones."]
