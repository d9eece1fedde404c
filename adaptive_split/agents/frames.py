"""The frames of many streams under one controller as columns: what is summed up, drawn, written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adaptive_split.agents.evaluate import Episodes
from adaptive_split.candidates import CandidateTable, Floats
from adaptive_split.measurement import SERVER, FrameReport

CAUSES = (
    "dropped", "late", "fallback-wrong", "device-wrong", "server-wrong", "energy-and-bytes",
)  # fmt: skip
"""Why a frame's utility is below 1; the parts of 1 - utility in this order."""

_PARTS = (
    "wait_s", "head_s", "encode_s", "uplink_s", "server_wait_s", "tail_s", "downlink_s",
    "fallback_s",
)  # fmt: skip
_REASONS = ("", "late", "unsent")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Frames:
    """Every captured frame of B streams; all arrays have shape `(B, F)`, in order of capture."""

    started: NDArray[np.bool_]
    """False = dropped before it began; the columns below are then 0, False or nan."""
    split_point: NDArray[np.int64]
    exit_threshold: Floats
    bits: NDArray[np.int64]
    sample_index: NDArray[np.int64]
    arrival_s: Floats
    answer: NDArray[np.int64]
    by_server: NDArray[np.bool_]
    exit_index: NDArray[np.int64]
    confidence: Floats
    correct: NDArray[np.bool_]
    on_time: NDArray[np.bool_]
    fell_back: NDArray[np.bool_]
    reason: NDArray[np.str_]
    latency_s: Floats
    """`nan` where nobody answered."""
    parts_s: dict[str, Floats]
    payload_bytes: Floats
    energy_j: Floats
    utility: Floats
    energy_provenance: str

    @property
    def switch_share(self) -> Floats:
        """Share of the started frames whose split point is not that of the one before, `(B,)`."""
        shares = np.zeros(len(self.started))
        for stream, started in enumerate(self.started):
            split_point = self.split_point[stream][started]
            if len(split_point) > 1:
                shares[stream] = (np.diff(split_point) != 0).mean()
        return shares

    @property
    def losses(self) -> dict[str, Floats]:
        """Mean per stream of what each cause takes from a utility of 1, by name of the cause."""
        wrong = self.on_time & ~self.correct
        causes = {
            "dropped": ~self.started,
            "late": self.started & ~self.on_time,
            "fallback-wrong": wrong & self.fell_back,
            "device-wrong": wrong & ~self.fell_back & ~self.by_server,
            "server-wrong": wrong & self.by_server,
            "energy-and-bytes": self.correct - self.utility,
        }
        return {name: values.astype(float).mean(1) for name, values in causes.items()}


def frames_of(episodes: Episodes, table: CandidateTable, samples: NDArray[np.int64]) -> Frames:
    """Order the steps of the simulator by stream and frame.

    Args:
        episodes: What was played.
        table: What the simulator played with.
        samples: The picture of every frame, shape `(B, F)`.
    """
    lanes, num_frames = samples.shape
    steps = episodes.steps
    active = np.stack([step.active for step in steps])
    lane = np.broadcast_to(np.arange(lanes), active.shape)[active]
    frame = np.stack([step.frame_index for step in steps])[active]

    def column(name: str, fill: float = 0.0) -> Floats:
        result = np.full((lanes, num_frames), fill)
        result[lane, frame] = np.stack([getattr(step, name) for step in steps])[active]
        return result

    started = np.zeros((lanes, num_frames), bool)
    started[lane, frame] = True
    grid, outcomes = table.grid, table.outcomes
    candidate = column("candidate").astype(np.int64)
    by_server = column("by_server").astype(bool)
    exit_index = column("exit_index").astype(np.int64)
    payload = np.maximum(grid.payload_index[candidate], 0)
    confidence = np.where(
        by_server,
        outcomes.server_confidence[samples, payload],
        outcomes.exit_confidence[samples, np.maximum(exit_index, 1) - 1],
    )
    fallback = column("fallback").astype(np.int64)
    arrival = np.broadcast_to(np.arange(num_frames) / table.objective.fps, samples.shape)
    latency = column("latency_s", np.nan)
    parts = {name: column(name) for name in _PARTS if name not in ("wait_s", "fallback_s")}
    # What the parts leave open is the wait for the device or, after giving up, for the deadline.
    rest = np.maximum(np.nan_to_num(latency) - sum(parts.values()), 0.0)
    waited = np.where(started, column("start_s") - arrival, 0.0)
    parts["wait_s"] = np.where(fallback > 0, np.minimum(waited, rest), rest)
    parts["fallback_s"] = rest - parts["wait_s"]
    return Frames(
        started=started, split_point=grid.split_point[candidate],
        exit_threshold=grid.exit_threshold[candidate],
        bits=np.array([c.bits for c in grid.candidates])[candidate],
        sample_index=samples, arrival_s=arrival, answer=column("answer").astype(np.int64),
        by_server=by_server, exit_index=np.where(by_server, grid.num_stages, exit_index),
        confidence=confidence, correct=column("correct").astype(bool),
        on_time=column("on_time").astype(bool), fell_back=fallback > 0,
        reason=np.where(started, np.array(_REASONS)[fallback], "dropped"),
        latency_s=latency, parts_s={name: parts[name] for name in _PARTS},
        payload_bytes=column("payload_bytes"), energy_j=column("energy_j"),
        utility=column("utility"), energy_provenance=table.device.energy_provenance,
    )  # fmt: skip


def frames_of_reports(runs: Sequence[Sequence[FrameReport]]) -> Frames:
    """Order the reports of B live runs of equally many frames."""
    rows = [sorted(run, key=lambda report: report.frame_index) for run in runs]

    def column(name: str, kind: type, fill: float = 0) -> NDArray[np.generic]:
        return np.array(
            [[fill if (v := getattr(one, name)) is None else v for one in run] for run in rows],
            kind,
        )

    started = np.array([[one.decision is not None for one in run] for run in rows])

    def choice(name: str, kind: type) -> NDArray[np.generic]:
        return np.array([[getattr(one.decision, name, 0) for one in run] for run in rows], kind)

    reason = np.array([[one.fallback_reason for one in run] for run in rows])
    by_server = np.array([[one.answered_by == SERVER for one in run] for run in rows])
    provenance = {one.energy_provenance for run in rows for one in run}
    fields: dict[str, NDArray[np.generic]] = {
        "split_point": choice("split_point", int), "bits": choice("bits", int),
        "exit_threshold": choice("exit_threshold", float),
        "sample_index": column("sample_index", int), "arrival_s": column("arrival_s", float),
        "answer": column("answer", int, -1), "exit_index": column("exit_index", int),
        "confidence": column("confidence", float, np.nan), "correct": column("correct", bool),
        "on_time": column("on_time", bool), "latency_s": column("latency_s", float, np.nan),
        "payload_bytes": column("payload_bytes", float), "energy_j": column("energy_j", float),
        "utility": column("utility", float),
    }  # fmt: skip
    return Frames(
        **fields,  # type: ignore[arg-type]
        started=started, by_server=by_server, fell_back=(reason != "") & ~by_server & started,
        reason=reason, parts_s={name: np.asarray(column(name, float), float) for name in _PARTS},
        energy_provenance=", ".join(sorted(provenance)),
    )  # fmt: skip
