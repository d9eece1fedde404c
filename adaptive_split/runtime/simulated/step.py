"""What one step of the simulator does and did, for all lanes at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adaptive_split.candidates import MARGIN_S, CandidateTable, Floats

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]


def copy_lanes(target: object, source: object, lanes: Ints, names: Sequence[str]) -> None:
    """Overwrite lanes of some arrays by those of an object with as many; old arrays stay whole."""
    for name in names:
        values = getattr(target, name).copy()
        values[lanes] = getattr(source, name)
        setattr(target, name, values)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Work:
    """What the device does with a frame, one entry per lane."""

    active: Bools
    frame_index: Ints
    sample: Ints
    candidate: Ints
    payload: Ints
    """0 where the candidate is local."""
    arrival_s: Floats
    start_s: Floats
    deadline_s: Floats
    deepest: Ints
    """Deepest exit that is or would be computed."""
    cut: Bools
    """Whether a stage is left out because it would end too late."""
    unsent: Bools
    """Whether the uplink is taken for so long that the payload is not even encoded."""
    sent: Bools
    head_s: Floats
    encode_s: Floats
    ready_s: Floats
    """When it is done with the frame."""
    begin_s: Floats
    """When the payload gets on the uplink."""
    give_up_s: Floats
    slowdown: Floats


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Transfer:
    """What becomes of the payload; meaningless where none is sent."""

    wire_bytes: Floats
    done_s: Floats
    """When it has crossed the uplink; `inf` past the end of the stream."""
    wait_s: Floats
    reply_s: Floats
    tail_s: Floats
    half_rtt_s: Floats
    by_server: Bools
    late: Bools
    redo: Bools
    """Whether the fallback computes stage 1, as a picture was sent."""


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """What one step did, one entry per lane; `nan` or -1 where it does not apply."""

    active: Bools
    """Lanes that started a frame; all other entries are meaningless elsewhere."""
    frame_index: Ints
    sample_index: Ints
    candidate: Ints
    arrival_s: Floats
    start_s: Floats
    utility: Floats
    expected: Floats
    """The utility with the server's answer counted as the table has it: at its chance to be right
    where the table is for other pictures, else as it is."""
    correct: Bools
    on_time: Bools
    answer: Ints
    exit_index: Ints
    """Exit that answered on the device, 1..S; 0 where the server answered."""
    by_server: Bools
    fallback: Ints
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


def report(table: CandidateTable, work: Work, transfer: Transfer, energy_price: Floats) -> Step:
    """Sum up what a step did.

    Args:
        table: The candidates.
        work: The device's part.
        transfer: The link's and the server's part.
        energy_price: What a joule costs, in 1/J, shape `(L,)`.
    """
    outcomes, by_server, sample = table.outcomes, transfer.by_server, work.sample
    payload, last = work.payload, work.deepest - 1
    promise = work.deadline_s - MARGIN_S
    ended = np.where(transfer.late, promise, np.where(by_server, transfer.reply_s, work.ready_s))
    on_time = work.active & (ended <= work.deadline_s + 1e-9)
    answer = np.where(
        by_server, outcomes.server_answer[sample, payload], outcomes.exit_answer[sample, last]
    )
    correct = on_time & (answer == outcomes.label[sample])
    wire_bytes = np.where(work.sent, transfer.wire_bytes, 0.0)
    energy = _energy_j(table, work, transfer, wire_bytes)
    cost = energy_price * energy + table.objective.byte_price * wire_bytes * 1e-6
    chance = np.where(by_server, table.answer_right[sample, payload], correct)
    busy = work.ready_s - work.arrival_s - work.head_s - work.encode_s
    half = np.where(by_server, transfer.half_rtt_s, 0.0)
    return Step(
        active=work.active, frame_index=work.frame_index, sample_index=sample,
        candidate=work.candidate, arrival_s=work.arrival_s, start_s=work.start_s,
        utility=np.where(work.active, correct - cost, 0.0),
        expected=np.where(work.active, on_time * chance - cost, 0.0),
        correct=correct, on_time=on_time,
        answer=answer, exit_index=np.where(by_server, 0, work.deepest), by_server=by_server,
        fallback=np.where(work.unsent, 2, (transfer.late | work.cut).astype(np.int64)),
        latency_s=ended - work.arrival_s, wait_s=busy, head_s=work.head_s,
        encode_s=work.encode_s,
        uplink_s=np.where(by_server, transfer.done_s - work.ready_s + half, 0.0),
        server_wait_s=np.where(by_server, transfer.wait_s, 0.0),
        tail_s=np.where(by_server, transfer.tail_s, 0.0), downlink_s=half,
        fallback_s=np.where(transfer.late, ended - work.ready_s, 0.0),
        payload_bytes=wire_bytes, energy_j=energy,
    )  # fmt: skip


def _energy_j(table: CandidateTable, work: Work, transfer: Transfer, wire_bytes: Floats) -> Floats:
    """Device energy of the frame, its fallback included."""
    upload = np.minimum(transfer.done_s - work.begin_s, table.objective.slo_s)
    redo = transfer.redo * (table.head_s[1] * work.slowdown)
    energy = table.device.compute_w * (work.head_s + work.encode_s + redo)
    energy += table.radio.watts * np.where(work.sent, upload, 0.0)
    return np.asarray(energy + table.radio.joules_per_mbit * wire_bytes * 8e-6)
