"""Does an emulated link keep its trace? `python experiments/link_emulation.py TRACE ...`.

Each link plays constant rates, steps, an outage and the recorded traces named. Rate: what bulk TCP
transfers (CUBIC) deliver after `WARM_S` of starting up, against the trace's integral over the same
time. Delay: round trips of an empty message on an idle connection, against the trace's at that
moment. Loss, where a link plays it: segments that the kernel sent again.
"""

from __future__ import annotations

import argparse
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from numpy.typing import NDArray

from adaptive_split.cli.common import say
from adaptive_split.cli.tables import table
from adaptive_split.runtime.emulation.link_process import LOST_RTT_S, LinkProcess
from adaptive_split.runtime.emulation.namespace_link import LINKS, NamespaceLink, open_link
from adaptive_split.runtime.emulation.priority import run_first
from adaptive_split.runtime.emulation.tun_device import find_obstacle
from adaptive_split.trace import Trace, read_trace

CONNECTION_MBPS = 2.5
MOST_CONNECTIONS = 16
"""One connection for so much of the trace's mean rate keeps the link's queue filled; one CUBIC
sender alone leaves up to a tenth of a link that jumps unused. With more, some time out on a long
queue, and what they send twice the link carries twice. Neither is the link's fault."""
WARM_S = 3.0
"""TCP's start, which is not the link's fault."""
PERIOD_S = 0.05
"""Between two empty messages."""
AFTER_S = 0.1
"""Still on their way when an outage begins, beside half a round trip."""
LOSS = 0.01
LOSS_MBPS, LOSS_RTT_S = 20.0, 0.03
RETRANSMITTED = 100
"""Where `tcp_info` counts segments sent again."""
SEGMENT_BYTES = 1448


@dataclass(frozen=True, slots=True)
class Result:
    """How one link kept one trace."""

    offered_mbps: float
    carried_mbps: float
    whole_error: float
    """Of the rate with TCP's start, as a share of the trace's."""
    delay_error_s: NDArray[np.float64]
    dark_bytes: int
    """What arrived while the trace carried nothing."""


class Sink:
    """A server that counts what comes and echoes every `!`."""

    def __init__(self) -> None:
        self.arrivals: list[tuple[float, int]] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            peer, _ = self._listener.accept()
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._read, args=(peer,), daemon=True).start()

    def _read(self, peer: socket.socket) -> None:
        with peer, suppress(OSError):
            while data := peer.recv(1 << 18):
                self.arrivals.append((time.monotonic(), len(data)))
                if data.endswith(b"!"):
                    peer.sendall(b"!")


def synthetic(
    name: str, rates: Sequence[float], rtt_s: float = 0.03, period_s: float = 1.0
) -> Trace:
    """Lay rates out as a trace, `period_s` each."""
    time_s = np.arange(len(rates)) * period_s
    return Trace(name, "", time_s, np.array(rates, float), np.full(len(rates), rtt_s), "synthetic")


def cases(recorded: Sequence[Trace]) -> list[Trace]:
    """What is played."""
    constant = [synthetic(f"{rate:g} Mbit/s", [rate] * 2) for rate in (1, 5, 20, 50, 100)]
    far = [synthetic(f"20 Mbit/s, {rtt_ms} ms", [20] * 2, rtt_ms / 1e3) for rtt_ms in (5, 80)]
    steps = synthetic("steps 20, 2, 50, 5 Mbit/s, 2 s each", [20, 2, 50, 5], period_s=2.0)
    outage = synthetic("10 Mbit/s, dark for 2 of 6 s", [10, 10, 10, 10, 0, 0])
    return [*constant, *far, steps, outage, *recorded]


def connections_for(trace: Trace) -> int:
    """How many transfers go at once."""
    return int(np.clip(trace.uplink_mbps.mean() / CONNECTION_MBPS, 1, MOST_CONNECTIONS))


def connect(link: LinkProcess) -> socket.socket:
    """Open a connection through a link, with the congestion control that most devices have."""
    host, port = link.address.rsplit(":", 1)
    peer = socket.create_connection((host, int(port)))
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"cubic")
    return peer


def megabits_by(
    trace: Trace, begin_s: float, moments_s: NDArray[np.float64]
) -> NDArray[np.float64]:
    """What the trace has carried by some moments, having begun at `begin_s`, shape as given."""
    edges_s = np.append(trace.time_s, trace.duration_s)
    sums = np.append(0.0, np.cumsum(trace.uplink_mbps * np.diff(edges_s)))
    rounds, inside_s = np.divmod(moments_s - begin_s, trace.duration_s)
    return np.asarray(rounds * sums[-1] + np.interp(inside_s, edges_s, sums))


def rtt_at(trace: Trace, begin_s: float, moment_s: float) -> float:
    """Round trip of the trace at a moment."""
    inside_s = (moment_s - begin_s) % trace.duration_s
    rtt_s = trace.rtt_s[np.searchsorted(trace.time_s, inside_s, side="right") - 1]
    return min(float(np.nan_to_num(rtt_s, nan=LOST_RTT_S)), LOST_RTT_S)


def dark_at(trace: Trace, begin_s: float, moments_s: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether the trace carries nothing at some moments and since a while before them."""
    rows = [
        np.searchsorted(trace.time_s, (moments_s - begin_s - early_s) % trace.duration_s, "right")
        - 1
        for early_s in (0.0, AFTER_S)
    ]
    return (trace.uplink_mbps[rows[0]] == 0) & (trace.uplink_mbps[rows[1]] == 0)


def measure_delay(link: LinkProcess, trace: Trace, seconds: float) -> NDArray[np.float64]:
    """Measured minus promised round trips, in seconds; those that wait for an outage left out."""
    begin_s = link.start(trace)
    errors_s = []
    with connect(link) as peer:
        stop_s = time.monotonic() + seconds
        while (sent_s := time.monotonic()) < stop_s:
            peer.sendall(b"!")
            peer.recv(1)
            found_s = time.monotonic() - sent_s
            ends = np.array([sent_s, sent_s + found_s])
            if np.diff(megabits_by(trace, begin_s, ends))[0] > 0:
                expected_s = (
                    rtt_at(trace, begin_s, sent_s) + rtt_at(trace, begin_s, sent_s + found_s)
                ) / 2
                errors_s.append(found_s - expected_s)
            time.sleep(PERIOD_S)
    return np.array(errors_s)


@contextmanager
def bulk(link: LinkProcess, num_connections: int) -> Iterator[list[socket.socket]]:
    """A transfer without end over several connections, stopped by what follows."""

    def send(peer: socket.socket) -> None:
        with suppress(OSError):
            while True:
                peer.sendall(bytes(1 << 18))

    with ExitStack() as stack:
        peers = [stack.enter_context(connect(link)) for _ in range(num_connections)]
        threads = [threading.Thread(target=send, args=(peer,), daemon=True) for peer in peers]
        for thread in threads:
            thread.start()
        yield peers
        for peer in peers:
            peer.shutdown(socket.SHUT_RDWR)
    for thread in threads:
        thread.join()


def measure(
    link: LinkProcess, sink: Sink, trace: Trace, seconds: float, num_connections: int
) -> Result:
    """Play a trace twice: for empty messages, then for a bulk transfer."""
    delay_error_s = measure_delay(link, trace, seconds / 2)
    sink.arrivals.clear()
    begin_s = link.start(trace)
    with bulk(link, num_connections):
        time.sleep(WARM_S + seconds)
        arrivals = list(sink.arrivals)
    link.stop()
    moments_s = np.array([moment_s for moment_s, _ in arrivals])
    megabits = np.cumsum([8e-6 * size for _, size in arrivals])
    warm = int(np.searchsorted(moments_s, begin_s + WARM_S))
    half_rtt_s = rtt_at(trace, begin_s, begin_s) / 2
    marks_s = moments_s[[warm, -1]] - half_rtt_s
    offered = megabits_by(trace, begin_s, marks_s)
    elapsed_s = float(np.diff(marks_s)[0])
    dark = dark_at(trace, begin_s, moments_s - half_rtt_s)
    return Result(
        offered_mbps=float(np.diff(offered)[0]) / elapsed_s,
        carried_mbps=float(megabits[-1] - megabits[warm]) / elapsed_s,
        whole_error=float(megabits[-1] / offered[1] - 1),
        delay_error_s=delay_error_s,
        dark_bytes=sum(size for (_, size), is_dark in zip(arrivals, dark, strict=True) if is_dark),
    )


def measure_loss(sink: Sink, seconds: float) -> str:
    """Play a lossy link and count what TCP had to send again."""
    trace = synthetic("", [LOSS_MBPS] * 2, LOSS_RTT_S)
    with NamespaceLink(sink.address) as link:
        sink.arrivals.clear()
        link.start(trace, loss=LOSS)
        with bulk(link, connections_for(trace)) as peers:
            time.sleep(seconds)
            again = sum(num_sent_again(peer) for peer in peers)
            num_bytes = sum(size for _, size in sink.arrivals)
    share = again / (num_bytes / SEGMENT_BYTES + again)
    return (
        f"loss {LOSS:.1%} at {LOSS_MBPS:g} Mbit/s, {LOSS_RTT_S * 1e3:g} ms: {share:.2%} of the "
        f"segments sent again, {num_bytes * 8e-6 / seconds:.1f} Mbit/s delivered"
    )


def num_sent_again(peer: socket.socket) -> int:
    """Segments of a connection that the kernel sent more than once."""
    info = peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    return int(struct.unpack_from("I", info, RETRANSMITTED)[0])


def row_of(kind: str, name: str, result: Result) -> list[str]:
    """One line of the table."""
    delay_ms = result.delay_error_s * 1e3
    return [
        kind, name, f"{result.offered_mbps:.2f}", f"{result.carried_mbps:.2f}",
        f"{result.carried_mbps / result.offered_mbps - 1:+.1%}", f"{result.whole_error:+.1%}",
        f"{np.median(delay_ms):+.2f}", f"{np.quantile(delay_ms, 0.95):+.2f}",
        str(result.dark_bytes) if "dark" in name else "",
    ]  # fmt: skip


def run_as_others() -> None:
    """Take the priority away that the processes of links gave themselves."""
    for process in psutil.Process().children(recursive=True):
        for thread in process.threads():
            os.sched_setscheduler(thread.id, os.SCHED_OTHER, os.sched_param(0))


def main() -> None:
    """Run the experiment."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("traces", nargs="*", type=Path, help="recorded traces to play as well")
    parser.add_argument("--links", nargs="+", choices=tuple(LINKS), default=list(LINKS))
    parser.add_argument("--seconds", type=float, default=12.0, help="of each transfer, measured")
    parser.add_argument("--connections", type=int, help="that send at once (default: by rate)")
    parser.add_argument("--ordinary", action="store_true", help="without a raised priority")
    arguments = parser.parse_args()
    kinds = list(arguments.links)
    if "namespaces" in kinds and (obstacle := find_obstacle()):
        say(f"no link of namespaces here: {obstacle}")
        kinds.remove("namespaces")
    run_first()  # both ends, too: what is measured is the link, not who else computes
    sink, rows = Sink(), []
    for trace in cases([read_trace(path) for path in arguments.traces]):
        for kind in kinds:
            with ExitStack() as stack:
                link = stack.enter_context(open_link(kind, sink.address))
                if arguments.ordinary:
                    run_as_others()
                num_connections = arguments.connections or connections_for(trace)
                result = measure(link, sink, trace, arguments.seconds, num_connections)
                rows.append(row_of(kind, trace.name, result))
            say("  ".join(rows[-1]) + f"  (machine busy: {psutil.getloadavg()[0]:.1f})")
    header = ["link", "trace", "offered Mbit/s", "carried", "error", "with TCP's start",
              "delay error ms", "p95", "bytes in the dark"]  # fmt: skip
    print(table([header, *rows]))
    if "namespaces" in kinds:
        print(measure_loss(sink, arguments.seconds))


if __name__ == "__main__":
    main()
