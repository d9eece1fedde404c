"""What this machine draws, and its integral over time."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Protocol

from adaptive_split.clock import Clock, MonotonicClock
from adaptive_split.runtime.sensors.background import Background
from adaptive_split.runtime.sensors.jtop_rails import jtop_rails
from adaptive_split.runtime.sensors.rails import RailPower, find_rails

SAMPLE_PERIOD_S = 0.05
"""An INA3221 converts in milliseconds, and averages as its `samples` tell."""
STALE_S = 2.0
"""A meter whose last sample is older has stopped counting."""
_FIRST_S = 2.0


class PowerSource(Protocol):
    """A power in watts."""

    source: str
    """What is read, for a person."""
    with_carrier: bool
    """Whether it holds the carrier board, and so a modem on it."""

    def power_w(self) -> float:
        """Power now.

        Raises:
            OSError: If it cannot be read.
        """
        ...


def find_power(root: Path = Path("/")) -> PowerSource | None:
    """The power of this machine by its own files, else by jetson-stats; none where neither tells.

    Rails that nobody knows how to add up are no power.
    """
    for rails in (find_rails(root), {} if root != Path("/") else jtop_rails()):
        try:
            power = RailPower(rails)
            power.power_w()
        except (OSError, ValueError):
            continue
        return power
    return None


class Trapezoid:
    """The integral of a power that is known at moments."""

    def __init__(self) -> None:
        self._joules = 0.0
        self._last: tuple[float, float] | None = None

    def add(self, time_s: float, power_w: float) -> None:
        """Take a sample; samples come in the order of time."""
        if self._last is not None:
            before_s, before_w = self._last
            self._joules += (time_s - before_s) * (before_w + power_w) / 2
        self._last = time_s, power_w

    def energy_j(self, now_s: float) -> float:
        """Joules since the first sample; after the last one its power holds."""
        if self._last is None:
            return 0.0
        last_s, last_w = self._last
        return self._joules + max(now_s - last_s, 0.0) * last_w

    def age_s(self, now_s: float) -> float:
        """Time since the last sample."""
        return float("inf") if self._last is None else now_s - self._last[0]


class SampledMeter:
    """Counts joules of a power that is sampled on a thread of its own; see `EnergyMeter`.

    Single samples say little about a frame of some milliseconds: integrate over a second or more.
    """

    def __init__(self, power: PowerSource, *, clock: Clock | None = None) -> None:
        """Begin to count."""
        self.source, self.with_carrier = power.source, power.with_carrier
        self._power, self._clock = power, clock or MonotonicClock()
        self._integral, self._lock = Trapezoid(), threading.Lock()
        self._sampling = Background(self._sample, SAMPLE_PERIOD_S, clock=self._clock)
        self._sampling.wait(_FIRST_S)

    def energy_j(self) -> float:
        """Joules since the meter was made.

        Raises:
            OSError: If the power has not been readable lately.
        """
        with self._lock:
            now_s = self._clock.now_s()
            age_s = self._integral.age_s(now_s)
            if age_s > STALE_S:
                raise OSError(
                    f"{self.source} must be sampled every {STALE_S} s; got nothing for {age_s:.1f}"
                )
            return self._integral.energy_j(now_s)

    def close(self) -> None:
        """Count no more."""
        self._sampling.close()

    def _sample(self) -> None:
        power_w = self._power.power_w()
        with self._lock:
            self._integral.add(self._clock.now_s(), power_w)
