"""Live runs kept so that the simulator can play them again: frames, links, starts, server load.

A run is two files: `NAME.jsonl` holds the frame records of all blocks, one after the other, and
`NAME.played.json` what was played: every window's link, and for every block when on that link, and
when in the other users' load, its frame 0 was captured.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from adaptive_split.decision import Decision
from adaptive_split.errors import AdaptiveSplitError, ConfigError
from adaptive_split.measurement import FrameReport
from adaptive_split.runtime.backend import Situation
from adaptive_split.runtime.records import RecordWriter, read_records
from adaptive_split.trace import Trace

VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Block:
    """One window under one controller, live."""

    window: int
    """Position in the run's windows."""
    controller: str
    take: int
    """0 where the controller decided; 1 where the decisions of take 0 were played again."""
    probes: bool
    """Whether an idle link was measured."""
    lag_s: float
    """Moment on the window's link at which frame 0 was captured."""
    load_s: float
    """Time since the server began to listen at which frame 0 was captured."""
    reports: tuple[FrameReport, ...]
    """Of every frame, in order of capture."""

    @property
    def decisions(self) -> dict[int, Decision]:
        """What was decided, by frame."""
        return {one.frame_index: one.decision for one in self.reports if one.decision is not None}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LiveRun:
    """Blocks on one server process and one link."""

    scenario: str
    bundle_hash: str
    machine: str
    link: str
    """How the link was played; see `namespace_link.LINKS`."""
    utilization: float
    """Share of the server that other users' recorded requests took."""
    seed: int
    """Of that load."""
    windows: tuple[Trace, ...]
    """The links, each from its window's start on."""
    blocks: tuple[Block, ...]

    @property
    def halves(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Windows to fit on and windows to judge on: every other one, or the only one as both."""
        windows = range(len(self.windows))
        return tuple(windows[::2]), tuple(windows[1::2] or windows)

    def only(self, windows: Sequence[int], take: int = 0) -> tuple[Block, ...]:
        """The blocks of some windows and a take."""
        return tuple(one for one in self.blocks if one.window in windows and one.take == take)


class Script:
    """Decides as was decided before; a frame that was not, like the one before it."""

    name = "script"

    def __init__(self, decisions: Mapping[int, Decision]) -> None:
        """Take decisions by frame; at least one."""
        if not decisions:
            raise ConfigError("a script must hold the decision of a frame or more; got none")
        self._decisions = dict(decisions)
        self._last = decisions[min(decisions)]

    def decide(self, situation: Situation) -> Decision:
        """Repeat what was decided for this frame."""
        self._last = self._decisions.get(situation.frame_index, self._last)
        return self._last

    def reset(self) -> None:
        """Nothing is remembered of a run."""


def played_path(records: Path) -> Path:
    """Where it is kept what was played while `records` were written."""
    return records.with_suffix(".played.json")


def check_new(path: Path) -> None:
    """Refuse a file that exists or whose folder does not, before a run is made for it."""
    if path.exists():
        raise ConfigError(f"a file to write must be new; got {path}; name another or remove it")
    if not path.parent.is_dir():
        raise ConfigError(f"a file to write must be in a folder that exists; got {path}")


def save_run(run: LiveRun, records: Path) -> None:
    """Write both files of a run; neither may exist."""
    played = played_path(records)
    check_new(played)
    with RecordWriter(records) as writer:
        for block in run.blocks:
            for report in block.reports:
                writer.write(report)
    fields = {
        "version": VERSION, "records_sha256": _sha256(records), "scenario": run.scenario,
        "bundle_hash": run.bundle_hash, "machine": run.machine, "link": run.link,
        "utilization": run.utilization, "seed": run.seed,
        "windows": [_window_fields(trace) for trace in run.windows],
        "blocks": [_block_fields(block) for block in run.blocks],
    }  # fmt: skip
    played.write_text(json.dumps(fields, allow_nan=False) + "\n", encoding="utf-8")


def load_run(records: Path) -> LiveRun:
    """Read both files of a run.

    Raises:
        ConfigError: If one is missing, damaged, or they do not belong together.
    """
    played, frames = played_path(records), [one.report for one in read_records(records)]
    try:
        fields: dict[str, Any] = json.loads(played.read_text(encoding="utf-8"))
        if fields["version"] != VERSION:
            raise ConfigError(f"{played} must be of version {VERSION}; got {fields['version']!r}")
        if fields["records_sha256"] != _sha256(records):
            raise ConfigError(f"{records} must be as {played} knows it; got other records")
        blocks, first = [], 0
        for block in fields["blocks"]:
            reports = tuple(frames[first : first + block.pop("frames")])
            blocks.append(Block(**block, reports=reports))
            first += len(reports)
        return LiveRun(
            windows=tuple(_window(one) for one in fields["windows"]), blocks=tuple(blocks),
            **{name: fields[name] for name in _PLAIN},
        )  # fmt: skip
    except FileNotFoundError:
        raise ConfigError(
            f"records must come with what was played; got no {played}; make both with "
            "'adaptive-split calibrate --live'"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, AdaptiveSplitError):
            raise
        raise ConfigError(f"{played} must be readable; got a damaged one: {error!r}") from error


_PLAIN = ("scenario", "bundle_hash", "machine", "link", "utilization", "seed")


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _block_fields(block: Block) -> dict[str, Any]:
    return {
        "window": block.window, "controller": block.controller, "take": block.take,
        "probes": block.probes, "lag_s": round(block.lag_s, 6), "load_s": round(block.load_s, 6),
        "frames": len(block.reports),
    }  # fmt: skip


def _window_fields(trace: Trace) -> dict[str, Any]:
    lost = np.isnan(trace.rtt_s)
    return {
        "name": trace.name, "family": trace.family, "source": trace.source,
        "rtt_source": trace.rtt_source, "time_s": trace.time_s.tolist(),
        "uplink_mbps": trace.uplink_mbps.tolist(),
        "rtt_s": [None if gone else rtt for gone, rtt in zip(lost, trace.rtt_s, strict=True)],
    }  # fmt: skip


def _window(fields: dict[str, Any]) -> Trace:
    for name in ("time_s", "uplink_mbps", "rtt_s"):
        fields[name] = np.array(fields[name], np.float64)  # None becomes nan: a lost reply
    return Trace(**fields)
