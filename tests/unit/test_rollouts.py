"""Alternatives are played out under the same conditions, and what they bring is learned."""

from dataclasses import replace

import numpy as np
import pytest

from adaptive_split.agents import future as module
from adaptive_split.agents.future import fit, learn_future
from adaptive_split.agents.rollouts import (
    EVERY,
    HORIZON_S,
    NUM_ALTERNATIVES,
    UNPRICED,
    Rollouts,
    joined,
    roll_out,
)
from adaptive_split.observation import observe
from adaptive_split.planner import BacklogPrices
from adaptive_split.runtime.controller import ForecastController, value_residual
from adaptive_split.runtime.simulated.simulator import Simulator
from adaptive_split.runtime.simulated.streams import StreamSource
from tests import support

LENGTH = 26
PRICES = BacklogPrices(device=0.2, uplink=0.05)


@pytest.fixture(scope="module")
def controller():
    return ForecastController(support.table(), support.weights(), PRICES)


@pytest.fixture(scope="module")
def streams():
    return [support.stream(LENGTH, seed) for seed in range(4)]


@pytest.fixture(scope="module")
def rollouts(controller, streams):
    return roll_out(controller, streams, np.random.default_rng(0))


def test_a_copy_of_a_simulator_goes_on_alike_and_leaves_the_original_alone(controller, streams):
    simulator = Simulator(controller.table, streams)
    for _ in range(5):
        simulator.step(controller.choose(simulator.moment()))

    twin = simulator.copy()
    ahead = [twin.step(controller.choose(twin.moment())).utility for _ in range(6)]
    behind = [simulator.step(controller.choose(simulator.moment())).utility for _ in range(6)]

    np.testing.assert_array_equal(ahead, behind)


def test_a_copy_can_have_every_lane_several_times(controller, streams):
    simulator = Simulator(controller.table, streams)
    for _ in range(5):
        simulator.step(controller.choose(simulator.moment()))
    choice = controller.choose(simulator.moment())

    twice = simulator.copy(2)
    utility = twice.step(np.tile(choice, 2)).utility

    np.testing.assert_array_equal(utility, np.tile(simulator.step(choice).utility, 2))
    np.testing.assert_array_equal(twice.frame_index, np.tile(simulator.frame_index, 2))


def test_the_first_choice_is_the_controllers_own(controller, streams, rollouts):
    simulator = Simulator(controller.table, streams)
    view = observe(controller.table, simulator.moment(), PRICES)
    values = controller.values(view)

    first = slice(len(streams))
    np.testing.assert_allclose(rollouts.values[first, 0], values.max(1), rtol=1e-6)
    np.testing.assert_array_equal(rollouts.context[first], view.context.astype(np.float32))
    assert (rollouts.values[:, 1:] <= rollouts.values[:, :1]).all()
    assert rollouts.values.shape[1] == 1 + NUM_ALTERNATIVES


def test_values_leave_a_learned_future_out(controller, streams, rollouts):
    generator = np.random.default_rng(1)
    layers = [generator.normal(0, 0.1, layer.shape) for layer in controller.weights.residual]
    residual = tuple(layer.astype(np.float32) for layer in layers)
    weights = replace(controller.weights, residual=residual)
    taught = ForecastController(controller.table, weights, PRICES)

    found = roll_out(taught, streams, np.random.default_rng(0))

    simulator = Simulator(controller.table, streams)
    view = observe(controller.table, simulator.moment(), PRICES)
    lane, chosen = np.arange(len(streams)), taught.values(view).argmax(1)
    assert (found.values[: len(streams), 0] < rollouts.values[: len(streams), 0]).any()
    np.testing.assert_allclose(
        found.values[: len(streams), 0], controller.values(view)[lane, chosen], rtol=1e-5
    )


def test_what_is_not_sent_has_no_payload(rollouts):
    assert rollouts.sends.any()
    assert not rollouts.sends.all()
    assert not rollouts.payloads[~rollouts.sends].any()
    assert not rollouts.chance[~rollouts.sends].any()
    assert rollouts.payloads[rollouts.sends].any(1).all()


def test_a_return_is_the_expected_utility_of_the_frames_captured_within_the_horizon(
    controller, streams, rollouts
):
    simulator = Simulator(controller.table, streams)
    horizon = round(HORIZON_S * controller.table.objective.fps)
    total, lane = np.zeros(len(streams)), np.arange(len(streams))

    while (simulator.frame_index < horizon).any():
        chosen = controller.choose(simulator.moment())
        values = simulator.true_utility(simulator.moment(), UNPRICED)[lane, chosen]
        total += np.where(simulator.frame_index < horizon, values, 0.0)
        simulator.step(chosen)

    np.testing.assert_allclose(rollouts.returns[: len(streams), 0], total, rtol=1e-5)


def test_older_frames_that_are_decided_later_count_too_and_newer_ones_decided_before_do_not(
    controller,
):
    # The newest frame goes first, so that indices of decided frames go up and down.
    streams = [support.stream(60, seed) for seed in range(12)]
    horizon, lane = round(HORIZON_S * controller.table.objective.fps), np.arange(12)
    simulator, decided = Simulator(controller.table, streams), []
    while not simulator.done.all():
        moment, frame = simulator.moment(), simulator.frame_index.copy()
        chosen = controller.choose(moment)
        values = simulator.true_utility(moment, UNPRICED)[lane, chosen] * ~simulator.done
        decided.append((frame, values))
        simulator.step(chosen)

    found = roll_out(controller, streams, np.random.default_rng(0)).returns[:, 0]

    for first, own in zip(range(0, len(decided), EVERY), found.reshape(-1, 12), strict=False):
        end = decided[first][0] + horizon
        total = sum(np.where(frame < end, values, 0.0) for frame, values in decided[first:])
        np.testing.assert_allclose(own, total, rtol=1e-5)


def test_moments_lie_apart_and_have_the_whole_horizon_before_them(controller, streams):
    found = roll_out(controller, streams, np.random.default_rng(0))

    longest = LENGTH - round(HORIZON_S * controller.table.objective.fps)
    assert len(streams) <= len(found.context) <= (longest // EVERY + 1) * len(streams)


def test_streams_shorter_than_the_horizon_still_teach(controller):
    short = [support.stream(10, seed) for seed in range(3)]

    assert len(roll_out(controller, short, np.random.default_rng(0)).context) == 3


def test_equal_generators_roll_out_the_same(controller, streams, rollouts):
    again = roll_out(controller, streams, np.random.default_rng(0))

    np.testing.assert_array_equal(again.returns, rollouts.returns)
    np.testing.assert_array_equal(again.candidates, rollouts.candidates)


def busy_costs(rollouts, price):
    """The same moments where all that counts beyond the values is a price of the device's time."""
    busy = rollouts.candidates[:, :, 3]
    return replace(rollouts, returns=rollouts.values - price * busy)


def learned_parts(weights, rollouts):
    """Residual of every choice above that of the first, `(M, K - 1)`."""
    rows = rollouts.payloads, rollouts.candidates, rollouts.chance
    index = np.arange(rollouts.sends.shape[1])
    found = value_residual(weights, rollouts.context, *rows, index)
    return found[:, 1:] - found[:, :1]


@pytest.mark.slow
def test_the_residual_learns_what_the_values_leave_out(controller, rollouts):
    costly = busy_costs(rollouts, 0.4)
    missing = costly.returns - costly.values

    weights = fit(controller.weights, joined([costly] * 1000), seed=0)

    learned, wanted = learned_parts(weights, rollouts), missing[:, 1:] - missing[:, :1]
    assert np.corrcoef(learned.ravel(), wanted.ravel())[0, 1] > 0.9
    assert np.abs(learned - wanted).mean() < 0.3 * np.abs(wanted).mean()


def test_without_anything_to_learn_the_residual_stays_small(controller, rollouts):
    weights = fit(controller.weights, busy_costs(rollouts, 0.0), seed=0)

    assert np.abs(learned_parts(weights, rollouts)).max() < 0.02


@pytest.mark.slow
def test_the_future_is_learned_from_the_seed_and_leaves_the_forecast_alone(
    controller, tmp_path, monkeypatch
):
    monkeypatch.setattr(module, "PER_FAMILY", 2)
    scenario = support.scenario(tmp_path, num_frames=20)
    source = StreamSource(scenario, controller.table.outcomes, [support.trace()])

    one, same, other = (learn_future(controller, source, seed) for seed in (0, 0, 1))

    assert one.forecast is controller.weights.forecast
    assert np.any(one.residual[-2])
    np.testing.assert_array_equal(one.residual[0], same.residual[0])
    assert np.any(one.residual[0] != other.residual[0])


def test_moments_of_several_rollouts_are_joined(rollouts):
    both = joined([rollouts, rollouts])

    assert isinstance(both, Rollouts)
    np.testing.assert_array_equal(both.returns, np.tile(rollouts.returns, (2, 1)))
