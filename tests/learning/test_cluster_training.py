"""Trainings and searches on a Ray cluster, and in one process."""

import gc
import os
import signal
import warnings
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from adaptive_split.agents.checkpoint import arrays_of
from adaptive_split.agents.cluster import InProcess
from adaptive_split.agents.search import Span, search
from adaptive_split.agents.seeds import Training, learn_seeds, seed_folder
from adaptive_split.agents.shards import RayShards
from adaptive_split.agents.task import Task
from adaptive_split.agents.train import TrainConfig
from adaptive_split.errors import ConfigError
from adaptive_split.runtime.simulated.streams import StreamSource
from tests import support
from tests.small_cluster import open_small_cluster

pytest.importorskip("ray")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # a busy machine starts Ray slowly

# Gradient steps begin after 4,000 frames.
CONFIG = TrainConfig(num_frames=6_000, num_envs=400, checkpoints=2, batch_size=64,
                     gradient_steps=10)  # fmt: skip


@pytest.fixture(scope="module")
def cluster():
    with open_small_cluster() as opened:
        yield opened


@pytest.fixture(scope="module")
def training(tmp_path_factory):
    """A task whose rivals were never tuned."""
    scenario = support.scenario(tmp_path_factory.mktemp("toy"), num_frames=10)
    table = scenario.table("policy")
    tuned = {"best-static": {"candidate": 0}, "distribution-planner": {}, "two-window-planner": {}}
    streams = StreamSource(scenario, table.outcomes, [support.trace(10)]).draw_evenly(4, 0)
    task = Task(scenario=scenario, table=table, tuned=tuned, streams=tuple(streams))
    return Training(tasks=[task], traces=[support.trace(0)], config=CONFIG)


@pytest.fixture(scope="module")
def here(training, tmp_path_factory):
    saved = replace(training, checkpoints=tmp_path_factory.mktemp("state"))
    return learn_seeds(saved, 2, InProcess())


def die_once(grave, done, total):
    """Kill the process in the middle of the first training that comes here."""
    if done > 5_000 and not grave.exists():
        grave.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_seed_gives_the_same_weights_on_a_cluster_also_when_it_is_killed(
    cluster, training, here, tmp_path
):
    grave, state, curves = tmp_path / "grave", tmp_path / "state", tmp_path / "curves"
    mortal = replace(
        training, progress=partial(die_once, grave), checkpoints=state, tensorboard=curves
    )

    there = learn_seeds(mortal, 2, cluster)

    assert grave.exists()
    for (ours, settled), (theirs, settled_there) in zip(here, there, strict=True):
        assert ours.curve == theirs.curve
        assert settled[0].validation == settled_there[0].validation
        for name, values in arrays_of(ours.weights).items():
            np.testing.assert_array_equal(values, arrays_of(theirs.weights)[name])
    for seed in (0, 1):
        (checkpoint,) = seed_folder(state, seed).iterdir()
        assert checkpoint.name == "frames-000003200"
        assert list(seed_folder(curves, seed).rglob("events.*"))


def test_simulators_on_a_cluster_teach_the_same_as_side_by_side(cluster, training, tmp_path):
    several = replace(training, config=replace(CONFIG, num_simulators=3, num_envs=402))
    kept = replace(several, checkpoints=tmp_path / "here")
    spread = partial(RayShards, num_workers=2)

    ((ours, _),) = learn_seeds(kept, 1, InProcess())
    away = replace(several, checkpoints=tmp_path / "there", spread=spread)
    ((theirs, _),) = learn_seeds(away, 1, cluster)

    assert ours.curve == theirs.curve
    for name, values in arrays_of(ours.weights).items():
        np.testing.assert_array_equal(values, arrays_of(theirs.weights)[name])


def test_the_curve_can_be_read_with_tensorboard(training, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    short = replace(training, tensorboard=tmp_path, config=replace(CONFIG, num_frames=400))
    ((learned, _),) = learn_seeds(short, 1, InProcess())

    (events,) = seed_folder(tmp_path, 0).rglob("events.*")
    curve = EventAccumulator(str(events))
    curve.Reload()
    found = [(one.step, one.value) for one in curve.Scalars("validation/gain")]
    assert found == [(frames, pytest.approx(gain)) for frames, gain in learned.curve]


def test_a_search_tries_settings_by_its_seed_and_ranks_them(cluster, training, tmp_path):
    space = {"learning_rate": Span(1e-4, 1e-1), "n_envs": (40, 80)}
    short = replace(training, config=replace(CONFIG, num_frames=400))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # Tune leaves its logs to the collector
        first, second = (search(short, 3, tmp_path / name, space) for name in "ab")
        gc.collect()

    assert len(first) == 3
    assert [one.gain for one in first] == sorted((one.gain for one in first), reverse=True)
    assert all(1e-4 <= one.settings["learning_rate"] <= 1e-1 for one in first)
    assert first == second


def test_a_search_of_an_unknown_setting_is_refused(training, tmp_path):
    with pytest.raises(ConfigError, match="got 'depth'"):
        search(training, 1, tmp_path, {"depth": (1, 2)})
