"""The ONNX file gives the network's probabilities for any batch, or there is none."""

import numpy as np
import pytest
import torch
from bundles import BACKBONE, head

from studies.bundle import onnx_export
from studies.bundle.onnx_export import require_onnx, write_onnx
from studies.errors import StudyFailedError, UserError
from studies.statistics.calibration import Calibration, probabilities
from transfer.activations.frozen import normalised
from transfer.backbones.find import find_spec
from transfer.inference import Classifier
from transfer.weights.find import find_weights

PLAIN = Calibration(scale=1.0, biases=(0.0, 0.0))
LINEAR = head(2, find_spec(BACKBONE).num_features)


def noise(num_images, seed=0):
    shape = (num_images, 32, 32, 1)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def test_without_what_it_needs_it_names_the_extra(monkeypatch):
    monkeypatch.setattr(onnx_export, "NEEDED", ("onnx", "no_such_package"))
    with pytest.raises(UserError, match=r"needs no_such_package; pip install .*\[onnx\]"):
        require_onnx()


@pytest.mark.slow
def test_other_images_in_batches_of_other_sizes_agree_to_1e_4(tmp_path):
    runtime = pytest.importorskip("onnxruntime", reason="needs onnxruntime (extra: onnx)")
    pytest.importorskip("onnxscript", reason="needs onnxscript (extra: onnx)")
    path, weight_file = tmp_path / "model.onnx", find_weights(BACKBONE, weights="random")
    difference = write_onnx(path, weight_file, LINEAR, noise(9), PLAIN)
    assert difference <= 1e-4
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    network = Classifier(weight_file, LINEAR, torch.device("cpu"))
    for num_images in (1, 3, 40):
        images = noise(num_images, seed=num_images)
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float()
        inputs = normalised(pixels, find_spec(BACKBONE)).contiguous().numpy()
        (found,) = session.run(["logits"], {"images": inputs})
        expected = probabilities(network.logits(images), 1.0)
        assert ((expected > 0.01) & (expected < 0.99)).all()
        assert np.abs(probabilities(found, 1.0) - expected).max() <= 1e-4


@pytest.mark.parametrize("off", [0.01, np.nan])
def test_another_network_is_refused_and_removed(tmp_path, monkeypatch, off):
    def export(path, network, inputs):
        path.touch()

    def run(path, inputs):
        logits = Classifier(weight_file, LINEAR, torch.device("cpu")).logits(noise(3))
        return logits + np.array([off, 0], np.float32)

    weight_file = find_weights(BACKBONE, weights="random")
    monkeypatch.setattr(onnx_export, "_export", export)
    monkeypatch.setattr(onnx_export, "_run", run)
    with pytest.raises(StudyFailedError, match="gives other probabilities"):
        write_onnx(tmp_path / "m.onnx", weight_file, LINEAR, noise(3), PLAIN)
    assert list(tmp_path.iterdir()) == []


def test_a_network_that_cannot_be_written_is_refused_with_the_reason(tmp_path, monkeypatch):
    def export(path, network, inputs):
        path.touch()
        raise RuntimeError("no such operator")

    monkeypatch.setattr(onnx_export, "_export", export)
    weight_file = find_weights(BACKBONE, weights="random")
    with pytest.raises(StudyFailedError, match=r"no such operator.*leave --onnx out"):
        write_onnx(tmp_path / "m.onnx", weight_file, LINEAR, noise(3), PLAIN)
    assert list(tmp_path.iterdir()) == []
