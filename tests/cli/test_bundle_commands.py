"""The commands around a bundle explain themselves, and hand on what was given."""

import json

import pytest
from bundles import make_bundle, save_images
from typer.testing import CliRunner

from studies.cli.search import app, main


@pytest.mark.parametrize("command", ["export", "predict", "reproduce"])
def test_a_command_stands_beside_the_others_with_a_help_text(command):
    shown = CliRunner().invoke(app, [command, "--help"])
    assert shown.exit_code == 0 and "--json" in shown.output
    assert command in CliRunner().invoke(app, ["--help"]).output


def test_export_hands_on_what_was_given(monkeypatch, tmp_path):
    seen = []

    def export_study(options, progress):
        seen.append(options)
        raise ValueError("seen")

    monkeypatch.setattr("studies.bundle.export.export_study", export_study)
    given = "--strategy fine_tuning --refit --onnx --out b --data d --device cpu --storage x.db"
    assert main(["export", "s", *given.split()]) == 2
    (options,) = seen
    assert (options.name, options.strategy, str(options.out)) == ("s", "fine_tuning", "b")
    assert options.refit and options.onnx and options.storage == "x.db"
    assert (options.places.data, options.places.device) == ("d", "cpu")


def test_predictions_are_one_json_object(tmp_path, capsys):
    make_bundle(tmp_path / "b")
    images = save_images(tmp_path / "images", 2)
    assert main(["predict", str(tmp_path / "b"), *map(str, images), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["predictions"]) == 2 and set(found["classes"]) == {"NORMAL", "OPACITY"}


@pytest.mark.parametrize("command", ["predict", "reproduce"])
def test_without_a_bundle_it_ends_with_2_and_one_line(command, tmp_path, capsys):
    images = [str(save_images(tmp_path / "i", 1)[0])] if command == "predict" else []
    assert main([command, str(tmp_path / "nowhere"), *images]) == 2
    assert capsys.readouterr().err.count("\n") == 1
