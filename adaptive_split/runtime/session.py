"""A run from its first frame to its last, every frame recorded with what was seen."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Protocol

from adaptive_split.measurement import FrameReport
from adaptive_split.runtime.backend import Backend, Controller, Situation
from adaptive_split.runtime.records import RecordWriter

_log = logging.getLogger(__name__)

DECIMALS = 5
"""Of an observation in a record; half of a record's bytes are digits of no meaning otherwise."""


class Observer(Protocol):
    """Tells what a controller sees in a situation; `LiveController` is one."""

    def observation(self, situation: Situation) -> list[float]:
        """The observation vector, for the frame record."""
        ...


class Recorder:
    """Computes observations and writes records on a thread of its own, off the frames' way.

    A record that cannot be written is lost and the run goes on; the log says so at the first one,
    and at the end how many there were. Later frames are recorded again when there is room again.
    """

    def __init__(self, writer: RecordWriter, controller: Observer) -> None:
        self._writer, self._controller = writer, controller
        self._queue: queue.SimpleQueue[tuple[FrameReport, Situation | None] | None]
        self._queue = queue.SimpleQueue()
        self.lost = 0
        """Frames without a record."""
        self._settled = 0
        self._thread = threading.Thread(target=self._write, name="recorder", daemon=True)
        self._thread.start()

    def put(self, report: FrameReport, situation: Situation | None) -> None:
        """Record a frame; `situation` is the one it was decided in, if it started."""
        self._queue.put((report, situation))

    def close(self) -> None:
        """Write what is left; log again if records were lost."""
        self._queue.put(None)
        self._thread.join()
        if self.lost:
            _log.error(
                "every frame must have a record; got none for %d of %d", self.lost, self._settled
            )

    def _write(self) -> None:
        while (item := self._queue.get()) is not None:
            report, situation = item
            self._settled += 1
            try:
                self._writer.write(report, self._seen(situation))
            except Exception as error:  # whatever a record costs, no frame is to pay for it
                if not self.lost:
                    _log.warning("records must be writable; got %s; the run goes on", error)
                self.lost += 1

    def _seen(self, situation: Situation | None) -> list[float] | None:
        if situation is None:
            return None
        return [round(value, DECIMALS) for value in self._controller.observation(situation)]


def play_recorded(
    backend: Backend,
    controller: Controller,
    recorder: Recorder | None = None,
    *,
    seed: int = 0,
    arm_of: Callable[[int], str] = lambda frame_index: "",
) -> Iterator[FrameReport]:
    """Let a controller decide for every frame of a run; yield the reports as frames settle.

    Args:
        backend: What plays the frames.
        controller: Who decides.
        recorder: Gets every report, with the situation it was decided in.
        seed: Of the run.
        arm_of: Tells which of two controllers decides a frame, by its index; see `FrameReport.arm`.
    """
    controller.reset()
    pending: dict[int, Situation] = {}
    situation, done = backend.reset(seed), False
    while not done:
        pending[situation.frame_index] = situation
        situation, settled, done = backend.step(controller.decide(situation))
        for report in settled:
            if arm := arm_of(report.frame_index):
                report = replace(report, arm=arm)
            decided_in = pending.pop(report.frame_index, None)
            if recorder is not None:
                recorder.put(report, decided_in)
            yield report
