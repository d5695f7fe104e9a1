"""A weight file is read as data only, and fits or is refused; more cases in test_weights.py."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from transfer.backbones.find import block_tensors, find_backbone
from transfer.weights.files import copy_weights


def tensors(seed: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    blocks = block_tensors("resnet18", find_backbone("resnet18").build())
    return {key: tensor.clone() for key, tensor in blocks.items()}


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_every_tensor_of_the_blocks_is_copied(tmp_path: Path, suffix: str) -> None:
    written, path = tensors(seed=1), tmp_path / f"resnet18{suffix}"
    save_file(written, path) if suffix == ".safetensors" else torch.save(written, path)
    network = find_backbone("resnet18").build()
    copy_weights(path, "resnet18", network)
    copied = block_tensors("resnet18", network)
    assert all(torch.equal(copied[key], tensor) for key, tensor in written.items())


def test_the_file_the_backbone_and_the_reason_are_named(tmp_path: Path) -> None:
    path = tmp_path / "resnet18.safetensors"
    save_file({key: t for key, t in tensors(seed=1).items() if key != "conv1.weight"}, path)
    with pytest.raises(ValueError, match=r"resnet18\.safetensors.*'resnet18'.*'conv1\.weight'"):
        copy_weights(path, "resnet18", find_backbone("resnet18").build())
