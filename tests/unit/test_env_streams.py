"""What the environments take over from their streams: battery, heat, prices and the pictures."""

from dataclasses import replace

import numpy as np
import pytest

from adaptive_split.decision import NEVER, Decision
from adaptive_split.envs.split_env import SplitEnv, make_trace_env
from adaptive_split.envs.vector_env import TraceVectorEnv
from adaptive_split.runtime.simulated.backend import SimulatorBackend
from adaptive_split.scenario import Battery, Thermal
from tests import support

TRACES = [support.trace(0)]
LOCAL = support.GRID.index(Decision(3, NEVER, 0))
PICTURE = support.GRID.index(Decision(0, NEVER, 8))
BATTERY = Battery(capacity_j=3.0, idle_w=0.0)
THERMAL = Thermal(
    ambient_c=25.0, resistance_c_per_w=10.0, time_constant_s=0.2, throttle_at_c=35.0,
    resume_below_c=30.0, slowdown=1.5,
)  # fmt: skip


@pytest.fixture
def scenario(tmp_path):
    return support.scenario(tmp_path)


def rollout(env, action=LOCAL):
    """Rewards, infos and the views in between, until the stream is over."""
    env.reset(seed=0)
    rewards, infos, views, done = [], [], [env.view], False
    while not done:
        _, reward, _, done, info = env.step(action)
        rewards.append(reward)
        infos.append(info)
        views.append(env.view)
    return rewards, infos, views


def test_an_environment_ends_when_the_battery_of_its_scenario_is_empty(scenario):
    env = make_trace_env(replace(scenario, battery=BATTERY), TRACES)

    rewards, infos, views = rollout(env)

    # Every frame takes 4 W for as long as the three stages and exits: .48 J, and 7 of them 3.36 J.
    joules = 4.0 * env.table.head_s[3]
    assert len(rewards) == np.ceil(3.0 / joules) == 7
    charge = [float(view.moment.soc[0]) for view in views[:-1]]
    np.testing.assert_allclose(charge, 1 - np.arange(7) * joules / 3.0)
    settled = [report for info in infos for report in info["settled"]]
    assert sorted(report["frame_index"] for report in settled) == list(range(40))


def test_an_environment_throttles_as_its_scenario_says(scenario):
    env = make_trace_env(replace(scenario, thermal=THERMAL), TRACES)

    _, _, views = rollout(env)

    seen = [float(view.moment.device_slowdown[0]) for view in views]
    assert seen[0] == 1.0
    assert set(seen) == {1.0, 1.5}


def test_without_either_charge_and_speed_stay_what_they_are(scenario):
    _, _, views = rollout(make_trace_env(scenario, TRACES))

    assert {float(view.moment.soc[0]) for view in views} == {1.0}
    assert {float(view.moment.device_slowdown[0]) for view in views} == {1.0}


def test_lanes_end_with_their_battery_and_start_again_full_and_cool(scenario):
    powered = replace(scenario, battery=BATTERY, thermal=THERMAL)
    env = TraceVectorEnv(powered, TRACES, 2)
    env.reset(seed=0)
    ends, charge, slowdown = [], [], []

    for _ in range(9):
        *_, ended, _ = env.step(np.array([LOCAL, PICTURE]))
        ends.append(ended[0])
        charge.append(env.view.moment.soc[0])
        slowdown.append(env.view.moment.device_slowdown[0])

    over = ends.index(True)
    assert 0 < charge[over - 1] < 0.3
    assert (charge[over], slowdown[over]) == (1.0, 1.0)
    assert max(slowdown[:over]) == 1.5


@pytest.mark.parametrize("attribution", ["exact", "settled"])
def test_reward_and_terms_keep_to_the_price_of_the_stream(scenario, attribution):
    dear = replace(support.stream(40), energy_price=0.4)
    table = scenario.table("policy")
    env = SplitEnv(SimulatorBackend(table, lambda seed: dear), table, attribution=attribution)

    rewards, infos, _ = rollout(env, PICTURE)

    settled = [report for info in infos for report in info["settled"]]
    utility = sum(report["utility"] for report in settled)
    joules = sum(report["energy_j"] for report in settled)
    assert sum(rewards) == pytest.approx(utility)
    energy = sum(info["reward_terms"]["energy"] for info in infos)
    assert energy == pytest.approx(-0.4 * joules)
    assert joules > 0


def test_the_reward_of_a_frame_is_its_utility(scenario):
    streams = [replace(support.stream(40), energy_price=price) for price in (None, 0.0, 0.4)]
    table = scenario.table("policy")
    for stream in streams:
        backend = SimulatorBackend(table, lambda seed, stream=stream: stream)
        env = SplitEnv(backend, table, attribution="exact")
        env.reset(seed=0)
        for _ in range(5):
            _, reward, *_ = env.step(PICTURE)
            assert reward == pytest.approx(backend.decided.utility)
