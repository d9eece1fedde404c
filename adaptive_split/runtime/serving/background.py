"""Other devices' requests at the server, played from recorded arrivals as sleeping work."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from adaptive_split.clock import Clock
from adaptive_split.runtime.serving.scheduler import Scheduler


class BackgroundLoad:
    """Puts work of `work_s` into the queue at every `time_s`, once over, then stops.

    The simulator's server (`server_load.server_wait`) is a queue, first in first out. This one goes
    by slack: work that others brought is as if promised within 0.1 s (`OTHERS_SLACK_S`), so a
    request with less time left goes before what came earlier, and one with more after what comes
    later. Begun, it is not interrupted; it is never joined with requests in a batch.
    """

    def __init__(
        self, scheduler: Scheduler, clock: Clock, arrivals: Iterable[tuple[float, float]]
    ) -> None:
        self._scheduler, self._clock = scheduler, clock
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._play, args=(arrivals,), name="background", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop."""
        self._stop.set()
        self._thread.join()

    def _play(self, arrivals: Iterable[tuple[float, float]]) -> None:
        begin_s = self._clock.now_s()
        for time_s, work_s in arrivals:
            if self._stop.wait(max(begin_s + time_s - self._clock.now_s(), 0.0)):
                return
            self._scheduler.occupy(work_s)
