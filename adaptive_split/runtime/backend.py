"""What plays frames: the situation before each, who decides, and what steps through them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from adaptive_split.decision import Decision
from adaptive_split.measurement import FrameReport, LinkSample


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What is known when a frame starts; live and simulated runs fill the same.

    All moments are seconds since the start of the run, on the device's clock.
    """

    now_s: float
    arrival_s: float
    """When the frame was captured."""
    frame_index: int
    uplink_free_s: float
    """When the device believes the uplink to have sent all it was given; `now_s` or earlier when
    it is idle."""
    oldest_unanswered_s: float | None
    """When the oldest request without a reply was sent; `None` when there is none."""
    oldest_unanswered_bytes: int
    samples: tuple[LinkSample, ...]
    """The most recent finished requests, at most 16, oldest first."""
    timeouts: int
    """Replies that missed their deadline among the last 16 requests."""
    recent_confidences: tuple[float, ...]
    """First-exit confidences of the last 8 frames that ran stage 1, oldest first."""
    device_slowdown: float
    """Measured compute time over the profile's, smoothed; 1 = as profiled."""
    soc: float | None
    """State of charge in [0, 1]; `None` when unknown."""
    server_usable: bool
    """False while the breaker is open or the server holds another bundle: stay local."""
    waiting: int = 0
    """Older frames that wait for the device."""


class Controller(Protocol):
    """Decides for every frame."""

    name: str

    def decide(self, situation: Situation) -> Decision:
        """Choose split point, exit threshold and bits of the frame that starts now."""
        ...

    def reset(self) -> None:
        """Forget the run."""
        ...


class Backend(Protocol):
    """A run, one decision at a time: live machines, or a simulator."""

    def reset(self, seed: int) -> Situation:
        """Start a run and return at its first decision."""
        ...

    def step(self, decision: Decision) -> tuple[Situation, list[FrameReport], bool]:
        """Start the current frame and return when the next decision is due.

        Returns:
            The next situation, the frames that settled since the last call (dropped ones
            included), and whether the run is over. After the last decision the situation is the
            one at the end of the run and every frame has settled.
        """
        ...

    def close(self) -> None:
        """Give back what the run held."""
        ...
