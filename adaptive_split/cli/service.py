"""A command as a service: it ends when it is told to, and tells its manager how it fares."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable
from types import FrameType

from adaptive_split.clock import Clock
from adaptive_split.runtime.notify import Notifier

_log = logging.getLogger(__name__)


class Stopped(KeyboardInterrupt):
    """The service was told to stop before it was ready; raised wherever the main thread was."""


class Service:
    """While it is entered, SIGTERM and Ctrl-C end the command as it should end; main thread only.

    A signal is kept in mind at first; after `interruptible` it ends the `with` block where it is,
    without an error; after `ready` it lets the command end by itself.
    """

    def __init__(self, clock: Clock) -> None:
        """Listen to nothing yet; the clock times the signs of life."""
        self._notifier = Notifier(clock)
        self._at_signal: Callable[[], None] = lambda: None
        self._before = {
            number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)
        }
        self.told_to_stop = False

    def __enter__(self) -> Service:
        """Listen to signals."""
        for number in self._before:
            signal.signal(number, self._on_signal)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        """Treat signals as before; a stop that was asked for is no error."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if kind is not Stopped:
            return False
        _log.warning("told to stop before the service was ready")
        return True

    def interruptible(self) -> None:
        """From now on the first signal ends what is going on; so does one that came before."""
        self._at_signal = _stop
        if self.told_to_stop:
            _stop()

    def ready(self, finish: Callable[[], None] = lambda: None) -> None:
        """Say that the service is ready; from now on it ends by itself.

        Args:
            finish: Called at a signal, between two steps of the main thread: it must take no lock
                that the main thread may hold.
        """
        self._at_signal = finish
        # Python drops what a signal raises inside a finalizer.
        if self.told_to_stop:
            _stop()
        self._notifier.ready()

    def alive(self) -> None:
        """Say that work goes on; as often as one likes."""
        self._notifier.alive()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        # What closes after the first signal must not be torn by a second one.
        if not self.told_to_stop:
            self.told_to_stop = True
            self._notifier.stopping()
            self._at_signal()


def _stop() -> None:
    raise Stopped
