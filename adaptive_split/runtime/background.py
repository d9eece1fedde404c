"""Other devices' requests at the server, played from recorded arrivals as sleeping jobs."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from functools import partial

from adaptive_split.clock import Clock
from adaptive_split.errors import LinkError
from adaptive_split.runtime.scheduler import Scheduler


class BackgroundLoad:
    """Puts a job of `work_s` into the queue at every `time_s`, once over, then stops."""

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
            try:
                self._scheduler.submit(partial(self._sleep, work_s), expected_s=work_s)
            except LinkError:
                continue  # a full queue turns other devices away as well

    def _sleep(self, work_s: float) -> None:
        self._clock.sleep_until(self._clock.now_s() + work_s)
