"""A transport over a FIFO uplink on a manual clock, whose rate and server a test can change."""

from concurrent.futures import Future

from adaptive_split.errors import LinkError, LinkTimeout
from adaptive_split.runtime.probes import PROBE_FRAMING_BYTES

SLICE_S = 0.0005
PACKET_BYTES = 1448
LONGEST_S = 60.0


class FifoLink:
    """What several connections, one after the other, share; bytes cross it in packets.

    Attributes:
        rate_mbps: A function of the moment.
        error: What every request fails with at once, if the server cannot be had.
        sent_bytes: Of probes, framing included.
    """

    def __init__(self, clock, rate_mbps, rtt_s=0.03):
        self.clock, self.rate_mbps, self.rtt_s = clock, rate_mbps, rtt_s
        self.error, self.sent_bytes, self.num_connections = None, 0, 0
        self.free_s = 0.0
        self._written = []

    def connect(self):
        """Open a connection."""
        self.num_connections += 1
        return FifoTransport(self)

    def send(self, num_bytes, on_reply):
        """Write a request; what is written at one moment leaves as one stream of packets."""
        if not self._written:
            self.clock.call_at(self.clock.now_s(), self._flush)
        self._written.append((num_bytes, on_reply))

    def _flush(self):
        written, self._written = self._written, []
        total = sum(num_bytes for num_bytes, _ in written)
        offset = crossed = 0
        for num_bytes, on_reply in written:
            offset += num_bytes
            end = min(-(-offset // PACKET_BYTES) * PACKET_BYTES, total)
            self._cross(end - crossed)
            crossed = end
            if self.free_s < self.clock.now_s() + LONGEST_S:
                self.clock.call_at(self.free_s + self.rtt_s, on_reply)

    def _cross(self, num_bytes):
        now_s, bits = max(self.free_s, self.clock.now_s()), 8.0 * num_bytes
        while bits > 1e-6 and now_s < self.clock.now_s() + LONGEST_S:
            rate = 1e6 * self.rate_mbps(now_s)
            step_s = min(SLICE_S, bits / rate) if rate else SLICE_S
            bits -= rate * step_s
            now_s += step_s
        self.free_s = now_s


class FifoTransport:
    """One connection; closing it forgets what is under way."""

    def __init__(self, link):
        self._link, self._open = link, []

    def ping(self, *, timeout_s):
        """Send an empty message."""
        return self._start(1, timeout_s)

    def probe(self, payload, *, timeout_s):
        """Send bytes."""
        num_bytes = len(payload) + PROBE_FRAMING_BYTES
        self._link.sent_bytes += num_bytes
        return self._start(num_bytes, timeout_s)

    def close(self):
        """Hang up."""
        for future in self._open:
            _end(future, LinkError("the transport must be open; got closed meanwhile"))
        self._link.free_s = 0.0

    def _start(self, num_bytes, timeout_s):
        link, future = self._link, Future()
        future.set_running_or_notify_cancel()
        if link.error:
            future.set_exception(link.error)
            return future
        self._open.append(future)
        late_s = link.clock.now_s() + timeout_s
        link.clock.call_at(late_s, lambda: _end(future, LinkTimeout("no reply in time")))
        link.send(num_bytes, lambda: _end(future))
        return future


def _end(future, error=None):
    if future.done():
        return
    if error:
        future.set_exception(error)
    else:
        future.set_result(None)
