"""Two controllers on one device at the same time: one decides most frames, a canary the rest.

Frames are drawn in blocks, as what one controller leaves behind (backlog, link estimates) is what
the next frame finds; the first frames of a block belong to nobody in the comparison (a washout, as
in crossover trials). Which block is whose follows from a seed and the block's number alone.
"""

from __future__ import annotations

import hashlib
import math
from array import array
from dataclasses import dataclass

import numpy as np

from adaptive_split.decision import Decision
from adaptive_split.errors import ConfigError
from adaptive_split.measurement import FrameReport
from adaptive_split.objective import Objective
from adaptive_split.runtime.backend import Situation
from adaptive_split.runtime.live_controller import LiveController
from adaptive_split.runtime.updates.blocks import Difference, Floats, difference

CURRENT, CANARY = "current", "canary"
ARMS = (CURRENT, CANARY)
BLOCK_FRAMES = 30
WASHOUTS_PER_BLOCK = 4


@dataclass(frozen=True, slots=True)
class Draw:
    """Which frames are the canary's."""

    share: float
    """Of the blocks, in (0, 1)."""
    block_frames: int
    washout_frames: int
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse shares that leave one side without frames."""
        if not 0 < self.share < 1:
            raise ConfigError(f"the canary's share must lie in (0, 1); got {self.share!r}")

    @classmethod
    def of(cls, objective: Objective, share: float, seed: int = 0) -> Draw:
        """Size blocks so that at most a quarter of one is washout: the frames in flight at once."""
        washout = math.ceil(objective.slo_s * objective.fps) + 1
        return cls(share, max(BLOCK_FRAMES, WASHOUTS_PER_BLOCK * washout), washout, seed)

    def arm(self, frame_index: int) -> str:
        """Whose a frame is."""
        text = f"{self.seed}:{frame_index // self.block_frames}".encode()
        number = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")
        return CANARY if number < self.share * 2**64 else CURRENT

    def counts(self, frame_index: int) -> bool:
        """Whether a frame is compared."""
        return frame_index % self.block_frames >= self.washout_frames


class Deciders:
    """The controller of a run, which may change while frames are played, and its canary if any."""

    def __init__(
        self, current: LiveController, canary: LiveController | None, draw: Draw | None
    ) -> None:
        """Take who decides.

        Args:
            current: Decides all frames that no canary decides.
            canary: Decides those that `draw` gives it.
            draw: None where there is never to be a canary.
        """
        self.name = current.name
        self._draw = draw
        self._current, self._canary = current, canary
        self._next: tuple[LiveController, LiveController | None] | None = None
        # First frame of the canary, and the first one after it.
        self._from, self._until = 0, None if canary else 0

    @property
    def probes(self) -> bool:
        """Whether one of them needs the link measured while it sends nothing."""
        both = (self._current, self._canary)
        return any(one is not None and one.policy.probes for one in both)

    def switch(self, current: LiveController, canary: LiveController | None) -> None:
        """Let others decide from the next frame on; may be called on any thread."""
        self._next = (current, canary)

    def arm(self, frame_index: int) -> str:
        """Which of two decides a frame; empty where one decides all."""
        if self._draw is None or frame_index < self._from:
            return ""
        if self._until is not None and frame_index >= self._until:
            return ""
        return self._draw.arm(frame_index)

    def decide(self, situation: Situation) -> Decision:
        """Choose as the controller of that frame does."""
        if self._next is not None:
            (self._current, canary), self._next = self._next, None
            if canary is not None:
                self._from, self._until = situation.frame_index, None
            elif self._canary is not None:
                self._until = situation.frame_index
            self._canary = canary
        return self._of(situation).decide(situation)

    def observation(self, situation: Situation) -> list[float]:
        """What that controller saw, for the record."""
        return self._of(situation).observation(situation)

    def reset(self) -> None:
        """Forget the run."""
        for one in (self._current, self._canary):
            if one is not None:
                one.reset()

    def _of(self, situation: Situation) -> LiveController:
        canary = self._canary
        if canary is not None and self.arm(situation.frame_index) == CANARY:
            return canary
        return self._current


COLUMNS = ("frames", "utility", "on_time", "fell_back", "payload_bytes", "energy_j")


class Comparison:
    """What both sides' frames cost, summed up by block as they settle."""

    def __init__(self, draw: Draw) -> None:
        self._draw = draw
        self._blocks: dict[str, dict[int, Floats]] = {arm: {} for arm in ARMS}
        self._latencies_s = {arm: array("d") for arm in ARMS}

    def add(self, report: FrameReport) -> None:
        """Count a settled frame that bears an arm and is none of a block's first."""
        if not report.arm or not self._draw.counts(report.frame_index):
            return
        block = report.frame_index // self._draw.block_frames
        sums = self._blocks[report.arm].setdefault(block, np.zeros(len(COLUMNS)))
        fell_back = report.decision is not None and report.fallback_reason != ""
        sums += (1, report.utility, report.on_time, fell_back, report.payload_bytes,
                 report.energy_j)  # fmt: skip
        if report.latency_s is not None:
            self._latencies_s[report.arm].append(report.latency_s)

    def means(self, arm: str) -> dict[str, float] | None:
        """Number of frames and blocks of one side, and means over its frames; none without any."""
        blocks, late_s = self._blocks[arm], self._latencies_s[arm]
        if not blocks:
            return None
        frames, *sums = np.sum(list(blocks.values()), axis=0)
        p95 = float(np.percentile(late_s, 95)) if late_s else math.nan
        means = {name: float(total / frames) for name, total in zip(COLUMNS[1:], sums, strict=True)}
        return {"frames": float(frames), "blocks": len(blocks), "p95_latency_s": p95, **means}

    def difference(self, column: str) -> Difference | None:
        """Mean of a column under the canary less that under the other, 95 %, over blocks."""
        index = COLUMNS.index(column)
        canary, current = (
            np.array([sums[index] / sums[0] for sums in self._blocks[arm].values()], np.float64)
            for arm in (CANARY, CURRENT)
        )
        return difference(canary, current)
