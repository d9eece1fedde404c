"""A baseline-gap curriculum: more of the links where the policy loses to the planner."""

from __future__ import annotations

import numpy as np

from adaptive_split.errors import ConfigError
from adaptive_split.runtime.simulated.streams import Stream, StreamSource

MEMORY = 0.7
"""Weight of what was known of a trace when another of its streams has been played."""


class Curriculum:
    """Draws a share of the streams by how much the policy lost to the planner on their traces."""

    def __init__(self, share: float) -> None:
        """Take the share of streams drawn by gap, in [0, 1]; the others are drawn evenly."""
        if not 0 <= share <= 1:
            raise ConfigError(f"the curriculum's share must lie in [0, 1]; got {share!r}")
        self.share = share
        self.gap: dict[tuple[str, str], float] = {}
        """Mean utility per frame lost to the planner, by family and trace."""

    def note(self, stream: Stream, gap: float) -> None:
        """Take in what a finished stream showed; a gap is positive where the planner is better."""
        key = (stream.family, stream.name)
        known = self.gap.get(key, gap)
        self.gap[key] = MEMORY * known + (1 - MEMORY) * gap

    def draw(self, source: StreamSource, generator: np.random.Generator) -> Stream:
        """Draw the stream of a lane that starts."""
        if generator.random() >= self.share:
            return source.draw(generator)
        traces = [trace for members in source.families.values() for trace in members]
        lost = np.array([max(self.gap.get((t.family, t.name), 0.0), 0.0) for t in traces])
        if not lost.any():
            return source.draw(generator)
        return source.draw(generator, traces[generator.choice(len(traces), p=lost / lost.sum())])
