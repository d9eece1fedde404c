"""A last look at what was measured, before anybody decides by it."""

from __future__ import annotations

import logging
import math
from dataclasses import fields, replace

from adaptive_split.measurement import LinkSample
from adaptive_split.runtime.backend import Situation

_log = logging.getLogger(__name__)

MOST_MBPS, MOST_S, MOST_SLOWDOWN = 1e5, 3600.0, 1e4
"""Beyond these a measurement is a fault of whoever took it."""
LEAST_SLOWDOWN = 1e-3


class Checker:
    """Leaves out of a situation what cannot be, and logs that once.

    A sample with a wrong number is left out, an impossible charge is unknown, an impossible
    slowdown is as profiled. So no `nan` reaches a policy, which would make every comparison false.
    """

    def __init__(self) -> None:
        self._told = False

    def check(self, situation: Situation) -> Situation:
        """Return the situation itself, if it is sound."""
        if _is_sound(situation):
            return situation
        samples = tuple(filter(_sound, situation.samples))
        sure = tuple(value for value in situation.recent_confidences if 0 <= value <= 1)
        soc = situation.soc
        if soc is not None and not 0 <= soc <= 1:
            soc = None
        slowdown = situation.device_slowdown
        if not LEAST_SLOWDOWN <= slowdown <= MOST_SLOWDOWN:
            slowdown = 1.0
        free_s = situation.uplink_free_s
        if not math.isfinite(free_s):
            free_s = situation.now_s
        sound = replace(
            situation, samples=samples, recent_confidences=sure, soc=soc,
            device_slowdown=slowdown, uplink_free_s=free_s,
        )  # fmt: skip
        if not self._told:
            self._told = True
            names = [item.name for item in fields(situation)]
            wrong = {name: getattr(situation, name) for name in names
                     if getattr(situation, name) != getattr(sound, name)}  # fmt: skip
            _log.warning("measurements must be possible; got %s; what is not is left out", wrong)
        return sound


def _is_sound(situation: Situation) -> bool:
    return (
        (situation.soc is None or 0 <= situation.soc <= 1)
        and LEAST_SLOWDOWN <= situation.device_slowdown <= MOST_SLOWDOWN
        and math.isfinite(situation.uplink_free_s)
        and all(map(_sound, situation.samples))
        and all(0 <= value <= 1 for value in situation.recent_confidences)
    )


def _sound(sample: LinkSample) -> bool:
    return (
        0 < sample.uplink_mbps <= MOST_MBPS
        and 0 <= sample.rtt_s <= MOST_S
        and 0 <= sample.server_wait_s <= MOST_S
        and 0 <= sample.server_slowdown <= MOST_SLOWDOWN
        and math.isfinite(sample.time_s)
    )
