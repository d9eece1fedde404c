"""Plain Stable-Baselines3 SAC on a continuous action: a reference for the candidate form."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from stable_baselines3 import SAC

from adaptive_split.envs.box_action import BoxActions
from adaptive_split.envs.split_env import make_trace_env
from adaptive_split.observation import observe
from adaptive_split.planner import BacklogPrices, CandidateTable, Moment
from adaptive_split.runtime.controller import Choice
from adaptive_split.scenario import Scenario
from adaptive_split.trace import Trace


class PlainSAC:
    """A trained SB3 `SAC` as a controller: its action in the cube means the nearest candidate."""

    name = "plain-sac"
    probes = True

    def __init__(self, table: CandidateTable, model: SAC, prices: BacklogPrices) -> None:
        self.table, self.model, self.prices = table, model, prices

    def choose(self, moment: Moment) -> Choice:
        """Take the mean action of the policy."""
        flat = observe(self.table, moment, self.prices).flat()
        actions, _ = self.model.predict(flat, deterministic=True)
        return np.array([self.table.grid.from_action(action) for action in actions])


def train_plain_sac(
    scenario: Scenario,
    traces: Sequence[Trace],
    *,
    num_frames: int = 50_000,
    learning_starts: int = 2_000,
    prices: BacklogPrices | None = None,
    seed: int = 0,
) -> PlainSAC:
    """Train SB3's `SAC` as it comes on one simulated device, with its default settings.

    Args:
        scenario: What is decided and promised; the `policy` half of the pictures is used.
        traces: The links to learn from.
        num_frames: How many decisions it may make.
        learning_starts: How many of them at random, before it learns.
        prices: Backlog prices in the planner's columns.
        seed: Of everything.
    """
    prices = BacklogPrices() if prices is None else prices
    env = BoxActions(make_trace_env(scenario, traces, prices=prices))
    model = SAC("MlpPolicy", env, seed=seed, device="cpu", gamma=0.9,
                learning_starts=learning_starts)  # fmt: skip
    model.learn(num_frames)
    return PlainSAC(scenario.table("policy"), model, prices)
