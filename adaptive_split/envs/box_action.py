"""Decisions as a point in a cube, for learners that know continuous actions only."""

from __future__ import annotations

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from adaptive_split.candidates import CandidateTable
from adaptive_split.errors import ConfigError


class BoxActions(gymnasium.ActionWrapper[NDArray[np.float32], NDArray[np.float32], np.int64]):
    """Maps `Box(-1, 1, (3,))`, that is split point, exit threshold and bits, to candidates.

    A point means the nearest candidate; so an unchanged Stable-Baselines3 `SAC` trains on it.
    """

    def __init__(self, env: gymnasium.Env[NDArray[np.float32], np.int64]) -> None:
        super().__init__(env)
        table = getattr(env.unwrapped, "table", None)
        if not isinstance(table, CandidateTable):
            raise ConfigError(f"BoxActions must wrap a SplitEnv; got {env.unwrapped!r}")
        self._grid = table.grid
        self.action_space = spaces.Box(-1.0, 1.0, (3,), np.float32)

    def action(self, action: NDArray[np.float32]) -> np.int64:
        """Find the candidate of a point."""
        return np.int64(self._grid.from_action(action))
