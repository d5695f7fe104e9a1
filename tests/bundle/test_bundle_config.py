"""config.json is believed only where every key of it fits."""

import json

import pytest
from bundles import HASHES, bundle_config, edit

from studies.bundle.config import CONFIG, FORMAT, Scaling, config_text, read_config
from studies.errors import UserError


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "b"
    path.mkdir()
    (path / CONFIG).write_text(config_text(bundle_config(HASHES)), encoding="utf-8")
    return path


def refused(folder, message):
    with pytest.raises(UserError, match=message) as caught:
        read_config(folder)
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)
    return str(caught.value)


def test_what_is_written_is_read_again(folder):
    assert read_config(folder) == bundle_config(HASHES)


def test_floats_come_back_to_the_last_bit(folder):
    scaling = Scaling(scale=0.1 + 0.2, biases=(0.0, 1 / 7))
    values = {"calibration": scaling, "threshold": 1 / 3}
    (folder / CONFIG).write_text(config_text(bundle_config(HASHES, **values)), encoding="utf-8")
    found = read_config(folder)
    assert (found.calibration, found.threshold) == (scaling, 1 / 3)


def test_an_edited_value_is_refused(folder):
    edit(folder, lambda values: values.update(threshold=0.9), signed=False)
    refused(folder, "was changed after it was written")


def test_without_a_checksum_it_is_refused(folder):
    values = json.loads((folder / CONFIG).read_text())
    del values["checksum"]
    (folder / CONFIG).write_text(json.dumps(values))
    refused(folder, "was changed after it was written")


def set_(*keys, to):
    def change(values):
        for key in keys[:-1]:
            values = values[key]
        values[keys[-1]] = to

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_("surprise", to=1), "Unknown key 'surprise'"),
        (set_("study", "surprise", to=1), "Unknown key 'study.surprise'"),
        (set_("configuration", "surprise", to=1), "surprise"),
        (lambda v: v["configuration"].pop("patience"), "patience"),
        (lambda v: v.pop("calibration"), "'calibration': field required"),
        (set_("configuration", "learning_rate", to=-1.0), "learning_rate > 0"),
        (set_("configuration", "batch_size", to="16"), "configuration"),
        (set_("configuration", "batch_size", to=[16]), "configuration"),
        (set_("calibration", "scale", to=0.0), "calibration.scale"),
        (set_("calibration", "scale", to="2"), "calibration.scale"),
        (set_("calibration", "biases", to=[0.0]), "calibration.biases"),
        (set_("calibration", "biases", to=[0.0, 0.0, 0.0]), "a bias for each class"),
        (set_("threshold", to=1.5), "threshold"),
        (set_("threshold", to=None), "two classes have a threshold"),
        (set_("classes", to=["A"]), "classes"),
        (set_("classes", to=["A", "A"]), "no two the same"),
        (set_("classes", to=["A", "\x1b[2J"]), "control characters"),
        (set_("preprocessing", "image_size", to=100000), "image_size"),
        (set_("preprocessing", "window", to=[0, 70000]), "window"),
        (set_("preprocessing", "resize", to="cropped"), "resize"),
        (set_("preprocessing", "interpolation", to="nearest"), "interpolation"),
        (set_("study", "seed", to=2), "first that was declared"),
        (set_("files", to={"model.safetensors": "2" * 64}), "hashes of model.safetensors and"),
        (set_("files", "../../etc/passwd", to="2" * 64), "hashes of model.safetensors and"),
        (set_("files", "model.safetensors", to="x"), "files"),
        (set_("format", to=FORMAT + 1), "newer version of transfer-studies .format"),
        (set_("format", to=1), r"older version .*; export it again"),
        (set_("format", to=0), "format"),
        (set_("format", to="1"), "format"),
    ],
)
def test_a_config_that_fits_its_checksum_but_not_its_laws_is_refused(folder, change, message):
    edit(folder, change)
    refused(folder, message)


def test_a_strangers_key_reaches_no_terminal_as_a_command(folder):
    edit(folder, set_("\x1b[31m", to=1))
    assert "\x1b" not in refused(folder, "Unknown key")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"[]", "one JSON object"),
        (b"\xff\xfe\x00", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b'{"a": NaN}', "NaN is no number"),
        (b'{"a": 1, "a": 2}', "twice"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not valid JSON"),
        (b" " * (4 * 2**20 + 1), "more than 4 MiB"),
    ],
)
def test_what_is_no_config_is_refused(folder, content, message):
    (folder / CONFIG).write_bytes(content)
    refused(folder, message)


def test_a_folder_without_one_and_no_folder_are_refused(folder):
    (folder / CONFIG).unlink()
    refused(folder, "has no file config.json")
    folder.rmdir()
    refused(folder, "No bundle at .*studies export")


def test_a_folder_in_place_of_the_file_is_refused(folder):
    (folder / CONFIG).unlink()
    (folder / CONFIG).mkdir()
    refused(folder, "has no file config.json")
