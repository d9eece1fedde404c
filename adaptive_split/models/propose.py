"""Proposes stages: which cuts of a model are worth an exit, a bottleneck and a split point."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from adaptive_split.errors import ConfigError
from adaptive_split.models.cuts import Cut, CuttableModel
from adaptive_split.models.trace import DECLARE

NUM_STAGES = 4
LEAST_SHARE, MOST_SHARE = 0.01, 0.99
"""An inner cut with less of the computing before or behind it divides nothing."""


def distinct_cuts(cuts: Sequence[Cut]) -> list[Cut]:
    """Keep one of neighboring cuts with the same number of elements and no work between them.

    The last that computes anything: after convolution, norm and ReLU, not between them.
    """
    kept = []
    for _, group in itertools.groupby(cuts, lambda cut: (cut.num_elements, cut.flops_before)):
        run = list(group)
        kept.append(next((cut for cut in reversed(run) if not cut.only_moves), run[-1]))
    return kept


def rank(cuts: Sequence[Cut], picture_elements: int) -> list[Cut]:
    """Order cuts for people: natural bottlenecks first, then by elements, then early ones first.

    A natural bottleneck is smaller than the picture at 8 bits an element.
    """
    return sorted(
        distinct_cuts(cuts),
        key=lambda c: (not is_natural(c, picture_elements), c.num_elements, c.share),
    )


def is_natural(cut: Cut, picture_elements: int) -> bool:
    """Whether a feature is smaller than the picture of `picture_elements`, both at 8 bits."""
    return cut.num_elements < picture_elements


def propose(model: CuttableModel, picture_elements: int, num_stages: int) -> tuple[Cut, ...]:
    """Choose where the stages end; the last ends at the last cut, its exit is what remains.

    Of all ways, the one of least cost, summed over stages k = 1..S-1: a cut at share f of the
    computing with r times the elements of the picture costs `(S f - k)^2 + log2(1 + r)`. So a
    feature as large as the picture is worth a detour of one stage's share.

    Args:
        model: The traced model.
        picture_elements: Elements of a picture.
        num_stages: Stages wanted, S; fewer where the model has fewer cuts.

    Raises:
        ConfigError: If there is no inner cut.
    """
    if num_stages < 2:
        raise ConfigError(f"a model must have 2 stages or more; got {num_stages}")
    inner = _inner_cuts(model.cuts)
    if not inner:
        raise ConfigError(_uncuttable(model))
    num_inner = min(num_stages - 1, len(inner))
    return (*_cheapest(inner, num_inner, picture_elements), model.cuts[-1])


def _inner_cuts(cuts: Sequence[Cut]) -> list[Cut]:
    """Keep the smallest of the cuts between which nothing is computed, the last of equals."""
    divides = (cut for cut in distinct_cuts(cuts) if LEAST_SHARE <= cut.share <= MOST_SHARE)
    groups = itertools.groupby(divides, lambda cut: cut.flops_before)
    return [min(reversed(list(group)), key=lambda cut: cut.num_elements) for _, group in groups]


def _cheapest(inner: Sequence[Cut], count: int, picture_elements: int) -> tuple[Cut, ...]:
    """Choose `count` of the inner cuts, by dynamic programming over (stage, cut)."""

    def cost(cut: Cut, stage: int) -> float:
        off = (count + 1) * cut.share - stage
        return off * off + math.log2(1 + cut.num_elements / picture_elements)

    best: list[tuple[float, tuple[Cut, ...]]] = [(cost(cut, 1), (cut,)) for cut in inner]
    for stage in range(2, count + 1):
        longer: list[tuple[float, tuple[Cut, ...]]] = []
        for index, cut in enumerate(inner):
            spent, chosen = min(best[:index], key=lambda pair: pair[0], default=(math.inf, ()))
            longer.append((spent + cost(cut, stage), (*chosen, cut)))
        best = longer
    return min(best, key=lambda pair: pair[0])[1]


def _uncuttable(model: CuttableModel) -> str:
    layer, operators = model.crowds()
    return (
        "a model must have a point inside that a single float32 tensor passes, the batch as its "
        f"first side; got {len(model.cuts)} such points, none between 1 and 99 % of the "
        f"computing: at {layer} {len(operators)} tensors pass, from {', '.join(operators)}; "
        f"{DECLARE}"
    )
