"""Settling a controller in a scenario: prices, trust, guard, and whether to adapt at all."""

from dataclasses import replace

import numpy as np
import pytest

from adaptive_split.agents import task as module
from adaptive_split.agents.baselines import Static
from adaptive_split.agents.evaluate import mean_utility
from adaptive_split.agents.task import BAR, Settled, Task, prepare, scaled, settle, with_future
from adaptive_split.decision import NEVER, Decision
from adaptive_split.objective import Objective
from adaptive_split.observation import observe
from adaptive_split.planner import BacklogPrices
from adaptive_split.runtime.controller import (
    DistributionPlanner,
    ForecastController,
    PlannerSettings,
    forecast,
)
from adaptive_split.runtime.simulated.streams import StreamSource
from tests import support

LOCAL = support.GRID.index(Decision(3, NEVER, 0))


def steady(family, mbps):
    """A link that never changes."""
    trace = support.trace(0, family)
    level = np.full(len(trace.time_s), mbps)
    return replace(trace, name=family, uplink_mbps=level, rtt_s=0 * level + 0.02)


def task(tmp_path, objective, traces):
    """A task with the local decision as the best static one and untuned planners."""
    scenario = support.scenario(tmp_path, objective, num_frames=10)
    table = scenario.table("policy")
    tuned = {
        "best-static": {"candidate": LOCAL},
        "distribution-planner": {"device_price": 0.2, "uplink_price": 0.05},
        "two-window-planner": {},
    }
    streams = StreamSource(scenario, table.outcomes, traces).draw_evenly(8, 0)
    return Task(scenario=scenario, table=table, tuned=tuned, streams=tuple(streams))


@pytest.fixture
def worth_it(tmp_path):
    """Some links are dead, the others fast."""
    objective = Objective(slo_s=0.2, fps=5.0)
    return task(tmp_path, objective, [steady("dead", 0.0), steady("fast", 40.0)])


@pytest.fixture
def pointless(tmp_path):
    """Sending costs more than any answer brings, and the device keeps up with the camera."""
    objective = Objective(slo_s=0.2, fps=5.0, byte_price=1_000.0)
    return task(tmp_path, objective, [steady("fast", 40.0)])


def test_training_begins_with_the_prices_of_the_tuned_planner(worth_it):
    assert worth_it.prices == BacklogPrices(device=0.2, uplink=0.05)


def test_what_the_rivals_bring_is_played_with_their_tuned_knobs(worth_it):
    table, streams = worth_it.table, worth_it.streams
    knobs = PlannerSettings(device_price=0.2, uplink_price=0.05)

    planner = DistributionPlanner(table, knobs)

    assert worth_it.utility_of("distribution-planner") == mean_utility(planner, table, streams)
    assert worth_it.planner_utility == mean_utility(planner, table, worth_it.few)
    assert worth_it.utility_of("best-static") == mean_utility(Static(LOCAL), table, streams)


def test_networks_are_validated_with_the_prices_of_training(worth_it):
    weights = support.weights(seed=1)
    controller = ForecastController(worth_it.table, weights, worth_it.prices)

    found = worth_it.utility(weights)

    assert found == mean_utility(controller, worth_it.table, worth_it.few)


def test_the_few_streams_hold_every_family_alike(worth_it):
    assert [stream.family for stream in worth_it.few] == 4 * ["dead"] + 4 * ["fast"]


@pytest.mark.parametrize("trust", [1.0, 0.5, 0.0])
def test_trust_scales_what_the_networks_add_to_the_log_odds(trust):
    table, weights = support.table(), support.weights(seed=2)
    view = observe(table, support.moment(lanes=20), BacklogPrices())

    def odds(networks):
        chance = forecast(networks, view.context, view.payloads)
        return np.log(chance / (1 - chance)) - view.payloads[:, :, 0]

    np.testing.assert_allclose(odds(scaled(weights, trust)), trust * odds(weights), atol=1e-4)
    assert scaled(weights, trust).residual is weights.residual


@pytest.mark.slow
def test_where_adapting_pays_the_settled_controller_brings_what_validation_says(worth_it):
    found = settle(worth_it, support.weights())

    controller = ForecastController(
        worth_it.table, found.weights, found.prices,
        guard_candidate=None if found.guard_margin is None else worth_it.static,
        guard_margin=found.guard_margin or 0.0,
    )  # fmt: skip
    again = mean_utility(controller, worth_it.table, worth_it.streams)
    assert found.adapts
    assert (found.trust, found.future, found.guard_margin) == (1.0, 0.0, None)
    assert found.validation["sac"] == again
    assert found.validation["sac"] > found.validation["best-static"] + 0.01
    assert set(found.validation) == {"sac", "best-static", *BAR}


@pytest.mark.slow
def test_where_nothing_can_be_won_the_best_static_decision_is_kept(pointless):
    found = settle(pointless, support.weights())

    assert not found.adapts
    assert found.validation["sac"] == found.validation["best-static"]
    assert found.wins


@pytest.mark.slow
def test_networks_that_mislead_are_trusted_less(worth_it):
    honest = support.weights()
    *layers, bias = honest.forecast
    # On a dead link the planner's log odds are -5.
    misled = replace(honest, forecast=(*layers, bias + np.float32(9.0)))

    trusting = ForecastController(worth_it.table, misled, worth_it.prices)
    found = settle(worth_it, misled)

    assert found.trust < 1.0
    assert found.validation["sac"] > mean_utility(trusting, worth_it.table, worth_it.streams)


@pytest.mark.slow
def test_a_future_that_misleads_is_left_out(worth_it, monkeypatch):
    asked = []

    def learn_future(controller, source, seed):
        asked.append((controller.prices, sorted(source.families), seed))
        noise = support.weights(seed=1).residual
        return replace(controller.weights, residual=tuple(100 * layer for layer in noise))

    monkeypatch.setattr(module, "learn_future", learn_future)
    found = settle(worth_it, support.weights(), [steady("slow", 1.0)], seed=7)

    assert asked == [(found.prices, ["slow"], 7)]
    assert found.future == 0.0
    assert not np.any(found.weights.residual[-2])
    assert not np.any(found.weights.residual[-1])


@pytest.mark.slow
def test_a_future_that_helps_is_kept(worth_it, monkeypatch):
    honest = support.weights()
    *layers, bias = honest.forecast
    # Trusted in any degree, these networks send on dead links; the future part forbids sending.
    misled = replace(honest, forecast=(*layers, bias + np.float32(50.0)))

    def learn_future(controller, source, seed):
        columns = [np.zeros_like(layer) for layer in controller.weights.residual]
        columns[0][-2, 0] = columns[2][0, 0] = 1.0
        columns[4][0, 0] = -2.0
        return replace(controller.weights, residual=tuple(columns))

    monkeypatch.setattr(module, "learn_future", learn_future)
    found = settle(worth_it, misled, [steady("slow", 1.0)])

    assert found.future > 0.0
    assert np.any(found.weights.residual[-2])


@pytest.mark.parametrize("factor", [1.0, 0.5, 0.0])
def test_the_future_part_of_values_is_scaled(factor):
    table, weights = support.table(), support.weights(seed=2)
    view = observe(table, support.moment(lanes=20), BacklogPrices())

    def values(future):
        controller = ForecastController(table, with_future(weights, future), BacklogPrices())
        return controller.values(view)

    apart = values(factor) - values(0.0)
    np.testing.assert_allclose(apart, factor * (values(1.0) - values(0.0)), atol=1e-5)


@pytest.mark.parametrize(
    ("sac", "wins"), [(0.61, True), (0.60, True), (0.595, False), (0.45, False)]
)
def test_a_controller_wins_that_falls_behind_no_rival(sac, wins):
    validation = {"sac": sac, "best-static": 0.5, BAR[0]: 0.58, BAR[1]: 0.60}

    settled = Settled(support.weights(), 1.0, 0.0, BacklogPrices(), None, True, validation)

    assert settled.wins == wins


def test_rivals_are_tuned_on_training_traces_and_validation_is_on_others(tmp_path, monkeypatch):
    scenario, told = support.scenario(tmp_path, num_frames=10), []

    def tune(table, streams, say):
        say("tuned")
        return {"best-static": {"candidate": LOCAL}, "tuned on": [s.name for s in streams]}

    monkeypatch.setattr(module, "tune_rivals", tune)
    learning = [support.trace(seed, family) for seed, family in enumerate("aab")]
    checking = [support.trace(10 + seed, family) for seed, family in enumerate("ab")]

    found = prepare(
        scenario, learning, checking, tuning_per_family=3, validation_per_family=2, say=told.append
    )

    assert sorted(set(found.tuned["tuned on"])) == ["toy-0", "toy-1", "toy-2"]
    assert len(found.tuned["tuned on"]) == 2 * 3
    assert [stream.name for stream in found.streams] == ["toy-10"] * 2 + ["toy-11"] * 2
    assert found.static == LOCAL
    assert told == ["tuning the rivals for toy", "tuned"]
