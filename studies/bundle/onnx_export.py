"""A bundle's network as ONNX, held against the network itself. Needs the extra ``onnx``.

Legend: B images, H x W pixels, C classes.
"""

import importlib.util
import logging
import warnings
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from studies.bundle.bundle import Tensors
from studies.errors import StudyFailedError, UserError
from studies.statistics.calibration import Calibration
from transfer.activations.frozen import normalised
from transfer.backbones.find import TransferNetwork, find_spec
from transfer.data.decoding import Pixels
from transfer.inference import Classifier
from transfer.weights.find import WeightFile, load_blocks
from transfer.weights.whole import HEAD

NEEDED = ("onnx", "onnxruntime", "onnxscript")
OPSET = 18
TOLERANCE = 1e-4
INPUT, OUTPUT = "images", "logits"


def require_onnx() -> None:
    """Raise ``UserError`` where what is needed isn't installed."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"--onnx needs {', '.join(missing)}; pip install 'transfer-studies[onnx]', or leave "
            "it out."
        )


def write_onnx(
    path: Path,
    weight_file: WeightFile,
    head: Tensors,
    images_BHWC: Pixels,
    calibration: Calibration,
) -> float:
    """Write the network to ``path`` and compare the two on these images.

    Its input ``images`` is (batch, 3, H, W), float32, normalised; its output ``logits``
    (batch, C). The batch has any size.

    Returns:
        The largest difference of a probability.

    Raises:
        StudyFailedError: it can't be written, or its probabilities differ by more than 1e-4; then
            there is no file at ``path``.
    """
    inputs = _inputs(weight_file.backbone, images_BHWC)
    try:
        _export(path, _network(weight_file, head), inputs[:2])
        found_BC = _run(path, inputs.numpy())
    except Exception as error:  # the exporter and the runtime raise nearly anything
        path.unlink(missing_ok=True)
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise StudyFailedError(
            f"{weight_file.backbone} can't be written as ONNX ({reason}); leave --onnx out."
        ) from error
    logits_BC = Classifier(weight_file, head, torch.device("cpu")).logits(images_BHWC)
    expected_BC = calibration.probabilities(logits_BC)
    difference = float(np.abs(calibration.probabilities(found_BC) - expected_BC).max())
    # Written so that NaN is refused.
    if not difference <= TOLERANCE:
        path.unlink()
        raise StudyFailedError(
            f"The ONNX network of {weight_file.backbone} gives other probabilities (by up to "
            f"{difference:.1e}, at most {TOLERANCE:.0e} may be); leave --onnx out."
        )
    return difference


def _network(weight_file: WeightFile, head: Tensors) -> TransferNetwork:
    num_classes, num_features = head[HEAD[0]].shape
    blocks = load_blocks(weight_file)
    network = TransferNetwork(blocks, num_features, num_classes, dropout=0.0)
    network.head.load_state_dict({key.removeprefix("head."): head[key] for key in HEAD})
    return network.eval()


def _inputs(backbone: str, images_BHWC: Pixels) -> torch.Tensor:
    images_BCHW = torch.from_numpy(np.array(images_BHWC)).permute(0, 3, 1, 2).float()
    return normalised(images_BCHW, find_spec(backbone)).contiguous()


def _export(path: Path, network: TransferNetwork, inputs: torch.Tensor) -> None:
    for name in ("torch.onnx", "onnxscript", "onnx_ir"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (inputs,),
            str(path),
            input_names=[INPUT],
            output_names=[OUTPUT],
            opset_version=OPSET,
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            # One file: a second one beside it would have no hash.
            external_data=False,
            verbose=False,
        )


def _run(path: Path, inputs_B3HW: NDArray[np.float32]) -> NDArray[np.float32]:
    """The logits of all images but the first at once, of that one alone: batches of two sizes."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    parts = [inputs_B3HW[:1], inputs_B3HW[1:]]
    logits = [session.run([OUTPUT], {INPUT: part})[0] for part in parts if len(part)]
    return np.concatenate(logits)
