"""Frame records: one JSON line per frame, written alike by live and simulated runs."""

from __future__ import annotations

import gzip
import json
import threading
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from adaptive_split.decision import Decision
from adaptive_split.errors import ConfigError
from adaptive_split.measurement import FrameReport

VERSION = 1
_COLUMNS = frozenset(column.name for column in fields(FrameReport))


@dataclass(frozen=True, slots=True)
class FrameRecord:
    """What a frame cost and what was seen when it was decided."""

    report: FrameReport
    observation: tuple[float, ...] | None = None
    """The controller's observation; `None` where it has none."""


class RecordWriter:
    """Appends records to a new file; the system has every line before `write` returns.

    A crash leaves all lines but perhaps the last whole, a full disk all of them. Safe to use from
    several threads.
    """

    def __init__(self, path: Path) -> None:
        """Open a file that must not exist yet."""
        try:
            self._file = path.open("xb", buffering=0)
        except FileExistsError:
            raise ConfigError(
                f"a record file must be new; got {path}; name another or remove it"
            ) from None
        except OSError as error:
            raise ConfigError(f"a record file must be writable; got {path}: {error}") from error
        self._lock = threading.Lock()
        self._size = 0

    def __enter__(self) -> RecordWriter:
        """Return the writer itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self.close()

    def write(self, report: FrameReport, observation: Sequence[float] | None = None) -> None:
        """Append one frame.

        Raises:
            OSError: If it could not be written in full; then nothing of it is left in the file.
        """
        seen = None if observation is None else [float(value) for value in observation]
        row = {"version": VERSION, **asdict(report), "observation": seen}
        line = (json.dumps(row, allow_nan=False) + "\n").encode()
        with self._lock:
            try:
                self._append(line)
            except OSError:
                # The next row that finds room must begin on a line of its own.
                self._file.seek(self._size)
                self._file.truncate()
                raise
            self._size += len(line)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _append(self, line: bytes) -> None:
        while line:
            line = line[self._file.write(line) :]


def read_records(path: Path) -> Iterator[FrameRecord]:
    """Read records in the order of their lines; a last line cut short by a crash is left out.

    Args:
        path: JSON lines; packed by gzip if the name ends in `.gz`.

    Raises:
        ConfigError: If a line is no record; names file and line.
    """
    try:
        blob = path.read_bytes()
        text = (gzip.decompress(blob) if path.suffix == ".gz" else blob).decode("utf-8")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise ConfigError(f"a record file must be readable; got {path}: {error}") from error
    for number, line in enumerate(text.splitlines(keepends=True), start=1):
        if line.endswith("\n"):
            yield _parse(line, f"{path}, line {number}")


def _parse(line: str, where: str) -> FrameRecord:
    try:
        row: dict[str, Any] = json.loads(line)
        version, observation = row.pop("version"), row.pop("observation")
        if version != VERSION:
            raise ConfigError(f"{where}: a record must be of version {VERSION}; got {version!r}")
        if unknown := row.keys() - _COLUMNS:
            raise ConfigError(f"{where}: a record must hold known columns; got {sorted(unknown)}")
        if row["decision"] is not None:
            row["decision"] = Decision(**row["decision"])
        seen = None if observation is None else tuple(float(value) for value in observation)
        return FrameRecord(FrameReport(**row), seen)
    except ConfigError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{where}: a record must be whole; got a damaged one: {error}") from error
