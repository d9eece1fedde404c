"""Simulators in shards: side by side in this process, or each an actor of a Ray cluster.

The number of shards belongs to a training's settings and not to the machines it runs on, so what is
rolled out is the same with any number of workers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from adaptive_split.agents.cluster import MOST_RETRIES, fetch, import_ray
from adaptive_split.envs.vector_env import TraceVectorEnv
from adaptive_split.errors import ConfigError

Observation = NDArray[np.float32]
Step = tuple[Observation, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]
"""What `TraceVectorEnv.step` returns."""
Maker = Callable[[], TraceVectorEnv]
"""Makes a shard's environment where it runs; on a cluster it is pickled."""


class Shards(Protocol):
    """Environments that step together; lists go by shard."""

    def reset(self, seeds: Sequence[int]) -> list[Observation]:
        """Start every shard with a seed of its own; return the first observations."""
        ...

    def step(self, actions: Sequence[NDArray[np.int64]]) -> list[Step]:
        """Take one candidate per lane in every shard."""
        ...

    def close(self) -> None:
        """Let the environments go."""
        ...


class LocalShards:
    """All shards in this process, one after the other."""

    def __init__(self, envs: Sequence[TraceVectorEnv]) -> None:
        self.envs = envs

    def reset(self, seeds: Sequence[int]) -> list[Observation]:
        """Start every shard."""
        return [env.reset(seed=seed)[0] for env, seed in zip(self.envs, seeds, strict=True)]

    def step(self, actions: Sequence[NDArray[np.int64]]) -> list[Step]:
        """Step every shard."""
        return [env.step(chosen) for env, chosen in zip(self.envs, actions, strict=True)]

    def close(self) -> None:
        """Nothing is held."""


class RayShards:
    """Every shard an actor; one that dies is made again and plays what it had played.

    An environment follows from its seed and its actions, so the new actor ends up where the old one
    was. It plays all steps since the last reset: reset now and then, as checkpoints do. The process
    must be on a cluster (`cluster.RayCluster`), or be a job on one.
    """

    def __init__(self, makers: Sequence[Maker]) -> None:
        self._ray = import_ray()
        # Actors claim no core: fewer workers than shards must do. They are spread over machines.
        self._kind = self._ray.remote(num_cpus=0, scheduling_strategy="SPREAD")(_Actor)
        self._makers = [self._ray.put(make) for make in makers]
        self._actors = [self._kind.remote(make) for make in self._makers]
        self._seeds = [0] * len(makers)
        self._played: list[list[NDArray[np.int64]]] = [[] for _ in makers]

    def reset(self, seeds: Sequence[int]) -> list[Observation]:
        """Start every shard."""
        self._seeds, self._played = list(seeds), [[] for _ in seeds]
        calls = [actor.reset.remote(seed) for actor, seed in zip(self._actors, seeds, strict=True)]
        found: list[Observation] = self._gather(calls)
        return found

    def step(self, actions: Sequence[NDArray[np.int64]]) -> list[Step]:
        """Step every shard, all at the same time."""
        for played, chosen in zip(self._played, actions, strict=True):
            played.append(chosen)
        calls = [
            actor.step.remote(chosen) for actor, chosen in zip(self._actors, actions, strict=True)
        ]
        found: list[Step] = self._gather(calls)
        return found

    def close(self) -> None:
        """Stop the actors."""
        for actor in self._actors:
            self._ray.kill(actor)

    def _gather(self, calls: Sequence[Any]) -> list[Any]:
        results = []
        for index, call in enumerate(calls):
            for _ in range(MOST_RETRIES):
                try:
                    results.append(fetch(call))
                    break
                except self._ray.exceptions.RayActorError:
                    call = self._play_again(index)
            else:
                raise ConfigError(f"a shard must run; shard {index} died {MOST_RETRIES} times")
        return results

    def _play_again(self, index: int) -> Any:
        """Make a shard's actor anew; return the call whose result is that of its last step."""
        actor = self._kind.remote(self._makers[index])
        self._actors[index] = actor
        return actor.play.remote(self._seeds[index], self._played[index])


class _Actor:
    """One shard on a worker."""

    def __init__(self, make: Maker) -> None:
        self._env = make()

    def reset(self, seed: int) -> Observation:
        """Start the shard."""
        return self._env.reset(seed=seed)[0]

    def step(self, actions: NDArray[np.int64]) -> Step:
        """Step the shard."""
        return self._env.step(actions)

    def play(self, seed: int, actions: Sequence[NDArray[np.int64]]) -> Observation | Step:
        """Start the shard and take many steps; return what the last call would have."""
        result: Observation | Step = self.reset(seed)
        for chosen in actions:
            result = self.step(chosen)
        return result
