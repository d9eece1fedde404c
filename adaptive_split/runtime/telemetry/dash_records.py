"""The last frames of a record file that a running device still writes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

MOST_FRAMES = 12
TAIL_BYTES = 1 << 18
"""Read from the end; a record with what a learned controller saw has about 7000."""
COPIED = (
    "frame_index", "confidence", "on_time", "answered_by", "exit_index", "fallback_reason",
    "payload_bytes",
)  # fmt: skip


class LastFrames:
    """Looks at the end of a record file, or of the newest one in a folder."""

    def __init__(self, path: Path, classes: Sequence[str] = ()) -> None:
        """Take the path.

        Args:
            path: A file of frame records, or a folder of `*.jsonl`; neither need exist yet.
            classes: Names of the classes, in the order of the model's; none = numbers are told.
        """
        self._path, self._classes = path, classes

    def view(self) -> dict[str, Any]:
        """The newest frames first, or what is wrong."""
        try:
            file = self._newest()
            lines = _last_lines(file)
        except OSError as error:
            return {"file": self._path.name, "problem": error.strerror or str(error), "frames": []}
        frames = filter(None, map(self._frame, reversed(lines)))
        return {"file": file.name, "problem": "", "frames": [*islice(frames, MOST_FRAMES)]}

    def _newest(self) -> Path:
        if not self._path.is_dir():
            return self._path
        files = list(self._path.glob("*.jsonl"))
        if not files:
            raise FileNotFoundError(2, "no record file yet")
        return max(files, key=lambda file: file.stat().st_mtime)

    def _frame(self, line: bytes) -> dict[str, Any] | None:
        """One record as the page shows it; `None` for a line that is no record."""
        try:
            row = json.loads(line, parse_constant=_refuse)
            decision, latency_s = row["decision"] or {}, row["latency_s"]
            return {
                **{name: row[name] for name in COPIED},
                "answer": self._name(row["answer"]),
                "latency_ms": None if latency_s is None else round(1e3 * latency_s, 1),
                "split_point": decision.get("split_point"),
                "bits": decision.get("bits"),
            }
        except (ValueError, KeyError, TypeError, AttributeError):
            return None

    def _name(self, answer: int | None) -> str | None:
        if answer is None:
            return None
        return self._classes[answer] if answer < len(self._classes) else f"class {answer}"


def _refuse(name: str) -> None:
    """Refuse what JSON has no number for; the page could not be told."""
    raise ValueError(name)


def _last_lines(file: Path) -> list[bytes]:
    """The whole lines among the last `TAIL_BYTES`."""
    with file.open("rb") as stream:
        begin = max(stream.seek(0, 2) - TAIL_BYTES, 0)
        stream.seek(begin)
        lines = stream.read(TAIL_BYTES).split(b"\n")[:-1]
    return lines[1:] if begin else lines
