"""Search hyper-parameters with Ray Tune: seeded random trials, judged on validation traces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from adaptive_split.agents.cluster import MOST_RETRIES
from adaptive_split.agents.hyperparameters import with_settings
from adaptive_split.agents.seeds import Training
from adaptive_split.agents.train import learn
from adaptive_split.errors import ConfigError

GAIN = "validation_gain"


@dataclass(frozen=True, slots=True)
class Span:
    """Where a setting is drawn from, evenly on a logarithmic scale."""

    low: float
    high: float


SPACE: Mapping[str, Span | tuple[float, ...]] = {
    "learning_rate": Span(1e-4, 5e-3),
    "batch_size": (128, 256, 512),
    "gradient_steps": (1, 2, 4),
    "n_envs": (64, 128, 256),
}
"""By name of the setting: a span, or the values to choose from."""


@dataclass(frozen=True, slots=True)
class Trial:
    """Settings and what a training with them reached."""

    settings: dict[str, Any]
    gain: float
    """Validation utility above the distribution planner's, at the best checkpoint."""


def search(
    training: Training,
    num_trials: int,
    folder: Path,
    space: Mapping[str, Span | tuple[float, ...]] = SPACE,
) -> list[Trial]:
    """Try settings drawn at random with the seed of the training's config.

    The draws and the trials are the same on any number of workers: no trial is stopped early on
    what another has reached by then.
    They run on the cluster that this process is on (`cluster.RayCluster`), one per core.

    Args:
        training: What is learned, from what; every trial has the same seed, so that settings alone
            differ.
        num_trials: How many.
        folder: Where Ray Tune keeps its tables and TensorBoard logs.
        space: What is searched.

    Returns:
        The trials that ended well, the best first.

    Raises:
        ConfigError: If a setting of the space is unknown, or every trial failed.
    """
    for name, values in space.items():
        with_settings(
            training.config, {name: values.low if isinstance(values, Span) else values[0]}
        )
    from ray import tune
    from ray.tune.search.basic_variant import BasicVariantGenerator

    drawn = {
        name: tune.loguniform(values.low, values.high)
        if isinstance(values, Span)
        else tune.choice(list(values))
        for name, values in space.items()
    }
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(_trial, training=training), {"cpu": 1}),
        param_space=drawn,
        tune_config=tune.TuneConfig(
            metric=GAIN,
            mode="max",
            num_samples=num_trials,
            search_alg=BasicVariantGenerator(random_state=training.config.seed),
        ),
        run_config=tune.RunConfig(
            name="trials",
            storage_path=str(folder.resolve()),
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=MOST_RETRIES),
        ),
    )
    return _ranked(tuner.fit())


def _ranked(results: Any) -> list[Trial]:
    trials = [
        Trial(_rounded(one.config), float(one.metrics[GAIN]))
        for one in results
        if one.error is None
    ]
    if not trials:
        raise ConfigError(f"a trial must end well; none did: {results[0].error}")
    return sorted(trials, key=lambda trial: -trial.gain)


def _trial(settings: dict[str, Any], training: Training) -> None:
    from ray import tune

    torch.set_num_threads(1)
    config = with_settings(training.config, _rounded(settings))
    learned = learn(training.tasks, training.traces, config)
    tune.report({GAIN: max(gain for _, gain in learned.curve)})


def _rounded(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Three digits, as a person reads them in the file; a trial runs with what is written."""
    return {
        name: float(f"{value:.3g}") if isinstance(value, float) else value
        for name, value in settings.items()
    }
