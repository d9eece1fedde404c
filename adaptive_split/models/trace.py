"""Turns any classifier into a flat graph of operators that can be cut: what `torch.export` sees."""

from __future__ import annotations

import contextlib
import io
import logging
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from adaptive_split.errors import ConfigError

_TORCH = str(Path(torch.__file__).parent)
DECLARE = "declare stages: give the model a method split_stages()"


class Logits(nn.Module):
    """A classifier that may answer with an object: gives its `logits`, shape `(N, classes)`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pictures: Tensor) -> Tensor:
        """Map normalized pictures `(N, 3, H, W)` to logits."""
        answer = self.model(pictures)
        if isinstance(answer, dict) and "logits" in answer:
            return cast("Tensor", answer["logits"])
        return cast("Tensor", getattr(answer, "logits", answer))


def check_logits(model: nn.Module, pictures: Tensor, num_classes: int) -> Tensor:
    """Run a model in evaluation mode and return its logits `(N, num_classes)`.

    Raises:
        ConfigError: If it fails, or its output is not that, or is a softmax already.
    """
    try:
        with torch.no_grad():
            logits = model(pictures)
    except Exception as error:
        raise ConfigError(
            f"the model must accept pictures of shape {tuple(pictures.shape)}; "
            f"got {first_line(error)}{_where(error)}; --size sets the side of the pictures"
        ) from error
    if not isinstance(logits, Tensor):
        raise ConfigError(
            f"the model must give a tensor of logits or an object with .logits; got "
            f"{type(logits).__name__}; let the factory wrap it"
        )
    if logits.shape != (len(pictures), num_classes):
        raise ConfigError(
            f"the model must give logits of shape (N, {num_classes}), one for each class folder; "
            f"got {tuple(logits.shape)} for {len(pictures)} pictures; let the factory select them"
        )
    if bool((logits >= 0).all()) and torch.allclose(logits.sum(1), torch.ones(len(logits))):
        raise ConfigError(
            "the model must give logits; got rows that sum to 1; leave out the last softmax"
        )
    return logits.float()


def trace(model: nn.Module, pictures: Tensor) -> fx.GraphModule:
    """Record the operators that a model in evaluation mode runs, for any number of pictures.

    Parameters are shared with the model. No operator changes a tensor in place and none is a
    dropout, so that any tensor of the graph may be read twice.

    Args:
        model: Maps pictures to logits; see `Logits`.
        pictures: An example, shape `(2, 3, H, W)`: a batch of one would be taken for fixed.

    Raises:
        ConfigError: If the model branches on values, fixes its batch or leaves torch; the message
            names the line.
    """
    try:
        with torch.no_grad(), _quiet():
            program = torch.export.export(
                model, (pictures,), dynamic_shapes=({0: torch.export.Dim("batch")},)
            )
            return _functional(program)
    except Exception as error:
        raise ConfigError(
            "the model must be traceable by torch.export for any batch size; got "
            f"{first_line(error)}{_where(error)}; {_way_out(error)}"
        ) from error


def is_batch_size(node: fx.Node) -> bool:
    """Whether a node is the number of pictures, which every tensor of the graph knows."""
    if node.op != "call_function" or node.target is not torch.ops.aten.sym_size.int:
        return False
    [graph_input] = node.graph.find_nodes(op="placeholder")
    return str(node.meta["val"]) == str(graph_input.meta["val"].shape[0])


def _functional(program: torch.export.ExportedProgram) -> fx.GraphModule:
    module = _module(program)
    changing = [node for node in module.graph.nodes if _is_mutable(node)]
    if not all(map(_is_plain, changing)):
        # Writes through views: torch knows how to undo them, at the price of fixed strides.
        return _module(program.run_decompositions({}))
    for node in changing:
        base = node.args[0]
        order = {other: index for index, other in enumerate(module.graph.nodes)}
        node.target = _pure(node.target)
        base.replace_all_uses_with(node, lambda user, at=order[node]: order[user] > at)  # noqa: B023
    module.recompile()
    return module


def _module(program: torch.export.ExportedProgram) -> fx.GraphModule:
    """Unlift a program, without dropouts, which do nothing in evaluation mode."""
    module = program.module(check_guards=False)
    for node in list(module.graph.nodes):
        if node.target in (torch.ops.aten.dropout.default, torch.ops.aten.dropout_.default):
            node.replace_all_uses_with(node.args[0])
            module.graph.erase_node(node)
    module.recompile()
    return module


def _is_mutable(node: fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def _is_plain(node: fx.Node) -> bool:
    """Whether an operator in place has a pure twin, and no view of what it changes exists."""
    base = node.args[0]
    around = (base, *base.users) if isinstance(base, fx.Node) else ()
    return (
        bool(around)
        and around[0].op == "call_function"
        and not any(_is_view(other) for other in around)
        and _pure(node.target) is not None
    )


def _pure(operator: Any) -> Any:
    """The twin of an operator like `aten.add_.Tensor` that changes nothing, if there is one."""
    name = operator._schema.name.removeprefix("aten::")
    if not name.endswith("_"):
        return None
    packet = getattr(torch.ops.aten, name.removesuffix("_"), None)
    return getattr(packet, operator._overloadname, None)


def _is_view(node: fx.Node) -> bool:
    if not isinstance(node.target, torch._ops.OpOverload):
        return False
    infos = [output.alias_info for output in node.target._schema.returns]
    return any(info is not None and not info.is_write for info in infos)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch's own reports of a failed export, pages of graph, from the user's screen."""
    logger = logging.getLogger("torch")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            # torch.export of 2.13 calls a helper of its own that it deprecates.
            warnings.filterwarnings("ignore", ".*LeafSpec.*is deprecated", FutureWarning)
            yield
    finally:
        logger.setLevel(level)


def first_line(error: BaseException) -> str:
    """What is the matter, of an error that torch explains at length."""
    lines = [line.strip(" -") for line in str(error).splitlines() if line.strip()]
    if lines and lines[0].startswith("Constraints violated") and len(lines) > 1:
        return lines[1].split(" If you're using", 1)[0]
    return lines[0] if lines else type(error).__name__


def _way_out(error: Exception) -> str:
    if "batch" in first_line(error):
        return "let it take any number of pictures, as in x.reshape(x.shape[0], -1)"
    return f"change that line, or {DECLARE}"


def _where(error: Exception) -> str:
    """The last line of code outside torch that led to an error."""
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [f for f in frames if not f.filename.startswith((_TORCH, str(Path(__file__).parent)))]
    if not theirs:
        return ""
    last = theirs[-1]
    return f" at {last.filename}:{last.lineno}: {last.line}"
