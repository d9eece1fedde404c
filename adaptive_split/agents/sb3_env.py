"""Vector environments of one or several scenarios as Stable-Baselines3 wants them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv

from adaptive_split.agents.shards import LocalShards, Shards
from adaptive_split.envs.vector_env import TraceVectorEnv
from adaptive_split.observation import CANDIDATE_COLUMNS, CONTEXT, PAYLOAD_COLUMNS

Floats32 = NDArray[np.float32]
NEVER_CHOSEN = -1e4
"""Utility of the rows that fill up a shorter list of candidates."""


class Layout:
    """Where context, payload and candidate rows of several scenarios stand in one vector.

    Shorter lists are filled up: payloads with zeros, candidates with rows that nobody chooses. With
    more than one scenario the last entry of the vector tells which one it is.
    """

    def __init__(self, payload_indices: Sequence[Sequence[int]]) -> None:
        """Take the payload (or -1) of every candidate, for every scenario."""
        self.payload_indices = tuple(tuple(int(i) for i in row) for row in payload_indices)
        self.num_payloads = max(max(row) for row in self.payload_indices) + 1
        self.num_candidates = max(len(row) for row in self.payload_indices)
        self.mixed = len(self.payload_indices) > 1
        rows = self.num_payloads * len(PAYLOAD_COLUMNS)
        self.sizes = (len(CONTEXT), rows, self.num_candidates * len(CANDIDATE_COLUMNS))
        self.size = sum(self.sizes) + self.mixed

    def pad(self, flat: Floats32, scenario_index: int) -> Floats32:
        """Bring one scenario's observations `(L, D)` to the common form `(L, size)`."""
        if not self.mixed:
            return flat
        index = self.payload_indices[scenario_index]
        rows = (max(index) + 1) * len(PAYLOAD_COLUMNS)
        context, wide, _ = self.sizes
        padded = np.zeros((len(flat), self.size), np.float32)
        padded[:, context + wide : -1 : len(CANDIDATE_COLUMNS)] = NEVER_CHOSEN
        padded[:, : context + rows] = flat[:, : context + rows]
        candidates = flat[:, context + rows :]
        padded[:, context + wide : context + wide + candidates.shape[1]] = candidates
        padded[:, -1] = scenario_index
        return padded


class TraceVecEnv(VecEnv):
    """The lanes of several `TraceVectorEnv` side by side; infos carry the counterfactuals."""

    def __init__(
        self,
        *envs: TraceVectorEnv,
        scenario_of: Sequence[int] | None = None,
        shards: Shards | None = None,
    ) -> None:
        """Put them side by side.

        Args:
            envs: In the order of their scenarios.
            scenario_of: Index of each one's scenario; by default each has one of its own.
            shards: Where equal ones are played; by default these are.
        """
        self.envs = envs
        self.scenario_of = range(len(envs)) if scenario_of is None else scenario_of
        self.shards = LocalShards(envs) if shards is None else shards
        first = [self.scenario_of.index(which) for which in sorted(set(self.scenario_of))]
        self.layout = Layout([envs[index].table.grid.payload_index.tolist() for index in first])
        ends = np.cumsum([env.num_envs for env in envs])
        self._lanes_of = [
            slice(int(end) - env.num_envs, int(end)) for env, end in zip(envs, ends, strict=True)
        ]
        space: spaces.Space[Any] = envs[0].single_observation_space
        if self.layout.mixed:
            space = spaces.Box(-1e4, 1e4, (self.layout.size,), np.float32)
        super().__init__(int(ends[-1]), space, spaces.Discrete(self.layout.num_candidates))
        self._actions = np.zeros(self.num_envs, np.int64)
        self._next_seed: int | None = None
        self._later_seeds = np.random.default_rng()

    @property
    def env(self) -> TraceVectorEnv:
        """The first environment."""
        return self.envs[0]

    def reset(self) -> Floats32:
        """Start every lane on a fresh stream."""
        seed, self._next_seed = self._next_seed, None
        first = int(self._later_seeds.integers(2**31)) if seed is None else seed
        found = self.shards.reset([first + 7919 * index for index in range(len(self.envs))])
        return np.concatenate(
            [
                self.layout.pad(seen, which)
                for seen, which in zip(found, self.scenario_of, strict=True)
            ]
        )

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Seed the next reset."""
        self._next_seed = seed
        self._later_seeds = np.random.default_rng(seed)
        return [seed] * self.num_envs

    def step_async(self, actions: NDArray[np.int64]) -> None:
        """Keep the actions until `step_wait`."""
        self._actions = np.asarray(actions).reshape(-1)

    def step_wait(self) -> tuple[Floats32, Floats32, NDArray[np.bool_], list[dict[str, Any]]]:
        """Take the actions in all lanes."""
        seen, rewards, ends = [], [], []
        infos: list[dict[str, Any]] = []
        steps = self.shards.step([self._actions[lanes] for lanes in self._lanes_of])
        for which, (observation, reward, _, ended, shared) in zip(
            self.scenario_of, steps, strict=True
        ):
            seen.append(self.layout.pad(observation, which))
            rewards.append(reward)
            ends.append(ended)
            mine: list[dict[str, Any]] = [
                {"payload_on_time": row} for row in shared["payload_on_time"]
            ]
            if ended.any():
                final = self.layout.pad(shared["final_obs"], which)
                for lane in np.flatnonzero(ended):
                    mine[lane]["TimeLimit.truncated"] = True
                    mine[lane]["terminal_observation"] = final[lane]
            infos += mine
        return (
            np.concatenate(seen), np.concatenate(rewards).astype(np.float32),
            np.concatenate(ends), infos,
        )  # fmt: skip

    def close(self) -> None:
        """Let the simulators go."""
        self.shards.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """Read an attribute of the environments, one entry per lane."""
        return [getattr(self._of(lane), attr_name, None) for lane in self._lanes(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Set an attribute of all environments."""
        for env in self.envs:
            setattr(env, attr_name, value)

    def env_method(
        self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any
    ) -> list[Any]:
        """Call a method once per environment and give its result for every lane."""
        results = [getattr(env, method_name)(*args, **kwargs) for env in self.envs]
        return [results[self._part(lane)] for lane in self._lanes(indices)]

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """No lane is wrapped."""
        return [False] * len(self._lanes(indices))

    def _lanes(self, indices: Any) -> list[int]:
        return list(self._get_indices(indices))

    def _part(self, lane: int) -> int:
        return next(i for i, lanes in enumerate(self._lanes_of) if lane < lanes.stop)

    def _of(self, lane: int) -> TraceVectorEnv:
        return self.envs[self._part(lane)]
