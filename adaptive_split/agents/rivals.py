"""The rivals: one table from name to controller, knobs and the settings tried when it is tuned."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from itertools import combinations, product
from typing import Any

import numpy as np

from adaptive_split.agents.bandit import BanditKnobs, MuLinUcb
from adaptive_split.agents.baselines import BusyKnobs, BusySkip, PairKnobs, ThresholdPair
from adaptive_split.agents.learned_link import LearnedTransferPlanner, TransferKnobs
from adaptive_split.agents.rate_planners import HarmonicPlanner, PessimisticPlanner
from adaptive_split.agents.rules import (
    DeadlineKnobs,
    DynamicSplit,
    Dyno,
    LinkKnobs,
    Neurosurgeon,
    Spinn,
)
from adaptive_split.candidates import CandidateTable, Floats
from adaptive_split.errors import ConfigError
from adaptive_split.runtime.controller import (
    DistributionPlanner,
    Planner,
    PlannerSettings,
    Policy,
    TwoWindowPlanner,
)

RULE_THRESHOLDS = (0.5, 1.0, 2.0, 4.0, 8.0, 12.0, 16.0, 24.0)
"""Rates in Mbit/s tried for the threshold rules."""
DEVICE_PRICES = (0.1, 0.3, 0.5, 1.0)
UPLINK_PRICES = (0.0, 0.03, 0.1)
PRICES = (
    *product(DEVICE_PRICES, UPLINK_PRICES, (0.0,)),
    (0.1, 0.0, 0.03), (0.3, 0.0, 0.03), (0.3, 0.03, 0.02), (0.5, 0.0, 0.03),
)  # fmt: skip
"""Backlog prices: device, uplink, occupied."""
SAFETIES = (1.0, 0.7, 0.5)
WINDOWS = ((1, 1), (2, 1), (2, 4), (4, 4), (4, 1), (8, 2), (16, 1), (16, 4), (16, 16))
TWO_WINDOW_SAFETIES = (1.0, 0.8, 0.6)
TWO_WINDOW_PRICES = (
    (0.3, 0.03, 0.0), (0.5, 0.03, 0.0), (0.5, 0.1, 0.0), (1.0, 0.1, 0.0), (0.3, 0.0, 0.03)
)  # fmt: skip
NUM_PAIRS = 10


@dataclass(frozen=True, slots=True, eq=False)
class Ground:
    """What the settings worth trying depend on."""

    table: CandidateTable
    """What the rivals decide with."""
    static_utility: Callable[[], Floats]
    """Mean utility of every candidate, kept for every frame, on a few streams, `(N, S)`."""
    network: str | None = None
    """The learned transfer times, trained on the training traces."""


@dataclass(frozen=True, slots=True)
class Rival:
    """One rival, and how it is tuned."""

    name: str
    about: str
    """What it does, in a person's words."""
    knobs: type
    """A frozen dataclass; plain values are its keyword arguments."""
    build: Callable[[CandidateTable, Any], Policy]
    settings: Callable[[Ground], Sequence[Any]]
    per_lane: frozenset[str]
    """Knobs that may be columns `(L, 1)`, so that settings that differ in them play as one."""


def _arms(ground: Ground) -> tuple[list[int], list[int]]:
    """The two best local decisions, and the pictures."""
    grid = ground.table.grid
    value = np.where(grid.local, ground.static_utility().mean(1), -np.inf)
    local = np.argsort(-value)[: min(2, int(grid.local.sum()))]
    return local.tolist(), np.flatnonzero(grid.split_point == 0).tolist()


def two_arm_settings(ground: Ground) -> list[PairKnobs]:
    """A local arm, a picture and a rate."""
    return [
        PairKnobs(below=below, above=above, threshold_mbps=rate)
        for below, above, rate in product(*_arms(ground), RULE_THRESHOLDS)
    ]


def best_pair_settings(ground: Ground) -> list[PairKnobs]:
    """The pairs that complement one another best: the better of the two on every stream.

    Of a pair, the one that sends fewer bytes on average is for the slower link.
    """
    table, values = ground.table, ground.static_utility()
    pairs = np.array(list(combinations(range(len(table.grid)), 2)))
    promise = np.maximum(values[pairs[:, 0]], values[pairs[:, 1]]).mean(1)
    sizes = table.mean_bytes[np.maximum(table.grid.payload_index, 0)]
    sent = np.where(table.grid.local, 0.0, table.send_share * sizes)
    chosen = [
        sorted(pair, key=lambda index: sent[index])
        for pair in pairs[np.argsort(-promise)[:NUM_PAIRS]].tolist()
    ]
    return [
        PairKnobs(below=below, above=above, threshold_mbps=rate)
        for (below, above), rate in product(chosen, RULE_THRESHOLDS)
    ]


def busy_skip_settings(ground: Ground) -> list[BusyKnobs]:
    """A local arm, a picture and a rate."""
    return [
        BusyKnobs(local=local, picture=picture, threshold_mbps=rate)
        for local, picture, rate in product(*_arms(ground), RULE_THRESHOLDS)
    ]


def link_settings(ground: Ground) -> list[LinkKnobs]:
    """How the rules without a deadline read the link."""
    return [
        LinkKnobs(newest_weight=weight, safety=safety)
        for weight, safety in product((0.1, 0.3, 0.8), SAFETIES)
    ]


def deadline_settings(ground: Ground) -> list[DeadlineKnobs]:
    """How the rules under a deadline weigh."""
    return [
        DeadlineKnobs(safety=safety, deadline_share=share, latency_weight=weight)
        for safety, share, weight in product(SAFETIES, (1.0, 0.8, 0.6), (0.0, 0.1, 0.3))
    ]


def planner_settings(ground: Ground) -> list[PlannerSettings]:
    """The mean-rate planner: backlog prices and a factor on the rate."""
    return [
        PlannerSettings(
            device_price=device, uplink_price=uplink, occupied_price=occupied, safety=safety
        )
        for (device, uplink, occupied), safety in product(PRICES, SAFETIES)
    ]


def distribution_settings(ground: Ground) -> list[PlannerSettings]:
    """The distribution planner: its backlog prices alone."""
    return [
        PlannerSettings(device_price=device, uplink_price=uplink, occupied_price=occupied)
        for device, uplink, occupied in PRICES
    ]


def two_window_settings(ground: Ground) -> list[PlannerSettings]:
    """The two-window planner: prices, factor and windows."""
    return [
        PlannerSettings(
            device_price=device, uplink_price=uplink, occupied_price=occupied, safety=safety,
            rate_window=rate, rtt_window=rtt,
        )
        for (device, uplink, occupied), safety, (rate, rtt) in product(
            TWO_WINDOW_PRICES, TWO_WINDOW_SAFETIES, WINDOWS
        )
    ]  # fmt: skip


def harmonic_settings(ground: Ground) -> list[PlannerSettings]:
    """The harmonic planners: prices, factor and one window for both."""
    return [
        PlannerSettings(
            device_price=device, uplink_price=uplink, occupied_price=occupied, safety=safety,
            rate_window=window, rtt_window=window,
        )
        for (device, uplink, occupied), safety, window in product(
            TWO_WINDOW_PRICES, SAFETIES, (3, 5, 10)
        )
    ]  # fmt: skip


def bandit_settings(ground: Ground) -> list[BanditKnobs]:
    """Exit threshold, bits and width of the bound."""
    grid = ground.table.grid
    return [
        BanditKnobs(exit_threshold=threshold, bits=bits, alpha=alpha)
        for threshold, bits, alpha in product(grid.thresholds, grid.bits, (0.03, 0.1))
    ]


def transfer_settings(ground: Ground) -> list[TransferKnobs]:
    """The learned planner: its backlog prices; the network is trained before.

    Raises:
        ConfigError: If there is no network.
    """
    if ground.network is None:
        raise ConfigError(
            "learned-transfer-planner must have a trained network; got none; name a controller "
            "that was trained with this version"
        )
    return [
        TransferKnobs(
            network=ground.network,
            device_price=device,
            uplink_price=uplink,
            occupied_price=occupied,
        )
        for device, uplink, occupied in PRICES
    ]


def _threshold_pair(table: CandidateTable, knobs: PairKnobs) -> Policy:
    return ThresholdPair(knobs)


def _two_arm(table: CandidateTable, knobs: PairKnobs) -> Policy:
    return ThresholdPair(knobs, "two-arm")


def _busy_skip(table: CandidateTable, knobs: BusyKnobs) -> Policy:
    return BusySkip(table, knobs)


_SAFETY = frozenset({"safety"})
_PAIR = frozenset({"below", "above", "threshold_mbps"})
_BUSY = frozenset({"local", "picture", "threshold_mbps"})
_LINK = frozenset({"newest_weight", "safety"})
_DEADLINE = frozenset({"safety", "deadline_share", "latency_weight"})
_NONE: frozenset[str] = frozenset()

RIVALS: Mapping[str, Rival] = {
    rival.name: rival
    for rival in (
        Rival("two-arm", "local below a link rate, the compressed picture from it on",
              PairKnobs, _two_arm, two_arm_settings, _PAIR),
        Rival("best-pair", "any two fixed decisions and a link rate between them",
              PairKnobs, _threshold_pair, best_pair_settings, _PAIR),
        Rival("busy-skip", "picture if link and uplink allow it, local if nothing waits, else "
              "the cheapest early exit", BusyKnobs, _busy_skip, busy_skip_settings, _BUSY),
        Rival("neurosurgeon", "least predicted latency over the split points (ASPLOS 2017)",
              LinkKnobs, Neurosurgeon, link_settings, _LINK),
        Rival("dynamic-split", "least head + payload / rate + tail over bottlenecks "
              "(arXiv 2205.11269)", LinkKnobs, DynamicSplit, link_settings, _LINK),
        Rival("spinn", "split point and exit threshold by accuracy and latency under the "
              "deadline (MobiCom 2020)", DeadlineKnobs, Spinn, deadline_settings, _DEADLINE),
        Rival("dyno", "split point and bits, the most accurate that meets the deadline "
              "(TECS 2022)", DeadlineKnobs, Dyno, deadline_settings, _DEADLINE),
        Rival("mulinucb", "linear bandit over the split points, learns while it plays "
              "(WWW 2021)", BanditKnobs, MuLinUcb, bandit_settings, frozenset({"alpha"})),
        Rival("planner", "highest predicted utility at the mean link",
              PlannerSettings, Planner, planner_settings, _SAFETY),
        Rival("harmonic-planner", "highest predicted utility at the harmonic mean rate",
              PlannerSettings, HarmonicPlanner, harmonic_settings, _SAFETY),
        Rival("pessimistic-planner", "highest predicted utility at the harmonic mean rate, lowered "
              "by its largest recent forecast error (RobustMPC)",
              PlannerSettings, PessimisticPlanner, harmonic_settings, _SAFETY),
        Rival("distribution-planner", "highest mean utility over the last 16 requests",
              PlannerSettings, DistributionPlanner, distribution_settings, _NONE),
        Rival("two-window-planner", "highest mean utility over a window of rates and one of delays",
              PlannerSettings, TwoWindowPlanner, two_window_settings, _SAFETY),
        Rival("learned-transfer-planner", "highest mean utility over learned transfer times "
              "(Fugu's idea, NSDI 2020)",
              TransferKnobs, LearnedTransferPlanner, transfer_settings, _NONE),
    )
}  # fmt: skip
"""By name."""

_EARLIER_KEYS = {"distribution-planner": "distribution", "two-window-planner": "two_window"}
"""How controller bundles named the knobs before there were other rivals."""


def knobs_of(name: str, tuned: Mapping[str, Any]) -> Any:
    """A rival's knobs among those picked on the training traces; its defaults, if it has any.

    Raises:
        ConfigError: If there are none, or they are not the rival's.
    """
    if lacks_knobs(name, tuned):
        hindsight = f", or name {name}-hindsight" if RIVALS[name].knobs is not TransferKnobs else ""
        raise ConfigError(
            f"{name} must be tuned; got a controller without its knobs; train one with this "
            f"version{hindsight}"
        )
    found = _found(name, tuned) or {}
    try:
        return RIVALS[name].knobs(**found)
    except TypeError as error:
        raise ConfigError(f"knobs of the {name} must be its settings; got {found!r}") from error


def lacks_knobs(name: str, tuned: Mapping[str, Any]) -> bool:
    """Whether a rival has neither knobs among the tuned ones nor defaults."""
    plain = all(field.default is not MISSING for field in fields(RIVALS[name].knobs))
    return not plain and _found(name, tuned) is None


def _found(name: str, tuned: Mapping[str, Any]) -> Mapping[str, Any] | None:
    found: Mapping[str, Any] | None = tuned.get(name, tuned.get(_EARLIER_KEYS.get(name, name)))
    return found


def make_rival(name: str, table: CandidateTable, tuned: Mapping[str, Any]) -> Policy:
    """Build a rival with the knobs picked on the training traces.

    Args:
        name: One of `RIVALS`.
        table: What it decides with.
        tuned: What `tune_rivals` found, or a controller bundle's `tuned`.
    """
    return RIVALS[name].build(table, knobs_of(name, tuned))
