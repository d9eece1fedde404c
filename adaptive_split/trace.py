"""Recorded network traces: rate and RTT over time; read, check, slice, resample, split, write."""

from __future__ import annotations

import csv
import gzip
import math
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from adaptive_split.errors import ConfigError, TraceError
from adaptive_split.trace_rtt import RECORDED, RECORDED_ELSEWHERE, SYNTHETIC, rtt_for, stem

COLUMNS = ("time_s", "uplink_mbps", "downlink_mbps", "rtt_ms", "loss")
CSV_ENDINGS = (".csv", ".csv.gz")
MAHIMAHI_ENDINGS = tuple(
    ending + packed for ending in (".up", ".down", ".pps", ".mahi") for packed in ("", ".gz")
)

_HEADER = "time_s,uplink_mbps[,downlink_mbps][,rtt_ms][,loss]"
_PROVENANCE = re.compile(r"#\s*source:\s*([a-z ]+?)\s*,\s*rtt_source:\s*([a-z ]+?)\s*")
_OPPORTUNITY_BITS = 1500 * 8
_BIN_MS = 100


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """An uplink over time; the values of a row hold until the next row."""

    name: str
    """Stem of its file."""
    family: str
    """Name of its file's folder."""
    time_s: NDArray[np.float64]
    """Start of every row in seconds, from 0, strictly rising, shape `(T,)`, at least two."""
    uplink_mbps: NDArray[np.float64]
    """The rate the link offers, in 10^6 bit/s, at least 0, shape `(T,)`."""
    rtt_s: NDArray[np.float64]
    """Round trip of an empty message in seconds, nan = reply lost, shape `(T,)`."""
    source: str = RECORDED
    """Provenance of the rate: `recorded` or `synthetic`."""
    rtt_source: str = RECORDED
    """Provenance of the RTT: `recorded`, `recorded elsewhere` (another one) or `synthetic`."""

    def __post_init__(self) -> None:
        """Refuse what is not a trace."""
        num_rows = len(self.time_s)
        if num_rows < 2:
            raise TraceError(f"trace {self.name} must hold at least two rows; got {num_rows}")
        shapes = {self.time_s.shape, self.uplink_mbps.shape, self.rtt_s.shape}
        if shapes != {(num_rows,)}:
            raise TraceError(
                f"trace {self.name} must hold arrays of one shape; got {sorted(shapes)}"
            )
        if self.time_s[0] != 0 or not (np.diff(self.time_s) > 0).all():
            raise TraceError(f"trace {self.name} must start at 0 s and its time must rise strictly")
        if not (np.isfinite(self.uplink_mbps) & (self.uplink_mbps >= 0)).all():
            raise TraceError(f"trace {self.name} must hold finite rates, at least 0 Mbps")
        if (self.rtt_s < 0).any() or np.isinf(self.rtt_s).any():
            raise TraceError(f"trace {self.name} must hold RTTs of at least 0 s; nan = reply lost")
        if self.source not in (RECORDED, SYNTHETIC):
            raise TraceError(f"source must be recorded or synthetic; got {self.source!r}")
        if self.rtt_source not in (RECORDED, RECORDED_ELSEWHERE, SYNTHETIC):
            raise TraceError(
                "rtt_source must be recorded, recorded elsewhere or synthetic;"
                f" got {self.rtt_source!r}"
            )

    @property
    def duration_s(self) -> float:
        """Length in seconds; the last row holds for one median period."""
        return float(self.time_s[-1] + np.median(np.diff(self.time_s)))

    def slice(self, start_s: float, stop_s: float) -> Trace:
        """The part of the trace in `[start_s, stop_s)`, its time counted from `start_s`.

        It ends where its last row does, within a row of `stop_s`.

        Raises:
            ConfigError: If that part lies outside, or holds fewer than two rows.
        """
        if not 0 <= start_s < stop_s <= self.duration_s + 1e-9:
            raise ConfigError(
                f"slice of {self.name} must lie within [0, {self.duration_s:g}] s;"
                f" got [{start_s!r}, {stop_s!r}]"
            )
        first = int(np.searchsorted(self.time_s, start_s, side="right")) - 1
        last = int(np.searchsorted(self.time_s, stop_s, side="left"))
        if last - first < 2:
            raise ConfigError(
                f"slice of {self.name} must hold at least two rows;"
                f" got {last - first} in [{start_s!r}, {stop_s!r}] s"
            )
        time_s = np.maximum(self.time_s[first:last] - start_s, 0.0)
        return self._with(time_s, self.uplink_mbps[first:last], self.rtt_s[first:last])

    def resample(self, period_s: float) -> Trace:
        """The trace on a regular grid: the rate's mean over each period, the RTT at its start.

        A last period that the trace does not fill is left out.

        Raises:
            ConfigError: If `period_s` is not positive or fits less than twice.
        """
        if not 0 < period_s <= self.duration_s / 2 + 1e-9:
            raise ConfigError(
                f"period_s must be in (0, {self.duration_s / 2:g}] s for {self.name};"
                f" got {period_s!r}"
            )
        num_rows = int(self.duration_s / period_s + 1e-9)
        edges_s = np.arange(num_rows + 1, dtype=np.float64) * float(period_s)
        starts_s = np.append(self.time_s, self.duration_s)
        megabits = np.append(0.0, np.cumsum(self.uplink_mbps * np.diff(starts_s)))
        rate = np.diff(np.interp(edges_s, starts_s, megabits)) / period_s
        row = np.searchsorted(self.time_s, edges_s[:-1] + 1e-9, side="right") - 1
        return self._with(edges_s[:-1], np.maximum(rate, 0.0), self.rtt_s[row])

    def _with(
        self,
        time_s: NDArray[np.float64],
        uplink_mbps: NDArray[np.float64],
        rtt_s: NDArray[np.float64],
    ) -> Trace:
        return Trace(
            self.name, self.family, time_s, uplink_mbps, rtt_s, self.source, self.rtt_source
        )


def read_trace(path: Path) -> Trace:
    """Read a trace; one without RTTs gets them from `trace_rtt.rtt_for`, see `rtt_source`.

    Args:
        path: A CSV `time_s,uplink_mbps[,downlink_mbps][,rtt_ms][,loss]` (`rtt_ms` empty or `loss`
            1 = reply lost), or a mahimahi file (`.up`, `.down`, `.pps`, `.mahi`: one line for every
            opportunity to deliver 1500 bytes, its time in whole ms); either may end in `.gz`.

    Raises:
        TraceError: If it cannot be read; names file and line.
    """
    path = Path(path)
    try:
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rt", encoding="utf-8", newline="") as file:
            lines = file.read().splitlines()
    except FileNotFoundError as error:
        raise TraceError(f"trace must exist; got no file {path}") from error
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise TraceError(f"{path}: trace must be readable text; got {error}") from error
    if not any(line.strip() for line in lines):
        raise TraceError(f"{path}, line 1: trace must hold rows; got an empty file")
    if path.name.endswith(CSV_ENDINGS):
        return _parse_csv(path, lines)
    if path.name.endswith(MAHIMAHI_ENDINGS):
        return _parse_mahimahi(path, lines)
    endings = ", ".join(CSV_ENDINGS + MAHIMAHI_ENDINGS)
    raise TraceError(f"{path}: name of a trace must end in one of {endings}")


def _parse_csv(path: Path, lines: list[str]) -> Trace:
    source, rtt_source, first = RECORDED, RECORDED, 0
    if lines[0].startswith("#"):
        first = 1
        if provenance := _PROVENANCE.fullmatch(lines[0]):
            source, rtt_source = provenance[1], provenance[2]
    header = [name.strip() for name in lines[first].split(",")] if len(lines) > first else []
    if "downlink_mbps" in header and "uplink_mbps" not in header:
        raise TraceError(
            f"{path}, line {first + 1}: header must name uplink_mbps; got a downlink only, which"
            " says nothing about the uplink"
        )
    if header[:2] != ["time_s", "uplink_mbps"] or [c for c in COLUMNS if c in header] != header:
        raise TraceError(
            f"{path}, line {first + 1}: header must be {_HEADER}; got {','.join(header)!r}"
        )
    rows: list[list[float]] = []
    for number, cells in enumerate(csv.reader(lines[first + 1 :]), start=first + 2):
        if not cells:
            continue
        row = _parse_row(f"{path}, line {number}", header, cells)
        if rows and row[0] <= rows[-1][0]:
            raise TraceError(
                f"{path}, line {number}: time_s must rise; got {row[0]!r} after {rows[-1][0]!r}"
            )
        rows.append(row)
    if len(rows) < 2:
        raise TraceError(
            f"{path}, line {len(lines)}: trace must hold two rows or more; got {len(rows)}"
        )
    table = dict(zip(header, np.array(rows).T, strict=True))
    time_s = table["time_s"] - table["time_s"][0]
    if "rtt_ms" in table:
        rtt_s = table["rtt_ms"] / 1e3
    else:
        rtt_s, rtt_source = rtt_for(path, time_s)
    if "loss" in table:
        rtt_s = np.where(table["loss"] >= 1, np.nan, rtt_s)
    family = path.resolve().parent.name
    return Trace(stem(path), family, time_s, table["uplink_mbps"], rtt_s, source, rtt_source)


def _parse_row(where: str, header: list[str], cells: list[str]) -> list[float]:
    """Numbers of a row; nan for an RTT left empty."""
    if len(cells) != len(header):
        raise TraceError(f"{where}: row must have {len(header)} columns; got {len(cells)}")
    row = []
    for name, cell in zip(header, cells, strict=True):
        if name == "rtt_ms" and not cell.strip():
            row.append(math.nan)
            continue
        try:
            value = float(cell)
        except ValueError as error:
            raise TraceError(f"{where}: {name} must be a number; got {cell!r}") from error
        if not math.isfinite(value):
            raise TraceError(f"{where}: {name} must be finite; got {cell!r}")
        if value < 0 and name != "time_s":
            raise TraceError(f"{where}: {name} must be at least 0; got {cell!r}")
        if name == "loss" and value > 1:
            raise TraceError(f"{where}: loss must be a share in [0, 1]; got {cell!r}")
        row.append(value)
    return row


def _parse_mahimahi(path: Path, lines: list[str]) -> Trace:
    """Opportunities in bins of 100 ms; a file under a second is repeated, as mm-link does."""
    moments_ms: list[int] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        if not line.strip().isdigit():
            raise TraceError(f"{path}, line {number}: line must be a whole ms; got {line!r}")
        moment_ms = int(line)
        if moments_ms and moment_ms < moments_ms[-1]:
            raise TraceError(
                f"{path}, line {number}: time must not run back;"
                f" got {moment_ms} after {moments_ms[-1]}"
            )
        moments_ms.append(moment_ms)
    length_ms = moments_ms[-1]
    if length_ms == 0:
        raise TraceError(f"{path}, line {len(lines)}: last time must be above 0 ms; got 0")
    moments = np.asarray(moments_ms)
    if length_ms < 1000:
        rounds = math.ceil(1000 / length_ms)
        # mm-link wraps at the last time: an opportunity there opens the next round.
        moments = (np.mod(moments, length_ms) + length_ms * np.arange(rounds)[:, None]).ravel()
        length_ms *= rounds
    count = np.bincount(moments // _BIN_MS)[: length_ms // _BIN_MS]
    rate = count * _OPPORTUNITY_BITS / (_BIN_MS * 1e3)
    time_s = np.arange(len(rate), dtype=np.float64) * (_BIN_MS / 1e3)
    rtt_s, rtt_source = rtt_for(path, time_s)
    return Trace(stem(path), path.resolve().parent.name, time_s, rate, rtt_s, RECORDED, rtt_source)


def read_traces(folders: Sequence[Path]) -> list[Trace]:
    """Every trace below the folders, in the order of their paths; downlinks of mahimahi left out.

    Raises:
        TraceError: If a folder holds none, or one cannot be read.
    """
    traces: list[Trace] = []
    for folder in folders:
        endings = CSV_ENDINGS + MAHIMAHI_ENDINGS
        files = [path for path in sorted(Path(folder).rglob("*")) if path.name.endswith(endings)]
        uplinks = [path for path in files if not re.search(r"[.-]down(\.|$)", path.name)]
        if not uplinks:
            raise TraceError(
                f"folder must hold traces ({', '.join(endings)}); got none below {folder}"
            )
        traces += [read_trace(path) for path in uplinks]
    return traces


def write_trace(trace: Trace, path: Path) -> None:
    """Write a trace as CSV with its provenance, packed if the name ends in `.gz`."""
    lines = [
        f"# source: {trace.source}, rtt_source: {trace.rtt_source}",
        "time_s,uplink_mbps,rtt_ms",
    ]
    for time_s, rate, rtt_s in zip(trace.time_s, trace.uplink_mbps, trace.rtt_s, strict=True):
        rtt_ms = "" if math.isnan(rtt_s) else f"{rtt_s * 1e3:.10g}"
        lines.append(f"{time_s:.10g},{rate:.10g},{rtt_ms}")
    data = ("\n".join(lines) + "\n").encode()
    # Without a time in the header equal traces give equal files.
    Path(path).write_bytes(gzip.compress(data, mtime=0) if Path(path).suffix == ".gz" else data)
