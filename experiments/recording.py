"""Does `adaptive-split record` read a link as it is? `python -m experiments.recording TRACE ...`.

An emulated link plays what is known, constant rates and the recorded traces named, in front of a
real server, and the recorder records it. Every row is held against the mean rate of the trace over
the very time of the row, and the round trip against the trace's. A burst takes a fifth of a row, so
where a trace jumps within a second the two differ though the burst read its own moment well.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import psutil
from numpy.typing import NDArray

from adaptive_split.bundle import bundle_path
from adaptive_split.cli.common import say
from adaptive_split.cli.tables import table
from adaptive_split.clock import MonotonicClock
from adaptive_split.runtime.emulation.namespace_link import LINKS, open_link
from adaptive_split.runtime.emulation.tun_device import find_obstacle
from adaptive_split.runtime.recording.link_recorder import LinkRecorder, RecordedRow
from adaptive_split.runtime.recording.plan import RecordPlan
from adaptive_split.runtime.serving.server_process import ServerProcess
from adaptive_split.runtime.transport import GrpcTransport
from adaptive_split.testing import tiny_bundle
from adaptive_split.trace import Trace, read_trace

CONSTANT = (
    (1, 30), (5, 30), (20, 30), (50, 30), (100, 30), (20, 5), (20, 80), (100, 80),
)  # fmt: skip
"""Mbit/s and ms of round trip."""
CLASSES_MBPS = (0.5, 2.0, 5.0, 20.0, 50.0)
"""Bounds between classes of true rates."""
DARK_MBPS = 0.02
"""A true rate below is an outage."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Rows of one recording, each with what the link offered meanwhile; shapes `(T,)`."""

    true_mbps: NDArray[np.float64]
    mbps: NDArray[np.float64]
    rtt_error_s: NDArray[np.float64]
    """Of rows with a round trip, against the trace's at the middle of the row."""
    mb_per_minute: float


def constant(rate_mbps: float, rtt_ms: float) -> Trace:
    """A link that never changes."""
    time_s = np.array([0.0, 1.0])
    rtt_s = np.full(2, rtt_ms / 1e3)
    return Trace(f"{rate_mbps:g} Mbit/s, {rtt_ms:g} ms", "", time_s, np.full(2, float(rate_mbps)),
                 rtt_s, "synthetic", "synthetic")  # fmt: skip


def outage() -> Trace:
    """5 Mbit/s, of 20 s the last 6 without a link."""
    rates = np.array([5.0] * 14 + [0.0] * 6)
    return Trace("5 Mbit/s, dark for 6 of 20 s", "", np.arange(20.0), rates, np.full(20, 0.03),
                 "synthetic", "synthetic")  # fmt: skip


def mean_mbps(trace: Trace, begin_s: float, start_s: float, end_s: float) -> float:
    """What a trace that began at `begin_s` offered on average."""
    edges_s = np.append(trace.time_s, trace.duration_s)
    sums = np.append(0.0, np.cumsum(trace.uplink_mbps * np.diff(edges_s)))
    rounds, inside_s = np.divmod(np.array([start_s, end_s]) - begin_s, trace.duration_s)
    megabits = rounds * sums[-1] + np.interp(inside_s, edges_s, sums)
    return float(np.diff(megabits)[0]) / (end_s - start_s)


def record(kind: str, server: str, trace: Trace, seconds: float, budget_mb: float) -> Reading:
    """Play a trace and record it."""
    with open_link(kind, server) as link:
        begin_s = link.start(trace)
        recorder = LinkRecorder(
            lambda: GrpcTransport(link.address, tiny_bundle(), insecure=True), MonotonicClock(),
            RecordPlan(budget_bytes=1e6 * budget_mb, duration_s=seconds),
        )  # fmt: skip
        try:
            rows = list(recorder.rows())
        finally:
            recorder.close()
    return compare(trace, begin_s, rows, recorder.spent_bytes * 60e-6 / seconds)


def compare(
    trace: Trace, begin_s: float, rows: Sequence[RecordedRow], mb_per_minute: float
) -> Reading:
    """Hold rows against the trace."""
    errors_s = []
    for row in rows:
        inside_s = ((row.start_s + row.end_s) / 2 - begin_s) % trace.duration_s
        true_s = trace.rtt_s[np.searchsorted(trace.time_s, inside_s, side="right") - 1]
        if row.rtt_s is not None and not np.isnan(true_s):
            errors_s.append(row.rtt_s - true_s)
    true = [mean_mbps(trace, begin_s, row.start_s, row.end_s) for row in rows]
    measured = np.array([row.uplink_mbps for row in rows])
    return Reading(np.array(true), measured, np.array(errors_s), mb_per_minute)


def row_of(kind: str, name: str, reading: Reading) -> list[str]:
    """One line of the table."""
    true, mbps = reading.true_mbps, reading.mbps
    lit = true > DARK_MBPS
    error = np.abs(mbps[lit] / true[lit] - 1)
    varies = true.std() > 0.01 * true.mean()
    over = int((mbps[lit] > 2 * true[lit]).sum())
    both_dark = int(((mbps == 0) & ~lit).sum())
    return [
        name, kind, str(len(true)), f"{true.mean():.2f}", f"{mbps.mean():.2f}",
        f"{mbps.mean() / true.mean() - 1:+.0%}", f"{np.median(error):.1%}", str(over),
        f"{np.corrcoef(true, mbps)[0, 1]:.2f}" if varies else "",
        f"{both_dark} of {int((~lit).sum())}, {int(((mbps == 0) & lit).sum())}",
        f"{1e3 * np.median(reading.rtt_error_s):+.1f}", f"{reading.mb_per_minute:.1f}",
    ]  # fmt: skip


def by_rate(readings: Sequence[Reading]) -> str:
    """Errors by the true rate, over all recorded traces of one kind of link."""
    true = np.concatenate([reading.true_mbps for reading in readings])
    mbps = np.concatenate([reading.mbps for reading in readings])
    bounds = (DARK_MBPS, *CLASSES_MBPS, np.inf)
    rows = [["true Mbit/s", "rows", "recorded over true, mean", "median error per row"]]
    for low, high in pairwise(bounds):
        chosen = (true > low) & (true <= high)
        if chosen.sum() >= 5:
            ratio = mbps[chosen].mean() / true[chosen].mean()
            error = np.median(np.abs(mbps[chosen] / true[chosen] - 1))
            label = f"{low:g} to {high:g}"
            rows.append([label, str(int(chosen.sum())), f"{ratio:.2f}", f"{error:.0%}"])
    return table(rows)


def main() -> None:
    """Run the experiment."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("traces", nargs="*", type=Path, help="recorded traces to play as well")
    parser.add_argument("--links", nargs="+", choices=tuple(LINKS), default=list(LINKS))
    parser.add_argument("--seconds", type=float, default=60.0, help="of each recorded trace")
    parser.add_argument("--budget-mb", type=float, default=1000.0, help="of each recording")
    arguments = parser.parse_args()
    kinds = list(arguments.links)
    if "namespaces" in kinds and (obstacle := find_obstacle()):
        say(f"no link of namespaces here: {obstacle}")
        kinds.remove("namespaces")
    recorded = [read_trace(path) for path in arguments.traces]
    known = [constant(*pair) for pair in CONSTANT]
    header = ["trace", "link", "rows", "true Mbit/s", "recorded", "error", "median error per row",
              "rows over twice", "correlation", "dark seen, false", "round trip ms",
              "MB per minute"]  # fmt: skip
    lines, pooled = [header], dict[str, list[Reading]]()
    with ServerProcess(bundle_path("garments")) as server:
        for trace, seconds in [
            *((trace, 12.0) for trace in known), (outage(), 40.0),
            *((trace, arguments.seconds) for trace in recorded),
        ]:  # fmt: skip
            for kind in kinds:
                reading = record(kind, server.address, trace, seconds, arguments.budget_mb)
                if trace in recorded:
                    pooled.setdefault(kind, []).append(reading)
                lines.append(row_of(kind, trace.name, reading))
                say("  ".join(lines[-1]) + f"  (machine busy: {psutil.getloadavg()[0]:.1f})")
    print(table(lines))
    for kind, readings in pooled.items():
        print(f"\nrecorded traces, {kind}:\n{by_rate(readings)}")


if __name__ == "__main__":
    main()
