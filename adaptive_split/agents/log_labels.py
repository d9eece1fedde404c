"""What a recorded frame reveals about payloads that were not sent.

The assumption: link and server do not depend on the decision. So a payload that was answered in
time has measured the rate, the round trip and the server's wait that others of its frame would have
met, and the simulator's formula tells whether these would have been on time; one that was late was
late together with all that are no smaller, no sooner ready and no faster answered.

Whether a label is known must not depend on what it says, or the log shows a better link than there
was: easier payloads are known to be on time where the one sent was, and unknown where it was late.
So labels go to the payload sent and to those no easier than it, and only within `REACH` times its
bytes and `NEAR_S` of its start, as rates and round trips do not last. All others stay unknown, and
so do the payloads of a frame that sent nothing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from adaptive_split.agents.log_frames import LogFrames
from adaptive_split.agents.sac import UNKNOWN
from adaptive_split.candidates import MARGIN_S, CandidateTable, Floats

REACH = 4.0
"""Largest payload that is labelled, in multiples of the bytes that were sent."""
NEAR_S = 0.05
"""Longest time by which it may be ready later."""


def payload_on_time(log: LogFrames, table: CandidateTable) -> NDArray[np.int8]:
    """Label every payload of every frame: 1 on time, 0 late, `UNKNOWN`; shape `(T, P)`."""
    rows, sent = np.arange(len(log)), np.maximum(table.grid.payload_index[log.candidate], 0)
    free_s = _uplink_free_s(log)
    on_time = log.by_server[:, None] & _answered_in_time(log, table, sent, free_s)
    known = _no_easier(log, table, sent) & ~np.isnan(free_s)[:, None]
    on_time[rows, sent], known[rows, sent] = log.by_server, True
    known &= (log.by_server | log.tried)[:, None]
    return np.where(known, on_time, UNKNOWN).astype(np.int8)


def _uplink_free_s(log: LogFrames) -> Floats:
    """When the payload before had left the uplink, `(T,)`; `-inf`: none before, `nan`: unknown."""
    free_s = np.full(len(log), -np.inf)
    rows = np.flatnonzero(log.payload_bytes > 0)
    rows = rows[np.lexsort((log.ready_s[rows], log.run[rows]))]
    before, after = rows[:-1], rows[1:]
    left_s = np.where(log.by_server, log.ready_s + log.crossing_s, np.nan)
    free_s[after] = np.where(log.run[before] == log.run[after], left_s[before], -np.inf)
    return free_s


def _no_easier(log: LogFrames, table: CandidateTable, sent: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Payloads that cannot be on time where the one sent is late, and alike enough, `(T, P)`."""
    share = table.mean_bytes / np.maximum(log.payload_bytes, 1.0)[:, None]
    later_s = table.ready_s - table.ready_s[sent][:, None]
    needed_s = table.fallback_s + table.tail_s
    harder = (share >= 1) & (later_s >= 0) & (needed_s >= needed_s[sent][:, None])
    return np.asarray(harder & (share <= REACH) & (later_s <= NEAR_S))


def _answered_in_time(
    log: LogFrames, table: CandidateTable, sent: NDArray[np.int64], free_s: Floats
) -> NDArray[np.bool_]:
    """Play every payload against the link and server that the one sent has measured, `(T, P)`."""
    slow = np.exp(log.context("device_slowdown"))[:, None]
    ready_s = log.start_s[:, None] + table.ready_s * slow
    crossed_s = log.ready_s + log.crossing_s
    upload_s = np.maximum(crossed_s - np.maximum(log.ready_s, free_s), 1e-5)
    pace = log.tail_s / np.maximum(table.tail_s[sent], 1e-9)
    reply_s = (
        np.maximum(ready_s, free_s[:, None])
        + table.mean_bytes * (upload_s / np.maximum(log.payload_bytes, 1.0))[:, None]
        + (log.rtt_s + log.server_wait_s)[:, None]
        + table.tail_s * pace[:, None]
    )
    give_up_s = log.deadline_s[:, None] - MARGIN_S - table.fallback_s * slow
    return np.asarray(reply_s <= give_up_s)
