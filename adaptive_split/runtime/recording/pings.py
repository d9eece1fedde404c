"""Pings of one row: empty messages, each answered in time or lost."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from concurrent.futures import Future

from adaptive_split.clock import Clock
from adaptive_split.errors import LinkError
from adaptive_split.runtime.transport import Transport
from adaptive_split.runtime.wire import RefusedError

PING_TIMEOUT_S = 1.5
"""A reply that takes longer counts as lost, as where traces are played: `LOST_RTT_S`."""
ABSENT = (
    "Connection refused", "PERMISSION_DENIED", "UNIMPLEMENTED", "CERTIFICATE_VERIFY_FAILED",
    "WRONG_VERSION_NUMBER", "Hostname Verification",
)  # fmt: skip
"""What gRPC says where the link works and no server of ours answers."""


class Pings:
    """What became of a row's pings; safe to use from several threads."""

    def __init__(self, clock: Clock, on_heard: Callable[[float], None]) -> None:
        """Take what to call with the moment of every reply, on any thread."""
        self._clock, self._on_heard = clock, on_heard
        self._rtts_s: list[float] = []
        self._lost = 0
        self._sent = 0
        self.problem = ""
        """Why nobody could be pinged: not the link, but a server that is not there or refuses."""

    def send(self, transport: Transport) -> None:
        """Send one; does not wait."""
        self._sent += 1
        sent_s = self._clock.now_s()
        ping = transport.ping(timeout_s=PING_TIMEOUT_S)
        ping.add_done_callback(lambda done: self._on_reply(sent_s, done))

    @property
    def settled(self) -> bool:
        """Whether each has been answered or lost."""
        return len(self._rtts_s) + self._lost == self._sent

    @property
    def any_sent(self) -> bool:
        """Whether there are any."""
        return self._sent > 0

    @property
    def rtt_s(self) -> float | None:
        """Median round trip; `None` if none was answered."""
        return statistics.median(self._rtts_s) if self._rtts_s else None

    @property
    def loss(self) -> float:
        """Share that was not answered in time."""
        return self._lost / self._sent if self._sent else 0.0

    def _on_reply(self, sent_s: float, done: Future[None]) -> None:
        now_s, error = self._clock.now_s(), done.exception()
        if error is None:
            self._on_heard(now_s)
            self._rtts_s.append(now_s - sent_s)
            return
        if isinstance(error, RefusedError) or _nobody_there(error):
            self.problem = str(error)
        self._lost += 1


def _nobody_there(error: BaseException) -> bool:
    """Whether an error tells of the other end, and not of the link."""
    return isinstance(error, LinkError) and any(text in str(error) for text in ABSENT)
