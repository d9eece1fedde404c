"""One lane decides as a batch does, only faster."""

from dataclasses import replace

import numpy as np
import pytest

from adaptive_split.agents.roster import make_policy
from adaptive_split.cli.common import shipped_controller
from adaptive_split.objective import Objective
from adaptive_split.observation import observe
from adaptive_split.planner import (
    BacklogPrices,
    combine,
    link_pairs,
    read_link,
    utility_terms,
)
from adaptive_split.runtime.controller import (
    DistributionPlanner,
    ForecastController,
    Planner,
    PlannerSettings,
    TwoWindowPlanner,
)
from adaptive_split.runtime.controller_bundle import ControllerBundle
from adaptive_split.runtime.one_lane import Now
from adaptive_split.runtime.one_lane_policies import for_one_lane
from adaptive_split.scenario import load_scenario
from tests import support
from tests.unit.test_older_controllers import older

PRICES = BacklogPrices(device=0.4, uplink=0.2, occupied=0.07)
SETTINGS = PlannerSettings(
    device_price=0.4, uplink_price=0.2, occupied_price=0.07, safety=0.7, rate_window=4, rtt_window=2
)
TABLE = support.table(Objective(slo_s=0.15, fps=13.0, byte_price=0.3, energy_price=0.1))


def without_residual(weights):
    """The same networks; nothing added to the planner's formula."""
    return replace(weights, residual=tuple(0 * layer for layer in weights.residual))


def anything(seed, lanes=1):
    """A moment as a run may bring it: few samples, overdue requests, no time left, no server."""
    generator = np.random.default_rng(seed)
    samples = int(generator.choice([0, 1, 3, 4, 9, 16, 16, 16]))
    overdue = generator.random(lanes) < 0.5
    slowdown = np.exp(generator.normal(0, 0.4, (lanes, 16)))
    confidences = generator.random((lanes, 8))
    confidences[:, generator.integers(0, 9) :] = np.nan
    return support.moment(
        lanes, seed, samples,
        slack_s=generator.uniform(-0.05, 0.25, lanes), gap_s=generator.uniform(-0.02, 0.06, lanes),
        waiting=generator.integers(0, 4, lanes), timeouts=generator.integers(0, 5, lanes),
        uplink_busy_s=generator.choice([0.0, 0.02, 0.5], lanes),
        device_slowdown=np.exp(generator.normal(0, 0.3, lanes)), soc=generator.random(lanes),
        mission_ratio=np.exp(generator.normal(0, 1, lanes)),
        energy_price=generator.choice([0.0, 0.05, 0.3], lanes),
        server_usable=generator.random(lanes) < 0.9,
        sample_slowdown=np.where(np.arange(16) < samples, slowdown, np.nan),
        unanswered_s=np.where(overdue, generator.exponential(0.1, lanes), 0.0),
        unanswered_bytes=np.where(overdue, generator.integers(300, 30_000, lanes), 0.0),
        confidences=confidences,
    )  # fmt: skip


def compare(controller, num_moments):
    """Values equal but for the rounding of single precision; choices, but for equal values."""
    quick = for_one_lane(controller)
    for seed in range(num_moments):
        moment = anything(seed)
        values = controller.values(observe(controller.table, moment, controller.prices))[0]
        chosen, expected = quick.choose(moment)[0], controller.choose(moment)[0]

        np.testing.assert_allclose(quick.values(Now.of(moment))[0], values, atol=1e-6)
        assert values[chosen] == pytest.approx(values[expected], abs=1e-9)


@pytest.mark.parametrize("columns", [37, 38])
def test_one_lane_has_the_values_of_a_batch(columns):
    weights = older(without_residual(support.weights(seed=columns)), columns)

    compare(ForecastController(TABLE, weights, PRICES), 60)


def test_one_lane_obeys_the_guard():
    weights = without_residual(support.weights(seed=2))
    guarded = ForecastController(TABLE, weights, PRICES, guard_candidate=4, guard_margin=0.05)
    chosen = [for_one_lane(guarded).choose(anything(seed))[0] for seed in range(60)]

    assert chosen == [guarded.choose(anything(seed))[0] for seed in range(60)]
    assert 0 < chosen.count(4) < 60


@pytest.mark.slow
@pytest.mark.parametrize(("name", "count"), [("default", 2000), ("nano-light-30fps-100ms", 500)])
def test_shipped_controllers_decide_on_one_lane_as_in_a_batch(name, count):
    scenario = load_scenario(name)
    bundle = ControllerBundle.load(shipped_controller(scenario))

    compare(bundle.controller(scenario.table("policy")), count)


@pytest.mark.parametrize("kind", [Planner, DistributionPlanner, TwoWindowPlanner])
@pytest.mark.parametrize("settings", [PlannerSettings(), SETTINGS])
def test_planners_decide_on_one_lane_as_in_a_batch(kind, settings):
    """What the batch takes is worth as much as the best, if it is not the same."""
    planner = kind(TABLE, settings)
    quick = for_one_lane(planner)
    chosen = set()
    for seed in range(200):
        moment = anything(seed)
        values, expected = quick.values(Now.of(moment))[0], planner.choose(moment)[0]
        chosen.add(int(quick.choose(moment)[0]))

        assert values[expected] == pytest.approx(values.max(), abs=1e-9)

    assert (quick.name, quick.probes) == (planner.name, planner.probes)
    assert len(chosen) > 3


def test_one_lane_expects_what_the_planner_does():
    quick = for_one_lane(DistributionPlanner(TABLE, SETTINGS))
    for seed in range(200):
        moment = anything(seed)
        readings = read_link(TABLE, moment, *link_pairs(moment))
        base, gain = utility_terms(TABLE, moment, PRICES, readings)

        expected = combine(TABLE, base, gain, readings.share())

        np.testing.assert_allclose(quick.values(Now.of(moment)), expected, atol=1e-9)


@pytest.mark.parametrize(
    "policy",
    [
        make_policy("local", TABLE, None),
        ForecastController(TABLE, support.weights(), PRICES, kept=3),
        ForecastController(TABLE, support.weights(seed=1), PRICES),
    ],
    ids=["a fixed decision", "a kept decision", "a residual"],
)
def test_other_policies_stay_as_they_are(policy):
    assert for_one_lane(policy) is policy


def test_a_moment_of_one_lane_comes_back_from_python_unchanged():
    for seed in range(30):
        moment = anything(seed)

        back = Now.of(moment).moment()

        for name in moment.__slots__:
            np.testing.assert_array_equal(getattr(back, name), getattr(moment, name), err_msg=name)
