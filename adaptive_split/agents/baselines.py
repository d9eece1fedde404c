"""Controllers to compare with that predict nothing: fixed decisions, threshold rules, oracle."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from adaptive_split.agents.link_readings import EWMA_WEIGHT, mean_link
from adaptive_split.candidates import CandidateTable, Floats
from adaptive_split.planner import BacklogPrices, Moment
from adaptive_split.runtime.controller import Choice
from adaptive_split.runtime.simulated.simulator import Simulator


class Static:
    """One decision for every frame."""

    probes = False

    def __init__(self, candidate: int, name: str = "static") -> None:
        self.candidate, self.name = candidate, name

    def choose(self, moment: Moment) -> Choice:
        """Take the fixed candidate; the local one that exits most like it if no server is there."""
        return np.full(len(moment.slack_s), self.candidate)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PairKnobs:
    """Two candidates and the rate between them; columns `(L, 1)` give every lane a rule."""

    below: int | Choice
    above: int | Choice
    threshold_mbps: float | Floats


class ThresholdPair:
    """One fixed decision below a link rate, another from it on.

    The two-arm rule is the pair of a local decision and a compressed picture; `best-pair` may be
    any two.
    """

    probes = True

    def __init__(self, knobs: PairKnobs, name: str = "best-pair") -> None:
        self.knobs, self.name = knobs, name

    def choose(self, moment: Moment) -> Choice:
        """Compare the exponentially weighted mean rate with the threshold."""
        rate, _ = mean_link(moment, EWMA_WEIGHT)
        knobs = self.knobs
        chosen = np.where(rate >= knobs.threshold_mbps, knobs.above, knobs.below)
        return np.asarray(chosen[:, 0], np.int64)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BusyKnobs:
    """The rule's two arms and its rate; columns `(L, 1)` give every lane a rule."""

    local: int | Choice
    picture: int | Choice
    threshold_mbps: float | Floats


class BusySkip:
    """Send when link and uplink allow it, compute when nothing waits, else answer cheaply.

    The picture from a link rate on, if the uplink is idle; else the local arm, if no older frame
    waits for the device; else the local decision of least expected device time, which answers
    most frames at the first exit. (A rule that could skip frames would skip here.)
    """

    name = "busy-skip"
    probes = True

    def __init__(self, table: CandidateTable, knobs: BusyKnobs) -> None:
        self.knobs = knobs
        self.cheapest = int(np.where(table.grid.local, table.busy_s, np.inf).argmin())

    def choose(self, moment: Moment) -> Choice:
        """Ask for rate and uplink first, then for the device."""
        rate, _ = mean_link(moment, EWMA_WEIGHT)
        knobs = self.knobs
        sends = (rate >= knobs.threshold_mbps) & (moment.uplink_busy_s <= 0)[:, None]
        computes = (moment.waiting <= 0)[:, None]
        otherwise = np.where(computes, knobs.local, self.cheapest)
        return np.asarray(np.where(sends, knobs.picture, otherwise)[:, 0], np.int64)


class Oracle:
    """Per frame, the candidate of highest expected utility under the true link and server.

    The expectation is over the pictures of its table: those that every controller decides with, or
    those that are judged. It does not know the label or the picture of a frame, and it is greedy
    with the backlog price: not a strict upper bound over whole episodes.
    """

    probes = False

    def __init__(self, table: CandidateTable, prices: BacklogPrices, name: str = "oracle") -> None:
        self.table, self.prices, self.name = table, prices, name
        self._simulator: Simulator | None = None

    def bind(self, simulator: Simulator) -> None:
        """Give it the simulator whose future it may see."""
        self._simulator = simulator

    def choose(self, moment: Moment) -> Choice:
        """Score all candidates with what will happen."""
        if self._simulator is None:
            raise RuntimeError("the oracle must be bound to a simulator before it decides")
        return np.asarray(self._simulator.true_utility(moment, self.prices, self.table).argmax(1))
