"""The table of backbones agrees with torchvision's statements and with the networks themselves."""

import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import get_model_weights

from studies.spaces import Depths
from transfer.backbones.catalog import BACKBONES
from transfer.backbones.find import find_backbone

STATED = {
    name: get_model_weights(name).IMAGENET1K_V1
    for name in BACKBONES
    if name != "efficientnet_lite0"
}


def count_macs(network: nn.Module, image_13hw: torch.Tensor) -> float:
    with FlopCounterMode(display=False) as counter:
        network.eval()(image_13hw)
    return counter.get_total_flops() / 2


def test_depths_of_the_table_need_no_torch():
    check = (
        "import sys; from studies.spaces import Depths; Depths()['resnet18']; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", check]).returncode == 0


def test_every_backbone_is_found_under_its_own_name():
    assert [spec.name for spec in BACKBONES.values()] == list(BACKBONES)
    assert Depths() == {
        "efficientnet_lite0": 18,
        "resnet18": 9,
        "resnet34": 17,
        "resnet50": 17,
        "mobilenet_v2": 19,
        "mobilenet_v3_small": 13,
        "mobilenet_v3_large": 17,
        "efficientnet_b0": 18,
        "densenet121": 63,
        "convnext_tiny": 19,
        "squeezenet1_1": 9,
    }


def test_images_are_resized_as_for_the_accuracy_that_is_stated():
    models = pytest.importorskip("torchvision.models")
    for name, spec in BACKBONES.items():
        if spec.weights_package is None:
            transforms = models.get_model_weights(name).IMAGENET1K_V1.transforms()
            assert spec.interpolation == transforms.interpolation.value


def test_depths_list_the_table_and_look_up_every_other_name():
    depths = Depths()
    assert list(depths) == list(BACKBONES)
    assert depths["torchvision:resnet18"] == depths["resnet18"]
    with pytest.raises(ValueError, match="Unknown backbone 'torchvision:resnet51'"):
        depths["torchvision:resnet51"]
    with pytest.raises(ValueError, match="can't be cut into layers"):
        depths["torchvision:squeezenet1_0"]
    assert list(depths) == list(BACKBONES)


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
        network = find_backbone(name).build()
        macs = count_macs(network, torch.empty(1, 3, 224, 224))
    assert sum(parameter.numel() for parameter in network.parameters()) == (
        BACKBONES[name].num_parameters
    )
    assert macs / 1e9 == pytest.approx(BACKBONES[name].gmacs, abs=0.001)


def test_efficientnet_lite0_sees_127_of_255_as_zero_and_255_as_one():
    spec = BACKBONES["efficientnet_lite0"]
    for mean, std in zip(spec.mean, spec.std, strict=True):
        assert (127 / 255 - mean) / std == pytest.approx(0)
        assert (255 / 255 - mean) / std == pytest.approx(1)
