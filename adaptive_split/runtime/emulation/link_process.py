"""What all emulated links have in common: a process of its own that is told which trace to play."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

import adaptive_split
from adaptive_split.errors import LinkError
from adaptive_split.trace import Trace

LOST_RTT_S = 1.5
"""Round trip that stands for a lost reply, as in the simulator."""
CLOSE_S = 5.0

AnyLink = TypeVar("AnyLink", bound="LinkProcess")


class LinkProcess:
    """A link in front of a server; passes bytes on at once until a trace is started."""

    def __init__(self, module: str, server: str) -> None:
        """Start the process and wait for its address.

        Args:
            module: Of this package, run as a program.
            server: `host:port` of the server behind the link; asked anew for every connection.
        """
        package_home = str(Path(adaptive_split.__file__).parents[1])
        search = os.pathsep.join(filter(None, (package_home, os.environ.get("PYTHONPATH"))))
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"adaptive_split.runtime.emulation.{module}", server],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": search},
            start_new_session=True,  # what interrupts this program ends the link by `close`
            text=True,
        )
        try:
            self.address = str(self._read()["address"])
            """Where the device finds the server, `host:port`."""
        except LinkError:
            self.close()
            raise

    def __enter__(self: AnyLink) -> AnyLink:
        """Return the link itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Take it down."""
        self.close()

    def start(self, trace: Trace, offset_s: float = 0.0) -> float:
        """Play a trace from `offset_s` on, over and over; return when that began.

        The moment is on `MonotonicClock`, which all processes of a machine share.
        """
        return self._command(plan_of(trace, offset_s))

    def stop(self) -> float:
        """Pass bytes on at once again."""
        return self._command({})

    def close(self) -> None:
        """End the process and every connection through it."""
        if self._process.stdin:
            self._process.stdin.close()
        try:
            self._process.wait(CLOSE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()

    def _command(self, fields: dict[str, Any]) -> float:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(fields) + "\n")
            self._process.stdin.flush()
        except (OSError, ValueError) as error:  # ValueError: closed
            raise LinkError(f"the emulated link must be running; got {error}") from error
        return float(self._read()["begin_s"])

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise LinkError("the emulated link must be running; got its end")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise LinkError(f"the emulated link must be allowed to start; got {answer['error']}")
        return answer


def plan_of(trace: Trace, offset_s: float) -> dict[str, Any]:
    """What the process needs to know of a trace."""
    rtt_s = np.minimum(np.nan_to_num(trace.rtt_s, nan=LOST_RTT_S), LOST_RTT_S)
    return {
        "time_s": trace.time_s.tolist(),
        "uplink_mbps": trace.uplink_mbps.tolist(),
        "rtt_s": rtt_s.tolist(),
        "duration_s": trace.duration_s,
        "offset_s": offset_s,
    }
