"""A battery that tells nothing: its charge is counted down from a capacity by a meter of power."""

from __future__ import annotations

import json
import logging
import math
import os
from pathlib import Path

from adaptive_split.errors import ConfigError
from adaptive_split.runtime.sensors.energy import EnergyMeter

_log = logging.getLogger(__name__)

VERSION = 1
_SAVED_SHARE = 0.001
"""Whoever loses power loses at most this share of the capacity from the count."""


class CountedBattery:
    """Counts joules off a capacity and keeps the count in a file, so that it survives a restart.

    What the meter does not see, the battery loses all the same: the carrier board where the rails
    end at the module, and what regulators burn. So give the capacity that arrives at the rails,
    the printed one times the share that does. It does not see charging either: remove the file when
    the battery is full again.
    """

    def __init__(self, capacity_j: float, file: Path, meter: EnergyMeter) -> None:
        """Go on where the file ends, or begin full.

        Raises:
            ConfigError: If the capacity cannot be, or the file is damaged, cannot be written or is
                of another battery.
        """
        if not (capacity_j > 0 and math.isfinite(capacity_j)):
            raise ConfigError(f"capacity_j must be positive, in joules; got {capacity_j!r}")
        self.source = f"counted from {meter.source}"
        self._capacity_j, self._file, self._meter = capacity_j, file, meter
        self._left_j = self._saved_j = _read(file, capacity_j)
        self._before_j = meter.energy_j()
        self._save()

    def soc(self) -> float | None:
        """State of charge in [0, 1].

        Raises:
            OSError: If the meter cannot be read; the count goes on with what it counted meanwhile.
        """
        now_j = self._meter.energy_j()
        self._left_j = max(self._left_j - (now_j - self._before_j), 0.0)
        self._before_j = now_j
        if self._saved_j - self._left_j > _SAVED_SHARE * self._capacity_j:
            try:
                self._save()
            except ConfigError as error:  # as on a full disk; tried again at the next 0.1 %
                _log.warning("%s", error)
                self._saved_j = self._left_j
        return self._left_j / self._capacity_j

    def drain(self, energy_j: float) -> None:
        """Leave the count to the meter, which sees more than frames."""

    def close(self) -> None:
        """Keep the count."""
        self._save()
        self._meter.close()

    def _save(self) -> None:
        """Replace the file as a whole: a crash leaves the old count or the new one."""
        told = {"version": VERSION, "capacity_j": self._capacity_j, "left_j": self._left_j}
        new = self._file.with_name(f"{self._file.name}.new")
        try:
            with new.open("w", encoding="utf-8") as stream:
                stream.write(json.dumps(told) + "\n")
                stream.flush()
                os.fsync(stream.fileno())
            new.replace(self._file)
        except OSError as error:
            raise ConfigError(
                f"the count of a battery must be writable; got {self._file}: {error}"
            ) from error
        self._saved_j = self._left_j


def _read(file: Path, capacity_j: float) -> float:
    """Joules left by the file; all where there is none."""
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        version, of_j, left_j = told["version"], told["capacity_j"], float(told["left_j"])
    except FileNotFoundError:
        return capacity_j
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"the count of a battery must be whole; got a damaged {file}: {error}; remove it to "
            "begin with a full battery"
        ) from error
    if version != VERSION or of_j != capacity_j or not 0 <= left_j <= capacity_j:
        raise ConfigError(
            f"{file} must be the count of a battery of {capacity_j:g} J; got {told}; remove it to "
            "begin with a full battery"
        )
    return left_j
