"""The journal of a store: what was done to which release, one JSON line each, on disk first.

Every line names the releases that are to be current and previous once it holds. So whatever was
interrupted after a line was written can be finished from that line alone, and whatever was
interrupted before has not happened (write-ahead logging).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from adaptive_split.errors import ConfigError
from adaptive_split.runtime.updates.durable import sync_folder

STAGED, VERIFIED, ON_TRIAL = "staged", "verified", "on trial"
ACCEPTED, ROLLED_BACK = "accepted", "rolled back"
STANDING = (ON_TRIAL, ACCEPTED, ROLLED_BACK)
"""States that say which release is current; the others are on the way there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One line."""

    state: str
    release: str
    """Name of the release that it is about."""
    current: str | None
    """Name of the release in force; none = what the device would run without a store."""
    previous: str | None
    """Name of the release to go back to, as above."""
    deaths: int = 0
    """Runs of a release on trial that have not ended properly, the one under way included."""
    reason: str = ""
    time: str = ""
    """Wall clock in UTC, for people; nothing is computed with it."""


class Journal:
    """Appends entries to a file; a last line cut short is as if it had never been begun."""

    def __init__(self, file: Path, now: Callable[[], datetime]) -> None:
        self._file, self._now = file, now

    def entries(self) -> list[Entry]:
        """Read all whole lines, oldest first.

        Raises:
            ConfigError: If one is damaged; names file and line.
        """
        lines = enumerate(self._whole().splitlines(), start=1)
        return [self._parse(number, line) for number, line in lines]

    def append(self, entry: Entry) -> None:
        """Write an entry with the time; it is on disk when this returns."""
        stamped = {**asdict(entry), "time": self._now().isoformat(timespec="seconds")}
        line = (json.dumps(stamped) + "\n").encode()
        size = len(self._whole())
        with open(os.open(self._file, os.O_RDWR | os.O_CREAT, 0o644), "r+b") as file:
            file.truncate(size)
            file.seek(size)
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        if not size:
            sync_folder(self._file.parent)

    def _parse(self, number: int, line: bytes) -> Entry:
        try:
            return Entry(**json.loads(line))
        except (ValueError, TypeError) as error:
            raise ConfigError(
                f"{self._file}, line {number}: a journal must be whole; got {error}; remove the "
                "store and install again"
            ) from error

    def _whole(self) -> bytes:
        """All lines up to the last line break."""
        try:
            blob = self._file.read_bytes()
        except FileNotFoundError:
            return b""
        return blob[: blob.rfind(b"\n") + 1]


def standing(entries: list[Entry]) -> Entry | None:
    """The last entry that says which release is current; none before the first install."""
    return next((entry for entry in reversed(entries) if entry.state in STANDING), None)
