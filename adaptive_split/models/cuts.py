"""Where a traced model can be cut: every point that one tensor passes, and the parts between."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.utils.flop_counter import FlopCounterMode

from adaptive_split.errors import BundleError
from adaptive_split.models.trace import is_batch_size, trace

CUT_PARITY = 1e-4
"""Largest difference of a logit between a model in two parts and whole that is accepted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cut:
    """A point of a traced model that exactly one float tensor passes, the feature."""

    name: str
    """Name of the feature in the graph."""
    layer: str
    """The module that computes it, for people, e.g. `resnet.encoder.stages.1`."""
    operator: str
    """The operator that computes it, e.g. `aten.relu.default`."""
    shape: tuple[int, ...]
    """Of the feature of one picture, without the batch."""
    flops_before: int
    """Floating-point operations for one picture up to the feature: matrix products and
    convolutions only, as `torch.utils.flop_counter` counts them."""
    flops_after: int
    only_moves: bool
    """Whether the operator only rearranges the elements of its input."""

    @property
    def num_elements(self) -> int:
        """Elements of the feature of one picture: its bytes at 8 bits each."""
        return int(torch.Size(self.shape).numel())

    @property
    def share(self) -> float:
        """Share of the operations that lie before the cut, in [0, 1]."""
        return self.flops_before / max(self.flops_before + self.flops_after, 1)


class CuttableModel:
    """A traced model: its cuts in the order of computation, and what lies between two of them."""

    def __init__(self, model: nn.Module, pictures: Tensor) -> None:
        """Trace a model in evaluation mode with an example `(2, 3, H, W)`, normalized."""
        self.graph_module = trace(model, pictures)
        self._pictures = pictures
        self._nodes = {node.name: node for node in self.graph_module.graph.nodes}

    @cached_property
    def cuts(self) -> tuple[Cut, ...]:
        """Every valid cut: single live tensor, float32, the batch first and nowhere else."""
        flops = _count_flops(self.graph_module, self._pictures)
        total, before, found = sum(flops.values()), 0, []
        for node, live in _live_tensors(self.graph_module.graph):
            before += flops.get(node.name, 0)
            if live == {node} and node is not self._logits and _is_feature(node, self._input):
                found.append(_cut(node, before, total - before))
        return tuple(found)

    def between(self, first: Cut | None, last: Cut | None) -> fx.GraphModule:
        """The part from after one cut up to another: a module of one input and one output.

        Args:
            first: Where it begins; None is the picture.
            last: Where it ends; None is the logits.
        """
        start = self._nodes[first.name] if first else self._input
        stop = self._nodes[last.name] if last else self._logits
        graph = fx.Graph()
        inside = {start: graph.placeholder("feature")}
        for node in _needed(stop, start):
            if is_batch_size(node):
                inside[node] = graph.call_function(node.target, (inside[start], 0))  # type: ignore[arg-type]
            else:
                inside[node] = graph.node_copy(node, inside.__getitem__)
        graph.output(inside[stop])
        return fx.GraphModule(self.graph_module, graph)

    def crowds(self) -> tuple[str, tuple[str, ...]]:
        """Where most tensors pass at once: the module there and the operators of the tensors."""
        node, live = max(_live_tensors(self.graph_module.graph), key=lambda pair: len(pair[1]))
        return _layer(node), tuple(sorted(str(other.target) for other in live))

    @property
    def _input(self) -> fx.Node:
        [graph_input] = self.graph_module.graph.find_nodes(op="placeholder")
        return cast("fx.Node", graph_input)

    @property
    def _logits(self) -> fx.Node:
        [output] = self.graph_module.graph.find_nodes(op="output")
        [logits] = output.all_input_nodes
        return cast("fx.Node", logits)


@torch.no_grad()
def check_cuts(cuttable: CuttableModel, model: nn.Module, pictures: Tensor) -> None:
    """Compare a model cut at all of its cuts, one small part after the other, with itself whole.

    Args:
        cuttable: The traced model.
        model: The same model, untraced.
        pictures: Normalized, of another number than the model was traced with.

    Raises:
        BundleError: If they differ by more than `CUT_PARITY` in any logit.
    """
    feature, first = pictures, None
    for cut in (*cuttable.cuts, None):
        feature, first = cuttable.between(first, cut)(feature), cut
    error = float((feature - model(pictures)).abs().max())
    if not error < CUT_PARITY:
        raise BundleError(
            f"a model cut at its {len(cuttable.cuts)} cuts must agree with itself within "
            f"{CUT_PARITY}; got {error:.2e}"
        )


def _live_tensors(graph: fx.Graph) -> list[tuple[fx.Node, set[fx.Node]]]:
    """Pair every tensor that depends on the pictures with those that are needed after it."""
    nodes = list(graph.nodes)
    order = {node: index for index, node in enumerate(nodes)}
    data: set[fx.Node] = set()
    for node in nodes:
        reads_data = not data.isdisjoint(node.all_input_nodes)
        if node.op == "placeholder" or (reads_data and not is_batch_size(node)):
            data.add(node)
    last_use = {
        node: max((order[user] for user in node.users if user.op != "call_module"), default=-1)
        for node in data
    }
    pairs, live = [], set[fx.Node]()
    for node in nodes:
        live = {other for other in live if last_use[other] > order[node]}
        if node in data:
            live = live | {node} if last_use[node] > order[node] else live
            if node.op == "call_function":
                pairs.append((node, live))
    return pairs


def _is_feature(node: fx.Node, graph_input: fx.Node) -> bool:
    value = node.meta.get("val")
    if not isinstance(value, Tensor) or value.dtype != torch.float32 or not 2 <= value.ndim <= 4:
        return False
    batch, *sides = value.shape
    same_batch = str(batch) == str(graph_input.meta["val"].shape[0])
    return same_batch and all(isinstance(side, int) for side in sides)


def _needed(stop: fx.Node, start: fx.Node) -> list[fx.Node]:
    """What `stop` is computed from, without what lies before `start`, in order."""
    found, open_ = {start}, [stop]
    while open_:
        node = open_.pop()
        if node not in found:
            found.add(node)
            open_ += [] if is_batch_size(node) else node.all_input_nodes
    return [node for node in stop.graph.nodes if node in found and node is not start]


def _cut(node: fx.Node, before: int, after: int) -> Cut:
    return Cut(
        name=node.name,
        layer=_layer(node),
        operator=str(node.target),
        shape=tuple(int(side) for side in node.meta["val"].shape[1:]),
        flops_before=before,
        flops_after=after,
        only_moves=_only_moves(node),
    )


def _only_moves(node: fx.Node) -> bool:
    """Whether the elements are those of the input, as after a view or a copy."""
    schema = getattr(node.target, "_schema", None)
    if schema is None or str(node.target) == "aten.clone.default":
        return True
    return any(output.alias_info is not None for output in schema.returns)


def _layer(node: fx.Node) -> str:
    """The innermost module of the model that a node belongs to."""
    stack = list(node.meta.get("nn_module_stack", {}).values())
    path = str(stack[-1][0]) if stack else ""
    return path.removeprefix("model").lstrip(".") or node.name


class _Counter(fx.Interpreter):
    """Runs a graph and keeps the operations that every node took."""

    def __init__(self, module: fx.GraphModule, counter: FlopCounterMode) -> None:
        super().__init__(module)
        self.flops: dict[str, int] = {}
        self._counter, self._total = counter, 0

    def run_node(self, node: fx.Node) -> Any:
        """Run one node."""
        result = super().run_node(node)
        total = int(self._counter.get_total_flops())
        self.flops[node.name], self._total = total - self._total, total
        return result


@torch.no_grad()
def _count_flops(module: fx.GraphModule, pictures: Tensor) -> dict[str, int]:
    """Operations of every node for one picture."""
    with FlopCounterMode(display=False) as counter:
        interpreter = _Counter(module, counter)
        interpreter.run(pictures)
    return {name: count // len(pictures) for name, count in interpreter.flops.items()}
