"""Controllers to compare with: fixed decisions, rules and the oracle."""

from __future__ import annotations

import numpy as np

from adaptive_split.planner import BacklogPrices, CandidateTable, Floats, Moment, link_pairs
from adaptive_split.runtime.controller import Choice
from adaptive_split.runtime.simulator import Simulator


class Static:
    """One decision for every frame."""

    probes = False

    def __init__(self, candidate: int, name: str = "static") -> None:
        self.candidate, self.name = candidate, name

    def choose(self, moment: Moment) -> Choice:
        """Take the fixed candidate; the local one that exits most like it if no server is there."""
        return np.full(len(moment.slack_s), self.candidate)


class TwoArm:
    """Compute locally below a link rate, send the compressed picture from it on."""

    name = "two-arm"
    probes = True

    def __init__(
        self, local: int | Choice, picture: int | Choice, threshold_mbps: float | Floats
    ) -> None:
        """Take two candidates and a rate; arrays give every lane a rule of its own."""
        self.local, self.picture, self.threshold_mbps = local, picture, threshold_mbps

    def choose(self, moment: Moment) -> Choice:
        """Compare the exponentially weighted mean rate with the threshold."""
        rate, _, valid = link_pairs(moment)
        weight = 0.3 * 0.7 ** np.arange(rate.shape[1]) * valid
        mean = (rate * weight).sum(1) / weight.sum(1)
        return np.where(mean >= self.threshold_mbps, self.picture, self.local)


class Oracle:
    """Per frame, the candidate of highest expected utility under the true link and server.

    It does not know the label or the picture, and it is greedy with the backlog price: not a
    strict upper bound over whole episodes.
    """

    name = "oracle"
    probes = False

    def __init__(self, table: CandidateTable, prices: BacklogPrices) -> None:
        self.table, self.prices = table, prices
        self._simulator: Simulator | None = None

    def bind(self, simulator: Simulator) -> None:
        """Give it the simulator whose future it may see."""
        self._simulator = simulator

    def choose(self, moment: Moment) -> Choice:
        """Score all candidates with what will happen."""
        if self._simulator is None:
            raise RuntimeError("the oracle must be bound to a simulator before it decides")
        return np.asarray(self._simulator.true_utility(moment, self.prices).argmax(1))
