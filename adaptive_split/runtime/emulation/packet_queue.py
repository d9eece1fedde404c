"""What happens to packets on an emulated link: a bounded queue, the trace's rate, loss, delay."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator

from adaptive_split.runtime.emulation.playback import Playback

HEADER_BYTES = 52
"""Of IPv4 and TCP with timestamps. They cross for free, so that a bulk transfer's payload goes at
the trace's rate, as in the simulator and through the proxy. A packet without payload, such as an
acknowledgment, costs one byte: an outage holds it back as well."""
QUEUE_BYTES = 512 * 1024
"""Our choice for a modem: 40 ms at 100 Mbit/s, 0.8 s at 5, 4 s at 1; long enough to be felt as
bloat and to keep a sender that halves its window busy up to 100 Mbit/s and 40 ms."""


class DelayLine:
    """Packets on their way; they arrive in the order in which they set out."""

    def __init__(self) -> None:
        self._items: deque[tuple[float, bytes]] = deque()
        self._last_s = 0.0

    def put(self, due_s: float, packet: bytes) -> None:
        """Let a packet arrive at `due_s`, though never before one that set out earlier."""
        self._last_s = max(self._last_s, due_s)
        self._items.append((self._last_s, packet))

    def take(self, now_s: float) -> Iterator[bytes]:
        """Packets that have arrived by now."""
        while self._items and self._items[0][0] <= now_s:
            yield self._items.popleft()[1]

    def next_s(self) -> float:
        """When the next one arrives."""
        return self._items[0][0] if self._items else float("inf")

    def hurry(self, now_s: float) -> None:
        """Let all arrive now."""
        self._last_s = now_s
        self._items = deque((now_s, packet) for _, packet in self._items)


class PacketUplink:
    """The paced way: a drop-tail queue in front of a link that plays a trace.

    Without a trace packets arrive at once. A packet that finds the queue full is dropped; one that
    is lost on the air has used its time there.
    """

    def __init__(self, limit_bytes: int = QUEUE_BYTES, seed: int = 0) -> None:
        self._line = DelayLine()
        self._limit_bytes = limit_bytes
        self._waiting: deque[tuple[float, bytes]] = deque()
        self._waiting_bytes = 0
        self._sent_s = 0.0
        """When the packet on the air has left; the last one's, where none is."""
        self._playback: Playback | None = None
        self._loss = 0.0
        self._random = random.Random(seed)

    def play(self, playback: Playback | None, loss: float, now_s: float) -> None:
        """Follow another trace from now on; without one, what is under way arrives at once."""
        self._advance(now_s)
        self._playback, self._loss = playback, loss
        self._sent_s = now_s
        self._aim(now_s)
        if playback is None:
            self._advance(now_s)
            self._line.hurry(now_s)

    def put(self, packet: bytes, now_s: float) -> None:
        """Take a packet from the sender."""
        self._advance(now_s)
        if self._waiting_bytes + len(packet) > self._limit_bytes:
            return
        self._waiting.append((now_s, packet))
        self._waiting_bytes += len(packet)
        if len(self._waiting) == 1:
            self._aim(self._sent_s)

    def take(self, now_s: float) -> Iterator[bytes]:
        """Packets that have reached the far end by now."""
        self._advance(now_s)
        return self._line.take(now_s)

    def half_rtt_s(self, moment_s: float) -> float:
        """Delay of either way at a moment."""
        return self._playback.rtt_at(moment_s) / 2 if self._playback else 0.0

    def next_s(self) -> float:
        """When the next packet arrives, unless it is lost."""
        if not self._waiting:
            return self._line.next_s()
        return min(self._line.next_s(), self._sent_s + self.half_rtt_s(self._sent_s))

    def _advance(self, now_s: float) -> None:
        """Send on what has crossed the uplink by now."""
        while self._waiting and self._sent_s <= now_s:
            _, packet = self._waiting.popleft()
            self._waiting_bytes -= len(packet)
            if self._random.random() >= self._loss:
                self._line.put(self._sent_s + self.half_rtt_s(self._sent_s), packet)
            self._aim(self._sent_s)

    def _aim(self, free_s: float) -> None:
        """Find out when the first packet has left, on a link that is free from `free_s` on."""
        if not self._waiting:
            return
        arrived_s, packet = self._waiting[0]
        begin_s = max(free_s, arrived_s)
        bits = 8 * max(len(packet) - HEADER_BYTES, 1)
        self._sent_s = self._playback.sent_s(begin_s, bits) if self._playback else begin_s
