"""A policy behind the device's `decide`: a live situation is a batch of one."""

from __future__ import annotations

import logging
import math
from operator import attrgetter

import numpy as np

from adaptive_split.candidates import CandidateTable, Floats
from adaptive_split.decision import Decision
from adaptive_split.errors import ConfigError
from adaptive_split.observation import WINDOW, observe
from adaptive_split.planner import BacklogPrices, Moment
from adaptive_split.runtime.backend import Situation
from adaptive_split.runtime.controller import ForecastController, Policy
from adaptive_split.runtime.one_lane import Now
from adaptive_split.runtime.one_lane_policies import OneLanePolicy, for_one_lane
from adaptive_split.runtime.price_loop import PriceLoop
from adaptive_split.runtime.soundness import Checker

_log = logging.getLogger(__name__)
_CONFIDENCES = 8
_sample = attrgetter("uplink_mbps", "rtt_s", "server_wait_s", "server_slowdown", "time_s")


def now_of(situation: Situation, table: CandidateTable) -> Now:
    """Lay a live situation out as the one lane that policies take."""
    objective, now_s, pending = table.objective, situation.now_s, situation.oldest_unanswered_s
    recent = map(_sample, situation.samples[::-1][:WINDOW])
    columns = [*map(list, zip(*recent, strict=True))] or [[] for _ in range(5)]
    mbps, rtt_s, wait_s, slowdown, time_s = columns
    newest_capture = math.floor(now_s * objective.fps + 1e-9)
    return Now(
        slack_s=situation.arrival_s + objective.slo_s - now_s,
        gap_s=(newest_capture + 1) / objective.fps - now_s,
        waiting=float(situation.waiting),
        sample_mbps=mbps,
        sample_rtt_s=rtt_s,
        sample_wait_s=wait_s,
        sample_slowdown=slowdown,
        sample_age_s=[now_s - moment_s for moment_s in time_s],
        uplink_busy_s=max(situation.uplink_free_s - now_s, 0.0) if pending is not None else 0.0,
        unanswered_s=0.0 if pending is None else max(now_s - pending, 0.0),
        unanswered_bytes=float(situation.oldest_unanswered_bytes),
        timeouts=float(situation.timeouts),
        confidences=[*situation.recent_confidences[::-1][:_CONFIDENCES]],
        device_slowdown=situation.device_slowdown,
        soc=1.0 if situation.soc is None else situation.soc,
        mission_ratio=1.0,
        energy_price=objective.energy_price,
        server_usable=situation.server_usable,
    )


def moment_of(situation: Situation, table: CandidateTable) -> Moment:
    """Lay a live situation out as the moment that observation and training take, `L = 1`."""
    return now_of(situation, table).moment()


class LiveController:
    """Decides one frame at a time with a policy; keeps the last observation for the record.

    A policy that fails is replaced by `fallback` for that frame, that one by a local decision, and
    the log says so once. What was measured and cannot be is left out before anybody sees it. With a
    `price_loop` a joule costs what makes the charge last the mission; the run's clock is its clock.
    """

    def __init__(
        self,
        table: CandidateTable,
        policy: Policy,
        fallback: Policy | None = None,
        price_loop: PriceLoop | None = None,
    ) -> None:
        self.table, self.policy = table, for_one_lane(policy)
        self.fallback = None if fallback is None else for_one_lane(fallback)
        self.price_loop = price_loop
        self.name = policy.name
        # What is recorded is what the learned controller saw.
        learned = policy if isinstance(policy, ForecastController) else None
        self.prices = BacklogPrices() if learned is None else learned.prices
        self._checker = Checker()
        self._failed: set[str] = set()
        self._local = int(np.flatnonzero(table.grid.local)[0])

    def decide(self, situation: Situation) -> Decision:
        """Choose the decision of the frame that starts now."""
        situation = self._checker.check(situation)
        if self.price_loop is not None:
            self.price_loop.begin(*_charge_of(situation))
        index = self._choose(self.now(situation))
        grid = self.table.grid
        if not situation.server_usable and not grid.local[index]:
            index = self._nearest_local(float(grid.exit_threshold[index]))
        return grid.candidates[index]

    def observation(self, situation: Situation) -> list[float]:
        """The observation vector of a situation, for the frame record."""
        moment = self.moment(self._checker.check(situation))
        view = observe(self.table, moment, self.prices)
        return [float(value) for value in view.flat()[0]]

    def moment(self, situation: Situation) -> Moment:
        """What the policy knows, the price in force included."""
        return self.now(situation).moment()

    def now(self, situation: Situation) -> Now:
        """The same as the policies of one lane take it."""
        now, loop = now_of(situation, self.table), self.price_loop
        if loop is not None:
            soc, now_s = _charge_of(situation)
            now.energy_price = loop.price(soc, now_s).item()
            if situation.soc is not None:
                now.mission_ratio = situation.soc / max(loop.time_left(now_s).item(), 1e-3)
        return now

    def reset(self) -> None:
        """Begin a new mission, if there is one; nothing else is remembered."""
        if self.price_loop is not None:
            self.price_loop.reset()

    def _choose(self, now: Now) -> int:
        if self.fallback is None:
            return self.ask(self.policy, now)
        try:
            return self.ask(self.policy, now)
        except Exception as error:  # a frame is due, whatever is wrong with who decides
            self._tell(self.policy, error, f"the {self.fallback.name} decides instead")
        try:
            return self.ask(self.fallback, now)
        except Exception as error:  # as above
            self._tell(self.fallback, error, "the device computes everything")
            return self._local

    def ask(self, policy: Policy, now: Now) -> int:
        """Index of the candidate that a policy chooses.

        Raises:
            ConfigError: If there is no such candidate.
        """
        if isinstance(policy, OneLanePolicy):
            index = policy.choose_one(now)
        else:
            index = int(policy.choose(now.moment())[0])
        if not 0 <= index < len(self.table.grid):
            raise ConfigError(f"a policy must choose one of its candidates; got number {index}")
        return index

    def _tell(self, policy: Policy, error: Exception, remedy: str) -> None:
        if policy.name not in self._failed:
            self._failed.add(policy.name)
            _log.warning("the %s failed (%r); %s", policy.name, error, remedy)

    def _nearest_local(self, threshold: float) -> int:
        grid = self.table.grid
        local = np.flatnonzero(grid.local)
        distance = np.abs(grid.exit_threshold[local] - threshold)
        return int(local[distance.argmin()])


def _charge_of(situation: Situation) -> tuple[Floats, Floats]:
    """State of charge, `nan` where nobody knows it, and time since the start; `L = 1`."""
    soc = np.nan if situation.soc is None else situation.soc
    return np.array([soc]), np.array([situation.now_s])
