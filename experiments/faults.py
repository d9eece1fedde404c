"""What faults cost: every frame in, every answer out, and how soon the server is used again.

    python -m experiments.faults --repeats 3

A real server process and a real gRPC connection through a link that breaks on command; the device
plays the tiny model of the tests (36 ms in full) at 20 frames/s and 150 ms, and wants the server
for three frames of four. Every outage ends at a random moment within two seconds, so
anywhere between two probes. Seconds are counted from the moment when link and server work again.
"""

from __future__ import annotations

import argparse
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from random import Random

from tests.fault_bench import Run, Script, Tampering, TinyServer, run_device, tiny_server
from tests.faulty_link import FaultyLink

BEGIN_S, REST_S = 2.0, 8.0
FAST, SLOW = 12_000, 1_200
"""Bytes per second of the link that loses 90 % of its rate: some payload is always under way."""
Change = Callable[[bytes], bytes]


@dataclass(frozen=True)
class Fault:
    """What breaks for `outage_s` seconds; 0 = it is over as soon as it has happened."""

    name: str
    outage_s: float
    fail: Callable[[World], None]
    heal: Callable[[World], None]
    spoil: Change | None = None
    """What becomes of the features sent meanwhile."""


@dataclass
class World:
    """A server, one that can take its place, one with another bundle, and the link in front."""

    server: TinyServer
    spare: TinyServer
    other: TinyServer
    link: FaultyLink
    broken: bool = False

    def lead_to(self, server: TinyServer) -> None:
        """Let the next connections end at another server."""
        self.link.lead_to(server.port)
        self.link.cut()
        self.link.heal()

    def swallow(self) -> None:
        """Lose every connection, and let no new one through."""
        self.link.forget()
        self.link.hold()


def nothing(world: World) -> None:
    """Leave the world as it is."""


def inverted(payload: bytes) -> bytes:
    """Flip every bit."""
    return bytes(255 - byte for byte in payload)


FAULTS = (
    Fault("none", 4.0, nothing, nothing),
    Fault("server killed, restarted", 4.0, lambda w: w.server.kill(),
          lambda w: w.lead_to(w.spare)),
    Fault(
        "server stalled", 6.0,
        lambda w: w.server.signal(signal.SIGSTOP), lambda w: w.server.signal(signal.SIGCONT),
    ),
    Fault("link cut 10 s", 10.0, lambda w: w.link.cut(), lambda w: w.link.heal()),
    Fault("link cut 20 s", 20.0, lambda w: w.link.cut(), lambda w: w.link.heal()),
    Fault("black hole, connections kept", 8.0, lambda w: w.link.hold(), lambda w: w.link.heal()),
    Fault("black hole, connections lost", 8.0, World.swallow, lambda w: w.link.heal()),
    Fault("half-open connection", 0.0, lambda w: w.link.forget(), nothing),
    Fault(
        "90 % slower within a transfer", 5.0,
        lambda w: w.link.limit(SLOW), lambda w: w.link.limit(FAST),
    ),
    Fault("corrupted payloads", 4.0, nothing, nothing, inverted),
    Fault("oversized payloads", 4.0, nothing, nothing, lambda payload: payload + bytes(6_000)),
    Fault("payloads beyond what gRPC takes", 4.0, nothing, nothing,
          lambda payload: payload + bytes(300_000)),
    Fault(
        "server swaps its bundle", 5.0,
        lambda w: w.lead_to(w.other), lambda w: w.lead_to(w.server),
    ),
)  # fmt: skip


@contextmanager
def world() -> Iterator[World]:
    """Start servers and link."""
    with (
        tiny_server() as server,
        tiny_server() as spare,
        tiny_server("1") as other,
        FaultyLink(server.port) as link,
    ):
        yield World(server, spare, other, link)


def play(fault: Fault, outage_s: float) -> tuple[Run, float, float, int]:
    """Play a fault; return the run, its begin and end, and the connections tried from then on."""
    with world() as here:
        tries = []

        def turn(broken: bool) -> None:
            tries.append(here.link.num_connections)
            here.broken = broken
            (fault.fail if broken else fault.heal)(here)

        def spoil(request):  # type: ignore[no-untyped-def]
            if here.broken and fault.spoil and request.split_point:
                return replace(request, payload=fault.spoil(request.payload))
            return request

        if "slower" in fault.name:
            here.link.limit(FAST)
        end_s = BEGIN_S + outage_s
        controller = Script((BEGIN_S, lambda: turn(True)), (end_s, lambda: turn(False)))
        address = here.link.address
        run = run_device(address, controller, end_s + REST_S, transport=Tampering(address, spoil))
        # Those that a black hole had swallowed are counted when it opens, so at the end of the run.
        return run, BEGIN_S, end_s, here.link.num_connections - tries[0]


def row(fault: Fault, random: Random) -> str:
    """Play a fault once; one line of the table."""
    outage_s = fault.outage_s + (random.uniform(0.0, 2.0) if fault.outage_s else 0.0)
    run, begin_s, end_s, tries = play(fault, outage_s)
    started = [report for report in run.reports if report.decision is not None]
    answers = sum(report.answer is not None for report in started)
    dropped = len(run.reports) - len(started)
    # What follows a fault that is over at once is its doing for as long as the server is unused.
    back_s = run.back_after_s(end_s + (0.0 if outage_s else 0.2))
    edge_s = end_s if outage_s else end_s + back_s
    spans = (run.between(0.0, begin_s), run.between(begin_s, edge_s), run.between(edge_s))
    missed = [sum(not report.on_time for report in span) for span in spans]
    equal = len(run.reports) == len(run.told) == run.num_frames == answers + dropped
    cells = [
        fault.name, f"{outage_s:.1f}", run.num_frames, answers, dropped,
        "yes" if equal else "NO", *missed, tries, f"{back_s:.2f}",
    ]  # fmt: skip
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def main() -> None:
    """Play every fault and print a row for each run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--only", default="", help="faults whose name holds this")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    random = Random(arguments.seed)
    print("| fault | seconds | frames in | answers out | dropped | equal | missed before | missed "
          "meanwhile | missed after | connections tried | back after s |")  # fmt: skip
    print("|" + " --- |" * 11)
    for fault in FAULTS:
        for _ in range(arguments.repeats if arguments.only in fault.name else 0):
            print(row(fault, random), flush=True)


if __name__ == "__main__":
    main()
