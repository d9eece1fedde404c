"""Published rules that pick a decision from predicted latency and accuracy, frame by frame.

Each is given what our own planners know: measured profiles and outcomes, the last finished
requests, what still occupies the uplink. They differ in which candidates they consider and in
what they maximize.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adaptive_split.agents.link_readings import EWMA_WEIGHT, mean_link
from adaptive_split.candidates import CandidateTable, Floats
from adaptive_split.planner import Moment, read_link
from adaptive_split.runtime.controller import Choice


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LinkKnobs:
    """How a rule reads the link; columns `(L, 1)` give every lane a rule."""

    newest_weight: float | Floats = EWMA_WEIGHT
    """Weight of the newest sample in the mean rate, in (0, 1)."""
    safety: float | Floats = 1.0
    """Factor on the rate."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DeadlineKnobs:
    """How a rule under a deadline weighs; columns `(L, 1)` give every lane a rule."""

    safety: float | Floats = 1.0
    """Factor on the rate."""
    deadline_share: float | Floats = 1.0
    """Share of the time left that the expected latency may fill."""
    latency_weight: float | Floats = 0.0
    """Accuracy given up for one whole promised latency less."""


def expected_latency_s(table: CandidateTable, moment: Moment, arrival_s: Floats) -> Floats:
    """Mean time from now to the answer of every candidate, over the pictures of the outcomes.

    Args:
        table: The candidates.
        moment: The state of the lanes.
        arrival_s: When the reply to each payload would come, from now, shape `(L, P)`.

    Returns:
        Shape `(L, N)`; infinite for what would send while no server is there.
    """
    head = table.head_s[1:] * moment.device_slowdown[:, None]
    payload = np.maximum(table.grid.payload_index, 0)
    latency = head @ table.exit_share.T + table.send_share * arrival_s[:, payload]
    return np.where(~table.grid.local & ~moment.server_usable[:, None], np.inf, latency)


def accuracy(table: CandidateTable) -> Floats:
    """Share of right answers of every candidate when the server answers in time, `(N,)`."""
    return np.asarray(table.exit_right.sum(1) + table.server_right)


def exits_off(table: CandidateTable) -> NDArray[np.bool_]:
    """Mask of the candidates at the grid's highest threshold, `(N,)`."""
    return np.asarray(table.grid.exit_threshold >= max(table.grid.thresholds))


def full_precision(table: CandidateTable) -> NDArray[np.bool_]:
    """Mask of the candidates that send the most bits, or nothing, `(N,)`."""
    bits = np.array([candidate.bits for candidate in table.grid.candidates])
    return np.asarray((bits == max(table.grid.bits)) | table.grid.local)


class Neurosurgeon:
    """Least predicted latency over the split points; neither exits nor fewer bits.

    Kang et al., "Neurosurgeon", ASPLOS 2017, algorithm 1: device time of the head, upload at the
    current rate, server time of the tail under its current load; the server's wait is taken from
    the last replies.
    """

    name = "neurosurgeon"
    probes = True

    def __init__(self, table: CandidateTable, knobs: LinkKnobs) -> None:
        self.table, self.knobs = table, knobs
        self.allowed = exits_off(table) & full_precision(table)

    def choose(self, moment: Moment) -> Choice:
        """Take the allowed candidate of least predicted latency."""
        rate, delay = mean_link(moment, self.knobs.newest_weight)
        arrival = read_link(self.table, moment, rate * self.knobs.safety, delay).arrival_s[:, 0]
        latency = expected_latency_s(self.table, moment, arrival)
        return np.asarray(np.where(self.allowed, latency, np.inf).argmin(1))


class DynamicSplit:
    """Least head time + payload / rate + tail time over bottlenecks, full offload and local.

    "Dynamic Split Computing for Efficient Deep Edge Intelligence", arXiv 2205.11269: only split
    points whose payload is smaller than what every earlier one sends, the input included. The data
    rate is all it knows of the link: no round trip, no queue.
    """

    name = "dynamic-split"
    probes = True

    def __init__(self, table: CandidateTable, knobs: LinkKnobs) -> None:
        self.table, self.knobs = table, knobs
        splits = [*bottlenecks(table), table.grid.num_stages]
        wanted = np.isin(table.grid.split_point, splits)
        self.allowed = wanted & exits_off(table) & full_precision(table)

    def choose(self, moment: Moment) -> Choice:
        """Take the allowed candidate of least predicted time."""
        table = self.table
        rate, _ = mean_link(moment, self.knobs.newest_weight)
        upload = 8e-6 * table.mean_bytes / np.maximum(rate * self.knobs.safety, 1e-3)
        ready = table.ready_s * moment.device_slowdown[:, None]
        server_slow = np.nan_to_num(moment.sample_slowdown[:, :1], nan=1.0)
        latency = expected_latency_s(table, moment, ready + upload + table.tail_s * server_slow)
        return np.asarray(np.where(self.allowed, latency, np.inf).argmin(1))


def bottlenecks(table: CandidateTable) -> list[int]:
    """Split points that send less, at full precision, than every one before; 0 is the first."""
    found, least = [], np.inf
    for (split_point, bits), size in zip(table.grid.payloads, table.mean_bytes, strict=True):
        if bits == max(table.grid.bits) and size < least:
            found.append(split_point)
            least = size
    return found


class _UnderDeadline:
    """Best of `accuracy - latency_weight * latency / slo` among what meets the deadline."""

    name = ""
    probes = True

    def __init__(
        self, table: CandidateTable, knobs: DeadlineKnobs, allowed: NDArray[np.bool_]
    ) -> None:
        self.table, self.knobs, self.allowed = table, knobs, allowed
        self._accuracy = accuracy(table)

    def choose(self, moment: Moment) -> Choice:
        """Take the best candidate that is expected in time; if none is, the fastest."""
        table, knobs = self.table, self.knobs
        rate, delay = mean_link(moment, EWMA_WEIGHT)
        arrival = read_link(table, moment, rate * knobs.safety, delay).arrival_s[:, 0]
        latency = np.where(self.allowed, expected_latency_s(table, moment, arrival), np.inf)
        meets = latency <= moment.slack_s[:, None] * knobs.deadline_share
        # Among equals the faster one; the weight is too small to outbid an answer.
        relative = np.where(meets, latency, 0.0) / table.objective.slo_s
        score = self._accuracy - (knobs.latency_weight + 1e-9) * relative
        best = np.where(meets, score, -np.inf).argmax(1)
        return np.asarray(np.where(meets.any(1), best, latency.argmin(1)))


class Spinn(_UnderDeadline):
    """Enumeration over (split point, exit threshold) with scaled profiles, at full precision.

    Laskaridis et al., "SPINN", MobiCom 2020, section on the scheduler: offline times scaled by
    what is observed on device and server, candidates that break the latency target dropped, the
    rest ranked by the user's weights on accuracy and latency.
    """

    name = "spinn"

    def __init__(self, table: CandidateTable, knobs: DeadlineKnobs) -> None:
        super().__init__(table, knobs, full_precision(table))


class Dyno(_UnderDeadline):
    """Joint choice of split point and precision, without exits, under the deadline.

    Almeida et al., "DynO", ACM TECS 2022: the most accurate combination whose predicted latency
    meets the target; the fastest when none does.
    """

    name = "dyno"

    def __init__(self, table: CandidateTable, knobs: DeadlineKnobs) -> None:
        super().__init__(table, knobs, exits_off(table))
