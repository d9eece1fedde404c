"""Recorded live frames as columns: read, checked against a scenario, cut in two by time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from adaptive_split.agents.record_tables import read_frame_records
from adaptive_split.candidates import CandidateTable, Floats
from adaptive_split.errors import ConfigError
from adaptive_split.measurement import SERVER
from adaptive_split.observation import CANDIDATE_COLUMNS, CONTEXT, PAYLOAD_COLUMNS, flat_size
from adaptive_split.runtime.records import FrameRecord

MIN_FRAMES = 200
"""Fewer decided frames say too little to learn from, and less to judge by."""
HELD_OUT = 1 / 3
"""Share of the frames, the last ones, that the new policy is judged on and never sees."""
TOLERANCE = 2e-3
"""Largest difference between a recorded column and the scenario's; records keep 5 decimals."""
TRIED = ("late", "refused")
"""Why a payload that was sent got no answer in time from a server that was there."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LogFrames:
    """T decided frames, run by run and in each by the moment of the decision; arrays `(T,)`."""

    run: NDArray[np.int64]
    observation: NDArray[np.float32]
    """Shape `(T, D)`; its candidate rows hold the backlog prices of the controller that ran."""
    candidate: NDArray[np.int64]
    by_server: NDArray[np.bool_]
    tried: NDArray[np.bool_]
    """Sent, and no answer came in time although the server was there."""
    fell_back: NDArray[np.bool_]
    """Answered by an exit that was not sure enough, as the server's answer could not be had."""
    on_time: NDArray[np.bool_]
    exit_index: NDArray[np.int64]
    """Exit that answered, 1..S."""
    start_s: Floats
    """The moment of the decision."""
    deadline_s: Floats
    ready_s: Floats
    """When the payload was handed to the uplink, or the answer was found on the device."""
    crossing_s: Floats
    """From then until it had crossed the uplink; only where the server answered, as below."""
    rtt_s: Floats
    server_wait_s: Floats
    tail_s: Floats
    payload_bytes: Floats
    """On the wire; 0 = nothing was sent."""
    energy_j: Floats

    def __len__(self) -> int:
        """Count the frames."""
        return len(self.run)

    def take(self, rows: slice | NDArray[np.int64]) -> LogFrames:
        """Some of the frames."""
        return LogFrames(**{item.name: getattr(self, item.name)[rows] for item in fields(self)})

    def context(self, name: str) -> Floats:
        """One column of the context, `(T,)`, in its unit."""
        index = [column.name for column in CONTEXT].index(name)
        return self.observation[:, index].astype(np.float64)

    def parts(self, table: CandidateTable) -> tuple[Floats, Floats, Floats]:
        """Context `(T, C)`, payload rows `(T, P, F)` and candidate rows `(T, N, G)`."""
        ends = np.cumsum([len(CONTEXT), len(table.grid.payloads) * len(PAYLOAD_COLUMNS)])
        context, payloads, own = np.split(self.observation.astype(np.float64), ends, 1)
        count = len(self)
        return (
            context, payloads.reshape(count, -1, len(PAYLOAD_COLUMNS)),
            own.reshape(count, -1, len(CANDIDATE_COLUMNS)),
        )  # fmt: skip

    def halves(self) -> tuple[LogFrames, LogFrames]:
        """Cut off the last third to judge by: between two runs if one ends near there."""
        count = len(self)
        wanted = round((1 - HELD_OUT) * count)
        starts = np.flatnonzero(np.diff(self.run)) + 1
        near = starts[np.abs(starts - wanted) <= count / 6]
        cut = wanted if near.size == 0 else int(near[np.abs(near - wanted).argmin()])
        return self.take(slice(cut)), self.take(slice(cut, None))


def read_logs(paths: Sequence[Path], table: CandidateTable) -> LogFrames:
    """Read record files of live runs of one scenario.

    A file may hold several runs: a frame index that comes again starts another one. Dropped frames
    are left out.

    Args:
        paths: Record files, JSON lines or Parquet, in the order in which they were recorded.
        table: The candidates of the scenario that was run.

    Raises:
        ConfigError: If a file cannot be read, holds a decision off the grid or a frame without an
            observation, was recorded in another scenario, or there are fewer than `MIN_FRAMES`.
    """
    rows = [_row(record, run, where, table) for record, run, where in _started(paths)]
    if len(rows) < MIN_FRAMES:
        raise ConfigError(
            f"records must hold at least {MIN_FRAMES} decided frames; got {len(rows)}; "
            "record a longer run"
        )
    columns = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    order = np.lexsort((columns["start_s"], columns["run"]))
    log = LogFrames(**{name: values[order] for name, values in columns.items()})
    _check_scenario(log, table)
    return log


def _started(paths: Sequence[Path]) -> Iterator[tuple[FrameRecord, int, Path]]:
    """The decided frames with the run of each."""
    run = -1
    for path in paths:
        run, seen = run + 1, set[int]()
        for record in read_frame_records(path):
            index = record.report.frame_index
            if index in seen:
                run, seen = run + 1, set()
            seen.add(index)
            if record.report.decision is not None:
                yield record, run, path


def _row(record: FrameRecord, run: int, path: Path, table: CandidateTable) -> dict[str, object]:
    """The columns of one frame."""
    report, seen = record.report, record.observation
    assert report.decision is not None
    if seen is None:
        raise ConfigError(
            f"{path}: every record must hold the observation; frame {report.frame_index} has none; "
            "only controllers in live runs record it"
        )
    if len(seen) != flat_size(table):
        raise ConfigError(
            f"{path}: an observation of this scenario's grid must have {flat_size(table)} columns; "
            f"got {len(seen)}; name the scenario, and use the version, that was recorded"
        )
    slo_s = table.objective.slo_s
    deadline_s, latency_s = report.arrival_s + slo_s, report.latency_s or 0.0
    slack = [column.name for column in CONTEXT].index("slack")
    by_server = report.answered_by == SERVER
    sent = report.payload_bytes > 0
    before_s = report.wait_s + report.head_s + report.encode_s
    return {
        "run": run, "observation": np.array(seen, np.float32),
        "candidate": table.grid.index(report.decision), "by_server": by_server,
        "tried": sent and not by_server and report.fallback_reason in TRIED,
        "fell_back": report.fallback_reason != "" and not by_server,
        "on_time": report.on_time and latency_s <= slo_s + 1e-9,
        "exit_index": report.exit_index or 1, "deadline_s": deadline_s,
        "start_s": deadline_s - seen[slack] * slo_s,
        "ready_s": report.arrival_s + before_s,
        "crossing_s": max(report.uplink_s - report.downlink_s, 1e-5),
        "rtt_s": 2 * report.downlink_s, "server_wait_s": report.server_wait_s,
        "tail_s": report.tail_s, "payload_bytes": float(report.payload_bytes),
        "energy_j": report.energy_j,
    }  # fmt: skip


def _check_scenario(log: LogFrames, table: CandidateTable) -> None:
    """Compare the columns that never change with the scenario's.

    Raises:
        ConfigError: If one differs; says what does.
    """
    _, payloads, own = log.parts(table)
    objective = table.objective
    names = [column.name for column in PAYLOAD_COLUMNS]
    send = [column.name for column in CANDIDATE_COLUMNS].index("send_share")
    slo = objective.slo_s
    found = (
        ("objective", log.context("slo"), np.log(slo)),
        ("objective", log.context("fps"), np.log(objective.fps)),
        ("objective", log.context("byte_price"), objective.byte_price),
        ("model bundle", payloads[..., names.index("bytes")], np.log(table.mean_bytes / 1e3)),
        ("model bundle or grid", own[..., send], table.send_share),
        ("device profile", payloads[..., names.index("ready")], table.ready_s / slo),
        ("server profile", payloads[..., names.index("tail")], table.tail_s / slo),
    )
    for what, recorded, ours in found:
        gap = float(np.abs(recorded - ours).max())
        if gap > TOLERANCE:
            raise ConfigError(
                f"records must have been made with the scenario's {what}; got columns that differ "
                f"by up to {gap:.3g}; name the scenario that was recorded"
            )
