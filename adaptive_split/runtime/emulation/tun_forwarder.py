"""The process behind `NamespaceLink`: two TUN devices, and packets between them that keep a trace.

`python -m adaptive_split.runtime.emulation.tun_forwarder HOST:PORT` prints `{"address": ...}` or
`{"error": ...}`, then reads a JSON object per line: a plan to play from now on (see `Playback`),
with a share of packets to lose, or `{}` for no link at all. It answers each with
`{"begin_s": ...}`, on the clock of `time.monotonic`, and ends with its standard input.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address
from typing import Any

from adaptive_split.runtime.emulation.packet_queue import DelayLine, PacketUplink
from adaptive_split.runtime.emulation.playback import Playback
from adaptive_split.runtime.emulation.priority import run_first
from adaptive_split.runtime.emulation.tun_device import MTU_BYTES, new_namespace, open_tun

FIRST_ADDRESS = IPv4Address("198.18.0.0")
"""Of 198.18.0.0/15, set aside for such tests by RFC 2544; every link takes four of them."""
NUM_LINKS = 2**17 // 4
BATCH_PACKETS = 64
"""Read at once from a device; what waits there longer is late."""
LONGEST_S = 60.0
"""To wait for packets; a trace that never carries anything would have it wait for ever."""
LEAD_S = 0.0001
"""So much too late does a sleeping process wake up; what is due this soon goes at once."""


class Forwarder:
    """Carries packets between the devices of both ends, and takes orders."""

    def __init__(self, near: int, far: int, orders: int) -> None:
        """Take descriptors that do not block: the devices of both ends, and where plans come."""
        self._near, self._far, self._orders = near, far, orders
        self._uplink, self._downlink = PacketUplink(), DelayLine()
        self._half_order = b""

    def run(self) -> None:
        """Forward until there is nobody to give orders."""
        ends, uplink = [self._near, self._far, self._orders], self._uplink
        while True:
            now_s = time.monotonic()
            deliver(uplink.take(now_s + LEAD_S), self._far)
            deliver(self._downlink.take(now_s + LEAD_S), self._near)
            next_s = min(uplink.next_s(), self._downlink.next_s())
            wait_s = min(max(next_s - time.monotonic(), 0.0), LONGEST_S)
            ready, _, _ = select.select(ends, [], [], wait_s)
            now_s = time.monotonic()
            if self._near in ready:
                for packet in packets_of(self._near):
                    uplink.put(packet, now_s)
            if self._far in ready:
                due_s = now_s + uplink.half_rtt_s(now_s)
                for packet in packets_of(self._far):
                    self._downlink.put(due_s, packet)
            if self._orders in ready and not self._obey():
                return

    def _obey(self) -> bool:
        """Read what there is; carry out the orders that are whole; tell whether more may come."""
        data = os.read(self._orders, 1 << 20)
        *orders, self._half_order = (self._half_order + data).split(b"\n")
        for order in orders:
            self._play(json.loads(order))
        return bool(data)

    def _play(self, fields: dict[str, Any]) -> None:
        loss, offset_s = fields.pop("loss", 0.0), fields.pop("offset_s", 0.0)
        now_s = time.monotonic()
        playback = Playback(**fields, begin_s=now_s - offset_s) if fields else None
        self._uplink.play(playback, loss, now_s)
        if playback is None:
            self._downlink.hurry(now_s)
        say({"begin_s": now_s})


def packets_of(device: int) -> Iterator[bytes]:
    """IPv4 packets that wait at a device; the kernel's own of IPv6 are not carried."""
    with contextlib.suppress(BlockingIOError):
        for _ in range(BATCH_PACKETS):
            packet = os.read(device, MTU_BYTES)
            if packet[0] >> 4 == 4:
                yield packet


def deliver(packets: Iterable[bytes], device: int) -> None:
    """Hand packets to a device; one that it cannot take is lost."""
    for packet in packets:
        with contextlib.suppress(OSError):
            os.write(device, packet)


def claim_index() -> tuple[int, socket.socket]:
    """Find a number that no other link of this namespace has, and keep it by a socket's name."""
    for index in range(os.getpid(), os.getpid() + NUM_LINKS):
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            claim.bind(f"\0adaptive-split-link-{index % NUM_LINKS}")
        except OSError:
            claim.close()
            continue
        return index % NUM_LINKS, claim
    raise OSError("no number left for another link")


def say(fields: dict[str, Any]) -> None:
    """Answer whoever started this process."""
    print(json.dumps(fields), flush=True)


def main() -> None:
    """Run the forwarder; see the module's docstring."""
    run_first()
    try:
        index, claim = claim_index()
        name, first = f"split{index}", FIRST_ADDRESS + 4 * index
        device, server = str(first + 1), str(first + 2)
        near = open_tun(name, device, server)
        with new_namespace():
            far = open_tun(name, server, device)
            listener = socket.create_server((server, 0))
    except OSError as error:
        say({"error": str(error)})
        return
    relay = subprocess.Popen(
        [sys.executable, "-m", "adaptive_split.runtime.emulation.link_relay",
         str(listener.fileno()), sys.argv[1]],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, pass_fds=[listener.fileno()],
    )  # fmt: skip
    say({"address": f"{server}:{listener.getsockname()[1]}"})
    with relay, listener, claim:
        Forwarder(near, far, sys.stdin.fileno()).run()


if __name__ == "__main__":
    main()
