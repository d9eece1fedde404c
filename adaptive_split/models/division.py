"""A model in stages: cut where it can be, or as it declares itself; then with exits attached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn

from adaptive_split.errors import ConfigError
from adaptive_split.models.attach import (
    AttachedDecoder,
    AttachedEncoder,
    AttachedExit,
    bottleneck_shape,
)
from adaptive_split.models.cuts import CUT_PARITY, Cut, CuttableModel, check_cuts
from adaptive_split.models.layout import Layout
from adaptive_split.models.propose import propose
from adaptive_split.models.trace import Logits


@runtime_checkable
class DeclaresStages(Protocol):
    """What a model may offer so that nobody looks for its cuts."""

    def split_stages(self) -> tuple[Sequence[nn.Module], Sequence[nn.Module | None]]:
        """Give its stages and, for each, its exit or None where one is to be attached.

        A stage maps one tensor to one, the first the normalized pictures; the batch comes first.
        The last exit is the model's own classifier, so that all stages and the last exit are the
        model. Exits that are given learn no more than the model does.
        """
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Division:
    """A model in S stages."""

    stages: tuple[nn.Module, ...]
    exits: tuple[nn.Module | None, ...]
    """The model's own; None where one is to be attached, never at the end."""
    layouts: tuple[Layout, ...]
    """Of the feature after every stage."""
    names: tuple[str, ...]
    """Where every stage ends, for people."""
    cuts: tuple[Cut, ...]
    """All valid cuts; empty where the model declared its stages."""


def divide(model: nn.Module, pictures: Tensor, num_stages: int) -> Division:
    """Cut a model, or take the stages it declares, and check that they are the model.

    Args:
        model: The user's, in evaluation mode.
        pictures: Normalized, shape `(3, 3, H, W)`.
        num_stages: Stages wanted; says nothing to a model that declares its own.

    Raises:
        ConfigError: If it cannot be cut, or its declaration is not the model.
        BundleError: If a cut changes an answer: a fault of ours.
    """
    if isinstance(model, DeclaresStages):
        return _declared(model, Logits(model), pictures)
    whole = Logits(model)
    cuttable = CuttableModel(whole, pictures[:2])
    ends = propose(cuttable, pictures[0].numel(), num_stages)
    check_cuts(cuttable, whole, pictures)
    starts = (None, *ends[:-1])
    return Division(
        stages=tuple(cuttable.between(*pair) for pair in zip(starts, ends, strict=True)),
        exits=(*(None for _ in ends[:-1]), cuttable.between(ends[-1], None)),
        layouts=tuple(Layout.of(cut.shape) for cut in ends),
        names=tuple(cut.layer for cut in ends),
        cuts=cuttable.cuts,
    )


@torch.no_grad()
def _declared(model: DeclaresStages, whole: nn.Module, pictures: Tensor) -> Division:
    stages, exits = model.split_stages()
    if not 2 <= len(stages) == len(exits) or exits[-1] is None:
        raise ConfigError(
            "split_stages() must give 2 stages or more, an exit or None for each, and the model's "
            f"own exit at the end; got {len(stages)} stages, {len(exits)} exits"
        )
    feature, layouts = pictures, []
    for index, stage in enumerate(stages, start=1):
        feature = _run_declared(index, stage, feature)
        layouts.append(Layout.of(tuple(feature.shape[1:])))
    difference = float((exits[-1](feature) - whole(pictures)).abs().max())
    if not difference < CUT_PARITY:
        raise ConfigError(
            "the stages and the last exit of split_stages() must give the model's logits within "
            f"{CUT_PARITY}; got {difference:.2e}"
        )
    names = tuple(f"{type(stage).__name__} {k}" for k, stage in enumerate(stages, start=1))
    return Division(
        stages=tuple(stages), exits=tuple(exits), layouts=tuple(layouts), names=names, cuts=()
    )


def _run_declared(index: int, stage: nn.Module, feature: Tensor) -> Tensor:
    try:
        result = stage(feature)
    except Exception as error:  # whatever a stranger's code raises
        raise ConfigError(
            f"stage {index} of split_stages() must accept what comes before it, "
            f"{tuple(feature.shape)}; got {type(error).__name__}: {error}"
        ) from error
    if not isinstance(result, Tensor) or not 2 <= result.ndim <= 4:
        raise ConfigError(
            f"stage {index} of split_stages() must give one tensor (N, C), (N, T, C) or "
            f"(N, C, H, W); got {getattr(result, 'shape', type(result).__name__)}"
        )
    return result


class _MapStage(nn.Module):
    """A stage between feature maps."""

    def __init__(self, stage: nn.Module, before: Layout | None, after: Layout) -> None:
        super().__init__()
        self.stage, self.before, self.after = stage, before, after

    def forward(self, feature: Tensor) -> Tensor:
        if self.before is not None:
            feature = self.before.from_map(feature)
        return self.after.to_map(self.stage(feature))


class _MapExit(nn.Module):
    """An exit of the model's own behind a feature map."""

    def __init__(self, exit_: nn.Module, layout: Layout) -> None:
        super().__init__()
        self.exit, self.layout = exit_, layout

    def forward(self, feature: Tensor) -> Tensor:
        return cast("Tensor", self.exit(self.layout.from_map(feature)))


class SplitNet(nn.Module):
    """A divided model with an exit after every stage and a bottleneck at every inner cut."""

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        division: Division,
        num_classes: int,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
    ) -> None:
        """Attach what is missing; `mean` and `std` are those of the model's own pictures."""
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))
        layouts = division.layouts
        before = (None, *layouts[:-1])
        self.stages = nn.ModuleList(
            _MapStage(*parts) for parts in zip(division.stages, before, layouts, strict=True)
        )
        self.exits = nn.ModuleList(
            AttachedExit(layout, num_classes) if own is None else _MapExit(own, layout)
            for own, layout in zip(division.exits, layouts, strict=True)
        )
        shapes = [(layout, bottleneck_shape(layout)) for layout in layouts[:-1]]
        self.encoders = nn.ModuleList(AttachedEncoder(*pair) for pair in shapes)
        self.decoders = nn.ModuleList(AttachedDecoder(*pair) for pair in shapes)

    @property
    def attached(self) -> list[nn.Module]:
        """What the model did not bring along, and what is therefore trained."""
        exits = [exit_ for exit_ in self.exits if isinstance(exit_, AttachedExit)]
        return [*exits, *self.encoders, *self.decoders]

    def normalize(self, pictures: Tensor) -> Tensor:
        """Center pictures `(N, 3, H, W)` with values in [0, 1]."""
        return (pictures - self.mean) / self.std

    def features(self, pictures: Tensor) -> list[Tensor]:
        """Run all stages on pictures in [0, 1]; give the feature map after every one."""
        feature, found = self.normalize(pictures), []
        for stage in self.stages:
            feature = stage(feature)
            found.append(feature)
        return found
