"""Many simulated devices at once, as a Gymnasium vector environment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray

from adaptive_split.envs.curriculum import Curriculum
from adaptive_split.envs.split_env import find_traces
from adaptive_split.observation import View, bounds, observe
from adaptive_split.planner import BacklogPrices, combine
from adaptive_split.runtime.simulated.simulator import Simulator
from adaptive_split.runtime.simulated.streams import Stream, StreamSource
from adaptive_split.scenario import Scenario, load_scenario
from adaptive_split.trace import Trace

Draw = Callable[[StreamSource, np.random.Generator], Stream]


class TraceVectorEnv(VectorEnv[NDArray[np.float32], NDArray[np.int64], Any]):
    """L simulated devices, each on a stream of its own; lanes restart by themselves.

    Decision, observation and reward are those of `split_env.SplitEnv`. A lane that ends is reset
    in the same step: `infos["final_obs"]` keeps its last observation. `infos["payload_on_time"]`,
    `(L, P)`, tells for the frame just decided which payloads the true link and server would have
    answered in time.

    Args:
        scenario: What is simulated.
        traces: The link recordings to draw streams from, evenly over families.
        num_envs: Lanes.
        subset: Which half of the pictures: `policy` to train, `judge` to judge.
        prices: Backlog prices in the planner's formula.
        draw: Draws the stream of a lane that starts; evenly over families by default.
        curriculum: Draws them instead, and is told how far each lagged behind the planner.
    """

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012

    def __init__(
        self,
        scenario: Scenario,
        traces: Sequence[Trace],
        num_envs: int,
        *,
        subset: str = "policy",
        prices: BacklogPrices | None = None,
        draw: Draw | None = None,
        curriculum: Curriculum | None = None,
    ) -> None:
        self.num_envs = num_envs
        self.table = scenario.table(subset)
        self.source = StreamSource(scenario, self.table.outcomes, traces)
        self.curriculum = curriculum
        self._draw = StreamSource.draw if draw is None else draw
        if curriculum is not None:
            self._draw = curriculum.draw
        self._gap = np.zeros(num_envs)
        self.prices = BacklogPrices() if prices is None else prices
        low, high = bounds(self.table)
        self.single_observation_space = spaces.Box(low, high, dtype=np.float32)
        self.single_action_space = spaces.Discrete(len(self.table.grid))
        self.observation_space = spaces.Box(
            np.tile(low, (num_envs, 1)), np.tile(high, (num_envs, 1)), dtype=np.float32
        )
        self.action_space = spaces.MultiDiscrete([len(self.table.grid)] * num_envs)
        self._simulator: Simulator | None = None
        self.view: View | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Draw a stream for every lane and return the first observations, `(L, D)`."""
        super().reset(seed=seed, options=options)
        if seed is not None and self.curriculum is not None:
            self.curriculum.gap.clear()  # equal seeds must give equal episodes
        streams = [self._draw(self.source, self.np_random) for _ in range(self.num_envs)]
        self._simulator = Simulator(self.table, streams)
        self._gap[:] = 0.0
        return self._observe(), {}

    def step(
        self, actions: NDArray[np.int64]
    ) -> tuple[
        NDArray[np.float32],
        NDArray[np.float64],
        NDArray[np.bool_],
        NDArray[np.bool_],
        dict[str, Any],
    ]:
        """Take one candidate per lane."""
        simulator = self._simulator
        assert simulator is not None, "reset the environment first"
        actions = np.asarray(actions)
        assert self.view is not None
        on_time, _ = simulator.payload_on_time()
        if self.curriculum is not None:
            self._gap += self._behind(self.view, on_time, actions)
        report = simulator.step(actions)
        ended = simulator.done.copy()
        infos: dict[str, Any] = {"payload_on_time": on_time}
        if ended.any():
            infos["final_obs"] = self._observe()
            lanes = np.flatnonzero(ended)
            self._note(lanes)
            fresh = [self._draw(self.source, self.np_random) for _ in lanes]
            simulator.replace(lanes, fresh)
        return self._observe(), report.utility, np.zeros_like(ended), ended, infos

    def _behind(
        self, view: View, on_time: NDArray[np.bool_], actions: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Utility by which the planner's candidates would have been better, shape `(L,)`."""
        chance = 1 / (1 + np.exp(-view.payloads[:, :, 0]))
        planned = combine(self.table, view.base, view.gain, chance).argmax(1)
        true = combine(self.table, view.base, view.gain, on_time.astype(float))
        lane = np.arange(self.num_envs)
        return np.asarray(true[lane, planned] - true[lane, actions])

    def _note(self, lanes: NDArray[np.int64]) -> None:
        if self.curriculum is None:
            return
        assert self._simulator is not None
        for lane in lanes:
            stream = self._simulator.streams[lane]
            self.curriculum.note(stream, float(self._gap[lane]) / stream.num_frames)
        self._gap[lanes] = 0.0

    def _observe(self) -> NDArray[np.float32]:
        assert self._simulator is not None
        self.view = observe(self.table, self._simulator.moment(), self.prices)
        return self.view.flat()


def make_trace_vector_env(
    num_envs: int,
    scenario: str | Scenario = "default",
    traces: str | Path | Sequence[Trace] | None = None,
    *,
    subset: str = "policy",
    split: str = "train",
    prices: BacklogPrices | None = None,
) -> TraceVectorEnv:
    """Make `adaptive_split/Trace-v0` with many lanes; see `split_env.make_trace_env`."""
    played = load_scenario(scenario) if isinstance(scenario, str) else scenario
    found = find_traces(traces, split)
    return TraceVectorEnv(played, found, num_envs, subset=subset, prices=prices)
