"""How far above the possible is a frame's latency? `python -m experiments.latency_floor`.

A real server process, a real device and an emulated link of constant rate and round trip between
them. The floor of a frame is what it measured in the parts of the model on the device and in the
tail on the server, plus bytes / rate + RTT as the link was told to play. All else is overhead; the
table tells where it arises. Decisions take turns frame by frame: pictures, and features of every
split point at 2 and 8 bits.
"""

from __future__ import annotations

import argparse
import socket
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

import numpy as np
import psutil
from numpy.typing import NDArray

from adaptive_split.cli.common import SHIPPED_PICTURES, say
from adaptive_split.clock import MonotonicClock
from adaptive_split.decision import NEVER, Decision
from adaptive_split.measurement import SERVER, FrameReport
from adaptive_split.runtime.backend import Situation
from adaptive_split.runtime.device import Device
from adaptive_split.runtime.emulation.namespace_link import LINKS, open_link
from adaptive_split.runtime.emulation.priority import run_first
from adaptive_split.runtime.live import LiveBackend, play
from adaptive_split.runtime.picture_folder import read_folder
from adaptive_split.runtime.sensors.battery import ModelledBattery
from adaptive_split.runtime.serving.server_process import ServerProcess
from adaptive_split.runtime.setup import Setup
from adaptive_split.runtime.source import FrameSource
from adaptive_split.runtime.stages import StageRunner
from adaptive_split.runtime.transport import GrpcTransport
from adaptive_split.runtime.wire import TailReply, TailRequest
from adaptive_split.scenario import load_scenario
from adaptive_split.trace import SYNTHETIC, Trace

RATES_MBPS = (10.0, 20.0, 50.0, 100.0)
RTTS_S = (0.005, 0.020, 0.040)
BITS = (2, 8)
WARM_FRAMES = 10
REPLY_BYTES = 300
PARTS = ("start", "decision", "device", "hand over", "network", "server queue", "settling", "other")
"""Where time above the floor can arise: from the camera until the loop sees the frame, the
controller, the device between its parts, packing and gRPC's start of the call, from there to the
reply beyond bytes / rate + RTT, the server's queue, from the reply to whoever is told, the rest."""


@dataclass(slots=True)
class Marks:
    """Moments of one frame, on the clock of all."""

    decide_s: float = 0.0
    decided_s: float = 0.0
    send_s: float = 0.0
    sent_s: float = 0.0
    reply_s: float = 0.0
    told_s: float = 0.0
    report: FrameReport | None = None


@dataclass(slots=True)
class Watch:
    """Notes the moments of every frame."""

    clock: MonotonicClock = field(default_factory=MonotonicClock)
    frames: defaultdict[int, Marks] = field(default_factory=lambda: defaultdict(Marks))

    def told(self, report: FrameReport) -> None:
        """Note the answer, on the thread that gives it."""
        marks = self.frames[report.frame_index]
        marks.told_s, marks.report = self.clock.now_s(), report


class WatchedTransport(GrpcTransport):
    """The transport, with every payload's moments noted."""

    watch: Watch

    def send(self, request: TailRequest, *, timeout_s: float) -> Future[TailReply]:
        """Note, send, and note the reply before anyone else hears of it."""
        marks, clock = self.watch.frames[request.frame_index], self.watch.clock
        marks.send_s = clock.now_s()
        future = super().send(request, timeout_s=timeout_s)
        marks.sent_s = clock.now_s()

        def note(_: Future[TailReply]) -> None:
            marks.reply_s = clock.now_s()

        future.add_done_callback(note)
        return future


class Turns:
    """Decisions one after the other."""

    name = "turns"

    def __init__(self, decisions: Sequence[Decision], watch: Watch) -> None:
        self._decisions, self._watch = decisions, watch
        self.zero_s = 0.0

    def decide(self, situation: Situation) -> Decision:
        """Take the decision whose turn it is."""
        marks, clock = self._watch.frames[situation.frame_index], self._watch.clock
        marks.decide_s = clock.now_s()
        self.zero_s = min(self.zero_s or marks.decide_s, marks.decide_s - situation.now_s)
        decision = self._decisions[situation.frame_index % len(self._decisions)]
        marks.decided_s = clock.now_s()
        return decision

    def reset(self) -> None:
        """Forget nothing."""


@dataclass(frozen=True, slots=True)
class Row:
    """One frame that the server answered; times in seconds."""

    decision: Decision
    floor_s: float
    bare_s: float
    """The floor without encoding."""
    latency_s: float
    encode_s: float
    wire_bytes: int
    parts_s: tuple[float, ...]
    """What is above the floor, as `PARTS`."""


def rows_of(watch: Watch, zero_s: float, mbps: float, rtt_s: float) -> list[Row]:
    """Take every frame's latency apart."""
    rows = []
    for index, marks in sorted(watch.frames.items()):
        report = marks.report
        if index < WARM_FRAMES or report is None or report.answered_by != SERVER:
            continue
        assert report.decision is not None
        wire_s = report.payload_bytes * 8e-6 / mbps + rtt_s
        bare_s = report.head_s + wire_s + report.tail_s
        latency_s = marks.told_s - zero_s - report.arrival_s
        parts_s = [
            marks.decide_s - zero_s - report.arrival_s,
            marks.decided_s - marks.decide_s,
            marks.send_s - marks.decided_s - report.head_s - report.encode_s,
            marks.sent_s - marks.send_s,
            marks.reply_s - marks.sent_s - wire_s - report.server_wait_s - report.tail_s,
            report.server_wait_s,
            marks.told_s - marks.reply_s,
        ]
        floor_s = bare_s + report.encode_s
        rest_s = latency_s - floor_s - sum(parts_s)
        rows.append(
            Row(
                report.decision, floor_s, bare_s, latency_s, report.encode_s,
                report.payload_bytes, (*parts_s, rest_s),
            )
        )  # fmt: skip
    return rows


class Bench:
    """What all runs share."""

    def __init__(self, stack: ExitStack, kind: str, threads: int) -> None:
        self._kind = kind
        self.scenario = load_scenario("default")
        bundle = self.scenario.bundle
        self._server = stack.enter_context(ServerProcess(bundle.path))
        self._stages = stack.enter_context(
            StageRunner(bundle, num_threads=threads, parts=bundle.parts)
        )
        self._folder: FrameSource = read_folder(SHIPPED_PICTURES, bundle)
        self.echo = stack.enter_context(Echo())

    def run(
        self, mbps: float, rtt_s: float, slowdown: float, fps: float,
        decisions: Sequence[Decision], num_frames: int,
    ) -> tuple[list[Row], int]:  # fmt: skip
        """Play one link; return the frames that the server answered, and how many it did not."""
        scenario, watch = self.scenario, Watch()
        turns = Turns(decisions, watch)
        setup = Setup(
            bundle=scenario.bundle, device_profile=scenario.device, server_profile=scenario.server,
            objective=replace(scenario.objective, fps=fps, slo_s=1.0), radio=scenario.radio,
        )  # fmt: skip
        with open_link(self._kind, self._server.address) as link:
            link.start(constant(mbps, rtt_s))
            with WatchedTransport(link.address, scenario.bundle, insecure=True) as transport:
                transport.watch = watch
                device = Device(
                    setup, self._stages, transport, watch.clock, ModelledBattery(1e6),
                    slowdown=slowdown, on_answer=watch.told,
                )  # fmt: skip
                with LiveBackend(device, lambda seed: self._folder, num_frames) as backend:
                    num_settled = sum(1 for _ in play(backend, turns))
        rows = rows_of(watch, turns.zero_s, mbps, rtt_s)
        return rows, num_settled - WARM_FRAMES - len(rows)

    def plain_s(self, mbps: float, rtt_s: float, num_bytes: int, repeats: int) -> float:
        """What the link takes for so many bytes and back on a plain socket, above its promise."""
        with open_link(self._kind, self.echo.address) as link:
            link.start(constant(mbps, rtt_s))
            host, port = link.address.rsplit(":", 1)
            with socket.create_connection((host, int(port))) as end:
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                took_s = [self._exchange(end, num_bytes) for _ in range(repeats)]
        return float(np.median(took_s)) - num_bytes * 8e-6 / mbps - rtt_s

    def _exchange(self, end: socket.socket, num_bytes: int) -> float:
        clock = MonotonicClock()
        clock.sleep_until(clock.now_s() + 0.03)  # as idle as between frames
        begin_s = clock.now_s()
        end.sendall(num_bytes.to_bytes(4, "big") + bytes(num_bytes - 4))
        _receive(end, REPLY_BYTES)
        return clock.now_s() - begin_s


class Echo:
    """Answers messages that begin with their length on plain sockets."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Echo:
        """Return the server itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop listening."""
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                end, _ = self._listener.accept()
            except OSError:
                return
            with end:
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                while head := _receive(end, 4):
                    _receive(end, int.from_bytes(head, "big") - 4)
                    end.sendall(bytes(REPLY_BYTES))


def _receive(end: socket.socket, num_bytes: int) -> bytes:
    """Read exactly so many bytes; empty at the end of the stream."""
    data = b""
    while len(data) < num_bytes:
        more = end.recv(num_bytes - len(data))
        if not more:
            return b""
        data += more
    return data


def constant(mbps: float, rtt_s: float) -> Trace:
    """A link that never changes."""
    rows = np.arange(2.0)
    return Trace("constant", "", rows, np.full(2, mbps), np.full(2, rtt_s), SYNTHETIC)


def decisions_of(splits: Sequence[int]) -> list[Decision]:
    """Split points at the widths compared, no exit ever sure."""
    return [Decision(split, NEVER, bits) for split in splits for bits in BITS]


def summary(rows: Sequence[Row], value: Callable[[Row], float]) -> NDArray[np.float64]:
    """Median and 95 % quantile."""
    return np.quantile([value(row) for row in rows], (0.5, 0.95))


def cells(rows: Sequence[Row]) -> list[str]:
    """Floor, measured, ratios, and the median overhead of every part, in ms."""
    ratio, latency = (
        summary(rows, lambda r: r.latency_s / r.floor_s),
        summary(rows, lambda r: r.latency_s),
    )
    bare = summary(rows, lambda r: r.latency_s / r.bare_s)
    floor_s, _ = summary(rows, lambda r: r.floor_s)
    encode_s, _ = summary(rows, lambda r: r.encode_s)
    parts_s = np.median([row.parts_s for row in rows], axis=0)
    return [
        f"{floor_s * 1e3:.2f}", f"{latency[0] * 1e3:.2f}", f"{ratio[0]:.3f}", f"{ratio[1]:.3f}",
        f"{bare[0]:.3f}", f"{encode_s * 1e3:.2f}", *(f"{part_s * 1e3:+.2f}" for part_s in parts_s),
    ]  # fmt: skip


HEADER = ("floor ms", "measured", "ratio", "p95", "ratio, encoding not in the floor",
          "encode ms", *PARTS)  # fmt: skip


def line(*cells: object) -> None:
    """Print one row of a table."""
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def header(*names: str) -> None:
    """Print the head of a table."""
    line(*names)
    line(*["---"] * len(names))


def play_links(bench: Bench, arguments: argparse.Namespace) -> list[Row]:
    """Play every link; print a row for each, and return all frames."""
    decisions, every = decisions_of(arguments.splits), []
    header("link", *HEADER, "plain socket", "not answered by the server")
    for mbps in arguments.mbps:
        for rtt_s in arguments.rtt:
            rows, num_others = bench.run(
                mbps, rtt_s, arguments.slowdown, arguments.fps, decisions,
                WARM_FRAMES + arguments.rounds * len(decisions),
            )  # fmt: skip
            size = int(np.median([row.wire_bytes for row in rows]))
            plain_s = bench.plain_s(mbps, rtt_s, size, 2 * arguments.rounds)
            line(
                f"{mbps:g} Mbit/s, {rtt_s * 1e3:g} ms", *cells(rows), f"{plain_s * 1e3:+.2f}",
                num_others,
            )  # fmt: skip
            say(f"machine busy: {psutil.getloadavg()[0]:.1f}")
            every += rows
    line("all", *cells(every), "", "")
    return every


def main() -> None:
    """Run the experiment."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--link", choices=tuple(LINKS), default="proxy")
    parser.add_argument("--slowdown", type=float, default=0.0, help="1 = a device as profiled")
    parser.add_argument("--fps", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=15, help="frames per decision and link")
    parser.add_argument("--splits", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--mbps", type=float, nargs="+", default=RATES_MBPS)
    parser.add_argument("--rtt", type=float, nargs="+", default=RTTS_S, help="in seconds")
    parser.add_argument("--threads", type=int, default=1, help="of the device's computing")
    parser.add_argument("--ordinary", action="store_true", help="do not run before others")
    arguments = parser.parse_args()
    if not arguments.ordinary:
        run_first()
    with ExitStack() as stack:
        every = play_links(Bench(stack, arguments.link, arguments.threads), arguments)
    print()
    header("split point, bits", "bytes", *HEADER)
    for decision in decisions_of(arguments.splits):
        rows = [row for row in every if row.decision == decision]
        size, _ = summary(rows, lambda r: r.wire_bytes)
        line(f"{decision.split_point}, {decision.bits}", f"{size:.0f}", *cells(rows))


if __name__ == "__main__":
    main()
