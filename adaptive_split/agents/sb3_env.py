"""The vector environment as Stable-Baselines3 wants it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv

from adaptive_split.envs.vector_env import TraceVectorEnv


class TraceVecEnv(VecEnv):
    """A `TraceVectorEnv` behind Stable-Baselines3's `VecEnv`; infos carry the counterfactuals."""

    def __init__(self, env: TraceVectorEnv) -> None:
        self.env = env
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)
        self._actions = np.zeros(env.num_envs, np.int64)
        self._next_seed: int | None = None

    def reset(self) -> NDArray[np.float32]:
        """Start every lane on a fresh stream."""
        observation, _ = self.env.reset(seed=self._next_seed)
        self._next_seed = None
        return observation

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Seed the next reset."""
        self._next_seed = seed
        return [seed] * self.num_envs

    def step_async(self, actions: NDArray[np.int64]) -> None:
        """Keep the actions until `step_wait`."""
        self._actions = np.asarray(actions).reshape(-1)

    def step_wait(
        self,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_], list[dict[str, Any]]]:
        """Take the actions in all lanes."""
        observation, reward, _, ended, shared = self.env.step(self._actions)
        on_time = shared["payload_on_time"]
        infos: list[dict[str, Any]] = [{"payload_on_time": row} for row in on_time]
        for lane in np.flatnonzero(ended):
            infos[lane]["TimeLimit.truncated"] = True
            infos[lane]["terminal_observation"] = shared["final_obs"][lane]
        return observation, reward.astype(np.float32), ended, infos

    def close(self) -> None:
        """Nothing is held."""

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """Read an attribute of the environment, the same for every lane."""
        return [getattr(self.env, attr_name, None)] * len(self._lanes(indices))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Set an attribute of the environment, for all lanes."""
        setattr(self.env, attr_name, value)

    def env_method(
        self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any
    ) -> list[Any]:
        """Call a method of the environment once and give its result for every lane."""
        result = getattr(self.env, method_name)(*args, **kwargs)
        return [result] * len(self._lanes(indices))

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """No lane is wrapped."""
        return [False] * len(self._lanes(indices))

    def _lanes(self, indices: Any) -> list[int]:
        return list(self._get_indices(indices))
