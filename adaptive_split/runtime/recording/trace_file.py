"""A trace that grows while it is recorded: appended row by row, and gone on with later."""

from __future__ import annotations

import json
import os
import platform
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from adaptive_split.errors import ConfigError
from adaptive_split.runtime.recording.link_recorder import RecordedRow

VERSION = 1
HEAD = "# source: recorded, rtt_source: recorded\ntime_s,uplink_mbps,rtt_ms,loss\n"
METHOD = (
    "uplink_mbps: second half of a burst of 12 requests per row, from request to request as the "
    "server received them, headers of packets left out; rtt_ms: median of up to four empty "
    "messages per row, empty = all lost; loss: share of them without a reply in 1.5 s (TCP repeats "
    "lost packets, so this is no packet loss)"
)
CONTIGUOUS_S = 1e-6


@dataclass(slots=True, kw_only=True)
class Sidecar:
    """What a trace file cannot say of itself; JSON beside it."""

    budget_mb: float
    used_mb: float = 0.0
    """Sent so far, headers of packets estimated, in 10^6 bytes."""
    num_rows: int = 0
    num_rtt_held: int = 0
    """Rows whose round trip is the one of the row before, as they were one long burst."""
    next_time_s: float = 0.0
    """Where in the file the last row ends."""
    parts: list[dict[str, Any]] = field(default_factory=list)
    """Every call that recorded: begin and last row (UTC), server, device, period, why it ended."""
    gaps: list[dict[str, Any]] = field(default_factory=list)
    """Time that nobody measured: at which `time_s` of the file, and how long by which clock."""
    method: str = METHOD
    version: int = VERSION


class TraceFile:
    """Appends rows to `FILE.csv` and keeps `FILE.json` beside it.

    Time in the file leaves unmeasured time out, as the values of a row hold until the next one: a
    gap is an empty line, and an entry in the sidecar. A row is one write; a crash leaves all but
    perhaps the last row, and that one is cut off when the recording goes on.
    """

    def __init__(self, path: Path, *, budget_mb: float, server: str, period_s: float) -> None:
        """Begin a recording, or go on with one.

        Raises:
            ConfigError: If the file is not one that this class has written.
        """
        if path.suffix != ".csv":
            raise ConfigError(f"a recording must be named FILE.csv; got {path}")
        if not os.access(path if path.exists() else path.parent, os.W_OK):
            raise ConfigError(f"a recording must be writable; got {path}; its folder must be there")
        self.path, self._sidecar_path = path, path.with_suffix(".json")
        self._file: int | None = None
        self.sidecar = self._load() if path.exists() else Sidecar(budget_mb=budget_mb)
        self.sidecar.budget_mb = budget_mb
        self._end_s = 0.0
        self._part = {"server": server, "device": platform.node(), "period_s": period_s}

    def add(self, row: RecordedRow, *, used_mb: float, now: datetime) -> float:
        """Append a row; return its time in the file.

        Args:
            row: In the order of their moments.
            used_mb: Data sent so far.
            now: For the sidecar.

        Raises:
            ConfigError: If it could not be written; the recording can be gone on with later.
        """
        try:
            return self._add(row, used_mb, now)
        except OSError as error:
            raise ConfigError(
                f"a recording must be writable; got {self.path}: {error}; the same command goes on"
            ) from error

    def close(self, ended: str) -> None:
        """Say why the recording ended."""
        if self._file is not None:
            self.sidecar.parts[-1]["ended"] = ended
            with suppress(OSError):
                self._save()
            os.close(self._file)

    def _add(self, row: RecordedRow, used_mb: float, now: datetime) -> float:
        sidecar = self.sidecar
        if self._file is None:
            self._open()
            self._begin_part(now - timedelta(seconds=row.end_s - row.start_s))
        elif row.start_s > self._end_s + CONTIGUOUS_S:
            self._mark_gap(row.start_s - self._end_s, "this device's clock, monotonic")
        time_s, self._end_s = sidecar.next_time_s, row.end_s
        rtt = "" if row.rtt_s is None else f"{1e3 * row.rtt_s:.2f}"
        self._append(f"{time_s:.3f},{row.uplink_mbps:.4f},{rtt},{row.loss:.3f}\n")
        sidecar.next_time_s = round(time_s + row.end_s - row.start_s, 3)
        sidecar.num_rows += 1
        sidecar.num_rtt_held += row.rtt_held
        sidecar.used_mb = round(used_mb, 6)
        sidecar.parts[-1]["last_row_utc"] = now.isoformat(timespec="milliseconds")
        self._save()
        return time_s

    def _open(self) -> None:
        """Open the file only when there is something to write."""
        new = not self.path.exists()
        if new:
            self._save()
        else:
            self._mend()
        self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        if new:
            self._append(HEAD)

    def _begin_part(self, now: datetime) -> None:
        parts = self.sidecar.parts
        if parts and self.sidecar.next_time_s:
            last = parts[-1].get("last_row_utc", parts[-1]["began_utc"])
            away_s = (now - datetime.fromisoformat(last)).total_seconds()
            self._mark_gap(away_s, "wall clocks, which may have been set meanwhile")
        began = now.isoformat(timespec="milliseconds")
        parts.append({"began_utc": began, "first_time_s": self.sidecar.next_time_s, **self._part})
        self._save()  # before its first row, so that no row is without a part

    def _mark_gap(self, seconds: float, clock: str) -> None:
        self._append("\n")
        self.sidecar.gaps.append(
            {"time_s": self.sidecar.next_time_s, "seconds": round(seconds, 3), "by": clock}
        )

    def _mend(self) -> None:
        """Cut off a row that was not written to its end."""
        blob = self.path.read_bytes()
        whole = blob.rfind(b"\n") + 1
        if whole < len(blob):
            os.truncate(self.path, whole)
        rows = blob[:whole].decode().splitlines()
        if "\n".join(rows[:2]) + "\n" != HEAD:
            raise ConfigError(f"{self.path} must begin as a recording does; name a new file")
        times_s = [float(line.split(",")[0]) for line in rows[2:] if line]
        if times_s and times_s[-1] >= self.sidecar.next_time_s:
            # Killed between row and sidecar: the last row lasted a period.
            self.sidecar.next_time_s = times_s[-1] + self.sidecar.parts[-1]["period_s"]
            self.sidecar.num_rows = len(times_s)

    def _append(self, text: str) -> None:
        assert self._file is not None
        os.write(self._file, text.encode())
        os.fsync(self._file)

    def _load(self) -> Sidecar:
        try:
            fields = json.loads(self._sidecar_path.read_text(encoding="utf-8"))
            if fields.get("version") != VERSION:
                raise ValueError(f"version {fields.get('version')!r}")
            return Sidecar(**fields)
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"a recording to go on with must have its sidecar; got {self._sidecar_path}: "
                f"{error}; name a new file"
            ) from error

    def _save(self) -> None:
        text = json.dumps(asdict(self.sidecar), indent=1) + "\n"
        fresh = self._sidecar_path.with_suffix(".json.new")
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(self._sidecar_path)
