"""The process behind `EmulatedLink`: a TCP proxy that paces and delays.

`python -m adaptive_split.runtime.emulation.link_proxy HOST:PORT` prints `{"address": ...}`, then
reads a JSON object per line: a plan to play from now on (see `Playback`), or `{}` for no link at
all. It answers each with `{"begin_s": ...}`, on the clock of `time.monotonic`, and ends with its
standard input.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import socket
import sys
import termios
import threading
import time
from array import array
from collections import deque
from typing import Any

from adaptive_split.runtime.emulation.playback import Playback
from adaptive_split.runtime.emulation.priority import run_first

SEGMENT_BYTES = 1448
"""Paced in pieces of one packet, or of `PIECE_S` where that is more."""
PIECE_S = 0.00025
MAX_SEGMENT_BYTES = 65_536
BUFFER_BYTES = 16_384
SLICE_S = 0.1
"""A new plan takes effect this soon, also where the old one had stopped."""


class Uplink:
    """The paced way; shared by all connections, as a modem's queue is."""

    def __init__(self) -> None:
        self.playback: Playback | None = None
        self._free_s = 0.0
        self._turn = threading.Lock()

    def carry(self, num_bytes: int, behind: bool) -> float:
        """Block until the uplink has taken some bytes; return when they reach the far end.

        Args:
            num_bytes: How many.
            behind: Whether they were there before the last ones had been taken: then they begin
                when these end, and the time this thread overslept is not lost to the rate.
        """
        with self._turn:
            now_s, playback = time.monotonic(), self.playback
            if playback is None:
                self._free_s = now_s
                return now_s
            begin_s = self._free_s if behind else max(self._free_s, now_s)
            sent_s = playback.sent_s(begin_s, 8 * num_bytes)
            while (now_s := time.monotonic()) < sent_s and self.playback is playback:
                time.sleep(min(sent_s - now_s, SLICE_S))
            self._free_s = sent_s = min(sent_s, now_s)
            return sent_s + playback.rtt_at(now_s) / 2

    def segment_bytes(self) -> int:
        """How much to take from a sender at once."""
        if self.playback is None:
            return MAX_SEGMENT_BYTES
        piece_bytes = int(self.playback.bits_per_s_at(time.monotonic()) / 8 * PIECE_S)
        return max(SEGMENT_BYTES, min(piece_bytes, MAX_SEGMENT_BYTES))

    def downlink_s(self) -> float:
        """Delay of the way back."""
        return self.playback.rtt_at(time.monotonic()) / 2 if self.playback else 0.0


class DelayLine:
    """Hands bytes to a socket at the moments they are due, in order; `b""` ends the stream."""

    def __init__(self, sink: socket.socket) -> None:
        self._sink = sink
        self._items: deque[tuple[float, bytes]] = deque()
        self._filled = threading.Semaphore(0)
        self._last_s = 0.0
        self.thread = threading.Thread(target=self._deliver, daemon=True)
        self.thread.start()

    def put(self, due_s: float, data: bytes) -> None:
        """Deliver `data` at `due_s`, though never before what was put earlier."""
        self._last_s = max(self._last_s, due_s)
        self._items.append((self._last_s, data))
        self._filled.release()

    def _deliver(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self._filled.acquire()
                due_s, data = self._items.popleft()
                _sleep_until(due_s)
                if not data:
                    self._sink.shutdown(socket.SHUT_WR)
                    return
                self._sink.sendall(data)


def pump_up(device: socket.socket, line: DelayLine, uplink: Uplink) -> None:
    """Take bytes from a device at the uplink's rate."""
    behind = False
    with contextlib.suppress(OSError):
        while data := device.recv(uplink.segment_bytes()):
            more = _num_waiting(device) > 0
            line.put(uplink.carry(len(data), behind), data)
            behind = more
    line.put(0.0, b"")


def pump_down(server: socket.socket, line: DelayLine, uplink: Uplink) -> None:
    """Take bytes from the server as they come."""
    with contextlib.suppress(OSError):
        while data := server.recv(MAX_SEGMENT_BYTES):
            line.put(time.monotonic() + uplink.downlink_s(), data)
    line.put(0.0, b"")


def join_ends(device: socket.socket, target: tuple[str, int], uplink: Uplink) -> None:
    """Carry one connection until both of its ends have hung up."""
    with device:
        try:
            server = socket.create_connection(target, timeout=5.0)
        except OSError:
            return
        with server:
            server.settimeout(None)
            for end in (device, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            up, down = DelayLine(server), DelayLine(device)
            way_back = threading.Thread(target=pump_down, args=(server, down, uplink), daemon=True)
            way_back.start()
            # A device whose server is gone must notice, though it may have nothing to say itself.
            hang_up = threading.Thread(target=_hang_up_after, args=(down, device), daemon=True)
            hang_up.start()
            pump_up(device, up, uplink)
            up.thread.join()
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            way_back.join()
            hang_up.join()


def _num_waiting(end: socket.socket) -> int:
    count = array("i", [0])
    fcntl.ioctl(end, termios.FIONREAD, count)
    return count[0]


def _hang_up_after(line: DelayLine, device: socket.socket) -> None:
    line.thread.join()
    with contextlib.suppress(OSError):
        device.shutdown(socket.SHUT_RDWR)


def _accept(listener: socket.socket, target: tuple[str, int], uplink: Uplink) -> None:
    with contextlib.suppress(OSError):
        while True:
            device, _ = listener.accept()
            threading.Thread(target=join_ends, args=(device, target, uplink), daemon=True).start()


def _sleep_until(moment_s: float) -> None:
    while (rest_s := moment_s - time.monotonic()) > 0:
        time.sleep(rest_s)


def _plan(fields: dict[str, Any]) -> Playback | None:
    return Playback(**fields) if fields else None


def main() -> None:
    """Run the proxy; see the module's docstring."""
    run_first()
    host, port = sys.argv[1].rsplit(":", 1)
    uplink = Uplink()
    with socket.socket() as listener:
        # Loopback's segments of 64 KB would not fit the buffer and stall for want of a window.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT_BYTES)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        arguments = (listener, (host, int(port)), uplink)
        threading.Thread(target=_accept, args=arguments, daemon=True).start()
        print(json.dumps({"address": f"127.0.0.1:{listener.getsockname()[1]}"}), flush=True)
        for line in sys.stdin:
            fields = json.loads(line)
            offset_s = fields.pop("offset_s", 0.0)
            begin_s = time.monotonic()
            uplink.playback = _plan({**fields, "begin_s": begin_s - offset_s} if fields else {})
            print(json.dumps({"begin_s": begin_s}), flush=True)


if __name__ == "__main__":
    main()
