"""The controllers of `controller` for one lane; see `one_lane`."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np

from adaptive_split.candidates import CandidateTable, Floats
from adaptive_split.observation import WINDOW
from adaptive_split.planner import Moment
from adaptive_split.runtime.controller import (
    NEWEST_WEIGHT,
    Choice,
    DistributionPlanner,
    ForecastController,
    Planner,
    PlannerSettings,
    Policy,
    TwoWindowPlanner,
)
from adaptive_split.runtime.one_lane import Link, Now, OneLane, inverse
from adaptive_split.runtime.one_lane_forecast import OneLaneForecast

Readings = tuple[list[float], list[float]]
"""Rates in Mbit/s and delays in s, of equal length."""


class OneLanePolicy:
    """A policy whose values of one lane are computed faster; it decides by them as ever."""

    def __init__(
        self, policy: Policy, values: Callable[[Now], Floats], pick: Callable[[Floats], Choice]
    ) -> None:
        self.name, self.probes = policy.name, policy.probes
        self._values, self._pick = values, pick

    def choose(self, moment: Moment) -> Choice:
        """Choose a candidate for the one lane, shape `(1,)`."""
        return self._pick(self.values(Now.of(moment)))

    def values(self, now: Now) -> Floats:
        """Value of every candidate, shape `(1, N)`."""
        return self._values(now)[None]

    def choose_one(self, now: Now) -> int:
        """Choose a candidate."""
        return int(self._pick(self.values(now))[0])


def for_one_lane(policy: Policy) -> Policy:
    """Give a policy that decides alike on one lane, only faster where there is a way."""
    if isinstance(policy, ForecastController) and policy.kept is None and not policy.has_residual:
        forecast = OneLaneForecast(policy.table, policy.weights, policy.prices)
        return OneLanePolicy(policy, forecast.values, policy.pick)
    if isinstance(policy, Planner | DistributionPlanner | TwoWindowPlanner):
        planned = _Planned(policy.table, policy.settings, _READINGS[type(policy)])
        return OneLanePolicy(policy, planned.values, lambda values: np.asarray(values.argmax(1)))
    return policy


class _Planned:
    """Expected utility over equally likely readings of the link."""

    def __init__(
        self,
        table: CandidateTable,
        settings: PlannerSettings,
        readings: Callable[[Link, PlannerSettings], Readings],
    ) -> None:
        self._plan = OneLane(table, settings.prices)
        self._settings, self._readings = settings, readings

    def values(self, now: Now) -> Floats:
        """Expected utility of every candidate, shape `(N,)`."""
        link = Link(now)
        rates, delays = self._readings(link, self._settings)
        count = len(rates)
        shares = np.full((1, count), 1 / count)
        look = self._plan.look(now, link, (inverse(rates), delays), 0, count, shares)
        return self._plan.values(look, look.chances[0])


def _mean(link: Link, settings: PlannerSettings) -> Readings:
    weights = [(1 - NEWEST_WEIGHT) ** age for age in range(len(link.rate_mbps))]
    rate, delay = (
        sum([weight * value for weight, value in zip(weights, window, strict=True)]) / sum(weights)
        for window in (link.rate_mbps, link.delay_s)
    )
    return [rate * settings.safety], [delay]


def _observed(link: Link, settings: PlannerSettings) -> Readings:
    return link.rate_mbps, link.delay_s


def _two_windows(link: Link, settings: PlannerSettings) -> Readings:
    rates = [rate * settings.safety for rate in link.rate_mbps]
    if settings.rate_window == settings.rtt_window == WINDOW:
        return rates, link.delay_s
    pairs = product(rates[: settings.rate_window], link.delay_s[: settings.rtt_window])
    every_rate, every_delay = zip(*pairs, strict=True)
    return list(every_rate), list(every_delay)


_READINGS = {Planner: _mean, DistributionPlanner: _observed, TwoWindowPlanner: _two_windows}
