"""Fitted random processes of four link families: the uplink rate, and the RTT with its losses.

A process is a stationary Gaussian latent, the sum of a level drawn once per trace and of AR(1)
components of several time scales, pushed down during the dips of a two-state Markov chain, and
mapped through the quantiles of the recordings (so the marginal is right by construction). The
parameters, `data/link_families.json`, are fitted by `experiments/fit_link_families.py`; no
recording is in them.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import math
from dataclasses import dataclass
from importlib import resources
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from adaptive_split.errors import ConfigError

LTE = "lte"
CELLULAR = "maine-cellular"
STARLINK = "maine-starlink"
FIVE_G = "5g-2022"
FAMILIES = (LTE, CELLULAR, STARLINK, FIVE_G)

OUTAGE_MBPS = 0.1
"""A rate below this is an outage, in Mbps."""

# Multiples of the golden ratio spread most evenly over [0, 1); those of e are unrelated to them.
_STEPS = (0.6180339887498949, 0.718281828459045)


@dataclass(frozen=True, slots=True, eq=False)
class LinkProcess:
    """One fitted process, on a regular grid."""

    period_s: float
    """The period of the recordings it was fitted to, in seconds."""
    level_share: float
    """Share of the latent's variance that is drawn once per trace."""
    time_constants_s: tuple[float, ...]
    """Time constants of the AR(1) components, in seconds."""
    shares: tuple[float, ...]
    """Share of the latent's variance in each component; with `level_share` they add up to 1."""
    dip_share: float
    """Share of the time spent in dips."""
    dip_length_s: float
    """Mean length of a dip, in seconds, at least `period_s`."""
    dip_depth: float
    """How far a dip pushes the latent down, in its standard deviations."""
    dip_noise: float
    """Deviation of the white noise within a dip, which makes outages flicker."""
    latent: NDArray[np.float64]
    """Knots of the map from the latent, ascending, shape `(K,)`."""
    value: NDArray[np.float64]
    """Values at the knots, never falling, shape `(K,)`; Mbps for a rate, seconds for an RTT."""
    loss_share: float = 0.0
    """Share of lost replies (RTT only)."""
    loss_length: float = 1.0
    """Mean number of replies lost in a row (RTT only)."""
    rate_level_correlation: float = 0.0
    """Correlation of this process's level with that of the rate (RTT only)."""

    def sample(
        self, rng: np.random.Generator, levels: NDArray[np.float64], num_rows: int
    ) -> NDArray[np.float64]:
        """Draw paths.

        Args:
            rng: Where the randomness comes from.
            levels: The standard normal level of each path, shape `(B,)`.
            num_rows: Rows of a path, `period_s` apart.

        Returns:
            Values, shape `(B, num_rows)`; nan where a reply is lost.
        """
        num_paths = len(levels)
        latent = np.sqrt(self.level_share) * np.repeat(levels[:, None], num_rows, axis=1)
        for constant_s, share in zip(self.time_constants_s, self.shares, strict=True):
            noise = rng.standard_normal((num_rows, num_paths))
            latent += math.sqrt(share) * _ar1(noise, math.exp(-self.period_s / constant_s)).T
        if self.dip_share > 0:
            length = self.dip_length_s / self.period_s
            dips = two_state(rng, num_paths, num_rows, self.dip_share, length)
            noise = rng.standard_normal((num_rows, num_paths)).T
            latent -= dips * (self.dip_depth + self.dip_noise * noise)
        path: NDArray[np.float64] = np.interp(latent, self.latent, self.value)
        if self.loss_share > 0:
            lost = two_state(rng, num_paths, num_rows, self.loss_share, self.loss_length)
            path[lost] = np.nan
        return path


def _ar1(noise: NDArray[np.float64], coefficient: float) -> NDArray[np.float64]:
    """A stationary AR(1) of unit variance along the first axis of white `noise`."""
    scaled = math.sqrt(1 - coefficient**2) * noise
    scaled[0] = noise[0]
    # One path is summed in plain floats, which is ten times as fast as rows of one element.
    rows = scaled[:, 0].tolist() if noise.shape[1] == 1 else scaled
    path = itertools.accumulate(rows, lambda before, step: coefficient * before + step)
    return np.array(list(path)).reshape(noise.shape)


def two_state(
    rng: np.random.Generator, num_paths: int, num_rows: int, share: float, length: float
) -> NDArray[np.bool_]:
    """A stationary two-state Markov chain.

    Args:
        rng: Where the randomness comes from.
        num_paths: Number of independent chains.
        num_rows: Rows of a chain.
        share: Share of the rows that are on, in [0, 1).
        length: Mean number of rows on in a row, at least 1.

    Returns:
        On or off, shape `(num_paths, num_rows)`.
    """
    leave = 1.0 / max(length, 1.0)
    enter = min(leave * share / (1 - share), 1.0)
    draw = rng.random((num_rows, num_paths))
    stay, go = draw >= leave, draw < enter
    stay[0] = go[0] = draw[0] < share
    if num_paths == 1:  # plain booleans, for the same reason as in _ar1
        choices = zip(stay[:, 0].tolist(), go[:, 0].tolist(), strict=True)
        states = itertools.accumulate(choices, lambda on, row: row[not on], initial=True)
        return np.array([list(states)[1:]])
    for row in range(1, num_rows):
        stay[row] = (stay[row - 1] & stay[row]) | (~stay[row - 1] & go[row])
    return stay.T


@functools.cache
def load_processes(kind: str) -> dict[str, LinkProcess]:
    """The fitted processes that ship with the package, by family.

    Args:
        kind: `rate` (three families) or `rtt` (all four).
    """
    text = (resources.files("adaptive_split") / "data" / "link_families.json").read_text("utf-8")
    return {
        family: LinkProcess(
            **{
                **fields,
                "time_constants_s": tuple(fields["time_constants_s"]),
                "shares": tuple(fields["shares"]),
                "latent": np.asarray(fields["latent"], np.float64),
                "value": np.asarray(fields["value"], np.float64),
            }
        )
        for family, fields in json.loads(text)[kind].items()
    }


def link_process(kind: str, family: str) -> LinkProcess:
    """The fitted process of one family.

    Raises:
        ConfigError: If none was fitted for it.
    """
    processes = load_processes(kind)
    if family not in processes:
        raise ConfigError(
            f"{kind} process: family must be one of {sorted(processes)}; got {family!r}"
        )
    return processes[family]


def seed_of(name: str) -> int:
    """A seed that depends on a name only, the same on every machine, in [0, 2**32)."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")


def trace_levels(seed: int) -> tuple[float, float]:
    """Two standard normal levels of a trace: for its rate, and independent of it.

    They come from a low-discrepancy sequence, so that even a handful of traces of consecutive seeds
    covers good and bad places in the proportion of the recordings.
    """
    normal = NormalDist()
    first, second = (
        normal.inv_cdf(min(max(math.fmod(0.5 + seed * step, 1.0), 1e-6), 1 - 1e-6))
        for step in _STEPS
    )
    return first, second


def sample_rate_mbps(family: str, seed: int, num_rows: int) -> NDArray[np.float64]:
    """A synthetic uplink rate at the family's own period, in Mbps, shape `(num_rows,)`."""
    process = link_process("rate", family)
    level, _ = trace_levels(seed)
    rng = np.random.default_rng([seed, 1])
    path: NDArray[np.float64] = process.sample(rng, np.array([level]), num_rows)[0]
    return path


def sample_rtt_s(
    family: str, seed: int, time_s: NDArray[np.float64], rate_level: float | None = None
) -> NDArray[np.float64]:
    """A synthetic RTT, each drawn value held until the next.

    Args:
        family: One of `FAMILIES`.
        seed: Equal seeds give equal RTTs.
        time_s: When, in seconds from 0, ascending, shape `(T,)`.
        rate_level: The level of the rate beside it; bad places have longer RTTs where the
            recordings showed so. None = independent.

    Returns:
        RTT in seconds, nan = reply lost, shape `(T,)`.
    """
    process = link_process("rtt", family)
    _, level = trace_levels(seed)
    if rate_level is not None:
        tie = process.rate_level_correlation
        level = tie * rate_level + math.sqrt(1 - tie**2) * level
    num_rows = int(time_s[-1] / process.period_s + 1e-9) + 1
    path = process.sample(np.random.default_rng([seed, 2]), np.array([level]), num_rows)[0]
    row = (time_s / process.period_s + 1e-9).astype(np.int64)
    return np.asarray(path[row])


def guess_family(family: str, name: str) -> str:
    """The family of `FAMILIES` a trace is most like, by its names.

    Args:
        family: Name of the trace's folder.
        name: Its file's stem; decides before the folder does.

    Returns:
        One of `FAMILIES`; LTE when nothing tells otherwise.
    """
    folder = family.lower()
    if folder in FAMILIES:
        return folder
    if "5gmemu" in folder:
        return FIVE_G
    for text in (name.lower(), folder):
        if "starlink" in text:
            return STARLINK
        if any(word in text for word in ("lte", "umts", "evdo", "mahimahi", "4g")):
            return LTE
        if any(word in text for word in ("5g", "mmwave", "_nr_")):
            return FIVE_G
        if text.startswith(("att_", "verizon_")) or "maine" in text or "cellular" in text:
            return CELLULAR
    return LTE
