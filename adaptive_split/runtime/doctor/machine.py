"""Clock, memory and disk."""

from __future__ import annotations

import ctypes
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from adaptive_split.runtime.doctor.finding import Finding, green, red, yellow

COARSE_S = 1e-5
RUNTIME_BYTES = 120_000_000
"""Of device runtime and controller without the model; `bench memory` measures it."""
RECORD_BYTES = 7_000
"""Of a frame's record with its observation, about: 50 frames of `run` with the default scenario and
its controller, 89 candidates, took 6.9 kB each, the light model's half of that."""
SHORT_BYTES, LOW_BYTES = 100_000_000, 1_000_000_000
"""Free disk that is too little, and that will be."""
_TIME_ERROR = 5
"""What adjtimex(2) returns while nobody keeps the clock right."""


def examine_clock(is_synchronized: bool | None) -> Iterator[Finding]:
    """The clock that frames are timed by, and the one that certificates are dated by."""
    resolution_s = time.get_clock_info("monotonic").resolution
    found = f"{1e9 * resolution_s:.0f} ns"
    if resolution_s <= COARSE_S:
        yield green("monotonic clock", found)
    else:
        yield red("monotonic clock", found, "use a kernel with high resolution timers")
    if is_synchronized:
        yield green("wall clock", "synchronized")
    else:
        yield yellow(
            "wall clock", "not synchronized" if is_synchronized is False else "nobody can tell",
            "let systemd-timesyncd or chrony keep it; certificates have dates, frames do not care",
        )  # fmt: skip


def clock_is_synchronized() -> bool | None:
    """Whether the kernel's clock is kept right by somebody; `None` where it cannot be asked."""
    try:
        asked = ctypes.create_string_buffer(1024)  # a struct timex of zeros only asks
        state = ctypes.CDLL(None, use_errno=True).adjtimex(asked)
    except (OSError, AttributeError):
        return None
    return None if state < 0 else state != _TIME_ERROR


def examine_memory(available_bytes: int, model_bytes: int) -> Iterator[Finding]:
    """Room for the runtime, the controller and a model whose graphs have so many bytes."""
    needed = RUNTIME_BYTES + 3 * model_bytes  # weights, their packed form, and tensors between
    found = f"{_megabytes(available_bytes)} free, about {_megabytes(needed)} needed"
    if available_bytes < needed:
        yield red("memory", found, "stop other services, or add swap to start at all")
    elif available_bytes < 2 * needed:
        yield yellow("memory", found, "stop what this device does not need, as the desktop")
    else:
        yield green("memory", found)


def available_memory() -> int:
    """Bytes that may be had without swapping."""
    return int(psutil.virtual_memory().available)


def examine_disk(folder: Path, fps: float) -> Iterator[Finding]:
    """Whether records can be written to a folder, and for how long."""
    subject = f"disk {folder}"
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x")
            file.flush()
            os.fsync(file.fileno())
        free = shutil.disk_usage(folder).free
    except OSError as error:
        yield red(
            subject, f"cannot be written: {error.strerror}", "make it, or name another: --records"
        )
        return
    hours = free / (RECORD_BYTES * fps * 3600)
    found = f"{_megabytes(free)} free, records for {hours:.0f} hours at {fps:g} fps"
    if free < SHORT_BYTES:
        yield red(subject, found, "free some: without room frames are answered and not recorded")
    elif free < LOW_BYTES:
        yield yellow(subject, found, "free some, or move records away in time")
    else:
        yield green(subject, found)


def _megabytes(size: float) -> str:
    return f"{size / 1e6:,.0f} MB"
