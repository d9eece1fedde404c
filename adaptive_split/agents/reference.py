"""Stable-Baselines3's own SAC, PPO and DQN on the same environment: what the candidate form beats.

They see the same observation and learn from the taken action's reward alone. Their settings are the
library's defaults save those below, which give them what the candidate form has as well: scaled
observations, its discount and many lanes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3 import DQN, PPO, SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnvWrapper, VecNormalize
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from adaptive_split.agents.sb3_env import TraceVecEnv
from adaptive_split.candidates import CandidateTable
from adaptive_split.envs.vector_env import TraceVectorEnv
from adaptive_split.errors import ConfigError
from adaptive_split.observation import observe
from adaptive_split.planner import BacklogPrices, Moment
from adaptive_split.runtime.controller import Choice
from adaptive_split.scenario import Scenario
from adaptive_split.trace import Trace

NUM_ENVS = 32
GAMMA = 0.9


@dataclass(frozen=True, slots=True)
class Reference:
    """An algorithm and what differs from its defaults."""

    algorithm: Callable[..., BaseAlgorithm]
    continuous: bool
    """Whether it acts in `Box(-1, 1, (3,))`, decoded to the nearest candidate."""
    settings: Mapping[str, Any]


_REPLAY = {"buffer_size": 50_000, "learning_starts": 2_000}
REFERENCES = {
    # -1: as many gradient steps as frames, which is the default ratio of one lane.
    "plain-sac": Reference(SAC, True, {**_REPLAY, "gradient_steps": -1}),
    "ppo": Reference(PPO, False, {"n_steps": 2_048 // NUM_ENVS, "batch_size": 256}),
    # A step of all lanes is 32 frames; a gradient step per four frames is the default ratio.
    "dqn": Reference(DQN, False, {**_REPLAY, "train_freq": 1, "gradient_steps": NUM_ENVS // 4}),
}


class ReferenceController:
    """A trained algorithm of Stable-Baselines3 as a controller."""

    probes = True

    def __init__(
        self, name: str, table: CandidateTable, model: BaseAlgorithm, prices: BacklogPrices
    ) -> None:
        self.name, self.table, self.model, self.prices = name, table, model, prices

    def choose(self, moment: Moment) -> Choice:
        """Take the greedy or mean action of the policy."""
        scaling = self.model.get_vec_normalize_env()
        assert scaling is not None
        flat = scaling.normalize_obs(observe(self.table, moment, self.prices).flat())
        assert isinstance(flat, np.ndarray)
        actions, _ = self.model.predict(flat, deterministic=True)
        if actions.ndim == 1:
            return actions.astype(np.int64)
        return np.array([self.table.grid.from_action(action) for action in actions])


class BoxVecActions(VecEnvWrapper):
    """Decisions as points in a cube, for all lanes; see `envs.box_action.BoxActions`."""

    venv: TraceVecEnv

    def __init__(self, venv: TraceVecEnv) -> None:
        super().__init__(venv, action_space=spaces.Box(-1.0, 1.0, (3,), np.float32))

    def reset(self) -> VecEnvObs:
        """Start every lane."""
        return self.venv.reset()

    def step_async(self, actions: NDArray[np.float32]) -> None:
        """Find the candidates of the points."""
        grid = self.venv.env.table.grid
        self.venv.step_async(np.array([grid.from_action(action) for action in actions]))

    def step_wait(self) -> VecEnvStepReturn:
        """Take them."""
        return self.venv.step_wait()


def train_reference(
    name: str,
    scenario: Scenario,
    traces: Sequence[Trace],
    *,
    num_frames: int,
    prices: BacklogPrices | None = None,
    seed: int = 0,
) -> ReferenceController:
    """Train one of `REFERENCES`.

    Args:
        name: Which.
        scenario: What is decided and promised; the `policy` half of the pictures is used.
        traces: The links to learn from.
        num_frames: How many decisions it may make.
        prices: Backlog prices in the planner's columns.
        seed: Of everything.
    """
    if name not in REFERENCES:
        raise ConfigError(f"a reference must be one of {', '.join(REFERENCES)}; got {name!r}")
    chosen = REFERENCES[name]
    prices = BacklogPrices() if prices is None else prices
    lanes = TraceVecEnv(TraceVectorEnv(scenario, traces, NUM_ENVS, prices=prices))
    env = VecNormalize(
        BoxVecActions(lanes) if chosen.continuous else lanes, norm_reward=False, gamma=GAMMA
    )
    model = chosen.algorithm(
        "MlpPolicy", env, seed=seed, device="cpu", gamma=GAMMA, **chosen.settings
    )
    model.learn(num_frames)
    return ReferenceController(name, scenario.table("policy"), model, prices)
