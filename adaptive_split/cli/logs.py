"""What a command says on standard error while it runs: text for people, JSON lines for machines."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import sys
from collections.abc import Iterator
from datetime import datetime, timezone

FORMATS, LEVELS = ("text", "json"), ("debug", "info", "warning", "error")
GRPC_VERBOSITY = "GRPC_VERBOSITY"
"""gRPC's core writes lines of its own, as of failed handshakes, and heeds only this variable."""
_OWN = frozenset(vars(logging.makeLogRecord({})))
"""What every log record has; all else came by `extra`."""


def add_logging(parser: argparse.ArgumentParser) -> None:
    """Add `--log-format` and `--log-level`."""
    parser.add_argument(
        "--log-format", choices=FORMATS, default="text",
        help="what standard error says: lines for people (default), or a JSON object per line",
    )  # fmt: skip
    parser.add_argument(
        "--log-level", choices=LEVELS, default="info", help="the least to tell (default: info)"
    )


@contextlib.contextmanager
def on_standard_error(log_format: str, level: str) -> Iterator[None]:
    """Tell what is logged; afterwards logging is as before.

    Args:
        log_format: One of `FORMATS`.
        level: The least to tell of this package, one of `LEVELS`; of others, warnings.
    """
    root, ours = logging.getLogger(), logging.getLogger("adaptive_split")
    handler, before = _StandardError(), ours.level
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    hush = log_format == "json" and GRPC_VERBOSITY not in os.environ
    if hush:
        os.environ[GRPC_VERBOSITY] = "NONE"
    root.addHandler(handler)
    ours.setLevel(level.upper())
    try:
        yield
    finally:
        ours.setLevel(before)
        root.removeHandler(handler)
        if hush:
            del os.environ[GRPC_VERBOSITY]


class _StandardError(logging.Handler):
    """Writes to what `sys.stderr` is at that moment."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        try:
            sys.stderr.write(self.format(record) + "\n")
            sys.stderr.flush()
        except Exception:  # as every handler: a log that cannot be written ends no run
            self.handleError(record)


class TextFormatter(logging.Formatter):
    """`adaptive-split: warning: message`."""

    def format(self, record: logging.LogRecord) -> str:
        """Write a record for a person."""
        return f"adaptive-split: {record.levelname.lower()}: {super().format(record)}"


class JsonFormatter(logging.Formatter):
    """One JSON object: time (UTC), level, logger, message, then the fields given by `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        """Write a record for a machine."""
        moment = datetime.fromtimestamp(record.created, timezone.utc)
        row = {
            "time": moment.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **{name: value for name, value in vars(record).items() if name not in _OWN},
        }
        if record.exc_info:
            row["exception"] = self.formatException(record.exc_info)
        return json.dumps(row, default=str)
