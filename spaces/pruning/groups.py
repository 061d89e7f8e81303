"""Channels that must be removed together, found by tracing a model.

Removing an output channel of one layer forces the removal of channels in the layers that read
it, and in the layers that are added to it. torch-pruning finds these groups from the autograd
graph (DepGraph, Fang et al. 2023, https://arxiv.org/abs/2301.12900). It treats operations it
does not know as keeping channels in place, which is wrong where a model reshapes channels, for
example into attention heads; so a group counts only if `parefront.spaces.pruning.symmetry`
confirms it.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch_pruning as tp
from torch import nn

from parefront.errors import StageError
from parefront.spaces.inspection import brief, run, shared_weights
from parefront.spaces.pruning.symmetry import Member, Permutable, is_symmetric
from parefront.spaces.stage import Inputs

LAYERS = (nn.modules.conv._ConvNd, nn.Linear)
"""Types of the layers whose output channels are removed."""

_NARROWABLE = (
    *LAYERS,
    nn.modules.batchnorm._BatchNorm,
    nn.modules.instancenorm._InstanceNorm,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.PReLU,
    nn.Embedding,
)


@dataclass(frozen=True)
class ChannelGroup:
    """Channels of several layers that are removed together.

    Attributes:
        root: Name of the layer whose output channels number the group.
        layers: Names of all Conv and Linear layers that lose output channels with it.
        width: Number of output channels of the root.
        blocks: Number of equal, consecutive blocks of channels that must stay equally wide, as
            in grouped convolutions and group normalisation.
        traced: The group in torch-pruning's graph, with all channels.
        model: The copy of the model that the graph refers to.
    """

    root: str
    layers: tuple[str, ...]
    width: int
    blocks: int
    traced: tp.dependency.Group
    model: nn.Module


def widths(model: nn.Module) -> dict[str, int]:
    """Output channels of every Conv and Linear layer by name."""
    return {
        name: layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
        for name, layer in model.named_modules()
        if isinstance(layer, LAYERS)
    }


def find_groups(
    model: nn.Module, example: Inputs, tick: Callable[[], None]
) -> tuple[list[ChannelGroup], dict[str, str]]:
    """The groups of channels that can be removed, and why other layers keep theirs.

    Returns:
        The groups, which refer to a copy of the model, and a reason for each Conv and Linear
        layer in none of them, by its name.

    Raises:
        StageError: If the model cannot be run or traced with the example.
    """
    work, graph = _trace(model, example)
    width = widths(work)
    names = {module: name for name, module in work.named_modules()}
    shared = shared_weights(work)
    skipped: dict[str, str] = {}
    groups: list[ChannelGroup] = []
    seen: set[nn.Module] = set()
    for root in [node.module for node in graph.module2node.values()]:
        if not isinstance(root, LAYERS) or root in seen:
            continue
        tick()
        try:
            traced = _group(graph, root, range(width[names[root]]))
        except Exception as error:  # noqa: BLE001 - it fails in many ways inside unknown layers
            skipped[names[root]] = f"its channels cannot be followed: {brief(error)}"
            continue
        written = [m for m in _written(graph, traced) if isinstance(m, LAYERS)]
        seen.update(written)
        layers = tuple(names[layer] for layer in written)
        reason = _obstacle(graph, traced, names, shared)
        if reason is None:
            blocks = _blocks(graph, traced)
            groups.append(
                ChannelGroup(names[root], layers, width[names[root]], blocks, traced, work)
            )
        else:
            skipped.update(dict.fromkeys(layers, reason))
    # The groups of most models are all right, and one forward pass shows it.
    if not is_symmetric(work, example, [_permutable(graph, group) for group in groups]):
        for group in list(groups):
            tick()
            if not is_symmetric(work, example, [_permutable(graph, group)]):
                groups.remove(group)
                reason = "its channels do not stay in place, as when they are split into heads"
                skipped.update(dict.fromkeys(group.layers, reason))
    found = {layer for group in groups for layer in group.layers}
    for name in width:
        if name not in found and name not in skipped:
            skipped[name] = _unreached(work, name)
    return groups, skipped


def remove(model: nn.Module, example: Inputs, removals: Mapping[str, Sequence[int]]) -> nn.Module:
    """A copy of the model without some channels.

    Args:
        model: Model to prune.
        example: Example inputs.
        removals: Output channels to remove, by the name of a group's root.

    Raises:
        StageError: If the model without them does not run, or gives outputs of another shape.
    """
    pruned, graph = _trace(model, example)
    expected = [output.shape for output in run(copy.deepcopy(model), example)]
    try:
        for root, channels in removals.items():
            _group(graph, pruned.get_submodule(root), channels).prune()
        shapes = [output.shape for output in run(pruned, example)]
    except Exception as error:  # a user's forward pass may raise anything
        raise StageError(f"the model does not run with fewer channels: {brief(error)}") from error
    if shapes != expected:
        raise StageError(
            f"the outputs change shape: {[tuple(s) for s in expected]} became "
            f"{[tuple(s) for s in shapes]}"
        )
    originals = dict(model.named_parameters(remove_duplicate=False))
    for name, parameter in pruned.named_parameters(remove_duplicate=False):
        parameter.requires_grad_(originals[name].requires_grad)
    for name, module in model.named_modules():
        pruned.get_submodule(name).training = module.training
    return pruned


def _trace(model: nn.Module, example: Inputs) -> tuple[nn.Module, tp.DependencyGraph]:
    """A copy of the model and its dependency graph."""
    try:
        work = copy.deepcopy(model)
        for parameter in work.parameters():
            # Tracing follows autograd, so that frozen weights would hide their layers.
            if parameter.is_floating_point():
                parameter.requires_grad_(True)
        with torch.enable_grad(), torch.random.fork_rng(devices=[]), _quiet():
            graph = tp.DependencyGraph().build_dependency(
                work, example, forward_fn=lambda module, inputs: module(*inputs), verbose=False
            )
    except Exception as error:  # a user's forward pass may raise anything
        raise StageError(f"the model cannot be traced for pruning: {brief(error)}") from error
    return work, graph


def _group(
    graph: tp.DependencyGraph, root: nn.Module, channels: Sequence[int]
) -> tp.dependency.Group:
    """What goes with some output channels of a layer."""
    pruner = graph.get_pruner_of_module(root)
    with _quiet():
        return graph.get_pruning_group(root, pruner.prune_out_channels, list(channels))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warning that the many steps of a recurrent layer are not all followed.

    A width that was not found out there is not believed: what does not stay in place when it is
    permuted is not pruned.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Maximum recursive depth reached")
        yield


def _written(graph: tp.DependencyGraph, traced: tp.dependency.Group) -> list[nn.Module]:
    """Modules of a group that lose output channels."""
    return [dep.target.module for dep, _ in traced if graph.is_out_channel_pruning_fn(dep.handler)]


def _obstacle(
    graph: tp.DependencyGraph,
    traced: tp.dependency.Group,
    names: Mapping[nn.Module, str],
    shared: Mapping[str, str],
) -> str | None:
    """Why a group cannot be narrowed, as far as its layers tell."""
    for dep, _ in traced:
        module: nn.Module = dep.target.module
        name = names.get(module)
        if not dep.target.outputs and graph.is_out_channel_pruning_fn(dep.handler):
            return "its channels are outputs of the model"
        if name is None:  # an operation or a bare parameter
            continue
        if not isinstance(module, _NARROWABLE):
            return f"coupled to {name}, and a {type(module).__name__} cannot be narrowed"
        if isinstance(module, nn.modules.conv._ConvNd) and _multiplied(module):
            return f"coupled to {name}, which has several kernels for each of its input channels"
        if name in shared:
            return f"coupled to {name}, whose weight is shared with {shared[name]}"
        if nn.utils.parametrize.is_parametrized(module):
            return f"coupled to {name}, whose weight is parametrised"
    return None


def _multiplied(layer: nn.modules.conv._ConvNd) -> bool:
    """Whether a depthwise convolution gives more channels than it takes.

    torch-pruning takes it for a plain one, and looks for weights of inputs that it does not have.
    """
    return layer.groups == layer.in_channels > 1 and layer.out_channels > layer.in_channels


def _blocks(graph: tp.DependencyGraph, traced: tp.dependency.Group) -> int:
    blocks = 1
    for dep, _ in traced:
        module = dep.target.module
        if isinstance(module, nn.GroupNorm):
            blocks = math.lcm(blocks, module.num_groups)
        elif isinstance(module, nn.modules.conv._ConvNd):
            # In a depthwise convolution every channel is alone and may go.
            pruner = graph.get_pruner_of_module(module)
            if not isinstance(pruner, tp.pruner.function.DepthwiseConvPruner):
                blocks = math.lcm(blocks, module.groups)
    return blocks


def _permutable(graph: tp.DependencyGraph, group: ChannelGroup) -> Permutable:
    members = [
        Member(
            module=item.dep.target.module,
            written=graph.is_out_channel_pruning_fn(item.dep.handler),
            parameter_dim=item.dep.target.pruning_dim,
            channels=item.idxs,
            roots=item.root_idxs,
        )
        for item in group.traced
    ]
    return Permutable(group.width, group.blocks, members)


def _unreached(model: nn.Module, name: str) -> str:
    parent = model.get_submodule(name.rpartition(".")[0])
    if isinstance(parent, nn.MultiheadAttention):
        return "part of a MultiheadAttention, which cannot be narrowed"
    return "the forward pass does not call it with values that depend on weights"
