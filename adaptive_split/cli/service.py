"""A command as a service: it ends when it is told to, and tells its manager how it fares."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType

from adaptive_split.clock import Clock
from adaptive_split.runtime.notify import Notifier


class Service:
    """While it is entered, SIGTERM and Ctrl-C let the command end by itself; main thread only."""

    def __init__(self, clock: Clock, finish: Callable[[], None] = lambda: None) -> None:
        """Take what ends the command.

        Args:
            clock: Times the signs of life.
            finish: Called at a signal, between two steps of the main thread: it must take no lock
                that the main thread may hold.
        """
        self._finish, self._notifier = finish, Notifier(clock)
        self._before = {
            number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)
        }
        self.told_to_stop = False

    def __enter__(self) -> Service:
        """Listen to signals; say that the service is ready."""
        for number in self._before:
            signal.signal(number, self._on_signal)
        self._notifier.ready()
        return self

    def __exit__(self, *_: object) -> None:
        """Treat signals as before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def alive(self) -> None:
        """Say that work goes on; as often as one likes."""
        self._notifier.alive()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.told_to_stop = True
        self._finish()
        self._notifier.stopping()
