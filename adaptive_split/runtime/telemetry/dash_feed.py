"""What `adaptive-split dash` knows: a reading per second of every endpoint, as one JSON text."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from typing import Any

from adaptive_split.clock import Clock
from adaptive_split.runtime.telemetry.dash_records import LastFrames
from adaptive_split.runtime.telemetry.dash_views import (
    View,
    device_view,
    point_view,
    server_view,
    short,
)
from adaptive_split.runtime.telemetry.scrape import Change
from adaptive_split.runtime.telemetry.watched import Watched

HISTORY_S = 300.0
"""How far the curves reach back."""
CURVES = ("uplink_mbps", "used_mbps", "rtt_ms", "p50_ms", "p95_ms", "missed")


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
        self._device = Watched(device, clock)
        self._server = Watched(server, clock) if server else None
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
            "device": _view(self._device, device_view),
            "server": _view(self._server, server_view) if self._server else None,
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


def _view(watched: Watched, tell: Callable[[Change], View]) -> View:
    """What an endpoint told last, and whether that is old."""
    window = watched.window()
    return {
        "address": watched.address,
        "problem": watched.problem,
        "silent_s": short(watched.silent_s),
        "told": None if window is None else tell(window),
    }
