"""Blocks for inference: every convolution made one with the BatchNorm behind it.

torch.fx writes down which modules a block calls. Where the output of a convolution goes to a
BatchNorm and nowhere else, a copy of the block gets one convolution for the two; the code of the
block stays its own. Knows nothing of backbones, nor of which blocks are frozen.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from copy import deepcopy
from typing import Any

from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from transfer.backbones.table import SamePaddedConv2d
from transfer.backbones.tracing import traced

# No other subclass: it may compute its weight (weight standardisation), or do more than convolve.
_CONVOLUTIONS = (nn.Conv2d, SamePaddedConv2d)


def fuse(block: nn.Module) -> nn.Module:
    """Return the block for inference, every convolution made one with the BatchNorm behind it.

    `block` is in eval mode, takes one tensor, and stays as it is. The result is a copy in eval
    mode that shares no tensor with it and needs no gradient. A block without such a pair, or one
    that torch.fx can't follow, comes back itself.
    """
    assert not any(module.training for module in block.modules()), "fuse is for eval mode"
    graph = _graph(block)
    replaced: dict[int, Any] = {}
    for conv, norm in _pairs(graph, block) if graph else ():
        replaced |= {id(conv): _fused(conv, norm), id(norm): nn.Identity().eval()}
    if not replaced:
        return block
    # As its memo, `replaced` tells deepcopy what to take for the copies of these modules.
    fused = deepcopy(block, replaced).requires_grad_(False)
    # A forward that looks at its modules may do something else now.
    return fused if str(_graph(fused)) == str(graph) else block


def _graph(block: nn.Module) -> fx.Graph | None:
    """Return what the block does, or None where torch.fx can't follow it."""
    if isinstance(block, fx.GraphModule):
        return block.graph
    try:
        # Of a copy: tracing adds the constants it meets to the module.
        return traced(deepcopy(block), (), ())
    except ValueError:
        return None


def _pairs(graph: fx.Graph, block: nn.Module) -> Iterator[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Give each convolution and the BatchNorm that alone takes its output."""
    calls = {n: block.get_submodule(str(n.target)) for n in graph.nodes if n.op == "call_module"}
    uses = _uses(graph, block, calls.values())
    for node, norm in calls.items():
        if type(norm) is not nn.BatchNorm2d or norm.running_mean is None:
            continue
        (source,) = node.all_input_nodes
        conv = calls.get(source)
        if (
            isinstance(conv, nn.Conv2d)
            and type(conv) in _CONVOLUTIONS
            and len(source.users) == 1
            and all(uses[id(tensor)] == 1 for tensor in (*_tensors(conv), *_tensors(norm)))
            and not _is_hooked(conv)
            and not _is_hooked(norm)
        ):
            yield conv, norm


def _uses(graph: fx.Graph, block: nn.Module, called: Iterable[nn.Module]) -> Counter[int]:
    """Count how often each tensor is used, by its id.

    By tensors, not modules: a forward may read a weight itself, and two modules may share one.
    """
    named = {
        **dict(block.named_parameters(remove_duplicate=False)),
        **dict(block.named_buffers(remove_duplicate=False)),
    }
    reads = [named[str(n.target)] for n in graph.nodes if n.op == "get_attr" and n.target in named]
    return Counter(id(tensor) for tensor in (*reads, *(t for m in called for t in _tensors(m))))


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


def _is_hooked(module: nn.Module) -> bool:
    """Return whether a hook may want the module's own output, or sets its weight (weight_norm)."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _fused(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    """Return one convolution for the two, computed in float64 and rounded once."""
    exact = fuse_conv_bn_eval(deepcopy(conv).double(), deepcopy(norm).double())
    return exact.to(conv.weight.dtype)
