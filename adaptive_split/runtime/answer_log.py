"""Answers of a measurement that may be interrupted: one line per picture, read again later."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from adaptive_split.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureAnswers:
    """What one picture got: S exits, P payloads."""

    exit_answer: Sequence[int]
    exit_confidence: Sequence[float]
    exit_probability: Sequence[float]
    """Softmax of the class answered,"""
    plain_probability: Sequence[float]
    """and what it would be without the exit's temperature."""
    server_answer: Sequence[int]
    server_confidence: Sequence[float]
    payload_bytes: Sequence[int]


class AnswerLog:
    """A file of answers in the order of the pictures; the first line tells of what.

    A line that was cut short by an interruption counts as not written. JSON keeps every float
    exactly, so it makes no difference to the outcomes whether a picture was answered now or before.
    """

    def __init__(self, path: Path, identity: str) -> None:
        """Open or begin a file.

        Args:
            path: The file; it need not exist.
            identity: A digest of bundle, pictures and payloads.

        Raises:
            ConfigError: If the file is of another measurement, or none.
        """
        first = _line({"answers_of": identity})
        found = path.read_bytes() if path.exists() else b""
        lines = found.splitlines(keepends=True) or [b""]
        if not first.startswith(lines[0]):
            raise ConfigError(
                f"{path} must hold answers of this bundle to these pictures; "
                f"got {lines[0][:80]!r}; remove it"
            )
        whole = [line for line in lines[1:] if line.endswith(b"\n")]
        self.rows: list[PictureAnswers] = [_row(path, line) for line in whole]
        self._file: IO[bytes] = path.open("r+b" if path.exists() else "xb")
        self._write(first)
        self._file.truncate(self._file.seek(sum(map(len, whole)), 1))

    def __enter__(self) -> AnswerLog:
        """Return the log itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def append(self, row: PictureAnswers) -> None:
        """Keep the answers to the next picture."""
        self._write(_line(asdict(row)))
        self.rows.append(row)

    def close(self) -> None:
        """Close the file; it stays."""
        self._file.close()

    def _write(self, line: bytes) -> None:
        self._file.write(line)
        self._file.flush()


def _line(values: dict[str, Any]) -> bytes:
    return json.dumps(values).encode() + b"\n"


def _row(path: Path, line: bytes) -> PictureAnswers:
    try:
        return PictureAnswers(**json.loads(line))
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"{path} must hold a picture's answers a line; got {error}; remove it"
        ) from error
