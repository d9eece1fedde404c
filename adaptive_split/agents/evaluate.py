"""Play a policy over streams in the simulator and sum up what it brought."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adaptive_split.agents.baselines import Oracle
from adaptive_split.planner import CandidateTable
from adaptive_split.runtime.controller import Policy
from adaptive_split.runtime.simulated_step import Step
from adaptive_split.runtime.simulator import Simulator
from adaptive_split.runtime.streams import Stream


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


def play(
    policy: Policy,
    table: CandidateTable,
    streams: Sequence[Stream],
    progress: Callable[[int, int], None] | None = None,
) -> Episodes:
    """Run a policy over all streams at once, to the end."""
    simulator = Simulator(table, streams, probes=policy.probes)
    if isinstance(policy, Oracle):
        policy.bind(simulator)
    steps = []
    while not simulator.done.all():
        steps.append(simulator.step(policy.choose(simulator.moment())))
        if progress is not None and len(steps) % 20 == 0:
            progress(min(len(steps), simulator.num_frames), simulator.num_frames)
    return Episodes(policy.name, simulator.num_frames, tuple(steps), simulator.total_probe_bytes)


def mean_utility(policy: Policy, table: CandidateTable, streams: Sequence[Stream]) -> float:
    """Mean utility per captured frame over all streams."""
    return float(play(policy, table, streams).per_stream("utility").mean())
