"""Tiny trainings: the checkpoint that is kept, the curve, and what the configuration reaches."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from adaptive_split.agents.task import Task
from adaptive_split.agents.train import TrainConfig, learn, make_model
from adaptive_split.errors import ConfigError
from adaptive_split.runtime.simulated.streams import StreamSource
from tests import support

pytestmark = pytest.mark.slow

TRACES = [support.trace(seed) for seed in range(3)]
# Gradient steps begin after 4,000 frames.
TINY = TrainConfig(
    num_frames=6_000, num_envs=400, checkpoints=2, batch_size=64, gradient_steps=10,
    learning_rate=1e-2,
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def task(folder, name="toy", energy_price=0.05):
    """A task whose rivals were never tuned."""
    scenario = support.scenario(folder, num_frames=10)
    objective = replace(scenario.objective, energy_price=energy_price)
    scenario = replace(scenario, name=name, objective=objective)
    table = scenario.table("policy")
    tuned = {"best-static": {"candidate": 0}, "distribution-planner": {}}
    checking = [support.trace(10)]
    streams = StreamSource(scenario, table.outcomes, checking).draw_evenly(6, 0)
    return Task(scenario=scenario, table=table, tuned=tuned, streams=tuple(streams))


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy")
    return [task(folder), task(folder, "dear", energy_price=0.2)]


@pytest.fixture(scope="module")
def told():
    """What was said, and the progress that was reported."""
    return [], []


@pytest.fixture(scope="module")
def learned(tasks, told):
    said, progress = told
    return learn(tasks, TRACES, TINY, said.append, lambda *numbers: progress.append(numbers))


@pytest.mark.parametrize(
    ("gains", "kept"),
    [([0.0, 0.01, 0.02], 2), ([0.0, 0.02, 0.0196], 2), ([0.0, 0.02, 0.019], 1), ([0.1, 0, 0], 0)],
)
def test_the_last_checkpoint_about_as_good_as_the_best_is_kept(tasks, monkeypatch, gains, kept):
    seen = []

    def utility(one, weights):
        seen.append(weights)
        return one.planner_utility + gains[len(seen) - 1]

    monkeypatch.setattr(Task, "utility", utility)
    learned = learn(tasks[:1], TRACES, replace(TINY, num_frames=1_200))

    assert learned.weights is seen[kept]
    assert [gain for _, gain in learned.curve] == pytest.approx(gains)


def test_the_curve_goes_from_the_untrained_policy_to_the_last_frame(tasks, learned):
    untrained = make_model(tasks, TRACES, TINY).policy.export()
    gains = [one.utility(untrained) - one.planner_utility for one in tasks]

    assert [frames for frames, _ in learned.curve] == [0, 3_200, 6_000]
    assert learned.curve[0][1] == np.mean(gains)
    assert learned.curve[-1][1] != learned.curve[0][1]


def test_a_person_is_told_of_every_checkpoint_and_of_progress(learned, told):
    said, progress = told

    for line, (frames, gain) in zip(said, learned.curve, strict=True):
        assert line.strip().startswith(f"{frames} frames: {gain:+.4f} above the planner")
    assert progress == [(frames, 6_000) for frames in range(400, 6_001, 400)]


def test_equal_seeds_learn_the_same_and_others_do_not(tasks, learned):
    again, other = (learn(tasks, TRACES, replace(TINY, seed=seed)) for seed in (0, 1))

    assert again.curve == learned.curve
    for ours, theirs in zip(again.weights.forecast, learned.weights.forecast, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert other.curve[-1] != learned.curve[-1]


def test_curves_are_written_for_tensorboard(tasks, tmp_path):
    learn(tasks[:1], TRACES, replace(TINY, num_frames=400), tensorboard_log=str(tmp_path))

    assert list(tmp_path.rglob("events.out.tfevents.*"))


def first_streams(model):
    """The streams that the lanes of the first scenario start with."""
    env = model.get_env()
    env.reset()
    return env.envs[0]._simulator.streams


def test_lanes_are_shared_out_evenly_over_the_scenarios(tasks):
    model = make_model(tasks, TRACES, replace(TINY, num_envs=9))

    assert [env.num_envs for env in model.get_env().envs] == [4, 4]
    assert [env.prices for env in model.get_env().envs] == [one.prices for one in tasks]


def test_simulators_of_a_scenario_share_its_lanes_and_play_other_streams(tasks):
    model = make_model(tasks, TRACES, replace(TINY, num_envs=8, num_simulators=2))

    env = model.get_env()
    seen = env.reset()
    assert [one.num_envs for one in env.envs] == [2, 2, 2, 2]
    assert seen[:, -1].tolist() == [0.0] * 4 + [1.0] * 4
    assert len({id(one.table.grid) for one in env.envs[:2]}) == 1
    first, second = (one._simulator.samples.tolist() for one in env.envs[:2])
    assert first != second


def test_a_scenario_is_played_with_every_promise_asked_for(tasks):
    config = replace(TINY, num_envs=8, num_simulators=2, slo_factors=(1.0, 0.5))
    promised = [one.scenario.objective.slo_s for one in tasks]

    env = make_model(tasks, TRACES, config).get_env()

    assert [one.table.objective.slo_s for one in env.envs] == pytest.approx(
        [factor * slo_s for slo_s in promised for factor in (1.0, 0.5, 1.0, 0.5)]
    )
    assert [one.num_envs for one in env.envs] == [1] * 8
    assert env.reset()[:, -1].tolist() == [0.0] * 4 + [1.0] * 4


def test_streams_are_as_recorded_unless_they_are_to_be_varied(tasks):
    few = replace(TINY, num_envs=20)

    plain = first_streams(make_model(tasks[:1], TRACES, few))
    varied = first_streams(make_model(tasks[:1], TRACES, replace(few, vary=True)))

    assert {stream.device_slowdown for stream in plain} == {1.0}
    assert 0 < sum(stream.device_slowdown != 1.0 for stream in varied) < 20


def test_the_curriculum_reaches_the_environments(tasks):
    config = replace(TINY, num_envs=4, curriculum=0.3, gamma=0.8)

    model = make_model(tasks, TRACES, config)

    envs = model.get_env().envs
    assert [env.curriculum.share for env in envs] == [0.3, 0.3]
    assert envs[0].curriculum is not envs[1].curriculum
    assert model.gamma == 0.8


def test_the_networks_are_as_wide_as_asked(tasks):
    model = make_model(tasks[:1], TRACES, replace(TINY, num_envs=4, width=24))

    sizes = {layer.shape[-1] for layer in model.policy.export().forecast[:-2]}

    assert sizes == {24}


def test_the_learning_rate_falls_to_a_twentieth(tasks):
    model = make_model(tasks[:1], TRACES, replace(TINY, num_envs=4, learning_rate=2e-3))

    assert model.lr_schedule(1.0) == pytest.approx(2e-3)
    assert model.lr_schedule(0.0) == pytest.approx(1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"slo_factors": ()}, r"must lie in \[0.1, 10\], one at least; got \(\)"),
        ({"slo_factors": (1.0, 0.0)}, r"must lie in \[0.1, 10\], one at least; got \(1.0, 0.0\)"),
        ({"vary": True, "curriculum": 0.5}, "varied or follow the curriculum; got vary=True"),
        ({"num_frames": 0}, "num_frames of a training must be 1 or more; got 0"),
        ({"width": 0}, "width of a training must be 1 or more; got 0"),
        ({"checkpoints": 0}, "checkpoints of a training must be 1 or more; got 0"),
    ],
)
def test_a_training_that_cannot_be_run_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        TrainConfig(**changes)
