"""Play a policy over streams in the simulator and sum up what it brought."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from adaptive_split.agents.baselines import Oracle
from adaptive_split.candidates import CandidateTable, Floats
from adaptive_split.runtime.controller import Policy
from adaptive_split.runtime.simulated.simulator import Simulator
from adaptive_split.runtime.simulated.step import Step
from adaptive_split.runtime.simulated.streams import Stream


@dataclass(frozen=True, slots=True, eq=False)
class Episodes:
    """Frames of one policy over B streams; frames never started are not listed but counted."""

    policy: str
    num_frames: int
    """Frames captured per stream."""
    steps: tuple[Step, ...]
    probe_bytes: NDArray[np.float64]

    def column(self, name: str) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """One field of all started frames, and the stream of each."""
        stack = np.stack([getattr(step, name) for step in self.steps])
        active = np.stack([step.active for step in self.steps])
        lanes = np.broadcast_to(np.arange(stack.shape[1]), stack.shape)
        return stack[active], lanes[active]

    def per_stream(self, name: str) -> NDArray[np.float64]:
        """Mean of a field over all captured frames of each stream; a dropped frame counts 0."""
        values, lanes = self.column(name)
        total = np.bincount(lanes, weights=values.astype(float), minlength=len(self.probe_bytes))
        return total / self.num_frames


@runtime_checkable
class Learner(Protocol):
    """A policy that learns while it plays: told of every step, lane by lane."""

    def start(self, lanes: int) -> None:
        """Forget everything and get ready for that many lanes."""
        ...

    def learn(self, step: Step) -> None:
        """Take in what the last choice brought."""
        ...


def steps_of(
    policy: Policy,
    simulator: Simulator,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Step]:
    """Play a policy to the end of a simulator's streams, one step at a time."""
    if isinstance(policy, Oracle):
        policy.bind(simulator)
    learner = policy if isinstance(policy, Learner) else None
    if learner is not None:
        learner.start(simulator.lanes)
    num_steps = 0
    while not simulator.done.all():
        step = simulator.step(policy.choose(simulator.moment()))
        if learner is not None:
            learner.learn(step)
        num_steps += 1
        if progress is not None and num_steps % 20 == 0:
            progress(min(num_steps, simulator.num_frames), simulator.num_frames)
        yield step


def play(
    policy: Policy,
    table: CandidateTable,
    streams: Sequence[Stream],
    progress: Callable[[int, int], None] | None = None,
) -> Episodes:
    """Run a policy over all streams at once, to the end."""
    simulator = Simulator(table, streams, probes=policy.probes)
    steps = tuple(steps_of(policy, simulator, progress))
    return Episodes(policy.name, simulator.num_frames, steps, simulator.total_probe_bytes)


def lane_utility(
    policy: Policy,
    table: CandidateTable,
    streams: Sequence[Stream],
    progress: Callable[[int, int], None] | None = None,
) -> Floats:
    """Mean utility per captured frame of every stream, shape `(L,)`; keeps no steps.

    With a table that is for other pictures, what is to be expected of those: `Step.expected`.
    """
    simulator = Simulator(table, streams, probes=policy.probes)
    total = np.zeros(simulator.lanes)
    for step in steps_of(policy, simulator, progress):
        total += step.expected
    return np.asarray(total / simulator.num_frames)


def mean_utility(policy: Policy, table: CandidateTable, streams: Sequence[Stream]) -> float:
    """Mean utility per captured frame over all streams."""
    return float(lane_utility(policy, table, streams).mean())
