"""How far played-again frames are from live ones: latency, utility, answers, ranks, components."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TypeAlias

import numpy as np

from adaptive_split.agents.fidelity import Block
from adaptive_split.agents.fidelity_replay import Pair
from adaptive_split.measurement import FrameReport

COMPONENTS: Mapping[str, Callable[[FrameReport], float]] = {
    "start": lambda one: one.wait_s,
    "head": lambda one: one.head_s,
    "encode": lambda one: one.encode_s,
    "network": lambda one: one.uplink_s + one.downlink_s,
    "server queue": lambda one: one.server_wait_s,
    "tail": lambda one: one.tail_s,
    "fallback": lambda one: one.fallback_s,
}
"""Parts of a frame's latency. A live device can only estimate where the uplink ends and the
downlink begins, so they are compared as one."""

Way: TypeAlias = Callable[[FrameReport], object]
_WAYS: Mapping[str, Way] = {
    "answer": lambda one: one.answer,
    "exit": lambda one: one.exit_index,
    "fallback": lambda one: one.fallback_reason,
    "on time": lambda one: one.on_time,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Errors:
    """How far some frames are from the live ones."""

    num_frames: int
    latency: float
    """Median over the frames answered both times of the absolute difference of their latency, as a
    share of the live one."""
    latency_p90: float
    """90 % quantile of the same."""
    utility: float
    """Mean over the blocks of the absolute difference of the block's mean utility."""
    utility_bias: float
    """Mean over the blocks of that difference, again minus live."""
    same: Mapping[str, float]
    """Share of the frames with the same answer, exit, reason of the fallback, timeliness."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Residual:
    """A component again minus live, in seconds, over frames answered alike."""

    num_frames: int
    bias_s: float
    """Median."""
    mean_s: float
    low_s: float
    """Quartile, and the other:"""
    high_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """Controllers by their mean utility, the best first."""

    live: tuple[str, ...]
    again: tuple[str, ...]
    swapped: tuple[tuple[str, str, float], ...]
    """Pairs whose order differs, and by how much the first is better live."""


def errors_of(pairs: Sequence[Pair]) -> Errors:
    """Sum frames up."""
    relative = [
        abs(pair.again.latency_s - pair.live.latency_s) / pair.live.latency_s
        for pair in pairs
        if pair.live.latency_s is not None and pair.again.latency_s is not None
    ]
    means = _utilities(pairs, lambda one: f"{one.window} {one.controller} {one.take}")
    differences = np.array([again - live for live, again in means.values()])
    return Errors(
        num_frames=len(pairs), latency=float(np.median(relative)),
        latency_p90=float(np.quantile(relative, 0.9)),
        utility=float(np.abs(differences).mean()), utility_bias=float(differences.mean()),
        same={
            name: float(np.mean([way(pair.live) == way(pair.again) for pair in pairs]))
            for name, way in _WAYS.items()
        },
    )  # fmt: skip


def residuals_of(pairs: Sequence[Pair]) -> dict[str, Residual]:
    """Residuals by component, and of the whole latency; a frame counts where it has the part."""
    alike = [pair for pair in pairs if pair.alike]
    parts = {**COMPONENTS, "latency": _latency_s}
    found = {}
    for name, part in parts.items():
        both = [(part(pair.live), part(pair.again)) for pair in alike]
        used = np.array([again - live for live, again in both if live > 0 or again > 0])
        if len(used):
            low, median, high = np.quantile(used, (0.25, 0.5, 0.75))
            found[name] = Residual(
                num_frames=len(used), bias_s=float(median), mean_s=float(used.mean()),
                low_s=float(low), high_s=float(high),
            )  # fmt: skip
    return found


def ranking_of(pairs: Sequence[Pair]) -> Ranking:
    """Rank the controllers live and again."""
    means = utilities_of(pairs)
    live = sorted(means, key=lambda name: -means[name][0])
    again = sorted(means, key=lambda name: -means[name][1])
    swapped = [
        (better, worse, means[better][0] - means[worse][0])
        for better, worse in combinations(live, 2)
        if again.index(better) > again.index(worse)
    ]
    return Ranking(live=tuple(live), again=tuple(again), swapped=tuple(swapped))


def utilities_of(pairs: Sequence[Pair]) -> dict[str, tuple[float, float]]:
    """Mean utility of every controller, live and again."""
    return _utilities(pairs, lambda block: block.controller)


def _latency_s(report: FrameReport) -> float:
    return report.latency_s or 0.0


def _utilities(
    pairs: Sequence[Pair], key: Callable[[Block], str]
) -> dict[str, tuple[float, float]]:
    """Mean utility live and again, by what `key` tells of a frame's block."""
    groups: dict[str, list[tuple[float, float]]] = {}
    for pair in pairs:
        groups.setdefault(key(pair.block), []).append((pair.live.utility, pair.again.utility))
    means = {name: np.mean(values, 0) for name, values in groups.items()}
    return {name: (float(live), float(again)) for name, (live, again) in means.items()}
