"""Train one policy for one or several scenarios, validate as it learns, keep the best."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback

from adaptive_split.agents.checkpoint import Arrays, Checkpointer, arrays_of, weights_of
from adaptive_split.agents.networks import WIDTH
from adaptive_split.agents.sac import CandidateSAC
from adaptive_split.agents.sb3_env import TraceVecEnv
from adaptive_split.agents.shards import Maker, Shards
from adaptive_split.agents.task import Task
from adaptive_split.agents.variation import Variation
from adaptive_split.envs.curriculum import Curriculum
from adaptive_split.envs.vector_env import TraceVectorEnv
from adaptive_split.errors import ConfigError
from adaptive_split.runtime.controller import ForecastWeights
from adaptive_split.scenario import Scenario
from adaptive_split.trace import Trace

LATER = 0.0005
"""A later checkpoint is kept unless it is worse than the best one by more than this: validation is
noisy, and what was learnt last was learnt at the lowest rate."""
Spread = Callable[[Sequence[Maker]], Shards]
"""Makes simulators somewhere else and plays them there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """One training run."""

    seed: int = 0
    num_frames: int = 320_000
    """Of all scenarios together."""
    num_envs: int = 128
    """Lanes of all scenarios together."""
    num_simulators: int = 1
    """Simulators of each scenario, which share its lanes; another number draws other streams."""
    learning_rate: float = 1e-3
    """Falls linearly to a twentieth."""
    batch_size: int = 512
    gradient_steps: int = 1
    """After each step of all lanes."""
    width: int = WIDTH
    """Of the forecast's layers; deciding takes the longer the wider they are."""
    vary: bool = False
    """Whether half of the streams are varied beyond what was recorded; see `Variation`."""
    slo_factors: tuple[float, ...] = (1.0,)
    """Factors on the latency that each scenario promises: its simulators play with them in turn, so
    that the network also knows what scenarios promise that it is not trained for."""
    curriculum: float = 0.0
    """Share of the streams drawn where the policy loses to the planner; see `Curriculum`."""
    gamma: float = 0.9
    """Discount per frame of the SAC target, where no counterfactuals are known."""
    tuning_per_family: int = 24
    """Streams per family on which rivals are tuned."""
    validation_per_family: int = 24
    """Streams per family and scenario on which checkpoints, prices and guard are chosen."""
    checkpoints: int = 6

    def __post_init__(self) -> None:
        """Refuse what could not be run."""
        if self.vary and self.curriculum:
            raise ConfigError(
                "streams must either be varied or follow the curriculum; got vary=True and "
                f"curriculum={self.curriculum!r}; leave one of them out"
            )
        for name in ("num_frames", "num_envs", "num_simulators", "width", "checkpoints"):
            value = getattr(self, name)
            if value < 1:
                raise ConfigError(f"{name} of a training must be 1 or more; got {value!r}")
        if not self.slo_factors or not all(0.1 <= factor <= 10 for factor in self.slo_factors):
            raise ConfigError(
                f"slo_factors must lie in [0.1, 10], one at least; got {self.slo_factors!r}"
            )

    @property
    def simulators_each(self) -> int:
        """Simulators of each scenario: `num_simulators` with each latency promised."""
        return self.num_simulators * len(self.slo_factors)


@dataclass(frozen=True, slots=True, eq=False)
class Learned:
    """The best checkpoint, and how it was found."""

    weights: ForecastWeights
    curve: tuple[tuple[int, float], ...]
    """`(frames, gain)`: validation utility above the distribution planner's, mean of scenarios."""
    seconds: float


def learn(
    tasks: Sequence[Task],
    traces: Sequence[Trace],
    config: TrainConfig,
    say: Callable[[str], None] = lambda _: None,
    progress: Callable[[int, int], None] = lambda *_: None,
    tensorboard_log: str | None = None,
    checkpoints: Path | None = None,
    spread: Spread | None = None,
) -> Learned:
    """Train the forecast on all tasks at once and return the best checkpoint.

    Args:
        tasks: The scenarios; one network serves all of them.
        traces: Training traces; the `policy` half of the pictures is used.
        config: Frames, lanes, seed.
        say: Called with lines worth a person's time.
        progress: Called with `(frames done, frames in all)`.
        tensorboard_log: Where to write learning curves, if anywhere.
        checkpoints: Folder to save the state of the training in, and to go on from what it holds;
            with one, all lanes start anew at every checkpoint: other weights than without.
        spread: Where the simulators play; by default here. The weights are the same.
    """
    started = time.monotonic()
    torch.manual_seed(config.seed)
    model = make_model(tasks, traces, config, tensorboard_log, spread)
    watcher = _Watcher(tasks, config, say, progress)
    callbacks: list[BaseCallback] = [watcher]
    done = 0
    if checkpoints is not None:
        about = asdict(config) | {"scenarios": [task.scenario.name for task in tasks]}
        every_frames = config.num_frames / config.checkpoints
        keeper = Checkpointer(
            checkpoints, about, every_frames=every_frames, seed=config.seed, watcher=watcher
        )
        done = keeper.resume(model)
        callbacks.append(keeper)
    if done:
        say(f"going on from frame {done}")
    try:
        model.learn(config.num_frames - done, callback=callbacks, log_interval=10**9,
                    reset_num_timesteps=not done)  # fmt: skip
    finally:
        assert model.env is not None
        model.env.close()
    assert watcher.best is not None
    return Learned(watcher.best, tuple(watcher.curve), time.monotonic() - started)


def make_model(
    tasks: Sequence[Task],
    traces: Sequence[Trace],
    config: TrainConfig,
    tensorboard_log: str | None = None,
    spread: Spread | None = None,
) -> CandidateSAC:
    """Build environments and an untrained policy: the planner."""
    env = _make_env(tasks, traces, config, spread)
    env.seed(config.seed)
    return CandidateSAC(
        env,
        layout=env.layout,
        width=config.width,
        learning_rate=lambda left: config.learning_rate * (0.05 + 0.95 * left),
        batch_size=config.batch_size,
        gradient_steps=config.gradient_steps,
        gamma=config.gamma,
        seed=config.seed,
        tensorboard_log=tensorboard_log,
    )


def _make_env(
    tasks: Sequence[Task], traces: Sequence[Trace], config: TrainConfig, spread: Spread | None
) -> TraceVecEnv:
    lanes = max(config.num_envs // (len(tasks) * config.simulators_each), 1)
    factors = config.slo_factors * config.num_simulators
    which = [index for index in range(len(tasks)) for _ in factors]
    makers = [
        partial(
            TraceVectorEnv, with_slo(task.scenario, factor), traces, lanes, prices=task.prices,
            draw=Variation() if config.vary else None,
            curriculum=Curriculum(config.curriculum) if config.curriculum else None,
        )
        for task in tasks
        for factor in factors
    ]  # fmt: skip
    shards = None if spread is None else spread(makers)
    return TraceVecEnv(*(make() for make in makers), scenario_of=which, shards=shards)


def with_slo(scenario: Scenario, factor: float) -> Scenario:
    """The same scenario with the latency promised times a factor."""
    objective = replace(scenario.objective, slo_s=factor * scenario.objective.slo_s)
    return replace(scenario, objective=objective)


class _Watcher(BaseCallback):
    """Validates at even steps and keeps the best weights."""

    def __init__(
        self,
        tasks: Sequence[Task],
        config: TrainConfig,
        say: Callable[[str], None],
        progress: Callable[[int, int], None],
    ) -> None:
        super().__init__()
        self.tasks, self.config, self.say, self.report = tasks, config, say, progress
        self.curve: list[tuple[int, float]] = []
        self.best: ForecastWeights | None = None
        self.best_gain = -np.inf

    def memory(self) -> Arrays:
        """The curve and the best weights so far."""
        assert self.best is not None
        return {"curve": np.array(self.curve), **arrays_of(self.best)}

    def remember(self, memory: Arrays) -> None:
        """Take them back."""
        self.curve = [(int(frames), float(gain)) for frames, gain in memory["curve"]]
        self.best, self.best_gain = weights_of(memory), max(gain for _, gain in self.curve)

    def _on_training_start(self) -> None:
        if not self.curve:
            self._check()

    def _on_step(self) -> bool:
        self.report(self.num_timesteps, self.config.num_frames)
        due = len(self.curve) * self.config.num_frames / self.config.checkpoints
        if self.num_timesteps >= due:
            self._check()
        return True

    def _check(self) -> None:
        model = self.model
        assert isinstance(model, CandidateSAC)
        weights = model.policy.export()
        gains = [task.utility(weights) - task.planner_utility for task in self.tasks]
        gain = float(np.mean(gains))
        self.curve.append((self.num_timesteps, gain))
        self.logger.record("validation/gain", gain)
        for task, value in zip(self.tasks, gains, strict=True):
            self.logger.record(f"validation/gain_{task.scenario.name}", value)
        self.logger.dump(self.num_timesteps)
        each = ", ".join(f"{value:+.4f}" for value in gains)
        self.say(f"{self.num_timesteps:>7} frames: {gain:+.4f} above the planner ({each})")
        if gain >= self.best_gain - LATER:
            self.best = weights
        self.best_gain = max(gain, self.best_gain)
