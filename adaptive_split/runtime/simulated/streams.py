"""What a simulated or emulated run plays back: link, server load and the sequence of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from adaptive_split.calibration import NO_OVERHEADS, Calibration, Overheads
from adaptive_split.errors import ConfigError
from adaptive_split.outcomes import Outcomes
from adaptive_split.scenario import Battery, Scenario, Thermal
from adaptive_split.server_load import server_wait
from adaptive_split.trace import Trace

LOST_RTT_S = 1.5
"""Round trip that stands for a lost reply: TCP's usual first retransmission and backoff."""

PERIOD_S = 0.1
WAIT_PERIOD_S = 0.01


@dataclass(frozen=True, slots=True, eq=False)
class Stream:
    """One window of a trace with its server load and pictures; every controller plays the same."""

    name: str
    family: str
    uplink_mbps: NDArray[np.float64]
    """On a grid of `period_s`, shape `(T,)`."""
    rtt_s: NDArray[np.float64]
    """On the same grid; a lost reply counts as `LOST_RTT_S`."""
    server_wait_s: NDArray[np.float64]
    """Time a request would wait in the server's queue, on a grid of `wait_period_s`."""
    samples: NDArray[np.int64]
    """Index of the picture of every frame, shape `(F,)`."""
    source: str
    """`recorded` or `synthetic`: where the link comes from."""
    device_slowdown: float = 1.0
    """Factor on the device profile's times; power stays, so energy grows alike."""
    server_slowdown: float = 1.0
    """Factor on the server profile's times."""
    energy_price: float | None = None
    """What a joule costs in the utility, in 1/J; `None`: what the objective says."""
    battery: Battery | None = None
    """None: the charge does not count."""
    thermal: Thermal | None = None
    """None: the device never throttles."""
    overheads: Overheads = NO_OVERHEADS
    others_start_s: float | None = None
    """Other users' work at the server is as if it had to begin within this time of its arrival, and
    who must begin first goes first; `None`: first in, first out."""
    period_s: float = PERIOD_S
    wait_period_s: float = WAIT_PERIOD_S

    def __post_init__(self) -> None:
        """Refuse factors and prices that cannot be."""
        for name in ("device_slowdown", "server_slowdown"):
            if not getattr(self, name) > 0:
                raise ConfigError(
                    f"a stream's {name} must be positive; got {getattr(self, name)!r}"
                )
        if self.energy_price is not None and not self.energy_price >= 0:
            raise ConfigError(
                f"a stream's energy_price must be 0 or more, in 1/J; got {self.energy_price!r}"
            )

    @property
    def num_frames(self) -> int:
        """Number of frames captured."""
        return len(self.samples)

    def calibrated(self, calibration: Calibration | None) -> Stream:
        """The same on a device, a transport and a server as calibrated."""
        if calibration is None:
            return self
        return replace(
            self, overheads=calibration.overheads, others_start_s=calibration.others_start_s,
            device_slowdown=self.device_slowdown * calibration.device_slowdown,
            server_slowdown=self.server_slowdown * calibration.server_slowdown,
        )  # fmt: skip


class StreamSource:
    """Draws streams for a scenario: windows of traces, server load and scenes of pictures."""

    def __init__(self, scenario: Scenario, outcomes: Outcomes, traces: Sequence[Trace]) -> None:
        if not traces:
            raise ConfigError("streams must be drawn from at least one trace; got none")
        self.scenario, self.outcomes = scenario, outcomes
        self.families: dict[str, list[Trace]] = {}
        for trace in traces:
            self.families.setdefault(trace.family, []).append(trace)
        self.num_frames = scenario.camera.frames_per_stream
        # Replies may come after the last frame's deadline: two seconds more are kept.
        self.duration_s = self.num_frames / scenario.objective.fps + 2.0

    def draw(self, generator: np.random.Generator, trace: Trace | None = None) -> Stream:
        """Draw one stream: a family, a trace of it unless one is given, a window, load, scenes."""
        if trace is None:
            names = sorted(self.families)
            members = self.families[names[generator.integers(len(names))]]
            trace = members[generator.integers(len(members))]
        room = max(trace.duration_s - self.duration_s, 0.0)
        rate, rtt = cut_window(trace, float(generator.uniform(0, room)), self.duration_s)
        load = self.scenario.load
        utilization = load.utilizations[generator.integers(len(load.utilizations))]
        seed = int(generator.integers(2**31))
        wait = server_wait(seed, self.duration_s, utilization, load.speedup, WAIT_PERIOD_S)
        camera = self.scenario.camera
        samples = scene_sequence(
            self.outcomes, self.num_frames, camera.scene_correlation, generator
        )
        return Stream(
            trace.name, trace.family, rate, rtt, wait, samples, trace.source,
            battery=self.scenario.battery, thermal=self.scenario.thermal,
        ).calibrated(self.scenario.calibration)  # fmt: skip

    def draw_evenly(self, per_family: int, seed: int) -> list[Stream]:
        """Draw the same number of streams from every family, evenly over its traces."""
        generator = np.random.default_rng(seed)
        streams = []
        for family in sorted(self.families):
            members = self.families[family]
            order = generator.permutation(len(members))
            chosen = [members[order[index % len(members)]] for index in range(per_family)]
            streams += [self.draw(generator, trace) for trace in chosen]
        return streams


def cut_window(
    trace: Trace, start_s: float, duration_s: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Cut rate and round trip on the grid of `PERIOD_S`; a short trace is repeated from its start.

    Returns:
        `(uplink_mbps, rtt_s)`, each with `duration_s / PERIOD_S` entries.
    """
    count = int(np.ceil(duration_s / PERIOD_S))
    moments = (start_s + (np.arange(count) + 0.5) * PERIOD_S) % trace.duration_s
    rows = np.clip(np.searchsorted(trace.time_s, moments, side="right") - 1, 0, None)
    rtt = np.nan_to_num(trace.rtt_s[rows], nan=LOST_RTT_S)
    return trace.uplink_mbps[rows], np.minimum(rtt, LOST_RTT_S)


def scene_sequence(
    outcomes: Outcomes, num_frames: int, correlation: float, generator: np.random.Generator
) -> NDArray[np.int64]:
    """Order pictures into scenes: their difficulty is correlated from frame to frame.

    Pictures are ranked by difficulty (1 - mean right answers of exits and payloads, ties by mean
    confidence); a first-order Gaussian process with the given correlation walks over the ranks.

    Args:
        outcomes: The measured answers.
        num_frames: Length of the sequence.
        correlation: Correlation of the latent difficulty between neighboring frames, in [0, 1).
        generator: The source of randomness.
    """
    if not 0 <= correlation < 1:
        raise ConfigError(f"scene correlation must lie in [0, 1); got {correlation!r}")
    ease = outcomes.exit_right.mean(1) + outcomes.server_right.mean(1)
    order = np.lexsort((outcomes.exit_confidence.mean(1), ease))[::-1]
    latent = np.empty(num_frames)
    level = generator.standard_normal()
    for index in range(num_frames):
        latent[index] = level
        noise = generator.standard_normal()
        level = correlation * level + np.sqrt(1 - correlation**2) * noise
    rank = (_normal_cdf(latent) * len(order)).astype(int)
    jitter = generator.integers(-5, 6, num_frames)
    return order[np.clip(rank + jitter, 0, len(order) - 1)]


def _normal_cdf(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Standard normal distribution function, from a table fine enough for ranks."""
    grid = np.linspace(-5, 5, 2001)
    density = np.exp(-0.5 * grid**2)
    table = np.cumsum(density)
    return np.asarray(np.interp(values, grid, table / table[-1]))
