"""The environment over any backend, and how it is made on the simulator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, SupportsInt

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from adaptive_split.candidates import CandidateTable
from adaptive_split.errors import ConfigError
from adaptive_split.measurement import FrameReport
from adaptive_split.observation import View, bounds, observe
from adaptive_split.planner import BacklogPrices
from adaptive_split.runtime.backend import Backend, Situation
from adaptive_split.runtime.live_controller import moment_of
from adaptive_split.runtime.simulated.backend import SimulatorBackend
from adaptive_split.runtime.simulated.streams import Stream, StreamSource
from adaptive_split.scenario import Scenario, load_scenario
from adaptive_split.trace import Trace, read_traces
from adaptive_split.trace_sets import default_traces

LINK_REASONS = ("link", "refused", "breaker", "bundle")
"""Fallback reasons that tell of the server or the way to it, not of time."""

Attribution = Literal["exact", "settled"]


class SplitEnv(gymnasium.Env[NDArray[np.float32], np.int64]):
    """One device that answers a camera's frames; an action decides one frame.

    Decision: `Discrete(N)`, the index of a candidate of the decision grid, which is a split point,
    an exit threshold and bits. `box_action.BoxActions` offers them as `Box(-1, 1, (3,))` instead.

    Observation: `Box` of `[context | P payload rows | N candidate rows]`, float32. Rates are those
    of the last 16 finished requests; 1 slo = the latency promised.

    | column | unit | low | high |
    | --- | --- | --- | --- |
    | context: `rate_last`, `rate_mean_2`, `_4`, `_16`, `rate_low_16` | ln Mbit/s | -5 | 7 |
    | `rate_spread_16` | ln ratio | 0 | 4 |
    | `rate_trend` | ln ratio | -4 | 4 |
    | `rtt_last`, `_mean_4`, `_mean_16`, `_spread_16`, `_low_16`, `_high_16` | slo | 0 | 8 |
    | `rtt_trend` | slo | -8 | 8 |
    | `server_wait_last`, `_mean_4`, `_high_16` | slo | 0 | 8 |
    | `server_slowdown` | ln ratio | -3 | 3 |
    | `sample_age`; `window_age` | ln s | -5 | 4; 6 |
    | `sample_count`, `timeouts` | share of 16 | 0 | 1 |
    | `unanswered_age`, `uplink_busy` | slo | 0 | 8 |
    | `unanswered_bytes` | ln(1 + kB) | 0 | 8 |
    | `slack` | slo | -1 | 1 |
    | `gap` | frame periods | -1 | 2 |
    | `waiting` | frames | 0 | 16 |
    | `confidence_last`, `confidence_mean_8`, `soc`, `server_usable` | 1 | 0 | 1 |
    | `device_slowdown` | ln ratio | -2 | 3 |
    | `slo` | ln s | -4 | 2 |
    | `fps` | ln 1/s | -2 | 6 |
    | `energy_price` | 1/J | 0 | 2 |
    | `mission_ratio` | ln ratio | -3 | 3 |
    | `byte_price` | 1/MB | 0 | 10 |
    | each payload: `chance_16`, `chance_4`, `chance_cautious` | logit | -5 | 5 |
    | `slack_last`, `slack_mean`, `slack_worst_4`, `slack_floor` | slo | -8 | 2 |
    | `upload_last`, `upload_mean`, `ready`, `tail` | slo | 0 | 8 |
    | `bytes` | ln kB | -3 | 8 |
    | `keep_back` | slo | 0 | 2 |
    | `uplink_over` | frame periods | 0 | 32 |
    | each candidate: `base` | utility | -1e4 | 10 |
    | `gain` | utility | -10 | 10 |
    | `overrun` | frame periods | 0 | 64 |
    | `busy` | slo | 0 | 64 |
    | `send_share` | 1 | 0 | 1 |

    The planner expects `base + gain * chance` of a candidate; `observation.py` has the order.

    Reward: the sum of the utilities
    `1[correct and on time] - energy_price * energy_j - byte_price * payload_bytes / 10^6`
    of the frame just decided (`attribution="exact"`, where the backend knows it at once), or of the
    frames that settled since the last step (`"settled"`, as on a live device). Both add up to the
    same over an episode. A frame that was dropped before it started brings 0.

    Info: `settled`, the reports of the frames that settled since the last step, as dicts;
    `reward_terms`, `accuracy`, `energy` and `bytes`, which add up to the reward; `link_error`, only
    where a frame among them was not answered by the server because of the link or the server: why;
    `payload_on_time`, only on a simulator, `(P,)`: for the frame just decided, which payloads the
    true link and server would have answered in time. `reset` gives `frame_index` alone, as does
    every step: the frame to decide next.

    Episode end: truncated, never terminated, once the stream's frames are captured and settled.

    Versions: v0.

    Args:
        backend: What plays the frames; closed with the environment.
        table: The candidates.
        attribution: Which frames a step's reward is for.
        prices: Backlog prices in the planner's formula.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 - as Gymnasium declares it

    def __init__(
        self,
        backend: Backend,
        table: CandidateTable,
        *,
        attribution: Attribution = "settled",
        prices: BacklogPrices | None = None,
    ) -> None:
        if attribution not in ("exact", "settled"):
            raise ConfigError(f"attribution must be 'exact' or 'settled'; got {attribution!r}")
        self._simulator = backend if isinstance(backend, SimulatorBackend) else None
        if attribution == "exact" and self._simulator is None:
            raise ConfigError(
                "attribution must be 'settled' on a backend that does not know the future; "
                "got 'exact'"
            )
        self.backend, self.table, self.attribution = backend, table, attribution
        self.prices = BacklogPrices() if prices is None else prices
        low, high = bounds(table)
        self.observation_space = spaces.Box(low, high, dtype=np.float32)
        self.action_space = spaces.Discrete(len(table.grid))
        self.view: View | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Start a run.

        Args:
            seed: Of the environment's randomness; equal seeds give equal runs.
            options: None are known.
        """
        super().reset(seed=seed)
        if options:
            raise ConfigError(f"reset must get no options; got {sorted(options)}")
        situation = self.backend.reset(int(self.np_random.integers(2**31)))
        return self._observe(situation), {"frame_index": situation.frame_index}

    def step(
        self, action: SupportsInt
    ) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Decide the current frame and go on to the next decision."""
        decision = self.table.grid.candidates[int(action)]
        info: dict[str, Any] = {}
        if self._simulator is not None:
            info["payload_on_time"] = self._simulator.payload_on_time()
        situation, settled, done = self.backend.step(decision)
        rewarded = settled
        if self.attribution == "exact":
            assert self._simulator is not None
            rewarded = [report for report in (self._simulator.decided,) if report is not None]
        terms = self._terms(rewarded)
        info |= {
            "frame_index": situation.frame_index,
            "settled": [asdict(report) for report in settled],
            "reward_terms": terms,
        }
        reasons = [r.fallback_reason for r in settled if r.fallback_reason in LINK_REASONS]
        if reasons:
            info["link_error"] = reasons[-1]
        return self._observe(situation), sum(terms.values()), False, done, info

    def close(self) -> None:
        """Close the backend."""
        self.backend.close()

    def _terms(self, reports: Sequence[FrameReport]) -> dict[str, float]:
        assert self.view is not None, "reset the environment first"
        # A stream may have a price of its own, so that in force counts, not the objective's.
        energy_price = float(self.view.moment.energy_price[0])
        byte_price = self.table.objective.byte_price
        return {
            "accuracy": float(sum(report.correct for report in reports)),
            "energy": -energy_price * sum(report.energy_j for report in reports),
            "bytes": -byte_price * sum(report.payload_bytes for report in reports) / 1e6,
        }

    def _observe(self, situation: Situation) -> NDArray[np.float32]:
        if self._simulator is not None:
            moment = self._simulator.moment()
        else:
            moment = moment_of(situation, self.table)
        self.view = observe(self.table, moment, self.prices)
        return np.asarray(self.view.flat()[0])


def make_trace_env(
    scenario: str | Scenario = "default",
    traces: str | Path | Sequence[Trace] | None = None,
    *,
    subset: str = "policy",
    split: str = "train",
    attribution: Attribution = "exact",
    probes: bool = True,
    prices: BacklogPrices | None = None,
) -> SplitEnv:
    """Make `adaptive_split/Trace-v0`: a simulated device on recorded links.

    Args:
        scenario: A scenario, the name of a shipped one, or a path to a `scenario.toml`.
        traces: A folder of traces, or traces; by default those of `trace_sets.default_traces`.
        subset: Which half of the pictures: `policy` to train, `judge` to judge.
        split: Which default traces: `train`, `validation` or `test`.
        attribution: Which frames a step's reward is for; see `SplitEnv`.
        probes: Whether an idle link is measured.
        prices: Backlog prices in the planner's formula.
    """
    played = load_scenario(scenario) if isinstance(scenario, str) else scenario
    table = played.table(subset)
    source = StreamSource(played, table.outcomes, find_traces(traces, split))

    def draw(seed: int) -> Stream:
        return source.draw(np.random.default_rng(seed))

    backend = SimulatorBackend(table, draw, probes=probes)
    return SplitEnv(backend, table, attribution=attribution, prices=prices)


def find_traces(traces: str | Path | Sequence[Trace] | None, split: str) -> Sequence[Trace]:
    """Read the traces of a folder, or the default ones of a split."""
    if traces is None:
        return default_traces(split)[0]
    if isinstance(traces, (str, Path)):
        return read_traces([Path(traces)])
    return traces
