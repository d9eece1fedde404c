"""What `adaptive-split dash` knows: a reading per second of every endpoint, as one JSON text."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from typing import Any

from adaptive_split.clock import Clock
from adaptive_split.errors import LinkError
from adaptive_split.runtime.telemetry.dash_records import LastFrames
from adaptive_split.runtime.telemetry.dash_views import (
    View,
    device_view,
    point_view,
    server_view,
    short,
)
from adaptive_split.runtime.telemetry.scrape import Change, Scrape, scrape

WINDOW = 11
"""Readings kept for rates and quantiles: those of the last ten seconds."""
HISTORY_S = 300.0
"""How far the curves reach back."""
CURVES = ("uplink_mbps", "used_mbps", "rtt_ms", "p50_ms", "p95_ms", "missed")


class Endpoint:
    """One metrics endpoint: its last readings, since when it is silent, and why."""

    def __init__(self, address: str, clock: Clock) -> None:
        """Take `host:port`; nothing is asked yet."""
        self.address, self.problem = address, "not asked yet"
        self._clock = clock
        self._heard_s: float | None = None
        self._readings: deque[Scrape] = deque(maxlen=WINDOW)

    def look(self) -> None:
        """Ask it once more."""
        try:
            found = scrape(self.address)
        except LinkError as error:
            self.problem = str(error)
            return
        if self._readings and not found.continues(self._readings[-1]):
            self._readings.clear()
        self.problem, self._heard_s = "", self._clock.now_s()
        self._readings.append(found)

    def window(self) -> Change | None:
        """The last seconds, or all since its start where it was read once; `None` before that."""
        return self._since(0)

    def second(self) -> Change | None:
        """What came since the reading before; `None` unless it just answered for a second time."""
        return None if self.problem or len(self._readings) < 2 else self._since(-2)

    def view(self, told: Callable[[Change], View]) -> View:
        """What it told last, and whether that is old."""
        window = self.window()
        silent_s = None if self._heard_s is None else self._clock.now_s() - self._heard_s
        return {
            "address": self.address,
            "problem": self.problem,
            "silent_s": short(silent_s),
            "told": None if window is None else told(window),
        }

    def _since(self, index: int) -> Change | None:
        if not self._readings:
            return None
        newest, before = self._readings[-1], self._readings[index]
        return Change(newest) if before is newest else Change(newest, before)


class Feed:
    """Looks at a device, a server and a record file, and tells all of it at once."""

    def __init__(
        self, device: str, clock: Clock, *, server: str | None = None,
        frames: LastFrames | None = None,
    ) -> None:  # fmt: skip
        """Take whom to ask.

        Args:
            device: `host:port` of its metrics.
            clock: Times the readings.
            server: The same of a server; none = it is not shown.
            frames: Where records are; none = no frames are shown.
        """
        self._clock, self._frames = clock, frames
        self._device = Endpoint(device, clock)
        self._server = Endpoint(server, clock) if server else None
        self._points: deque[tuple[float, View]] = deque()
        self._text = self._write()

    def text(self) -> bytes:
        """Everything known at the last look, as JSON; safe to call from any thread."""
        return self._text

    def look(self) -> None:
        """Ask everybody once more; a silent endpoint takes two seconds."""
        self._device.look()
        if self._server:
            self._server.look()
        self._extend_curves()
        self._text = self._write()

    def _extend_curves(self) -> None:
        """Add a point; an empty one where the device was silent."""
        now_s = self._clock.now_s()
        second, window = self._device.second(), self._device.window()
        point = point_view(second, window) if second and window else {}
        self._points.append((now_s, point))
        while self._points[0][0] < now_s - HISTORY_S:
            self._points.popleft()

    def _write(self) -> bytes:
        state: dict[str, Any] = {
            "device": self._device.view(device_view),
            "server": self._server.view(server_view) if self._server else None,
            "curves": self._curves(),
            "records": self._frames.view() if self._frames else None,
        }
        return json.dumps(state, allow_nan=False, separators=(",", ":")).encode()

    def _curves(self) -> dict[str, Any]:
        now_s = self._clock.now_s()
        return {
            "span_s": HISTORY_S,
            "age_s": [round(now_s - time_s, 1) for time_s, _ in self._points],
            **{name: [point.get(name) for _, point in self._points] for name in CURVES},
        }
