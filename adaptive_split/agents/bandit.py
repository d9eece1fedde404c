"""muLinUCB: a linear bandit that learns the delay behind the device while it plays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adaptive_split.agents.rules import expected_latency_s
from adaptive_split.candidates import CandidateTable, Floats
from adaptive_split.errors import ConfigError
from adaptive_split.planner import Moment
from adaptive_split.runtime.controller import Choice
from adaptive_split.runtime.simulated.step import Step

FIRST_HORIZON = 200
"""Frames until the horizon doubles for the first time."""
FORCING_POWER = 0.25
"""Every `ceil(horizon ** FORCING_POWER)` frames something must be sent."""
KEY_WEIGHT, OTHER_WEIGHT = 0.8, 0.2
"""Importance of key frames and of the others: the less important, the more is explored."""
KEY_JUMP = 0.3
"""A first-exit confidence that differs by this from the one before announces a new scene."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BanditKnobs:
    """What the bandit cannot choose by itself."""

    exit_threshold: float
    bits: int
    alpha: float | Floats
    """Width of the confidence bound, in promised latencies; or a column `(L, 1)`."""


class MuLinUcb:
    """Least optimistic latency over the split points, its network part learned online.

    Zhang et al., "Autodidactic Neurosurgeon", WWW 2021 (arXiv 2102.02638): the delay from ready
    to reply is linear in a context of the split point; the estimate is lowered by `alpha *
    sqrt((1 - importance) x' A^-1 x)`; local frames teach nothing, hence the forced sampling over
    doubling horizons. Three things differ. The context is (1, payload bytes, server time of the
    tail) with the profiled time in place of counted operations; as controllers see no picture
    before they decide, a jump of the first exit's confidence stands for the key frames; a reply
    that is late counts as one promised latency.
    """

    name = "mulinucb"
    probes = False

    def __init__(self, table: CandidateTable, knobs: BanditKnobs) -> None:
        self.table, self.knobs = table, knobs
        grid = table.grid
        bits = np.array([candidate.bits for candidate in grid.candidates])
        of_split = (bits == knobs.bits) & (grid.exit_threshold == knobs.exit_threshold)
        at_picture = (bits == knobs.bits) & (grid.split_point == 0)
        at_home = grid.local & (grid.exit_threshold == knobs.exit_threshold)
        if not (at_home.any() and at_picture.any()):
            raise ConfigError(
                f"exit threshold and bits of the bandit must be on the grid; got {knobs!r}"
            )
        self.allowed = of_split | at_picture | at_home
        ones = np.ones(len(table.mean_bytes))
        sizes = table.mean_bytes / table.mean_bytes.max()
        self.context: Floats = np.stack([ones, sizes, table.tail_s / table.tail_s.max()], 1)
        self.start(1)

    def start(self, lanes: int) -> None:
        """Forget everything; get ready for L lanes, each of which learns alone."""
        width = self.context.shape[1]
        self.inverse: Floats = np.tile(np.eye(width), (lanes, 1, 1))
        self.delay_sum: Floats = np.zeros((lanes, width))
        self.played: NDArray[np.int64] = np.zeros(lanes, np.int64)

    def choose(self, moment: Moment) -> Choice:
        """Take the split point of least optimistic latency; never the local one when forced."""
        table = self.table
        rest = self._network_s(moment)
        ready = table.ready_s * moment.device_slowdown[:, None]
        latency = expected_latency_s(table, moment, ready + rest)
        latency = np.where(self.allowed, latency, np.inf)
        elsewhere = np.where(table.grid.local, np.inf, latency)
        forced = self._forced() & np.isfinite(elsewhere).any(1)
        return np.asarray(np.where(forced[:, None], elsewhere, latency).argmin(1))

    def learn(self, step: Step) -> None:
        """Take in what sending cost on the lanes that sent, after each step."""
        self.played += step.active
        sent = step.active & (step.payload_bytes > 0)
        if not sent.any():
            return
        took = step.uplink_s + step.server_wait_s + step.tail_s + step.downlink_s
        slo_s = self.table.objective.slo_s
        delay = np.where(step.by_server, took, slo_s)[sent] / slo_s
        context = self.context[self.table.grid.payload_index[step.candidate[sent]]]
        # Sherman and Morrison: the inverse of A + x x'.
        along = np.einsum("lij,lj->li", self.inverse[sent], context)
        scale = 1 + np.einsum("li,li->l", along, context)
        self.inverse[sent] -= np.einsum("li,lj->lij", along, along) / scale[:, None, None]
        self.delay_sum[sent] += delay[:, None] * context

    def _network_s(self, moment: Moment) -> Floats:
        """Optimistic delay from ready to reply of every payload, `(L, P)`."""
        weights = np.einsum("lij,lj->li", self.inverse, self.delay_sum)
        spread = np.einsum("pi,lij,pj->lp", self.context, self.inverse, self.context)
        explore = 1 - self._importance(moment)[:, None]
        bound = self.knobs.alpha * np.sqrt(np.maximum(explore * spread, 0.0))
        estimate = weights @ self.context.T - bound
        return np.asarray(np.maximum(estimate, 0.0) * self.table.objective.slo_s)

    def _importance(self, moment: Moment) -> Floats:
        newest, before = moment.confidences[:, 0], moment.confidences[:, 1]
        jumped = np.abs(np.nan_to_num(newest - before)) >= KEY_JUMP
        return np.where(jumped, KEY_WEIGHT, OTHER_WEIGHT)

    def _forced(self) -> NDArray[np.bool_]:
        doublings = np.ceil(np.log2(np.maximum((self.played + 1) / FIRST_HORIZON, 1.0)))
        every = np.ceil((FIRST_HORIZON * 2**doublings) ** FORCING_POWER)
        return np.asarray((self.played + 1) % every == 0)
