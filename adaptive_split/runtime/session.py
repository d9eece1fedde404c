"""A run from its first frame to its last, every frame recorded with what was seen."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Iterator

from adaptive_split.measurement import FrameReport
from adaptive_split.runtime.backend import Backend, Controller, Situation
from adaptive_split.runtime.live_controller import LiveController
from adaptive_split.runtime.records import RecordWriter

_log = logging.getLogger(__name__)

DECIMALS = 5
"""Of an observation in a record; half of a record's bytes are digits of no meaning otherwise."""


class Recorder:
    """Computes observations and writes records on a thread of its own, off the frames' way.

    A record that cannot be written is lost and the run goes on; the log says so at the first one,
    and at the end how many there were. Later frames are recorded again when there is room again.
    """

    def __init__(self, writer: RecordWriter, controller: LiveController) -> None:
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
) -> Iterator[FrameReport]:
    """Let a controller decide for every frame of a run; yield the reports as frames settle."""
    controller.reset()
    pending: dict[int, Situation] = {}
    situation, done = backend.reset(seed), False
    while not done:
        pending[situation.frame_index] = situation
        situation, settled, done = backend.step(controller.decide(situation))
        for report in settled:
            decided_in = pending.pop(report.frame_index, None)
            if recorder is not None:
                recorder.put(report, decided_in)
            yield report
