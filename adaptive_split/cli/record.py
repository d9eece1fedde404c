"""`adaptive-split record`: a trace of the link between here and a server."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from adaptive_split.cli.common import Bars, Commands, add_command, add_tls, tls_files
from adaptive_split.cli.logs import add_logging
from adaptive_split.cli.service import Service

if TYPE_CHECKING:
    from adaptive_split.runtime.recording.gpsd import GpsReader
    from adaptive_split.runtime.recording.link_recorder import LinkRecorder, RecordedRow
    from adaptive_split.runtime.recording.trace_file import TraceFile

GPSD = "127.0.0.1:2947"
MOST_AGE_S = 3.0
"""A position older than this is not where a row was measured."""


def add_parser(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands, "record", "record a network trace between here and a server",
        "Measure uplink, round trip and loss once per period, by a short burst that fills the "
        "uplink and empty messages before and after it, until the time or the data budget is used "
        "up, or SIGTERM or Ctrl-C. FILE.csv is a trace as 'compare --traces' reads it; "
        "FILE.json beside it tells how it came about. The same command goes on with a file that "
        "exists; the time between is left out of the trace, and marked. The burst slows down what "
        "else is sent for a fifth of the time.",
        "adaptive-split record --server edge.example:50051 --out drive.csv --minutes 60 "
        "--budget-mb 300 --insecure",
    )  # fmt: skip
    parser.add_argument("--server", required=True, metavar="HOST:PORT",
                        help="an edge server; any bundle will do")  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.csv",
                        help="a new file, or a recording to go on with")  # fmt: skip
    parser.add_argument(
        "--budget-mb", type=float, default=200.0, metavar="N",
        help="most to send, 10^6 bytes with estimated headers, earlier parts included; with "
        "--minutes it is spread evenly (default: 200)",
    )  # fmt: skip
    parser.add_argument("--period", type=float, default=1.0, metavar="S",
                        help="length of a row in seconds (default: 1)")  # fmt: skip
    parser.add_argument(
        "--minutes", type=float, default=math.inf, metavar="M",
        help="how long to record now (default: until the budget is used up)",
    )  # fmt: skip
    parser.add_argument(
        "--gps", nargs="?", const=GPSD, metavar="HOST:PORT",
        help=f"note positions from gpsd in FILE.positions.jsonl (without HOST:PORT: {GPSD})",
    )  # fmt: skip
    add_tls(parser, "server's")
    add_logging(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Record until something ends it; print what was recorded."""
    from adaptive_split.clock import MonotonicClock
    from adaptive_split.runtime.addresses import host_and_port
    from adaptive_split.runtime.recording.gpsd import GpsReader
    from adaptive_split.runtime.recording.link_recorder import LinkRecorder
    from adaptive_split.runtime.recording.plan import RecordPlan
    from adaptive_split.runtime.recording.trace_file import TraceFile
    from adaptive_split.runtime.transport import GrpcTransport

    plan = RecordPlan(
        budget_bytes=1e6 * arguments.budget_mb, period_s=arguments.period,
        duration_s=60 * arguments.minutes,
    )  # fmt: skip
    tls, clock = tls_files(arguments), MonotonicClock()
    gps_address = host_and_port(arguments.gps, "--gps") if arguments.gps else None

    def connect() -> GrpcTransport:
        return GrpcTransport(arguments.server, _AnyBundle(), tls=tls, insecure=tls is None)

    file = TraceFile(
        arguments.out, budget_mb=arguments.budget_mb, server=arguments.server,
        period_s=arguments.period,
    )  # fmt: skip
    with ExitStack() as stack:
        plan.check_spread(1e6 * file.sidecar.used_mb)
        recorder = LinkRecorder(connect, clock, plan, spent_bytes=1e6 * file.sidecar.used_mb)
        stack.callback(recorder.close)
        stack.callback(lambda: file.close(recorder.ended or "failed"))
        gps = stack.enter_context(GpsReader(*gps_address, clock)) if gps_address else None
        bars = stack.enter_context(Bars("kB", hidden=arguments.log_format == "json"))
        service = stack.enter_context(Service(clock))
        service.ready(recorder.stop)
        rows = list(_kept(recorder, file, gps, bars, plan.budget_bytes))
    print(summary(rows, file, recorder.ended))
    return 0


def _kept(
    recorder: LinkRecorder, file: TraceFile, gps: GpsReader | None, bars: Bars, budget_bytes: float
) -> Iterator[RecordedRow]:
    """Write every row as it comes, and hand it on."""
    from datetime import datetime, timezone

    positions = file.path.with_suffix(".positions.jsonl")
    for row in recorder.rows():
        now = datetime.now(timezone.utc)
        time_s = file.add(row, used_mb=recorder.spent_bytes / 1e6, now=now)
        fix = gps.newest if gps else None
        if fix and (age_s := abs(row.start_s - fix.received_s)) < MOST_AGE_S:
            with positions.open("a", encoding="utf-8") as out:
                line = {"time_s": time_s, "age_s": round(age_s, 3), **fix.values}
                out.write(json.dumps(line) + "\n")
        bars("recording, of the budget", int(recorder.spent_bytes / 1e3), int(budget_bytes / 1e3))
        yield row


@dataclass(frozen=True, slots=True)
class _AnyBundle:
    """Stands for the bundle, which measuring a link does not ask for."""

    name: str = "any"
    hash: str = ""
    num_stages: int = 1


def summary(rows: list[RecordedRow], file: TraceFile, ended: str) -> str:
    """What was recorded, in words."""
    import numpy as np

    sidecar = file.sidecar
    head = (
        f"{ended}: {len(rows)} rows now, {sidecar.num_rows} and {len(sidecar.gaps)} gaps in "
        f"{file.path}; {sidecar.used_mb:.1f} of {sidecar.budget_mb:g} MB used"
    )
    if not rows:
        return head
    low, middle, high = np.quantile([row.uplink_mbps for row in rows], (0.05, 0.5, 0.95))
    rtts_ms = [1e3 * row.rtt_s for row in rows if row.rtt_s is not None]
    rtt = f"{np.median(rtts_ms):.0f} ms" if rtts_ms else "unknown"
    lost = np.mean([row.loss for row in rows])
    return (
        f"{head}\nuplink {middle:.2f} Mbit/s (5 %: {low:.2f}, 95 %: {high:.2f}), round trip {rtt} "
        f"at the median, {lost:.1%} of the empty messages lost"
    )
