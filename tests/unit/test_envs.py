"""The environments: checked by both libraries, repeatable, and honest about their rewards."""

import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as check_env_sb3

import adaptive_split.envs  # noqa: F401 - registers
from adaptive_split.candidates import CandidateTable, Radio
from adaptive_split.decision import Decision, DecisionGrid
from adaptive_split.envs.box_action import BoxActions
from adaptive_split.envs.split_env import SplitEnv, make_trace_env
from adaptive_split.envs.vector_env import TraceVectorEnv
from adaptive_split.errors import ConfigError
from adaptive_split.objective import Objective
from adaptive_split.runtime.device import Device
from adaptive_split.runtime.live import LiveBackend
from adaptive_split.runtime.live_controller import moment_of
from adaptive_split.runtime.sensors.battery import ModelledBattery
from adaptive_split.runtime.serving.service import TailService
from adaptive_split.runtime.simulated.backend import SimulatorBackend
from adaptive_split.runtime.source import PictureSequence
from adaptive_split.testing import (
    ManualClock,
    MemoryTransport,
    TinyStages,
    tiny_bundle,
    tiny_picture,
    tiny_profile,
    tiny_setup,
)
from tests import support

pytestmark = pytest.mark.slow

TRACES = [support.trace(seed) for seed in range(3)]
PARTS = ("wait_s", "head_s", "encode_s", "uplink_s", "server_wait_s", "tail_s", "downlink_s",
         "fallback_s")  # fmt: skip


@pytest.fixture(scope="module")
def scenario(tmp_path_factory):
    return support.scenario(tmp_path_factory.mktemp("toy"))


@pytest.fixture
def trace_env(scenario):
    return make_trace_env(scenario, TRACES)


@pytest.fixture
def live_env():
    """A live device on a manual clock, with a server in memory."""
    clock, stages = ManualClock(), TinyStages()
    setup = tiny_setup(Objective(slo_s=0.1, fps=10.0))
    service = TailService(tiny_bundle(), stages, clock, profile=tiny_profile(0.1))
    transport = MemoryTransport(setup.bundle, service, clock, delay_s=0.03)
    device = Device(setup, stages, transport, clock, ModelledBattery(1e6))
    pictures = [tiny_picture(label) for label in range(4)]

    def prepare(seed):
        clock.advance(10.0)  # whatever was still on its way
        clock._now_s = 0.0  # a run on a clock that has gone on would round differently
        order = np.random.default_rng(seed).integers(0, 4, 20)
        return PictureSequence(pictures, [0, 1, 2, 3], order)

    grid = DecisionGrid(3)
    table = CandidateTable(
        grid, setup.device_profile, setup.server_profile, support.outcomes(grid=grid),
        setup.objective, Radio(),
    )  # fmt: skip
    backend = LiveBackend(device, prepare, 20)
    backend.close()  # the watchdog, which waits on a real clock; the device settles without it
    env = SplitEnv(backend, table)
    yield env
    env.close()


def rollout(env, seed, choose=None):
    """Observations, rewards and infos of an episode under random actions."""
    generator = np.random.default_rng(seed)
    observation, info = env.reset(seed=seed)
    rows, done = [(observation, 0.0, info)], False
    while not done:
        action = generator.integers(env.unwrapped.action_space.n)
        observation, reward, terminated, done, info = env.step(action)
        assert not terminated
        rows.append((observation, reward, info))
    return rows


# The battery of the second run is a little emptier.
@pytest.mark.filterwarnings("ignore:.*not equal although similar")
@pytest.mark.parametrize("kind", ["trace_env", "live_env"])
def test_both_libraries_accept_the_environment(kind, request):
    env = request.getfixturevalue(kind)

    check_env(env, skip_render_check=True, skip_close_check=True)
    check_env_sb3(env)


def test_both_libraries_accept_box_actions(trace_env):
    env = BoxActions(trace_env)

    check_env_sb3(env)

    assert env.action_space.shape == (3,)


@pytest.mark.parametrize("kind", ["trace_env", "live_env"])
def test_equal_seeds_give_equal_episodes(kind, request):
    env = request.getfixturevalue(kind)

    first, second, other = rollout(env, 4), rollout(env, 4), rollout(env, 5)

    frames = [[r["frame_index"] for r in info.get("settled", [])] for _, _, info in first]
    assert frames == [[r["frame_index"] for r in i.get("settled", [])] for _, _, i in second]
    for (a, r, _), (b, s, _) in zip(first, second, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
        assert r == pytest.approx(s)
    assert [r for _, r, _ in first] != [r for _, r, _ in other]


@pytest.mark.parametrize("kind", ["trace_env", "live_env"])
def test_terms_add_up_to_the_reward_and_every_frame_settles_once(kind, request):
    env = request.getfixturevalue(kind)
    num_frames = 40 if kind == "trace_env" else 20

    rows = rollout(env, 2)

    settled = [report for _, _, info in rows[1:] for report in info["settled"]]
    assert sorted(report["frame_index"] for report in settled) == list(range(num_frames))
    for _, reward, info in rows[1:]:
        assert sum(info["reward_terms"].values()) == pytest.approx(reward)
    for report in settled:
        if report["latency_s"] is not None:
            assert sum(report[part] for part in PARTS) == pytest.approx(report["latency_s"])
    total = sum(report["utility"] for report in settled)
    assert sum(reward for _, reward, _ in rows) == pytest.approx(total)


def test_both_attributions_bring_the_same_over_an_episode(scenario):
    exact = make_trace_env(scenario, TRACES)
    settled = make_trace_env(scenario, TRACES, attribution="settled")

    ours, theirs = rollout(exact, 3), rollout(settled, 3)

    assert sum(r for _, r, _ in ours) == pytest.approx(sum(r for _, r, _ in theirs))
    assert [r for _, r, _ in ours] != [r for _, r, _ in theirs]


def test_an_observation_of_the_simulator_is_that_of_its_situation(trace_env):
    trace_env.reset(seed=1)
    done = False

    while not done:
        moment = moment_of(trace_env.backend.situation(), trace_env.table)
        for name in moment.__slots__:
            expected = getattr(trace_env.view.moment, name)
            np.testing.assert_allclose(getattr(moment, name), expected, atol=1e-9)
        done = trace_env.step(trace_env.action_space.sample())[3]


def test_the_simulator_tells_what_every_payload_would_have_met(trace_env):
    rows = rollout(trace_env, 1)

    for _, _, info in rows[1:]:
        assert info["payload_on_time"].shape == (len(support.GRID.payloads),)
        assert info["payload_on_time"].dtype == bool


def test_a_live_environment_has_no_foresight(live_env):
    rows = rollout(live_env, 1)

    assert all("payload_on_time" not in info for _, _, info in rows)
    with pytest.raises(ConfigError, match="'settled' on a backend that does not know the future"):
        SplitEnv(live_env.backend, live_env.table, attribution="exact")


def test_a_lost_link_is_no_exception(live_env):
    live_env.reset(seed=0)
    picture = live_env.table.grid.index(Decision(0, 1.0, 8))
    live_env.step(picture)
    live_env.backend._device.sender._transport.reachable = False

    infos, done = [], False
    while not done:
        _, _, _, done, info = live_env.step(picture)
        infos.append(info)

    settled = [report for info in infos for report in info["settled"]]
    assert all(report["on_time"] for report in settled)
    assert {info.get("link_error") for info in infos} & {"link", "breaker"}


def test_the_environments_are_made_by_name(scenario):
    env = gymnasium.make("adaptive_split/Trace-v0", scenario=scenario, traces=TRACES)

    assert isinstance(env.unwrapped, SplitEnv)
    assert "adaptive_split/Live-v0" in gymnasium.registry
    rollout(env, 0)


def test_many_lanes_are_made_by_name(scenario):
    env = gymnasium.make_vec(
        "adaptive_split/Trace-v0", num_envs=3, vectorization_mode="vector_entry_point",
        scenario=scenario, traces=TRACES,
    )  # fmt: skip

    observation, _ = env.reset(seed=0)

    assert isinstance(env.unwrapped, TraceVectorEnv)
    assert observation.shape == env.observation_space.shape


def test_a_lane_of_the_vector_environment_is_the_environment(scenario):
    """Same stream, same actions: same observations and rewards."""
    lanes = TraceVectorEnv(scenario, TRACES, 2)
    many, _ = lanes.reset(seed=0)
    stream = lanes._simulator.links  # the streams it drew, by their links
    drawn = np.random.default_rng(0)
    streams = [lanes.source.draw(generator) for generator in [lanes_generator(0)] for _ in range(2)]
    np.testing.assert_allclose(stream.rate[1], streams[1].uplink_mbps * 1e6)
    env = SplitEnv(
        SimulatorBackend(lanes.table, lambda seed: streams[1]), lanes.table, attribution="exact"
    )
    one, _ = env.reset(seed=0)

    done = False
    while not done:
        np.testing.assert_allclose(many[1], one, atol=1e-6)
        actions = drawn.integers(0, len(lanes.table.grid), 2)
        many, rewards, _, _, _ = lanes.step(actions)
        one, reward, _, done, _ = env.step(actions[1])
        assert rewards[1] == pytest.approx(reward)


def lanes_generator(seed):
    return gymnasium.utils.seeding.np_random(seed)[0]


def test_a_static_decision_brings_what_the_profile_says(scenario):
    """Without a link to speak of, the local decision costs its stages and nothing else."""
    table = scenario.table("policy")
    env = SplitEnv(
        SimulatorBackend(table, lambda seed: support.stream(40, seed)), table, attribution="exact"
    )
    env.reset(seed=0)
    local = table.grid.index(Decision(3, 1.0, 0))

    _, _, _, _, info = env.step(local)

    report = env.backend.decided
    assert report.latency_s == pytest.approx(table.head_s[3])
    assert report.energy_j == pytest.approx(table.device.compute_w * table.head_s[3])
    assert info["reward_terms"]["bytes"] == 0


def test_an_option_nobody_knows_is_refused(trace_env):
    with pytest.raises(ConfigError, match=r"reset must get no options; got \['speed'\]"):
        trace_env.reset(options={"speed": 2})


def test_an_unknown_attribution_is_refused(trace_env):
    with pytest.raises(ConfigError, match="attribution must be 'exact' or 'settled'; got 'both'"):
        SplitEnv(trace_env.backend, trace_env.table, attribution="both")


def test_box_actions_refuse_a_stranger():
    with pytest.raises(ConfigError, match="must wrap a SplitEnv"):
        BoxActions(gymnasium.make("CartPole-v1"))


def test_environments_need_no_torch():
    code = (
        "import sys, adaptive_split.envs.split_env, adaptive_split.envs.live_env, "
        "adaptive_split.envs.vector_env, adaptive_split.envs.box_action; "
        "print(*sorted({'torch', 'stable_baselines3', 'ray'} & set(sys.modules)))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
