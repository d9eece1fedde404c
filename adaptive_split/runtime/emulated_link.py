"""A link between device and server that plays a trace: rate, delay and outages, without root.

A TCP proxy in a process of its own, so that neither side's work disturbs its timing. The uplink is
a FIFO: bytes leave at the trace's rate and arrive half a round trip later; the way back is delayed
by half a round trip and not paced. Buffers are small, so a backlog stays in the sender's socket, as
it would in a modem's queue. Losses are not played, as TCP ends here: a lost reply is a long round
trip.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

import adaptive_split
from adaptive_split.errors import LinkError
from adaptive_split.trace import Trace

LOST_RTT_S = 1.5
"""Round trip that stands for a lost reply, as in the simulator."""


class EmulatedLink:
    """A proxy in front of a server; passes bytes on at once until a trace is started."""

    def __init__(self, server: str) -> None:
        """Start the proxy.

        Args:
            server: `host:port` of the server behind the link; asked anew for every connection.
        """
        package_home = str(Path(adaptive_split.__file__).parents[1])
        search = os.pathsep.join(filter(None, (package_home, os.environ.get("PYTHONPATH"))))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "adaptive_split.runtime.link_proxy", server],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": search},
            text=True,
        )
        self.port = int(self._read()["port"])

    def __enter__(self) -> EmulatedLink:
        """Return the link itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Take it down."""
        self.close()

    @property
    def address(self) -> str:
        """Where the device finds the server."""
        return f"127.0.0.1:{self.port}"

    def start(self, trace: Trace, offset_s: float = 0.0) -> float:
        """Play a trace from `offset_s` on, over and over; return when that began.

        The moment is on `MonotonicClock`, which all processes of a machine share.
        """
        rtt_s = np.minimum(np.nan_to_num(trace.rtt_s, nan=LOST_RTT_S), LOST_RTT_S)
        return self._command(
            {
                "time_s": trace.time_s.tolist(),
                "uplink_mbps": trace.uplink_mbps.tolist(),
                "rtt_s": rtt_s.tolist(),
                "duration_s": trace.duration_s,
                "offset_s": offset_s,
            }
        )

    def stop(self) -> float:
        """Pass bytes on at once again."""
        return self._command({})

    def close(self) -> None:
        """End the proxy and every connection through it."""
        if self._process.stdin:
            self._process.stdin.close()
        if self._process.stdout:
            self._process.stdout.close()
        self._process.terminate()
        self._process.wait()

    def _command(self, fields: dict[str, Any]) -> float:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(fields) + "\n")
            self._process.stdin.flush()
        except OSError as error:
            raise LinkError(f"the emulated link must be running; got {error}") from error
        return float(self._read()["begin_s"])

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise LinkError("the emulated link must be running; got its end")
        answer: dict[str, Any] = json.loads(line)
        return answer
