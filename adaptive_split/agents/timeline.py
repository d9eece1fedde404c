"""One stream frame by frame: the link, and what two controllers made of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from adaptive_split.agents.compare import Comparison
from adaptive_split.agents.frames import Frames
from adaptive_split.agents.roster import BEST_STATIC, LEARNED
from adaptive_split.candidates import Floats
from adaptive_split.runtime.simulated.streams import PERIOD_S

CHOICE = (
    "of the half of the streams whose link varies most, the one with the median difference "
    "between the two"
)


def timeline_of(comparison: Comparison) -> dict[str, Any]:
    """Pick a typical stream and lay out two controllers: sac and best-static where they played."""
    names = list(comparison.frames)
    first = LEARNED if LEARNED in names else names[0]
    rivals = [name for name in (BEST_STATIC, *names) if name in names and name != first]
    shown = [first, *rivals[:1]]
    index = _typical(comparison, shown)
    stream = comparison.streams[index]
    end = int(np.ceil(stream.num_frames / comparison.scenario.objective.fps / PERIOD_S))
    return {
        "trace": stream.name, "family": stream.family, "source": stream.source,
        "seed": comparison.seeds[index], "choice": CHOICE, "period_s": PERIOD_S,
        "uplink_mbps": [round(float(rate), 3) for rate in stream.uplink_mbps[:end]],
        "num_stages": comparison.scenario.grid.num_stages,
        "bits": list(comparison.scenario.grid.bits),
        "controllers": {name: _rows(comparison.frames[name], index) for name in shown},
    }  # fmt: skip


def _typical(comparison: Comparison, shown: list[str]) -> int:
    streams = comparison.streams
    spread = np.array([np.log(np.maximum(s.uplink_mbps, 0.05)).std() for s in streams])
    lively = np.argsort(spread)[len(streams) // 2 :]
    utility: list[Floats] = [comparison.frames[name].utility.mean(1) for name in shown]
    difference = (utility[0] - utility[-1])[lively]
    return int(lively[np.argsort(difference)[len(lively) // 2]])


def _rows(frames: Frames, index: int) -> dict[str, Any]:
    """Columns of one stream's frames."""
    return {
        "time_s": [round(float(moment), 4) for moment in frames.arrival_s[index]],
        "started": frames.started[index].tolist(),
        "split_point": frames.split_point[index].tolist(),
        "bits": frames.bits[index].tolist(),
        "by_server": frames.by_server[index].tolist(),
        "missed": (~frames.on_time[index]).tolist(),
        "fell_back": frames.fell_back[index].tolist(),
    }
