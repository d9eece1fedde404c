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
    """Shards on actors; an actor that dies is made again and plays what it had played.

    An environment follows from its seed and its actions, so the new actor ends up where the old one
    was. It plays all steps since the last reset: reset now and then, as checkpoints do. The process
    must be on a cluster (`cluster.RayCluster`), or be a job on one.
    """

    def __init__(self, makers: Sequence[Maker], num_workers: int) -> None:
        """Start the actors.

        Args:
            makers: One for each shard.
            num_workers: Actors that share the shards evenly; any number gives the same.
        """
        self._ray = import_ray()
        count = min(num_workers, len(makers))
        self._members = [list(range(first, len(makers), count)) for first in range(count)]
        # Actors claim no core: a job of the same cluster may wait for them on the last one.
        self._kind = self._ray.remote(num_cpus=0, scheduling_strategy="SPREAD")(_Actor)
        self._makers = [self._ray.put([makers[i] for i in members]) for members in self._members]
        self._actors = [self._kind.remote(own) for own in self._makers]
        self._seeds: Sequence[int] = []
        self._played: list[Sequence[NDArray[np.int64]]] = []

    def reset(self, seeds: Sequence[int]) -> list[Observation]:
        """Start every shard."""
        self._seeds, self._played = list(seeds), []
        return self._gather(
            [
                actor.reset.remote([seeds[i] for i in members])
                for actor, members in zip(self._actors, self._members, strict=True)
            ]
        )

    def step(self, actions: Sequence[NDArray[np.int64]]) -> list[Step]:
        """Step every shard, those of different actors at the same time."""
        self._played.append(actions)
        return self._gather(
            [
                actor.step.remote([actions[i] for i in members])
                for actor, members in zip(self._actors, self._members, strict=True)
            ]
        )

    def close(self) -> None:
        """Stop the actors."""
        for actor in self._actors:
            self._ray.kill(actor)

    def _gather(self, calls: Sequence[Any]) -> list[Any]:
        results: dict[int, Any] = {}
        for index, (call, members) in enumerate(zip(calls, self._members, strict=True)):
            results.update(zip(members, self._result(index, call), strict=True))
        return [results[shard] for shard in sorted(results)]

    def _result(self, index: int, call: Any, lives: int = MOST_RETRIES) -> Any:
        try:
            return fetch(call)
        except self._ray.exceptions.RayActorError as error:
            if lives == 1:
                raise ConfigError(
                    f"simulators must survive a step; their process died {MOST_RETRIES} times: "
                    "lack of memory?"
                ) from error
            return self._result(index, self._play_again(index), lives - 1)

    def _play_again(self, index: int) -> Any:
        """Make an actor anew; return the call whose result is that of its last step."""
        actor, members = self._kind.remote(self._makers[index]), self._members[index]
        self._actors[index] = actor
        played = [[actions[i] for i in members] for actions in self._played]
        return actor.play.remote([self._seeds[i] for i in members], played)


class _Actor:
    """Some shards on a worker."""

    def __init__(self, makers: Sequence[Maker]) -> None:
        self._shards = LocalShards([make() for make in makers])

    def reset(self, seeds: Sequence[int]) -> list[Observation]:
        """Start the shards."""
        return self._shards.reset(seeds)

    def step(self, actions: Sequence[NDArray[np.int64]]) -> list[Step]:
        """Step the shards."""
        return self._shards.step(actions)

    def play(
        self, seeds: Sequence[int], played: Sequence[Sequence[NDArray[np.int64]]]
    ) -> list[Observation] | list[Step]:
        """Start the shards and take many steps; return what the last call would have."""
        result: list[Observation] | list[Step] = self.reset(seeds)
        for actions in played:
            result = self.step(actions)
        return result
