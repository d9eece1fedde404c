"""Whether a release does harm: frames under it against frames under the one before.

Four shares or means, each over blocks of frames (see `blocks`): frames missed, frames that were
to be answered by the server and were not, frames slower than the 95th percentile of before, and the
confidence of answers. The release fails if one of them surely got worse by more than is allowed.
"Surely" is a one-sided 95 % bound; what is allowed keeps small, true differences from counting.

The link of the trial is another than the link of before. Frames for which the server was out of
reach are therefore left out, on both sides; and a canary (see `canary`) compares at the same time.
"""

from __future__ import annotations

import json
import math
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adaptive_split.errors import ConfigError
from adaptive_split.measurement import DEVICE, FrameReport
from adaptive_split.runtime.updates.blocks import (
    Difference,
    Floats,
    block_means,
    difference,
)

LEAST_BLOCK = 10
"""Frames of a block; a trial that counts fewer says nothing."""

_BOTH_SIDED = 0.90
"""Level of the interval whose lower end is a one-sided 95 % bound."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HealthLimits:
    """What a release on trial is allowed; our choices, none of them from a source."""

    window_frames: int = 1800
    """Frames that are judged, once."""
    num_blocks: int = 10
    """Into which they are cut; the fewer, the less it matters that the link remembers. 10 to 30 are
    advised by B. Schmeiser, "Batch size effects in the analysis of simulation output", Operations
    Research 30 (1982), 556-568."""
    miss_rise: float = 0.02
    """Rise of the share of frames without an answer in time."""
    fallback_rise: float = 0.10
    """Rise of the share of frames answered without the server that was asked."""
    slow_factor: float = 1.1
    """Slow is a frame that takes longer than this multiple of the p95 of before."""
    slow_rise: float = 0.05
    """Rise of the share of slow frames; 0.05 = the p95 rose by that factor."""
    confidence_shift: float = 0.15
    """Change of the mean confidence, up or down."""
    most_deaths: int = 3
    """Runs that may end without a word."""

    def __post_init__(self) -> None:
        """Refuse windows too short for an interval."""
        if self.window_frames < LEAST_BLOCK * self.num_blocks:
            raise ConfigError(
                f"a trial must judge at least {LEAST_BLOCK * self.num_blocks} frames; got "
                f"{self.window_frames}"
            )

    @property
    def block_frames(self) -> int:
        """Frames of a block."""
        return self.window_frames // self.num_blocks


@dataclass(frozen=True, slots=True)
class Finding:
    """One quantity under the release and before."""

    name: str
    rise: Difference | None
    """None: too few frames to say."""
    allowed: float
    both_ways: bool = False
    """Whether falling is as bad as rising."""

    @property
    def fails(self) -> bool:
        """Whether it surely changed by more than is allowed."""
        if self.rise is None:
            return False
        return self.rise.low > self.allowed or (self.both_ways and self.rise.high < -self.allowed)

    def __str__(self) -> str:
        """Write it for the journal."""
        if self.rise is None:
            return f"{self.name} unknown"
        return f"{self.name} {self.rise.value:+.3f} [{self.rise.low:+.3f}, {self.rise.high:+.3f}]"


class HealthWindow:
    """How the last frames fared, one column per quantity."""

    def __init__(self, num_frames: int) -> None:
        """Make an empty one that holds so many frames at most."""
        self._rows: deque[tuple[float, float, float, float]] = deque(maxlen=num_frames)

    def __len__(self) -> int:
        """Count the frames."""
        return len(self._rows)

    @property
    def full(self) -> bool:
        """Whether the next frame pushes the oldest out."""
        return len(self._rows) == self._rows.maxlen

    def add(self, report: FrameReport, obstacle: str) -> None:
        """Take a settled frame, unless the server was out of reach for it.

        Args:
            report: The frame.
            obstacle: Why the device sends nothing at the moment: `breaker`, `bundle` or empty. A
                server that holds another bundle is the release's fault, one that is away is not.
        """
        reason = report.fallback_reason
        if not reason and report.answered_by == DEVICE:
            reason = obstacle
        if reason == "breaker":
            return
        self._rows.append(
            (
                float(not report.on_time),
                float(reason not in ("", "dropped")),
                math.inf if report.latency_s is None else report.latency_s,
                math.nan if report.confidence is None else report.confidence,
            )
        )

    def columns(self) -> Floats:
        """Missed, fell back, latency (infinite if none), confidence (`nan` if none); `(4, n)`."""
        return np.array(self._rows, np.float64).reshape(-1, 4).T

    def save(self, file: Path) -> None:
        """Write it in the place of an older one."""
        rows = [[value if math.isfinite(value) else None for value in row] for row in self._rows]
        partial = file.with_suffix(".partial")
        partial.write_text(json.dumps(rows), encoding="utf-8")
        partial.replace(file)

    @classmethod
    def load(cls, file: Path, num_frames: int) -> HealthWindow:
        """Read it; empty where there is none, or one that cannot be read: it is an aid only."""
        window = cls(num_frames)
        try:
            for missed, fell_back, latency_s, confidence in json.loads(file.read_bytes()):
                window._rows.append(
                    (
                        float(missed),
                        float(fell_back),
                        math.inf if latency_s is None else float(latency_s),
                        math.nan if confidence is None else float(confidence),
                    )
                )
        except (OSError, ValueError, TypeError):
            return cls(num_frames)
        return window


def judge(now: HealthWindow, before: HealthWindow, limits: HealthLimits) -> tuple[Finding, ...]:
    """Compare a release with the one before it, quantity by quantity.

    Args:
        now: Frames under the release.
        before: Frames under the one before; empty: nothing can be found.
        limits: What is allowed.
    """
    ours, theirs = now.columns(), before.columns()
    p95_s = float(np.quantile(theirs[2], 0.95, method="lower")) if len(before) else math.inf
    slow_s = limits.slow_factor * p95_s

    def rise(after: Floats, before: Floats) -> Difference | None:
        size = limits.block_frames
        return difference(block_means(after, size), block_means(before, size), _BOTH_SIDED)

    return (
        Finding("missed", rise(ours[0], theirs[0]), limits.miss_rise),
        Finding("fell back", rise(ours[1], theirs[1]), limits.fallback_rise),
        Finding(
            f"slower than {1e3 * slow_s:.0f} ms",
            rise(1.0 * (ours[2] > slow_s), 1.0 * (theirs[2] > slow_s)),
            limits.slow_rise,
        ),
        Finding("confidence", rise(ours[3], theirs[3]), limits.confidence_shift, both_ways=True),
    )
