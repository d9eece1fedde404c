"""Running ahead of other programs, for a process whose work is to keep moments."""

from __future__ import annotations

import contextlib
import os

NICENESS = -5


def run_first() -> None:
    """Run this process before ordinary ones, as far as the machine allows it.

    The real-time class goes first whenever it has something to do; a container may forbid it and
    still allow a lower niceness. Without either nothing changes.
    """
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
        return
    with contextlib.suppress(OSError):
        os.nice(NICENESS)
