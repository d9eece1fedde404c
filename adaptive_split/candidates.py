"""What the candidates of a scenario cost and bring, whatever the link does.

Counted once from profiles and outcomes; the planner puts the state of the moment to it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adaptive_split.accuracy import expected_right
from adaptive_split.decision import NEVER, DecisionGrid
from adaptive_split.errors import ConfigError
from adaptive_split.objective import Objective
from adaptive_split.outcomes import Outcomes
from adaptive_split.profile import Profile

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Radio:
    """What sending costs: `watts` while a payload is on the uplink, plus energy per bit."""

    watts: float = 1.3
    joules_per_mbit: float = 0.0767
    overhead_bytes: int = 320
    """Bytes of one request and its framing beyond the payload, as measured on the wire."""
    source: str = "LTE: SIGCOMM21-5G regression .0767 J/Mbit; 1.288 W base, Huang MobiSys'12"

    def __post_init__(self) -> None:
        """Refuse negative costs."""
        for name in ("watts", "joules_per_mbit", "overhead_bytes"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"radio {name} must be 0 or more; got {getattr(self, name)!r}")


MARGIN_S = 0.002
"""Kept back before every deadline for the jitter of timers and threads."""


class CandidateTable:
    """Everything about the N candidates and P payloads that does not change from frame to frame.

    Times come from the profiles; probabilities are shares of the samples of the outcomes (so
    utilities are expectations over pictures), or what these let expect of other pictures.

    Attributes:
        head_s: Device time until exit j has answered, index 0..S (0 at index 0), shape `(S+1,)`.
        ready_s: Device time until a payload is ready to send, shape `(P,)`.
        tail_s: Server time of a payload, shape `(P,)`.
        fallback_s: Device time that a payload's fallback still needs, shape `(P,)`.
        keep_back_s: Time before the deadline at which a device as profiled gives up, `(P,)`.
        mean_bytes: Bytes on the wire of a payload, overhead included, shape `(P,)`.
        exit_share, exit_right: Probability that candidate c is answered at exit j on the device,
            and rightly so, shape `(N, S)`.
        send_share: Probability that a candidate sends, shape `(N,)`.
        server_right, fallback_right: Probability that it sends and the server, or the fallback,
            is right, shape `(N,)`.
        answer_right: Whether the server's answer to each picture and payload is right, or its
            chance to be, shape `(M, P)`.
        stop_right: Probability that no exit up to d has answered and exit d is right, should the
            device have to stop there, shape `(N, S+1)`.
    """

    def __init__(
        self,
        grid: DecisionGrid,
        device: Profile,
        server: Profile,
        outcomes: Outcomes,
        objective: Objective,
        radio: Radio,
        *,
        for_others: bool = False,
    ) -> None:
        """Count.

        Args:
            grid: The decisions.
            device: Times on the device.
            server: Times on the server.
            outcomes: Answers to pictures.
            objective: What a frame is worth.
            radio: What sending costs.
            for_others: Whether the table is to decide about other pictures than those of the
                outcomes: the server's answers then count at the chance that `expected_right`
                gives them, and not at what they happened to be.

        Raises:
            ConfigError: If grid, profiles and outcomes do not belong together.
        """
        if outcomes.payloads != grid.payloads:
            raise ConfigError(
                f"outcomes must hold the grid's payloads {grid.payloads}; got {outcomes.payloads}; "
                "measure them again with this grid"
            )
        if not grid.num_stages == device.num_stages == server.num_stages == outcomes.num_stages:
            raise ConfigError(
                "grid, profiles and outcomes must have the same number of stages; got "
                f"{grid.num_stages}, {device.num_stages}, {server.num_stages}, "
                f"{outcomes.num_stages}"
            )
        self.grid, self.objective, self.radio = grid, objective, radio
        self.device, self.server, self.outcomes = device, server, outcomes
        stages = np.add(device.stage_s, device.exit_s)
        self.head_s: Floats = np.concatenate([[0.0], np.cumsum(stages)])
        splits = np.array([split for split, _ in grid.payloads])
        self.payload_split = splits
        encoder_s: Floats = np.array(device.encoder_s, np.float64)
        self.ready_s: Floats = self.head_s[splits] + encoder_s[splits]
        self.tail_s: Floats = np.array([server.tail_s(int(split)) for split in splits])
        self.fallback_s: Floats = np.where(splits == 0, self.head_s[1], 0.0)
        self.keep_back_s: Floats = self.fallback_s + MARGIN_S
        sizes = outcomes.payload_bytes.astype(np.float64)
        self.wire_bytes: Floats = sizes + radio.overhead_bytes
        self.mean_bytes: Floats = np.asarray(self.wire_bytes.mean(0))
        self.answer_right: Floats = outcomes.server_right.astype(np.float64)
        if for_others:
            self.answer_right = expected_right(
                outcomes.server_confidence, outcomes.server_right, outcomes.picture
            )
        self._count_outcomes(outcomes)
        ready = np.where(grid.local, 0.0, self.ready_s[grid.payload_index])
        self.busy_s: Floats = self.exit_share @ self.head_s[1:] + self.send_share * ready

    def _count_outcomes(self, outcomes: Outcomes) -> None:
        grid = self.grid
        num_stages, count = grid.num_stages, len(grid)
        right = outcomes.exit_right
        self.exit_share: Floats = np.zeros((count, num_stages))
        self.exit_right: Floats = np.zeros((count, num_stages))
        self.send_share: Floats = np.zeros(count)
        self.server_right: Floats = np.zeros(count)
        self.fallback_right: Floats = np.zeros(count)
        self.stop_right: Floats = np.zeros((count, num_stages + 1))
        for index, chosen in enumerate(grid.candidates):
            exit_index = first_exit(
                outcomes.exit_confidence, chosen.split_point, chosen.exit_threshold
            )
            for stage in range(1, num_stages + 1):
                here = exit_index == stage
                self.exit_share[index, stage - 1] = here.mean()
                self.exit_right[index, stage - 1] = (here & right[:, stage - 1]).mean()
                going = (exit_index == 0) | (exit_index > stage)
                self.stop_right[index, stage] = (going & right[:, stage - 1]).mean()
            payload = grid.payload_index[index]
            if payload >= 0:
                sent = exit_index == 0
                self.send_share[index] = sent.mean()
                self.server_right[index] = (sent * self.answer_right[:, payload]).mean()
                deepest = max(chosen.split_point, 1) - 1
                self.fallback_right[index] = (sent & right[:, deepest]).mean()


def first_exit(
    confidence: NDArray[np.floating],
    split_point: NDArray[np.int64] | int,
    threshold: NDArray[np.float64] | float,
) -> NDArray[np.int64]:
    """Find the exit (1..S) at which the device answers; 0 where it sends.

    Args:
        confidence: Confidence at every exit, shape `(M, S)`.
        split_point: Last stage run on the device, shape `(M,)` or one for all.
        threshold: Exit threshold, shape `(M,)` or one for all; `NEVER` disables the exits.
    """
    num_stages = confidence.shape[1]
    split = np.broadcast_to(np.asarray(split_point), len(confidence))[:, None]
    limit = np.broadcast_to(np.asarray(threshold), len(confidence))[:, None]
    stage = np.arange(1, num_stages + 1)[None, :]
    sure = (confidence >= limit) & (limit < NEVER) & (stage <= split)
    sure[:, -1] |= split[:, 0] == num_stages
    return np.where(sure.any(1), sure.argmax(1) + 1, 0)
