"""What one frame cost, and what one request told about the link."""

from __future__ import annotations

from dataclasses import dataclass

from adaptive_split.decision import Decision

DEVICE = "device"
SERVER = "server"
NOBODY = ""
NO_PICTURE = -1
"""Sample index of a frame for which the camera had no picture."""


@dataclass(frozen=True, slots=True)
class LinkSample:
    """One finished request, as the link estimators see it."""

    time_s: float
    """When the reply came, on the device's clock."""

    uplink_mbps: float
    """Payload bits over the time they took, round trip and server time taken off, in Mbit/s."""

    rtt_s: float
    """Round trip without payload and server time, in seconds."""

    server_wait_s: float
    """Time the request waited in the server's queue, as the server reported it."""

    server_slowdown: float
    """Server compute time over the profile's; 1 = as profiled."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FrameReport:
    """What one frame cost, simulated or live; the row of a frame record."""

    frame_index: int
    sample_index: int
    """Index of the picture in the outcomes."""
    arrival_s: float
    """Capture time, since the start of the run."""
    decision: Decision | None
    """`None` when the frame was dropped before it started."""
    answer: int | None
    """Class index, or `None` when nobody answered in time."""
    answered_by: str
    """`device`, `server`, or empty when nobody answered."""
    exit_index: int | None
    """Which exit answered, 1..S."""
    confidence: float | None
    correct: bool
    on_time: bool
    fallback_reason: str
    """Empty, or why the server's answer was not used: `late`, `link`, `refused`, `breaker`,
    `bundle`, `unsent`; `dropped` for a frame that never started."""
    latency_s: float | None
    """Capture to answer; the parts below add up to it."""
    wait_s: float = 0.0
    """From capture until the device began with it."""
    head_s: float = 0.0
    encode_s: float = 0.0
    uplink_s: float = 0.0
    """Waiting for and crossing the uplink, half a round trip included."""
    server_wait_s: float = 0.0
    tail_s: float = 0.0
    downlink_s: float = 0.0
    fallback_s: float = 0.0
    """Time spent between giving up on the server and the local answer, idle time included."""
    payload_bytes: int = 0
    energy_j: float = 0.0
    energy_provenance: str = "modelled"
    utility: float = 0.0
    arm: str = ""
    """Which of two controllers decided, `current` or `canary`; empty where there was but one."""
