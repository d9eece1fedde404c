"""One scenario to train for: its tuned rivals and its validation streams, before and after."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import product
from typing import Any, TypeVar

import numpy as np

from adaptive_split.agents.baselines import Static
from adaptive_split.agents.evaluate import lane_utility, mean_utility
from adaptive_split.agents.future import learn_future
from adaptive_split.agents.rivals import make_rival
from adaptive_split.agents.roster import BEST_STATIC, LEARNED
from adaptive_split.agents.tune import tune_rivals
from adaptive_split.candidates import CandidateTable, Floats
from adaptive_split.planner import BacklogPrices
from adaptive_split.runtime.controller import ForecastController, ForecastWeights, PlannerSettings
from adaptive_split.runtime.simulated.streams import Stream, StreamSource
from adaptive_split.scenario import Scenario
from adaptive_split.trace import Trace

GUARD_MARGINS = (None, 0.01)
"""Margins tried for the guard on the validation streams; none = no guard."""
SETTLED_PRICES = tuple(product((0.1, 0.3), ((0.03, 0.0), (0.1, 0.0), (0.0, 0.03), (0.03, 0.02))))
"""Backlog prices, device and (uplink, occupied), tried besides the distribution planner's."""
FINALISTS = 3
"""Prices that are compared on all validation streams."""
TRUSTS = (1.0, 0.5)
"""Factors tried on the learned correction of the planner's log odds."""
FUTURES = (0.0, 1.0)
"""Factors tried on the learned future; with 0 it costs no time when deciding."""
WORTH = 0.0005
"""Utility by which adapting must beat the best static decision on validation to be used at all."""
SURE = 2.0
"""Standard errors, over streams, by which it must do so."""
DISTRIBUTION = "distribution-planner"
Setting = TypeVar("Setting")
BAR = (DISTRIBUTION, "two-window-planner")
"""Rivals that a controller must beat on validation to be exported."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """A scenario with what was tuned for it on the training traces."""

    scenario: Scenario
    table: CandidateTable
    """On the `policy` half of the pictures."""
    tuned: Mapping[str, Any]
    """Knobs of the rivals, plain values; see `tune.tune_rivals`."""
    streams: tuple[Stream, ...]
    """Validation streams: checkpoints, prices and guards are chosen on them."""

    @property
    def few(self) -> tuple[Stream, ...]:
        """Every other validation stream: on them checkpoints, and prices first, are compared."""
        return self.streams[::2]

    @property
    def prices(self) -> BacklogPrices:
        """Backlog prices of the tuned distribution planner: training begins with them."""
        return PlannerSettings(**self.tuned[DISTRIBUTION]).prices

    @property
    def static(self) -> int:
        """The best static decision on the training traces."""
        return int(self.tuned[BEST_STATIC]["candidate"])

    @cached_property
    def planner_utility(self) -> float:
        """Utility of the tuned distribution planner on the few validation streams."""
        planner = make_rival(DISTRIBUTION, self.table, self.tuned)
        return mean_utility(planner, self.table, self.few)

    def utility_of(self, name: str) -> float:
        """Validation utility of a tuned rival, or of the best static decision."""
        if name == BEST_STATIC:
            return mean_utility(Static(self.static), self.table, self.streams)
        return mean_utility(make_rival(name, self.table, self.tuned), self.table, self.streams)

    def utility(self, weights: ForecastWeights) -> float:
        """Utility of networks, with the planner's prices and no guard, on the few streams."""
        controller = ForecastController(self.table, weights, self.prices)
        return mean_utility(controller, self.table, self.few)


@dataclass(frozen=True, slots=True)
class Settled:
    """How the networks are used in one scenario; picked on its validation streams."""

    weights: ForecastWeights
    """The networks, trusted as far as validation allows."""
    trust: float
    """Factor on their correction of the planner's log odds."""
    future: float
    """Factor on the learned future; 0 where none was learned."""
    prices: BacklogPrices
    guard_margin: float | None
    """Margin by which a decision must beat the best static one; none = no guard."""
    adapts: bool
    """False where nothing can be won: the best static decision always, and no probes."""
    validation: Mapping[str, float]
    """Utility on the validation streams: `sac`, the best static decision and the bar."""

    @property
    def wins(self) -> bool:
        """Whether the controller is at least as good as the static decision and the planners."""
        rivals = (BEST_STATIC, *BAR)
        return all(self.validation[LEARNED] >= self.validation[name] for name in rivals)


def prepare(
    scenario: Scenario,
    train_traces: Sequence[Trace],
    validation_traces: Sequence[Trace],
    *,
    tuning_per_family: int,
    validation_per_family: int,
    seed: int = 0,
    say: Callable[[str], None] = lambda _: None,
) -> Task:
    """Tune the rivals on training traces and draw the validation streams.

    Args:
        scenario: What is decided and promised.
        train_traces: Traces that rivals are tuned on; the `policy` half of the pictures is used.
        validation_traces: Other traces.
        tuning_per_family: Streams of each link family to tune on.
        validation_per_family: Streams of each link family to validate on.
        seed: Picks the streams.
        say: Called with a line for each rival.
    """
    table = scenario.table("policy")
    tuning = StreamSource(scenario, table.outcomes, train_traces)
    say(f"tuning the rivals for {scenario.name}")
    tuned = tune_rivals(table, tuning.draw_evenly(tuning_per_family, seed), say)
    checking = StreamSource(scenario, table.outcomes, validation_traces)
    streams = tuple(checking.draw_evenly(validation_per_family, seed + 1))
    return Task(scenario=scenario, table=table, tuned=tuned, streams=streams)


def settle(
    task: Task, weights: ForecastWeights, traces: Sequence[Trace] | None = None, seed: int = 0
) -> Settled:
    """Pick prices, trust, future, guard and probes for networks that may not know the scenario.

    The forecast sees neither prices nor guard, so it need not be trained again. One knob is picked
    after the other: the prices that bring most; full trust, no future and no guard unless another
    setting is better by more than a standard error.

    Args:
        task: The scenario.
        weights: The networks; a residual among them is left out.
        traces: Training traces, to learn the future part of values by rollouts with the prices
            picked; without any, there is no future part.
        seed: Of that learning.
    """

    @cache
    def values(
        prices: BacklogPrices,
        networks: ForecastWeights,
        margin: float | None = None,
        streams: tuple[Stream, ...] = task.streams,
    ) -> Floats:
        controller = ForecastController(
            task.table, networks, prices,
            guard_candidate=None if margin is None else task.static, guard_margin=margin or 0.0,
        )  # fmt: skip
        return lane_utility(controller, task.table, streams)

    trusted = {trust: with_future(scaled(weights, trust), 0.0) for trust in TRUSTS}
    tried = [
        BacklogPrices(device=device, uplink=uplink, occupied=occupied)
        for device, (uplink, occupied) in SETTLED_PRICES
    ]
    plain, few = trusted[TRUSTS[0]], task.few
    finalists = sorted(
        dict.fromkeys([task.prices, *tried]),
        key=lambda prices: -values(prices, plain, None, few).mean(),
    )[:FINALISTS]
    prices = max(finalists, key=lambda prices: values(prices, plain).mean())
    trust = _surely_best(TRUSTS, lambda factor: values(prices, trusted[factor]))
    futures = {0.0: trusted[trust]}
    if traces is not None:
        source = StreamSource(task.scenario, task.table.outcomes, traces)
        controller = ForecastController(task.table, trusted[trust], prices)
        learned = learn_future(controller, source, seed)
        futures |= {factor: with_future(learned, factor) for factor in FUTURES if factor}
    future = _surely_best(tuple(futures), lambda factor: values(prices, futures[factor]))
    margin = _surely_best(GUARD_MARGINS, lambda option: values(prices, futures[future], option))
    best = float(values(prices, futures[future], margin).mean())
    static = lane_utility(Static(task.static), task.table, task.streams)
    gain = values(prices, futures[future], margin) - static
    least = max(WORTH, SURE * float(gain.std()) / len(gain) ** 0.5)
    validation = {name: task.utility_of(name) for name in (BEST_STATIC, *BAR)}
    adapts = float(gain.mean()) >= least
    validation[LEARNED] = best if adapts else validation[BEST_STATIC]
    return Settled(futures[future], trust, future, prices, margin, adapts, validation)


def _surely_best(settings: Sequence[Setting], play: Callable[[Setting], Floats]) -> Setting:
    """The setting that brings most; the first one unless that is a standard error better."""
    best = max(settings, key=lambda setting: play(setting).mean())
    gain = play(best) - play(settings[0])
    return best if gain.mean() > gain.std() / len(gain) ** 0.5 else settings[0]


def scaled(weights: ForecastWeights, trust: float) -> ForecastWeights:
    """The same networks with their correction of the planner's log odds times a factor."""
    *layers, last, bias = weights.forecast
    return replace(weights, forecast=(*layers, last * np.float32(trust), bias * np.float32(trust)))


def with_future(weights: ForecastWeights, factor: float) -> ForecastWeights:
    """The same networks with the future part of the values times a factor."""
    *layers, last, bias = weights.residual
    return replace(
        weights, residual=(*layers, last * np.float32(factor), bias * np.float32(factor))
    )
