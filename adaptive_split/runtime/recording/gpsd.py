"""Positions from gpsd, by its JSON protocol: https://gpsd.gitlab.io/gpsd/gpsd_json.html."""

from __future__ import annotations

import json
import logging
import socket
import threading
from dataclasses import dataclass
from typing import Any

from adaptive_split.clock import Clock

_log = logging.getLogger(__name__)

WATCH = b'?WATCH={"enable":true,"json":true};\n'
CONNECT_S, SILENCE_S, AGAIN_S = 3.0, 5.0, 0.5
"""To connect; for a receiver, which reports once a second; and until the next attempt."""
TWO_DIMENSIONS = 2
"""Least `mode` of a report that holds a position."""
MOST_LINE_BYTES = 65_536
FIELDS = {
    "lat": "latitude_deg", "lon": "longitude_deg", "altMSL": "altitude_m", "speed": "speed_mps",
    "track": "track_deg", "eph": "horizontal_error_m", "time": "gps_time",
}  # fmt: skip
"""Of a report TPV, and what we call them."""


@dataclass(frozen=True, slots=True)
class Fix:
    """A position."""

    received_s: float
    """On the reader's clock."""
    values: dict[str, float | str]
    """Those of `FIELDS` that the receiver knew."""


class GpsReader:
    """Keeps the newest position, on a thread of its own; connects again when gpsd is gone."""

    def __init__(self, host: str, port: int, clock: Clock) -> None:
        """Begin; does not wait."""
        self._address, self._clock = (host, port), clock
        self.newest: Fix | None = None
        self._stop = threading.Event()
        self._told = False
        self._thread = threading.Thread(target=self._read, name="gps", daemon=True)
        self._thread.start()

    def __enter__(self) -> GpsReader:
        """Return the reader itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self._stop.set()
        self._thread.join()

    def _read(self) -> None:
        while not self._stop.is_set():
            try:
                with socket.create_connection(self._address, CONNECT_S) as peer:
                    peer.settimeout(0.5)
                    peer.sendall(WATCH)
                    self._follow(peer)
            except OSError as error:
                if not self._told:
                    _log.warning(
                        "gpsd must answer at %s:%d; got %s; recording without positions until "
                        "it does", *self._address, error,
                    )  # fmt: skip
                    self._told = True
            self._stop.wait(AGAIN_S)

    def _follow(self, peer: socket.socket) -> None:
        """Read reports until gpsd hangs up or falls silent."""
        rest, heard_s = b"", self._clock.now_s()
        while not self._stop.is_set() and self._clock.now_s() - heard_s < SILENCE_S:
            try:
                data = peer.recv(4096)
            except TimeoutError:
                continue
            if not data or len(rest) > MOST_LINE_BYTES:
                return
            heard_s = self._clock.now_s()
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                if values := read_report(line):
                    self.newest, self._told = Fix(heard_s, values), False


def read_report(line: bytes) -> dict[str, float | str]:
    """Read a position from one line of gpsd; empty if it holds none."""
    try:
        report: Any = json.loads(line)
    except ValueError:
        return {}
    if not isinstance(report, dict) or report.get("class") != "TPV":
        return {}
    mode = report.get("mode")
    if not isinstance(mode, int) or mode < TWO_DIMENSIONS:
        return {}
    given = {ours: report.get(theirs) for theirs, ours in FIELDS.items()}
    return {name: value for name, value in given.items() if isinstance(value, float | int | str)}
