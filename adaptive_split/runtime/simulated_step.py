"""What one step of the simulator did, for all lanes at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adaptive_split.planner import Floats


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """What one step did, one entry per lane; `nan` or -1 where it does not apply."""

    active: NDArray[np.bool_]
    """Lanes that started a frame; all other entries are meaningless elsewhere."""
    frame_index: NDArray[np.int64]
    sample_index: NDArray[np.int64]
    candidate: NDArray[np.int64]
    arrival_s: Floats
    start_s: Floats
    utility: Floats
    correct: NDArray[np.bool_]
    on_time: NDArray[np.bool_]
    answer: NDArray[np.int64]
    exit_index: NDArray[np.int64]
    """Exit that answered on the device, 1..S; 0 where the server answered."""
    by_server: NDArray[np.bool_]
    fallback: NDArray[np.int64]
    """0 none, 1 late, 2 unsent."""
    latency_s: Floats
    """Capture to answer; the parts below add up to it."""
    wait_s: Floats
    head_s: Floats
    encode_s: Floats
    uplink_s: Floats
    server_wait_s: Floats
    tail_s: Floats
    downlink_s: Floats
    fallback_s: Floats
    payload_bytes: Floats
    energy_j: Floats
