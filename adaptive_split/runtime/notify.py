"""Tells the service manager that started this process how it fares: systemd's notify protocol.

A datagram of `NAME=value` lines to the socket that the environment names (sd_notify(3)); without
such a socket nothing is sent.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping

from adaptive_split.clock import Clock

_log = logging.getLogger(__name__)

SOCKET, WATCHDOG_US, WATCHDOG_PID = "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"
BEATS_PER_LIMIT = 4
"""How often at most to say that all is well while the manager waits for one such word."""


class Notifier:
    """Says ready, alive and stopping; `alive` may be called as often as one likes."""

    def __init__(self, clock: Clock, environment: Mapping[str, str] = os.environ) -> None:
        """Read whom to tell, and how often it wants to hear of us.

        Args:
            clock: Times the beats.
            environment: As the manager set it.
        """
        self._clock = clock
        self._address = environment.get(SOCKET, "")
        ours = environment.get(WATCHDOG_PID, str(os.getpid())) == str(os.getpid())
        limit_us = int(environment.get(WATCHDOG_US, "0")) if ours else 0
        self._gap_s = limit_us / 1e6 / BEATS_PER_LIMIT
        self._next_s = clock.now_s()

    def ready(self) -> None:
        """Say that the service does its work from now on."""
        self._send("READY=1")

    def alive(self) -> None:
        """Say so, if the manager watches and it is time again."""
        if self._gap_s and self._clock.now_s() >= self._next_s:
            self._next_s = self._clock.now_s() + self._gap_s
            self._send("WATCHDOG=1")

    def stopping(self) -> None:
        """Say that the service drains and ends."""
        self._send("STOPPING=1")

    def _send(self, line: str) -> None:
        if not self._address:
            return
        # A leading @ stands for the zero byte of an abstract name.
        name = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                # A manager that does not read must not hold up a frame.
                sender.sendto(line.encode(), socket.MSG_DONTWAIT, name)
        except OSError as error:
            _log.warning("the service manager must be told %s; got %s", line, error)
