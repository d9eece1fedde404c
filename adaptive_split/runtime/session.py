"""A run from its first frame to its last, every frame recorded with what was seen."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from adaptive_split.measurement import FrameReport
from adaptive_split.runtime.backend import Backend, Situation
from adaptive_split.runtime.live_controller import LiveController
from adaptive_split.runtime.records import RecordWriter

DECIMALS = 5
"""Of an observation in a record; half of a record's bytes are digits of no meaning otherwise."""


class Recorder:
    """Computes observations and writes records on a thread of its own, off the frames' way."""

    def __init__(self, writer: RecordWriter, controller: LiveController) -> None:
        self._writer, self._controller = writer, controller
        self._queue: queue.SimpleQueue[tuple[FrameReport, Situation | None] | None]
        self._queue = queue.SimpleQueue()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._write, name="recorder", daemon=True)
        self._thread.start()

    def put(self, report: FrameReport, situation: Situation | None) -> None:
        """Record a frame; `situation` is the one it was decided in, if it started."""
        self._queue.put((report, situation))

    def close(self) -> None:
        """Write what is left; raise what went wrong in writing."""
        self._queue.put(None)
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _write(self) -> None:
        while (item := self._queue.get()) is not None:
            if self._error is not None:
                continue
            report, situation = item
            try:
                self._writer.write(report, self._seen(situation))
            except Exception as error:  # the run goes on; `close` tells
                self._error = error

    def _seen(self, situation: Situation | None) -> list[float] | None:
        if situation is None:
            return None
        return [round(value, DECIMALS) for value in self._controller.observation(situation)]


def play_recorded(
    backend: Backend,
    controller: LiveController,
    recorder: Recorder | None = None,
    *,
    seed: int = 0,
    on_frame: Callable[[FrameReport], None] = lambda report: None,
) -> list[FrameReport]:
    """Let a controller decide for every frame of a run.

    Returns:
        The report of every frame, in the order they settled.
    """
    controller.reset()
    pending: dict[int, Situation] = {}
    reports: list[FrameReport] = []
    situation, done = backend.reset(seed), False
    while not done:
        pending[situation.frame_index] = situation
        situation, settled, done = backend.step(controller.decide(situation))
        for report in settled:
            decided_in = pending.pop(report.frame_index, None)
            if recorder is not None:
                recorder.put(report, decided_in)
            on_frame(report)
        reports += settled
    return reports
