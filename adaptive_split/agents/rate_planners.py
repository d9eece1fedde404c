"""Planners that read the link as one pessimistic number: rivals of the distribution planner."""

from __future__ import annotations

import numpy as np

from adaptive_split.agents.link_readings import harmonic_link, pessimistic_rate
from adaptive_split.candidates import CandidateTable, Floats
from adaptive_split.planner import Moment, combine, read_link, utility_terms
from adaptive_split.runtime.controller import Choice, PlannerSettings

ERROR_WINDOW = 5
"""Forecasts whose largest error lowers the rate, as in RobustMPC."""


class HarmonicPlanner:
    """Greedy on the harmonic mean of recent rates and the mean of recent delays.

    The rate forecast of MPC for video, Yin et al., SIGCOMM 2015, section 5.
    """

    name = "harmonic-planner"
    probes = True

    def __init__(self, table: CandidateTable, settings: PlannerSettings) -> None:
        self.table, self.settings = table, settings

    def choose(self, moment: Moment) -> Choice:
        """Take the candidate of highest predicted utility at the harmonic mean."""
        knobs = self.settings
        rate, delay = harmonic_link(moment, knobs.rate_window, knobs.rtt_window)
        return _best(self.table, moment, knobs, rate * knobs.safety, delay)


class PessimisticPlanner:
    """The harmonic planner with the rate lowered by its largest recent forecast error.

    RobustMPC, Yin et al., SIGCOMM 2015, section 5.
    """

    name = "pessimistic-planner"
    probes = True

    def __init__(self, table: CandidateTable, settings: PlannerSettings) -> None:
        self.table, self.settings = table, settings

    def choose(self, moment: Moment) -> Choice:
        """Take the candidate of highest predicted utility at the lowered rate."""
        knobs = self.settings
        _, delay = harmonic_link(moment, knobs.rate_window, knobs.rtt_window)
        rate = pessimistic_rate(moment, knobs.rate_window, ERROR_WINDOW)
        return _best(self.table, moment, knobs, rate * knobs.safety, delay)


def _best(
    table: CandidateTable, moment: Moment, knobs: PlannerSettings, rate: Floats, delay: Floats
) -> Choice:
    readings = read_link(table, moment, rate, delay)
    base, gain = utility_terms(table, moment, knobs.prices, readings)
    return np.asarray(combine(table, base, gain, readings.share()).argmax(1))
