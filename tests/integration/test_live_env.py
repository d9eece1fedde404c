"""The live environment on this machine: a server process, an emulated link, real graphs."""

from dataclasses import replace

import gymnasium
import numpy as np
import pytest
from PIL import Image
from stable_baselines3.common.env_checker import check_env as check_env_sb3

import adaptive_split.envs  # noqa: F401 - registers
from adaptive_split.clock import MonotonicClock
from adaptive_split.decision import DecisionGrid
from adaptive_split.envs.live_env import make_live_env
from adaptive_split.envs.split_env import make_trace_env
from adaptive_split.errors import ConfigError
from adaptive_split.objective import Objective
from adaptive_split.runtime.measure import measure
from adaptive_split.runtime.serving.server import EdgeServer, ServerConfig
from adaptive_split.runtime.stages import StageRunner
from adaptive_split.scenario import Camera, Scenario
from adaptive_split.trace import Trace
from tests import support
from tests.color_bundle import color_pictures, write_color_bundle

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def scenario(tmp_path_factory):
    """The colors as a scenario at 20 frames per second, on a device of about 40 ms."""
    folder = tmp_path_factory.mktemp("colors")
    bundle = write_color_bundle(folder)
    grid = DecisionGrid(2)
    for subset in ("policy", "judge"):
        found = measure(bundle, color_pictures(), grid, subset=subset)
        found.save(folder / f"outcomes_{subset}.npz")
    (folder / "pictures").mkdir()
    for file, _, pixels in color_pictures():
        Image.fromarray(pixels).save(folder / "pictures" / file)
    (folder / "pictures" / "labels.csv").write_text(
        "file,label\n" + "".join(f"{file},{file[:-4]}\n" for file, _, _ in color_pictures())
    )

    def profile(factor):
        whole = support.profile(factor)
        two = {
            name: getattr(whole, name)[:2]
            for name in ("stage_s", "exit_s", "encoder_s", "decoder_s", "stage_p95_s")
        }
        return replace(whole, bundle_hash=bundle.hash, **two)

    return Scenario(
        name="colors", bundle=bundle, grid=grid, device=profile(0.7), server=profile(0.05),
        objective=Objective(slo_s=0.2, fps=20.0), camera=Camera(frames_per_stream=12),
    )  # fmt: skip


@pytest.fixture(scope="module")
def traces():
    time_s = np.arange(0, 10, 0.5)
    return [
        Trace("fast", "toy", time_s, np.full(20, 20.0), np.full(20, 0.02), source="synthetic",
              rtt_source="synthetic")
    ]  # fmt: skip


def rollout(env, seed):
    """Frames, pictures and decisions of an episode under fixed random actions."""
    generator = np.random.default_rng(seed)
    env.reset(seed=seed)
    reports, done = [], False
    while not done:
        _, _, _, done, info = env.step(generator.integers(env.action_space.n))
        reports += info["settled"]
    return sorted(reports, key=lambda report: report["frame_index"])


def test_the_live_environment_answers_every_frame(scenario, traces):
    env = gymnasium.make("adaptive_split/Live-v0", scenario=scenario, traces=traces)
    try:
        twin = make_trace_env(scenario, traces, subset="judge")
        assert env.observation_space == twin.observation_space
        assert env.action_space == twin.action_space

        first, second = rollout(env, 3), rollout(env, 3)

        assert [report["frame_index"] for report in first] == list(range(12))
        for name in ("frame_index", "sample_index"):
            assert [r[name] for r in first] == [r[name] for r in second]
        started = [report for report in first if report["fallback_reason"] != "dropped"]
        assert len(started) >= 6
        assert all(report["on_time"] for report in started)
        assert {report["answered_by"] for report in started} >= {"server"}
    finally:
        env.close()


def test_a_server_that_runs_elsewhere_may_be_used(scenario, traces):
    config = ServerConfig(insecure=True)
    with (
        StageRunner(scenario.bundle, parts=scenario.bundle.parts) as stages,
        EdgeServer(scenario.bundle, stages, config, clock=MonotonicClock()) as server,
    ):
        env = make_live_env(scenario, traces, server=f"127.0.0.1:{server.port}")
        try:
            check_env_sb3(env)
        finally:
            env.close()


def test_pictures_that_were_never_measured_are_refused(scenario, traces, tmp_path):
    Image.new("RGB", (16, 16)).save(tmp_path / "stranger.png")

    with pytest.raises(ConfigError, match="must be some of those measured as outcomes; got none"):
        make_live_env(scenario, traces, pictures=tmp_path)
