"""A clock whose zero is the start of the run."""

from __future__ import annotations

from adaptive_split.clock import Clock


class RunClock:
    """Another clock, counted from the last `restart`; all moments of a run are on it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._zero_s = clock.now_s()

    def restart(self) -> None:
        """Make now 0."""
        self._zero_s = self._clock.now_s()

    def now_s(self) -> float:
        """Seconds since the run began."""
        return self._clock.now_s() - self._zero_s

    def sleep_until(self, moment_s: float) -> None:
        """Return no earlier than `moment_s` of the run."""
        # Adding and taking off the zero rounds; a sleeper must not wake before its moment.
        self._clock.sleep_until(self._zero_s + moment_s + 1e-9)
