"""The table of backbones agrees with torchvision's statements and with the networks themselves."""

import subprocess
import sys

import pytest
import torch
from torch import nn
from torchvision.models import MobileNet_V2_Weights, ResNet18_Weights, ResNet50_Weights

from transfer.backbones import original_network
from transfer.catalog import BACKBONES, backbone_spec, depths

STATED = {
    "mobilenet_v2": MobileNet_V2_Weights.IMAGENET1K_V1,
    "resnet18": ResNet18_Weights.IMAGENET1K_V1,
    "resnet50": ResNet50_Weights.IMAGENET1K_V1,
}


def count_macs(network: nn.Module, image_13hw: torch.Tensor) -> int:
    macs = 0

    def add(module: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        nonlocal macs
        macs += output.numel() * module.weight[0].numel()

    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(add)
    network.eval()(image_13hw)
    return macs


def test_catalog_does_not_import_torch():
    check = "import sys, transfer.catalog; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check]).returncode == 0


def test_unknown_backbone_names_the_choices():
    with pytest.raises(ValueError) as error:
        backbone_spec("resnet51")
    assert str(error.value) == (
        "Unknown backbone 'resnet51'; "
        "choose from efficientnet_lite0, mobilenet_v2, resnet18, resnet50."
    )


def test_every_backbone_is_found_under_its_own_name():
    assert [backbone_spec(name).name for name in BACKBONES] == list(BACKBONES)
    assert depths() == {
        "efficientnet_lite0": 18,
        "mobilenet_v2": 19,
        "resnet18": 9,
        "resnet50": 17,
    }


@pytest.mark.parametrize("name", STATED)
def test_numbers_are_the_ones_torchvision_states(name):
    spec, meta, transforms = BACKBONES[name], STATED[name].meta, STATED[name].transforms()
    assert spec.num_parameters == meta["num_params"]
    assert spec.gmacs == meta["_ops"]
    assert spec.imagenet_accuracy == meta["_metrics"]["ImageNet-1K"]["acc@1"]
    assert (spec.mean, spec.std) == (tuple(transforms.mean), tuple(transforms.std))


@pytest.mark.parametrize("name", BACKBONES)
def test_parameters_and_gmacs_are_those_of_the_network(name):
    with torch.device("meta"):
        network = original_network(name)
        macs = count_macs(network, torch.empty(1, 3, 224, 224))
    assert sum(parameter.numel() for parameter in network.parameters()) == (
        BACKBONES[name].num_parameters
    )
    assert macs / 1e9 == pytest.approx(BACKBONES[name].gmacs, abs=0.001)


def test_efficientnet_lite0_sees_127_of_255_as_zero_and_255_as_one():
    spec = backbone_spec("efficientnet_lite0")
    for mean, std in zip(spec.mean, spec.std, strict=True):
        assert (127 / 255 - mean) / std == pytest.approx(0)
        assert (255 / 255 - mean) / std == pytest.approx(1)
