"""Train the controller on traces, validate as it learns, keep the best."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback

from adaptive_split.agents.evaluate import mean_utility
from adaptive_split.agents.sac import CandidateSAC
from adaptive_split.agents.sb3_env import TraceVecEnv
from adaptive_split.agents.tune import (
    best_settings,
    best_static,
    distribution_settings,
    planner_settings,
    two_window_settings,
)
from adaptive_split.envs.vector_env import TraceVectorEnv
from adaptive_split.planner import BacklogPrices, CandidateTable
from adaptive_split.runtime.controller import (
    DistributionPlanner,
    ForecastController,
    ForecastWeights,
    Planner,
    PlannerSettings,
    TwoWindowPlanner,
)
from adaptive_split.runtime.streams import Stream, StreamSource
from adaptive_split.scenario import Scenario
from adaptive_split.trace import Trace

GUARD_MARGINS = (None, 0.003, 0.01)
"""Margins tried for the guard on the validation streams; none = no guard."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """One training run."""

    seed: int = 0
    num_frames: int = 400_000
    num_envs: int = 128
    learning_rate: float = 1e-3
    """Falls linearly to a twentieth."""
    tuning_per_family: int = 24
    """Streams per family on which planners are tuned."""
    validation_per_family: int = 24
    """Streams per family on which checkpoints are chosen."""
    checkpoints: int = 8


@dataclass(slots=True)
class Tuned:
    """Knobs picked on the training traces."""

    static: int
    planner: PlannerSettings
    distribution: PlannerSettings
    two_window: PlannerSettings
    scores: dict[str, float] = field(default_factory=dict)

    def describe(self) -> dict[str, object]:
        """As plain values, for a manifest."""
        return {
            "static": self.static,
            "planner": asdict(self.planner),
            "distribution": asdict(self.distribution),
            "two_window": asdict(self.two_window),
            "scores": self.scores,
        }


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """The best checkpoint, and how it was found."""

    weights: ForecastWeights
    prices: BacklogPrices
    """Backlog prices picked for the learned controller on the validation streams."""
    guard_margin: float | None
    """Margin by which a decision must beat the best static one, picked likewise; none = no guard.
    """
    tuned: Tuned
    curve: tuple[tuple[int, float], ...]
    """`(frames, validation utility)`."""
    validation: dict[str, float]
    """Utility on the validation streams: `sac` and the planners."""
    seconds: float

    @property
    def wins(self) -> bool:
        """Whether it beats the two-window and the distribution planner on validation."""
        rivals = ("two-window-planner", "distribution-planner")
        return all(self.validation["sac"] > self.validation[name] for name in rivals)


def tune_planners(
    table: CandidateTable, streams: Sequence[Stream], say: Callable[[str], None]
) -> Tuned:
    """Pick static decision and planner knobs on training streams."""
    static, values = best_static(table, streams[::2])
    say(f"best static decision on the training traces: {table.grid.candidates[static]}")
    planner, p = best_settings(Planner, table, streams, planner_settings(), say)
    distribution, d = best_settings(
        DistributionPlanner, table, streams, distribution_settings(), say
    )
    two_window, t = best_settings(TwoWindowPlanner, table, streams, two_window_settings(), say)
    scores = {"static": values[static], "planner": p, "distribution": d, "two_window": t}
    return Tuned(static, planner, distribution, two_window, scores)


def train(
    scenario: Scenario,
    train_traces: Sequence[Trace],
    validation_traces: Sequence[Trace],
    config: TrainConfig,
    say: Callable[[str], None] = lambda _: None,
    progress: Callable[[int, int], None] = lambda *_: None,
    tensorboard_log: str | None = None,
) -> Trained:
    """Tune the planners, train the forecast on top, return the best checkpoint.

    Args:
        scenario: What is decided and promised.
        train_traces: Traces to learn from; the `policy` half of the pictures is used.
        validation_traces: Other traces, on which checkpoints are chosen.
        config: Frames, lanes, seed.
        say: Called with lines worth a person's time.
        progress: Called with `(frames done, frames in all)`.
        tensorboard_log: Where to write learning curves, if anywhere.
    """
    started = time.monotonic()
    torch.manual_seed(config.seed)
    table = scenario.table("policy")
    tuning = StreamSource(scenario, table.outcomes, train_traces)
    tuned = tune_planners(table, tuning.draw_evenly(config.tuning_per_family, config.seed), say)
    checking = StreamSource(scenario, table.outcomes, validation_traces)
    streams = checking.draw_evenly(config.validation_per_family, config.seed + 1)
    prices = tuned.distribution.prices
    rivals = (
        Planner(table, tuned.planner),
        DistributionPlanner(table, tuned.distribution),
        TwoWindowPlanner(table, tuned.two_window),
    )
    validation = {rival.name: mean_utility(rival, table, streams) for rival in rivals}
    for name, value in validation.items():
        say(f"validation utility of the {name}: {value:.4f}")

    env = TraceVecEnv(TraceVectorEnv(scenario, train_traces, config.num_envs, prices=prices))
    env.seed(config.seed)
    model = CandidateSAC(
        env,
        payload_index=tuple(int(index) for index in table.grid.payload_index),
        learning_rate=lambda left: config.learning_rate * (0.05 + 0.95 * left),
        seed=config.seed,
        tensorboard_log=tensorboard_log,
    )

    def controller(
        weights: ForecastWeights, prices: BacklogPrices = prices, margin: float | None = None
    ) -> ForecastController:
        guard = None if margin is None else tuned.static
        return ForecastController(
            table, weights, prices, guard_candidate=guard, guard_margin=margin or 0.0
        )

    watcher = _Watcher(config, lambda weights: mean_utility(controller(weights), table, streams),
                       say, progress)  # fmt: skip
    model.learn(config.num_frames, callback=watcher, log_interval=10**9)
    weights = watcher.best
    assert weights is not None
    # The forecast sees neither prices nor guard: they can be picked again for it at no cost.
    options = dict.fromkeys([prices, *(knobs.prices for knobs in distribution_settings())])
    scores = {
        option: mean_utility(controller(weights, option), table, streams) for option in options
    }
    prices = max(scores, key=lambda option: scores[option])
    guarded = {
        margin: mean_utility(controller(weights, prices, margin), table, streams)
        for margin in GUARD_MARGINS
    }
    margin = max(guarded, key=lambda option: guarded[option])
    validation["sac"] = guarded[margin]
    say(f"validation utility of the sac: {guarded[margin]:.4f}, with {prices}, guard {margin}")
    seconds = time.monotonic() - started
    return Trained(weights, prices, margin, tuned, tuple(watcher.curve), validation, seconds)


class _Watcher(BaseCallback):
    """Validates at even steps and keeps the best weights."""

    def __init__(
        self,
        config: TrainConfig,
        validate: Callable[[ForecastWeights], float],
        say: Callable[[str], None],
        progress: Callable[[int, int], None],
    ) -> None:
        super().__init__()
        self.config, self.validate, self.say, self.report = config, validate, say, progress
        self.curve: list[tuple[int, float]] = []
        self.best: ForecastWeights | None = None
        self.best_value = -np.inf

    def _on_training_start(self) -> None:
        self._check()

    def _on_step(self) -> bool:
        self.report(self.num_timesteps, self.config.num_frames)
        due = (len(self.curve)) * self.config.num_frames / self.config.checkpoints
        if self.num_timesteps >= due:
            self._check()
        return True

    def _check(self) -> None:
        model = self.model
        assert isinstance(model, CandidateSAC)
        weights = model.policy.export()
        value = self.validate(weights)
        self.curve.append((self.num_timesteps, value))
        self.logger.record("validation/utility", value)
        self.logger.dump(self.num_timesteps)
        self.say(f"{self.num_timesteps:>7} frames: validation utility {value:.4f}")
        if value > self.best_value:
            self.best, self.best_value = weights, value
