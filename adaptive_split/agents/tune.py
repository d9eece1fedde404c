"""Pick the knobs of planners, and the best static decision, by playing them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from adaptive_split.agents.baselines import Static
from adaptive_split.agents.evaluate import mean_utility
from adaptive_split.planner import CandidateTable
from adaptive_split.runtime.controller import (
    DistributionPlanner,
    Planner,
    PlannerSettings,
    Policy,
    TwoWindowPlanner,
)
from adaptive_split.runtime.streams import Stream

DEVICE_PRICES = (0.1, 0.3, 0.5, 1.0)
UPLINK_PRICES = (0.0, 0.03, 0.1)
SAFETIES = (1.0, 0.7, 0.5)
WINDOWS = ((1, 1), (2, 1), (2, 4), (4, 4), (4, 1), (8, 2), (16, 1), (16, 4), (16, 16))
TWO_WINDOW_SAFETIES = (1.0, 0.8, 0.6)


def best_static(
    table: CandidateTable, streams: Sequence[Stream], among: Iterable[int] | None = None
) -> tuple[int, dict[int, float]]:
    """Search the decision that is best for every frame of these streams.

    Returns:
        `(candidate, mean utility of every candidate tried)`.
    """
    tried = range(len(table.grid)) if among is None else among
    values = {index: mean_utility(Static(index), table, streams) for index in tried}
    return max(values, key=lambda index: values[index]), values


def planner_settings() -> list[PlannerSettings]:
    """Settings tried for the mean-rate planner."""
    return [
        PlannerSettings(device_price=device, uplink_price=uplink, safety=safety)
        for device in DEVICE_PRICES
        for uplink in UPLINK_PRICES
        for safety in SAFETIES
    ]


def distribution_settings() -> list[PlannerSettings]:
    """Settings tried for the distribution planner: its backlog price alone."""
    return [
        PlannerSettings(device_price=device, uplink_price=uplink)
        for device in DEVICE_PRICES
        for uplink in UPLINK_PRICES
    ]


def two_window_settings() -> list[PlannerSettings]:
    """Settings tried for the two-window planner."""
    return [
        PlannerSettings(
            device_price=device,
            uplink_price=uplink,
            safety=safety,
            rate_window=rate,
            rtt_window=rtt,
        )
        for device, uplink in ((0.3, 0.03), (0.5, 0.03), (0.5, 0.1), (1.0, 0.1))
        for safety in TWO_WINDOW_SAFETIES
        for rate, rtt in WINDOWS
    ]


def best_settings(
    kind: type[Planner] | type[DistributionPlanner] | type[TwoWindowPlanner],
    table: CandidateTable,
    streams: Sequence[Stream],
    settings: Sequence[PlannerSettings],
    progress: Callable[[str], None] = lambda _: None,
) -> tuple[PlannerSettings, float]:
    """Play every setting on a third of the streams, then the best five on all of them."""
    few = streams[:: max(len(streams) // 24, 1)] if len(streams) > 48 else streams

    def value(knobs: PlannerSettings, where: Sequence[Stream]) -> float:
        policy: Policy = kind(table, knobs)
        return mean_utility(policy, table, where)

    scores = [value(knobs, few) for knobs in settings]
    finalists = [settings[index] for index in np.argsort(scores)[::-1][:5]]
    progress(f"{kind.name}: {len(settings)} settings tried")
    results = [value(knobs, streams) for knobs in finalists]
    best = int(np.argmax(results))
    return finalists[best], results[best]
