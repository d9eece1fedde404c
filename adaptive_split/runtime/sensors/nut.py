"""The state of charge as Network UPS Tools tell it (RFC 9271), as for most UPS boards of a Jetson.

Their drivers infer the charge of a bare cell from its voltage: it sags under load.
"""

from __future__ import annotations

import re
import socket

from adaptive_split.errors import ConfigError

PORT = 3493
_PATIENCE_S = 2.0
_MOST_BYTES = 4096
_CHARGE = re.compile(r'VAR \S+ battery\.charge "([0-9.]+)"')


class NutBattery:
    """Asks a `upsd` for `battery.charge`, on a new connection every time."""

    def __init__(self, name: str, host: str = "localhost", port: int = PORT) -> None:
        """Take the name of the UPS and where its `upsd` listens."""
        if not re.fullmatch(r"[A-Za-z0-9._-]+", name):
            raise ConfigError(f"the name of a UPS must be letters and digits; got {name!r}")
        self.source = f"NUT, {name}@{host}"
        self._name, self._address = name, (host, port)

    def soc(self) -> float | None:
        """State of charge in [0, 1]; `None` where the daemon does not know it.

        Raises:
            OSError: If the daemon cannot be reached in two seconds.
        """
        with socket.create_connection(self._address, timeout=_PATIENCE_S) as connection:
            connection.sendall(f"GET VAR {self._name} battery.charge\nLOGOUT\n".encode())
            told = b""
            while b"\n" not in told and len(told) < _MOST_BYTES:
                more = connection.recv(_MOST_BYTES)
                if not more:
                    break
                told += more
        found = _CHARGE.match(told.decode("utf-8", "replace"))
        try:
            return None if found is None else min(float(found[1]) / 100, 1.0)
        except ValueError:  # of several dots
            return None

    def drain(self, energy_j: float) -> None:
        """Leave the count to the UPS."""

    def close(self) -> None:
        """Nothing stays open."""
