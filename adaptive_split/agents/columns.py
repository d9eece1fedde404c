"""What a controller brought on some streams, each number with its 95 % interval.

An estimate is `{"value", "low", "high"}` as plain numbers, or `None` where nobody can know it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from adaptive_split.agents.frames import CAUSES, Frames
from adaptive_split.agents.intervals import Bootstrap, Estimate
from adaptive_split.agents.roster import BEST_STATIC, ORACLE
from adaptive_split.candidates import Floats
from adaptive_split.scenario import Battery, Scenario

SHARES = {"p50": 50.0, "p95": 95.0, "p99": 99.0}
"""Percentiles of the latency that are told, by name."""
_DECIMALS = {"payload_bytes": 1, "probe_bytes": 1, "battery_life_h": 4}


@dataclass(frozen=True, slots=True)
class Drain:
    """How long a full charge lasts."""

    fps: float
    battery: Battery | None

    @classmethod
    def of(cls, scenario: Scenario) -> Drain:
        """That of a scenario's device."""
        return cls(scenario.objective.fps, scenario.battery)

    def life_h(self, energy_j: Estimate) -> dict[str, float] | None:
        """Hours at the mean power, `energy_j * fps + idle_w`; `None` without a battery.

        Args:
            energy_j: Mean energy of a captured frame.
        """
        if self.battery is None:
            return None
        capacity_j, idle_w = self.battery.capacity_j, self.battery.idle_w
        powers = [joules * self.fps + idle_w for joules in (energy_j.value, energy_j.high,
                                                            energy_j.low)]  # fmt: skip
        if min(powers) <= 0:
            return None
        return _plain(Estimate(*(capacity_j / power / 3600 for power in powers)), "battery_life_h")


def columns_of(
    frames: Frames, bootstrap: Bootstrap, members: Any, probe_bytes: Floats, drain: Drain
) -> dict[str, Any]:
    """The columns of one controller.

    Args:
        frames: Of all streams.
        bootstrap: Of the members.
        members: Indices of the streams that count.
        probe_bytes: Of all streams.
        drain: The device's battery.
    """

    def estimate(values: Any) -> Estimate:
        return bootstrap.estimate(values[members].astype(float).mean(1))

    energy_j, latency = estimate(frames.energy_j), frames.latency_s[members]
    marks = bootstrap.percentiles(latency, tuple(SHARES.values()))
    answered = latency[np.isfinite(latency)]
    losses = frames.losses
    means = {
        "utility": estimate(frames.utility),
        "on_time_accuracy": estimate(frames.correct),
        "miss_rate": estimate(~frames.on_time),
        "payload_bytes": estimate(frames.payload_bytes),
        "energy_j": energy_j,
        "switch_share": bootstrap.estimate(frames.switch_share[members]),
        "probe_bytes": bootstrap.estimate(probe_bytes[members] / frames.utility.shape[1]),
        "dropped_share": estimate(~frames.started),
        "server_share": estimate(frames.by_server),
        "fallback_share": estimate(frames.fell_back),
    }
    return {
        **{name: _plain(value, name) for name, value in means.items()},
        "latency_s": {
            name: None if mark is None else _plain(mark, name)
            for name, mark in zip(SHARES, marks, strict=True)
        },
        "latency_percentiles_s": np.round(
            np.percentile(answered, np.arange(101)) if answered.size else [], 6
        ).tolist(),
        "energy_provenance": frames.energy_provenance,
        "battery_life_h": drain.life_h(energy_j),
        "loss": {
            cause: round(float(bootstrap.weights @ losses[cause][members]), 6) for cause in CAUSES
        },
        "frames": int(frames.utility[members].size),
    }


def gap_closed(
    utility: Mapping[str, Floats], bootstrap: Bootstrap
) -> dict[str, dict[str, float] | None]:
    """Share of the way from the best static decision to `oracle`; `None` without a way.

    Args:
        utility: Mean of every stream, shape `(B,)`, by controller.
        bootstrap: Of the same streams.
    """
    if BEST_STATIC not in utility or ORACLE not in utility:
        return dict.fromkeys(utility)
    floor, gap = utility[BEST_STATIC], utility[ORACLE] - utility[BEST_STATIC]
    found = {name: bootstrap.ratio(values - floor, gap) for name, values in utility.items()}
    return {name: None if one is None else _plain(one, name) for name, one in found.items()}


def _plain(one: Estimate, name: str) -> dict[str, float]:
    decimals = _DECIMALS.get(name, 6)
    return {key: round(value, decimals) for key, value in one.to_json().items()}
