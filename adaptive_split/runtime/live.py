"""A run on real machines, one decision at a time."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator

from adaptive_split.decision import Decision
from adaptive_split.measurement import FrameReport
from adaptive_split.runtime.backend import Backend, Controller, Situation
from adaptive_split.runtime.device import Device
from adaptive_split.runtime.ledger import Ledger
from adaptive_split.runtime.source import FrameSource

_log = logging.getLogger(__name__)

LONGEST_WAIT_S = 1.0


class Watchdog:
    """Settles frames at their give-up moment while the device computes; a thread of its own."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._stop = False
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop."""
        with self._ledger.change:
            self._stop = True
            self._ledger.change.notify_all()
        self._thread.join()

    def _watch(self) -> None:
        ledger = self._ledger
        while True:
            with ledger.change:
                if self._stop:
                    return
                now_s = ledger.clock.now_s()
                rest_s = min(ledger.next_expiry_s() - now_s, LONGEST_WAIT_S)
                if rest_s > 0:
                    ledger.alarm_s = now_s + rest_s
                    ledger.change.wait(rest_s)
                    continue
            try:
                ledger.expire()
            except Exception:  # of whoever is told of answers; the next frame is due all the same
                _log.exception("a frame is settled, but could not be told")


class LiveBackend:
    """Steps a device through a run on the wall clock.

    `step` starts the current frame and returns when the next decision is due; between the two calls
    time goes on, so a controller that thinks for longer than `device.MARGIN_S` costs answers.
    """

    def __init__(
        self, device: Device, prepare: Callable[[int], FrameSource], num_frames: int
    ) -> None:
        """Take a device.

        Args:
            device: Closed by its owner, after the backend.
            prepare: Called with the seed before every run: starts the emulated link, if there is
                one, and gives the pictures.
            num_frames: Frames that a run captures.
        """
        self._device, self._prepare, self._num_frames = device, prepare, num_frames
        self._watchdog = Watchdog(device.ledger)

    def __enter__(self) -> LiveBackend:
        """Return the backend itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def reset(self, seed: int) -> Situation:
        """Start a run and return at its first decision."""
        self._device.start(self._prepare(seed), self._num_frames)
        return self._device.next_frame() or self._device.situation()

    def step(self, decision: Decision) -> tuple[Situation, list[FrameReport], bool]:
        """Start the current frame; see `Backend.step`."""
        self._device.run_frame(decision)
        situation = self._device.next_frame()
        settled = self._device.ledger.take()
        return situation or self._device.situation(), settled, situation is None

    def close(self) -> None:
        """Stop the watchdog."""
        self._watchdog.close()


def play(backend: Backend, controller: Controller, seed: int = 0) -> Iterator[FrameReport]:
    """Let a controller decide for every frame of a run; yield the reports as frames settle."""
    controller.reset()
    situation, done = backend.reset(seed), False
    while not done:
        situation, settled, done = backend.step(controller.decide(situation))
        yield from settled
