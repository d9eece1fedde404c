"""One training per seed, wherever there is a worker."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from adaptive_split.agents import task as preparation
from adaptive_split.agents.cluster import Workers
from adaptive_split.agents.task import Settled, Task
from adaptive_split.agents.train import Learned, Spread, TrainConfig, learn
from adaptive_split.runtime.controller import ForecastWeights
from adaptive_split.scenario import Scenario
from adaptive_split.trace import Trace


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Training:
    """What all seeds share."""

    tasks: Sequence[Task]
    traces: Sequence[Trace]
    """To learn from."""
    config: TrainConfig
    """Of every seed; its own seed is the first."""
    say: Callable[[str], None] = lambda _: None
    """Called where the training runs; on a cluster it must be a module's function."""
    progress: Callable[[int, int], None] = lambda *_: None
    """Likewise; called with frames done and frames in all."""
    tensorboard: Path | None = None
    """Where learning curves go, in a folder per seed."""
    checkpoints: Path | None = None
    """Where the states of trainings are saved and found, in a folder per seed."""
    spread: Spread | None = None
    """Where the simulators of a training play; by default where it runs."""
    networks: ForecastWeights | None = None
    """Networks whose forecast is taken as it is: only the future of choices is learned."""


def prepare_all(
    scenarios: Sequence[Scenario],
    train_traces: Sequence[Trace],
    validation_traces: Sequence[Trace],
    config: TrainConfig,
    workers: Workers,
    say: Callable[[str], None] = lambda _: None,
) -> list[Task]:
    """Tune the rivals of every scenario; see `task.prepare`."""
    shared = (train_traces, validation_traces, config, say)
    return workers.map(_prepare, shared, scenarios)


def learn_seeds(
    training: Training, num_seeds: int, workers: Workers
) -> list[tuple[Learned, list[Settled]]]:
    """Train with `num_seeds` seeds from the config's on, and settle every scenario.

    Torch computes with one thread in each, so that it adds up in the same order everywhere.
    """
    first = training.config.seed
    return workers.map(_learn, training, range(first, first + num_seeds))


def seed_folder(folder: Path, seed: int) -> Path:
    """Where a seed's things lie."""
    return folder / f"seed-{seed}"


def _prepare(
    shared: tuple[Sequence[Trace], Sequence[Trace], TrainConfig, Callable[[str], None]],
    scenario: Scenario,
) -> Task:
    train_traces, validation_traces, config, say = shared
    return preparation.prepare(
        scenario, train_traces, validation_traces, say=say,
        tuning_per_family=config.tuning_per_family,
        validation_per_family=config.validation_per_family,
    )  # fmt: skip


def _learn(training: Training, seed: int) -> tuple[Learned, list[Settled]]:
    torch.set_num_threads(1)
    learned = _take_or_learn(training, seed)
    settled = []
    for task in training.tasks:
        training.say(f"seed {seed}: settling {task.scenario.name}")
        settled.append(preparation.settle(task, learned.weights, training.traces, seed))
    return learned, settled


def _take_or_learn(training: Training, seed: int) -> Learned:
    if training.networks is not None:
        return Learned(training.networks, (), 0.0)
    log, state = (
        None if folder is None else seed_folder(folder, seed)
        for folder in (training.tensorboard, training.checkpoints)
    )
    return learn(
        training.tasks,
        training.traces,
        replace(training.config, seed=seed),
        lambda line: training.say(f"seed {seed}: {line}"),
        training.progress,
        None if log is None else str(log),
        state,
        training.spread,
    )
