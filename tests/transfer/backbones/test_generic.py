"""Networks of torchvision and timm are cut into layers that compute the same, or refused.

Shapes: N images, D features, h x w pixels.
"""

import sys
from collections import Counter
from copy import deepcopy

import pytest
import torch
from torch import nn

from transfer.backbones.find import block_tensors, find_backbone, pool, split_into_blocks
from transfer.backbones.libraries import RefusedBackboneError, UnknownBackboneError, timm_backbone

# Name, depth, and the only image size it takes, if there is one.
CUT = [
    ("torchvision:resnet18", 9, None),
    ("torchvision:shufflenet_v2_x0_5", 18, None),
    ("torchvision:regnet_y_400mf", 17, None),
    ("torchvision:mnasnet0_5", 32, None),
    ("torchvision:efficientnet_b0", 38, None),
    ("timm:resnet18.a1_in1k", 9, None),
    ("timm:test_resnet", 7, None),
    ("timm:test_efficientnet", 15, None),
    ("timm:test_convnext", 13, None),
    ("timm:test_vit", 14, None),
    ("timm:test_vit3", 24, 160),
    ("timm:test_nfnet", 9, None),
    ("timm:test_coatnet", 10, 160),
]
SLOW = [
    ("torchvision:vgg11_bn", 10, None),
    ("torchvision:vit_b_16", 27, 224),
    ("torchvision:swin_t", 28, None),
    ("torchvision:googlenet", 12, None),
    ("torchvision:inception_v3", 16, 299),
    ("torchvision:maxvit_t", 58, 224),
    ("timm:swin_tiny_patch4_window7_224", 16, 224),
    ("timm:vit_tiny_patch16_224", 27, 224),
    ("timm:mobilenetv3_small_050", 24, None),
]


def needs_timm(name):
    if name.startswith("timm:"):
        pytest.importorskip("timm")


def noisy(name):
    """The network with noise on its weights: zeros of the initialisation would hide branches."""
    torch.manual_seed(3)
    network = find_backbone(name).build().eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    return network


@pytest.mark.parametrize(
    ("name", "depth", "only_size"),
    [*CUT, *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW)],
)
@torch.inference_mode()
def test_a_network_is_cut_into_layers_that_compute_the_same(name, depth, only_size):
    needs_timm(name)
    backbone, network = find_backbone(name), noisy(name)
    blocks, size = split_into_blocks(name, network), only_size or 64
    assert (backbone.spec.name, backbone.spec.depth, len(blocks)) == (name, depth, depth)
    assert backbone.image_size == size
    # Another number of images than the network was written down with.
    images_N3hw = torch.randn(5, 3, size, size)
    features_ND = blocks(images_N3hw)
    assert pool(features_ND).shape == (5, backbone.spec.num_features)
    assert torch.equal(find_backbone(name).head(network)(features_ND), network(images_N3hw))
    check_parts(name, network, blocks)
    check_copy(blocks, images_N3hw, features_ND)


def check_parts(name, network, blocks):
    """Every parameter is in one block or in the head, and the blocks keep the names."""
    head = find_backbone(name).head(network)
    held = Counter(id(p) for block in blocks for p in block.parameters())
    assert set(held.values()) == {1}
    assert not held.keys() & {id(parameter) for parameter in head.parameters()}
    num_parameters = sum(p.numel() for part in (*blocks, head) for p in part.parameters())
    assert num_parameters == find_backbone(name).spec.num_parameters
    names = {key for block in blocks for key in block.state_dict()}
    assert names >= block_tensors(name, network).keys()
    with_heads = {"torchvision:googlenet", "torchvision:inception_v3"}  # of no use in eval mode
    assert name in with_heads or num_parameters == sum(p.numel() for p in network.parameters())


def check_copy(blocks, images_N3hw, features_ND):
    copy = deepcopy(blocks)
    assert torch.equal(copy(images_N3hw), features_ND)
    assert not {p.data_ptr() for p in copy.parameters()} & {
        p.data_ptr() for p in blocks.parameters()
    }
    assert all(module.training for module in copy.train().modules())
    assert not any(module.training for module in copy.eval().modules())


@pytest.mark.parametrize("name", ["torchvision:mnasnet0_5", "timm:test_resnet", "timm:test_vit"])
def test_layers_train(name):
    needs_timm(name)
    blocks = split_into_blocks(name, noisy(name)).train()
    pool(blocks(torch.randn(4, 3, 64, 64))).square().sum().backward()
    assert all(parameter.grad is not None for parameter in blocks.parameters())


def test_a_network_is_described_as_torchvision_does():
    spec = find_backbone("torchvision:shufflenet_v2_x0_5").spec
    assert (spec.num_parameters, spec.gmacs, spec.imagenet_accuracy) == (1_366_792, 0.04, 60.552)
    assert spec.mean == (0.485, 0.456, 0.406)
    assert find_backbone("torchvision:shufflenet_v2_x0_5").url.endswith("x0.5-f707e7126e.pth")


def test_weights_of_torchvision_are_the_first_for_imagenet():
    assert find_backbone("torchvision:mnasnet1_0").url.endswith(
        "mnasnet1.0_top1_73.512-f206786ef8.pth"
    )
    assert find_backbone("torchvision:resnet18").url.endswith("resnet18-f37072fd.pth")


def test_timm_says_how_its_weights_want_images_and_where_they_are():
    needs_timm("timm:")
    backbone = find_backbone("timm:test_vit")
    assert backbone.spec.mean == backbone.spec.std == (0.5, 0.5, 0.5)
    assert backbone.spec.imagenet_accuracy is None
    assert backbone.hub == ("timm/test_vit.r160_in1k", "model.safetensors")
    assert backbone.native_size == 160
    assert backbone.spec.interpolation == "bicubic"


@pytest.mark.parametrize(
    ("name", "interpolation"),
    [
        ("torchvision:efficientnet_b0", "bicubic"),
        ("torchvision:resnet18", "bilinear"),
        ("timm:test_resnet", "bilinear"),
        ("timm:mobilenetv3_small_050", "bicubic"),
    ],
)
def test_images_are_resized_as_the_library_says(name, interpolation):
    needs_timm(name)
    assert find_backbone(name).spec.interpolation == interpolation


def test_an_interpolation_that_images_are_not_resized_by_here_is_refused(monkeypatch):
    timm = pytest.importorskip("timm")
    build = timm.create_model

    def by_nearest(*arguments, **options):
        network = build(*arguments, **options)
        network.pretrained_cfg = {**network.pretrained_cfg, "interpolation": "nearest"}
        return network

    monkeypatch.setattr(timm, "create_model", by_nearest)
    with pytest.raises(RefusedBackboneError, match="resized by 'nearest' interpolation"):
        timm_backbone("timm:test_resnet")


REFUSED = {
    "torchvision:squeezenet1_0": "its classifier is not one linear layer (it ends in flatten)",
    "torchvision:fcn_resnet50": "it is no network for the classification of images",
    "torchvision:quantized_resnet18": "it is no network for the classification of images",
    "torchvision:r3d_18": "it is no network for the classification of images",
    "timm:resnetv2_50": "its classifier is not one linear layer (it ends in head.flatten)",
    "timm:deit_tiny_distilled_patch16_224": "not one linear layer (it ends in truediv)",
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_network_that_can_not_be_cut_is_refused_with_reason_and_way_out(name):
    needs_timm(name)
    with pytest.raises(RefusedBackboneError) as error:
        find_backbone(name)
    message = str(error.value)
    assert message.startswith(f"Backbone '{name}' can't be cut into layers: ")
    assert REFUSED[name] in message
    assert message.endswith("or give its blocks in a file of your own (--backbone-module).")
    assert "\n" not in message


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("torchvision:resnet19", "Did you mean resnet18, "),
        ("torchvision:", "choose from torchvision:NAME"),
        ("timm:resnet18.no_such_tag", "Did you mean resnet18, "),
        ("timm:../secret", "choose from timm:NAME"),
    ],
)
def test_an_unknown_network_says_where_names_are_listed(name, meant):
    needs_timm(name)
    with pytest.raises(UnknownBackboneError) as error:
        find_backbone(name)
    assert str(error.value).startswith(f"Unknown backbone '{name}'; choose from ")
    assert meant in str(error.value)


def test_without_timm_its_networks_are_refused_with_the_way_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError) as error:
        find_backbone("timm:asked_for_without_timm")
    assert str(error.value) == (
        "Backbone 'timm:asked_for_without_timm' needs timm; pip install 'transfer-studies[timm]', "
        "or choose another backbone."
    )


def test_a_timm_network_without_classifier_gets_one(monkeypatch):
    timm = pytest.importorskip("timm")
    create = timm.create_model
    monkeypatch.setattr(
        timm, "create_model", lambda name, pretrained: create(name, pretrained, num_classes=0)
    )
    network = find_backbone("timm:test_resnet").build()
    assert isinstance(network.get_classifier(), nn.Linear)
