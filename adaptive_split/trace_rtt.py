"""The RTT for a trace recorded without one: another recording joined, or a fitted process.

Joined are folders laid out as `traces/<family>/x.csv` beside `rtt/<family>/y.csv` (`time_s,rtt_ms`,
empty = reply lost):

* names `OPERATOR_PROTOCOL_DAY_HHMMSSmmm` (rate) and `OPERATOR_DAY_HHMMSSmmm` (pings): the
  operator's pings nearest in time; the same run if they start within three minutes after the rate
* equal names, but for `_throughput` against `_ping`: the same run
* names `MOBILITY_TECHNOLOGY_...`: pings of the same mobility and technology, chosen by the name
* family `mahimahi`: `rtt/mecperf/rtt_ms.csv.gz`, LTE client to edge, TCP, without cross-traffic
"""

from __future__ import annotations

import csv
import functools
import gzip
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from adaptive_split.errors import TraceError
from adaptive_split.link_model import guess_family, sample_rtt_s, seed_of

RECORDED = "recorded"
RECORDED_ELSEWHERE = "recorded elsewhere"
SYNTHETIC = "synthetic"

SAME_RUN_S = 180.0
# The first two replies of a MECPerf session wait for an idle radio to wake up (380 ms and 52 ms at
# the median, 41 ms after); a device that sends every frame keeps its radio awake.
_WAKING_REPLIES = 2
_MECPERF_GROUPS = 6
_MECPERF_PERIOD_S = 0.05
_TIMED = re.compile(r"(?P<operator>[a-z]+)_(?:[a-z]+_)?(?P<moment>\d{8}_\d{9})")


@dataclass(frozen=True, slots=True, eq=False)
class RttRecording:
    """RTTs over time, repeated from the start when they end."""

    time_s: NDArray[np.float64]
    """When each RTT begins to hold, from 0, ascending, shape `(T,)`."""
    rtt_s: NDArray[np.float64]
    """In seconds, nan = reply lost, shape `(T,)`."""
    duration_s: float
    """How long the recording lasts; the next round begins there."""

    def at(self, time_s: NDArray[np.float64]) -> NDArray[np.float64]:
        """The RTT that holds at each moment, repeated cyclically."""
        row = np.searchsorted(self.time_s, np.mod(time_s, self.duration_s), side="right") - 1
        return self.rtt_s[np.maximum(row, 0)]


def rtt_for(path: Path, time_s: NDArray[np.float64]) -> tuple[NDArray[np.float64], str]:
    """RTTs for a trace whose file has none.

    Args:
        path: The trace's file.
        time_s: Its rows, from 0, shape `(T,)`.

    Returns:
        RTT in seconds (nan = lost), shape `(T,)`, and its provenance.
    """
    family, name = path.resolve().parent.name, stem(path)
    joined = find_recording(path)
    if joined is not None:
        return joined[0].at(time_s), joined[1]
    return sample_rtt_s(guess_family(family, name), seed_of(name), time_s), SYNTHETIC


def stem(path: Path) -> str:
    """A file's name without `.gz` and without the ending before it."""
    return Path(path.name.removesuffix(".gz")).stem


def find_recording(path: Path) -> tuple[RttRecording, str] | None:
    """The recorded RTT to join to a trace, and its provenance; None where there is none."""
    path = path.resolve()
    if path.parent.parent.name != "traces":
        return None
    root, family, name = path.parents[2] / "rtt", path.parent.name, stem(path)
    if family == "mahimahi" and (root / "mecperf" / "rtt_ms.csv.gz").is_file():
        return _mecperf_group(root / "mecperf" / "rtt_ms.csv.gz", name), RECORDED_ELSEWHERE
    files = {stem(file): file for file in sorted((root / family).glob("*.csv*"))}
    found = _nearest_in_time(name, files) or _same_run(name, files) or _same_conditions(name, files)
    if found is None:
        return None
    return read_rtt(files[found[0]]), found[1]


def _nearest_in_time(name: str, candidates: Iterable[str]) -> tuple[str, str] | None:
    own = _TIMED.fullmatch(name)
    if own is None:
        return None
    gaps: list[tuple[float, float, str]] = []
    for candidate in candidates:
        other = _TIMED.fullmatch(candidate)
        if other is not None and other["operator"] == own["operator"]:
            gap_s = (_moment(other["moment"]) - _moment(own["moment"])).total_seconds()
            gaps.append((abs(gap_s), gap_s, candidate))
    if not gaps:
        return None
    _, gap_s, nearest = min(gaps)
    return nearest, RECORDED if 0 <= gap_s <= SAME_RUN_S else RECORDED_ELSEWHERE


@functools.cache
def _moment(text: str) -> datetime:
    return datetime.strptime(text + "000", "%Y%m%d_%H%M%S%f")


def _same_run(name: str, candidates: Iterable[str]) -> tuple[str, str] | None:
    wanted = name.replace("_throughput", "")
    for candidate in candidates:
        if candidate.replace("_ping", "") == wanted:
            return candidate, RECORDED
    return None


def _same_conditions(name: str, candidates: Iterable[str]) -> tuple[str, str] | None:
    conditions = name.split("_")[:2]
    alike = [
        each for each in candidates if len(conditions) == 2 and each.split("_")[:2] == conditions
    ]
    return (alike[seed_of(name) % len(alike)], RECORDED_ELSEWHERE) if alike else None


def read_rtt(path: Path) -> RttRecording:
    """Read a ping recording, `time_s,rtt_ms`, empty = reply lost.

    Raises:
        TraceError: If it is not one; names file and line.
    """
    time_s: list[float] = []
    rtt_s: list[float] = []
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8", newline="") as file:
        lines = csv.reader(file)
        header = next(lines, [])
        if header != ["time_s", "rtt_ms"]:
            raise TraceError(
                f"{path}, line 1: header must be time_s,rtt_ms; got {','.join(header)!r}"
            )
        try:
            for row in lines:
                time_s.append(float(row[0]))
                rtt_s.append(float(row[1]) / 1e3 if row[1] else np.nan)
        except (ValueError, IndexError) as error:
            raise TraceError(
                f"{path}, line {lines.line_num}: row must be two numbers; got {','.join(row)!r}"
            ) from error
    times = np.asarray(time_s)
    if len(times) < 2 or not (np.diff(times) > 0).all():
        raise TraceError(
            f"{path}: pings must be at least two rows of rising time_s; got {len(times)} rows"
        )
    times = times - times[0]
    return RttRecording(times, np.asarray(rtt_s), float(times[-1] + np.median(np.diff(times))))


@functools.cache
def read_mecperf(path: Path) -> tuple[RttRecording, ...]:
    """The LTE-to-edge sessions of MECPerf's `rtt_ms.csv.gz`, each without its waking replies."""
    header = "access,protocol,endpoint,observer,cross_traffic_mbps,trace,t_s,rtt_ms"
    wanted = "lte,TCP,Client,edge,0,"
    sessions: dict[str, list[tuple[float, float]]] = {}
    with gzip.open(path, "rt", encoding="utf-8") as file:
        first = next(file, "").strip()
        if first != header:
            raise TraceError(f"{path}, line 1: header must be {header}; got {first!r}")
        # A hundred times more rows than wanted: look at their beginning before taking them apart.
        for line in file:
            if line.startswith(wanted):
                session, time_s, rtt_ms = line.removeprefix(wanted).split(",")
                sessions.setdefault(session, []).append((float(time_s), float(rtt_ms) / 1e3))
    if not sessions:
        raise TraceError(f"{path}: rows {wanted}... must exist; got none")
    return tuple(_seen_by_requests(np.array(replies)) for replies in sessions.values())


def _seen_by_requests(replies: NDArray[np.float64]) -> RttRecording:
    """What requests sent on a grid would have seen, from replies that followed one another.

    A request sent while a slow reply is in flight waits for the rest of that stall, no longer.

    Args:
        replies: Arrival and RTT of each, in seconds, shape `(N, 2)`.
    """
    arrival_s, rtt_s = replies[_WAKING_REPLIES - 1 :].T
    sent_s = np.arange(arrival_s[0], arrival_s[-1], _MECPERF_PERIOD_S)
    in_flight = np.searchsorted(arrival_s, sent_s, side="right")
    usual_s = np.minimum(rtt_s[in_flight], np.median(rtt_s[1:]))
    seen_s = np.maximum(arrival_s[in_flight] - sent_s, usual_s)
    time_s = np.arange(len(sent_s), dtype=np.float64) * _MECPERF_PERIOD_S
    return RttRecording(time_s, seen_s, len(sent_s) * _MECPERF_PERIOD_S)


def _mecperf_group(path: Path, name: str) -> RttRecording:
    """Every sixth session, chosen by the trace's name so that splits share as few as possible."""
    group = read_mecperf(path)[seed_of(name) % _MECPERF_GROUPS :: _MECPERF_GROUPS]
    start_s = np.cumsum([0.0, *(session.duration_s for session in group)])
    return RttRecording(
        np.concatenate([s.time_s + t for s, t in zip(group, start_s[:-1], strict=True)]),
        np.concatenate([session.rtt_s for session in group]),
        float(start_s[-1]),
    )
