"""How a recording spends its data: when to ping, how much to send at once."""

from __future__ import annotations

import math
from dataclasses import dataclass

from adaptive_split.errors import ConfigError
from adaptive_split.runtime.probes import PROBE_FRAMING_BYTES

PING_AT = (0.0, 0.125, 0.75, 0.875)
BURST_AT = 0.25
"""Moments within a period, as shares of it. The first pings meet an uplink that has been idle."""
BURST_SHARE = 0.2
"""Of a period; a burst is as large as the link of the last one carries in that time."""
NUM_CHUNKS = 12
"""Requests of a burst; a server lets a device have 16 open."""
LEAST_CHUNK_BYTES, MOST_CHUNK_BYTES = 1000, 60_000
"""On the wire. The most is less than a stream's first window, so that nothing waits for another."""
PING_WIRE_BYTES = 200
"""An empty message and its reply with the headers of their packets and acknowledgments."""
HEADERS = 1.04
"""Bytes on the air per byte sent, by the headers of full packets; what TCP repeats nobody knows."""
LEAST_BYTES_PER_PERIOD = HEADERS * NUM_CHUNKS * LEAST_CHUNK_BYTES + len(PING_AT) * PING_WIRE_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordPlan:
    """Budget and pace of a recording."""

    budget_bytes: float
    """Most to send in all; counted with estimated headers."""
    period_s: float = 1.0
    """Length of a row."""
    duration_s: float = math.inf
    """When to stop; where that is known, the budget is spread over it evenly."""

    def __post_init__(self) -> None:
        """Refuse what measures nothing."""
        if not 0.2 <= self.period_s <= 60:
            raise ConfigError(f"a period must lie in [0.2, 60] s; got {self.period_s!r}")
        if not self.duration_s >= 2 * self.period_s:
            raise ConfigError(
                f"a recording must last two periods of {self.period_s:g} s or more; got "
                f"{self.duration_s!r} s"
            )
        if not self.budget_bytes >= LEAST_BYTES_PER_PERIOD:
            raise ConfigError(
                f"a budget must hold {LEAST_BYTES_PER_PERIOD:.0f} bytes or more; got "
                f"{self.budget_bytes!r}"
            )

    def check_spread(self, spent_bytes: float) -> None:
        """Refuse a duration that what is left of the budget does not reach for.

        Raises:
            ConfigError: If so; says what would do.
        """
        least = LEAST_BYTES_PER_PERIOD * self.duration_s / self.period_s
        if math.isfinite(least) and least > self.budget_bytes - spent_bytes:
            raise ConfigError(
                f"{self.duration_s / 60:g} minutes must have {least / 1e6:.1f} MB at least with "
                f"one burst per {self.period_s:g} s; got "
                f"{(self.budget_bytes - spent_bytes) / 1e6:.1f} MB left; raise --budget-mb or "
                "--period"
            )

    def chunk_bytes(self, uplink_mbps: float, *, spent_bytes: float, elapsed_s: float) -> int:
        """Size of each of the next burst's requests on the wire; 0 if the budget is used up.

        Args:
            uplink_mbps: What the last burst told of the link.
            spent_bytes: So far, with headers.
            elapsed_s: Since the recording began.
        """
        left_bytes = self.budget_bytes - spent_bytes
        num_periods = max((self.duration_s - elapsed_s) / self.period_s, 1.0)
        share_bytes = left_bytes / num_periods if math.isfinite(num_periods) else left_bytes
        share_bytes = max(share_bytes, min(left_bytes, LEAST_BYTES_PER_PERIOD))
        wanted_bytes = uplink_mbps * 1e6 / 8 * BURST_SHARE * self.period_s
        most_bytes = (share_bytes - len(PING_AT) * PING_WIRE_BYTES) / HEADERS
        chunk = min(wanted_bytes, most_bytes) / NUM_CHUNKS
        if most_bytes / NUM_CHUNKS < LEAST_CHUNK_BYTES:
            return 0
        return int(min(max(chunk, LEAST_CHUNK_BYTES), MOST_CHUNK_BYTES))


def payload_of(chunk_bytes: int) -> bytes:
    """What to hand to the transport so that so many bytes go on the wire."""
    return bytes(chunk_bytes - PROBE_FRAMING_BYTES)
