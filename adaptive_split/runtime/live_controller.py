"""A policy behind the device's `decide`: a live situation is a batch of one."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np

from adaptive_split.candidates import CandidateTable, Floats
from adaptive_split.decision import Decision
from adaptive_split.errors import AdaptiveSplitError
from adaptive_split.observation import WINDOW, observe
from adaptive_split.planner import BacklogPrices, Moment
from adaptive_split.runtime.backend import Situation
from adaptive_split.runtime.controller import ForecastController, Policy
from adaptive_split.runtime.price_loop import PriceLoop

_log = logging.getLogger(__name__)
_CONFIDENCES = 8


def moment_of(situation: Situation, table: CandidateTable) -> Moment:
    """Lay a live situation out as the moment that policies and observation take, `L = 1`."""
    objective = table.objective
    now, samples = situation.now_s, situation.samples[::-1][:WINDOW]

    def window(name: str) -> Floats:
        values = np.full((1, WINDOW), np.nan)
        values[0, : len(samples)] = [getattr(sample, name) for sample in samples]
        return values

    confidences = np.full((1, _CONFIDENCES), np.nan)
    recent = situation.recent_confidences[::-1][:_CONFIDENCES]
    confidences[0, : len(recent)] = recent
    pending = situation.oldest_unanswered_s
    busy = max(situation.uplink_free_s - now, 0.0) if pending is not None else 0.0
    newest_capture = np.floor(now * objective.fps + 1e-9)
    return Moment(
        slack_s=np.array([situation.arrival_s + objective.slo_s - now]),
        gap_s=np.array([(newest_capture + 1) / objective.fps - now]),
        waiting=np.array([float(situation.waiting)]),
        sample_mbps=window("uplink_mbps"),
        sample_rtt_s=window("rtt_s"),
        sample_wait_s=window("server_wait_s"),
        sample_slowdown=window("server_slowdown"),
        sample_age_s=now - window("time_s"),
        uplink_busy_s=np.array([busy]),
        unanswered_s=np.array([0.0 if pending is None else max(now - pending, 0.0)]),
        unanswered_bytes=np.array([float(situation.oldest_unanswered_bytes)]),
        timeouts=np.array([float(situation.timeouts)]),
        confidences=confidences,
        device_slowdown=np.array([situation.device_slowdown]),
        soc=np.array([1.0 if situation.soc is None else situation.soc]),
        mission_ratio=np.ones(1),
        energy_price=np.array([objective.energy_price]),
        server_usable=np.array([situation.server_usable]),
    )


class LiveController:
    """Decides one frame at a time with a policy; keeps the last observation for the record.

    A policy that fails is replaced by `fallback` for that frame, and the log says so once. With a
    `price_loop` a joule costs what makes the charge last the mission; the run's clock is its clock.
    """

    def __init__(
        self,
        table: CandidateTable,
        policy: Policy,
        fallback: Policy | None = None,
        price_loop: PriceLoop | None = None,
    ) -> None:
        self.table, self.policy, self.fallback = table, policy, fallback
        self.price_loop = price_loop
        self.name = policy.name
        # What is recorded is what the learned controller saw.
        learned = policy if isinstance(policy, ForecastController) else None
        self.prices = BacklogPrices() if learned is None else learned.prices
        self._warned = False
        self._local = int(np.flatnonzero(table.grid.local)[0])

    def decide(self, situation: Situation) -> Decision:
        """Choose the decision of the frame that starts now."""
        if self.price_loop is not None:
            self.price_loop.begin(*_charge_of(situation))
        index = self._choose(self.moment(situation))
        grid = self.table.grid
        if not situation.server_usable and not grid.local[index]:
            index = self._nearest_local(float(grid.exit_threshold[index]))
        return grid.candidates[index]

    def observation(self, situation: Situation) -> list[float]:
        """The observation vector of a situation, for the frame record."""
        view = observe(self.table, self.moment(situation), self.prices)
        return [float(value) for value in view.flat()[0]]

    def moment(self, situation: Situation) -> Moment:
        """What the policy knows, the price in force included."""
        moment, loop = moment_of(situation, self.table), self.price_loop
        if loop is None:
            return moment
        soc, now_s = _charge_of(situation)
        ratio = soc / np.maximum(loop.time_left(now_s), 1e-3)
        return replace(
            moment,
            energy_price=loop.price(soc, now_s),
            mission_ratio=np.where(np.isnan(soc), moment.mission_ratio, ratio),
        )

    def reset(self) -> None:
        """Begin a new mission, if there is one; nothing else is remembered."""
        if self.price_loop is not None:
            self.price_loop.reset()

    def _choose(self, moment: Moment) -> int:
        try:
            return int(self.policy.choose(moment)[0])
        except (AdaptiveSplitError, ArithmeticError, ValueError, IndexError) as error:
            if self.fallback is None:
                raise
            if not self._warned:
                _log.warning("the %s failed (%s); the %s decides instead", self.policy.name,
                             error, self.fallback.name)  # fmt: skip
                self._warned = True
            return int(self.fallback.choose(moment)[0])

    def _nearest_local(self, threshold: float) -> int:
        grid = self.table.grid
        local = np.flatnonzero(grid.local)
        distance = np.abs(grid.exit_threshold[local] - threshold)
        return int(local[distance.argmin()])


def _charge_of(situation: Situation) -> tuple[Floats, Floats]:
    """State of charge, `nan` where nobody knows it, and time since the start; `L = 1`."""
    soc = np.nan if situation.soc is None else situation.soc
    return np.array([soc]), np.array([situation.now_s])
