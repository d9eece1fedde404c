"""A planner on a learned distribution of transfer times: the strongest kind of rival."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from adaptive_split.candidates import CandidateTable, Floats
from adaptive_split.errors import ConfigError
from adaptive_split.planner import (
    BacklogPrices,
    Moment,
    Readings,
    combine,
    give_up_s,
    link_pairs,
    utility_terms,
)
from adaptive_split.runtime.controller import Choice

SAMPLES = 8
"""Recent (rate, delay) pairs that the network sees."""
BIN_EDGES_S: Floats = np.geomspace(0.005, 2.0, 41)
"""Bounds of the 40 bins of a transfer time; outside, it counts to the first or last bin."""
NUM_BINS = len(BIN_EDGES_S) - 1
NUM_READINGS = 16
"""Equally likely transfer times that stand for a distribution, as many as the distribution
planner averages over."""
NUM_CONTEXT = 3 * SAMPLES + 4


def transfer_context(moment: Moment) -> Floats:
    """What the network sees of the link, `(L, NUM_CONTEXT)`.

    Logarithms of recent rates (Mbit/s) and delays (s), which of them are known, logarithm of the
    newest one's age (s), age of the oldest unanswered request (s), share of late replies, time
    until the uplink is believed free (s).
    """
    rate, delay, valid = link_pairs(moment, SAMPLES)
    age = np.nan_to_num(moment.sample_age_s[:, 0], nan=10.0)
    columns = [
        np.log(np.maximum(rate, 1e-3)), np.log(np.maximum(delay, 1e-3)), valid,
        np.log(np.maximum(age, 1e-3))[:, None], moment.unanswered_s[:, None],
        moment.timeouts[:, None] / 16, moment.uplink_busy_s[:, None],
    ]  # fmt: skip
    return np.concatenate(columns, 1)


def believed_begin_s(table: CandidateTable, moment: Moment) -> Floats:
    """When each payload would begin to cross the uplink, from now, if no request were overdue.

    What an overdue request means, the network learns. Shape `(L, P)`.
    """
    ready = table.ready_s * moment.device_slowdown[:, None]
    return np.maximum(ready, moment.uplink_busy_s[:, None])


@dataclass(frozen=True, slots=True, eq=False)
class TransferNetwork:
    """Link and payload size to the chances of `NUM_BINS` bins of the logarithm of its time.

    Two hidden layers; weights are `(in, out)`, the last input is the logarithm of the bytes;
    inputs are normalized by `mean` and `scale`.
    """

    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    layers: tuple[NDArray[np.float32], ...]
    """`W, b` of the three layers."""

    def chances(self, context: Floats, payload_bytes: Floats) -> Floats:
        """Chance of every bin, `(L, P, NUM_BINS)`, from `(L, NUM_CONTEXT)` and `(P,)`."""
        w1, b1, w2, b2, w3, b3 = self.layers
        scaled = (context.astype(np.float32) - self.mean[:-1]) / self.scale[:-1]
        size = (np.log(payload_bytes).astype(np.float32) - self.mean[-1]) / self.scale[-1]
        # The link's part of the first layer is the same for every payload.
        first = (scaled @ w1[:-1] + b1)[:, None, :] + size[:, None] * w1[-1]
        logits = np.maximum(np.maximum(first, 0) @ w2 + b2, 0) @ w3 + b3
        weight = np.exp(logits - logits.max(-1, keepdims=True))
        return np.asarray(weight / weight.sum(-1, keepdims=True), np.float64)

    def to_text(self) -> str:
        """As a line of text for a manifest: an npz file in base64."""
        blob = io.BytesIO()
        layers = {f"layer_{index}": layer for index, layer in enumerate(self.layers)}
        arrays: dict[str, Any] = {"mean": self.mean, "scale": self.scale} | layers
        np.savez(blob, **arrays)
        return base64.b64encode(blob.getvalue()).decode("ascii")

    @classmethod
    def from_text(cls, text: str) -> TransferNetwork:
        """Read what `to_text` wrote.

        Raises:
            ConfigError: If the text is damaged or of another layout.
        """
        try:
            blob = io.BytesIO(base64.b64decode(text, validate=True))
            with np.load(blob, allow_pickle=False) as data:
                layers = tuple(data[f"layer_{index}"] for index in range(6))
                network = cls(data["mean"], data["scale"], layers)
        except (ValueError, KeyError, OSError, EOFError, BadZipFile) as error:
            raise ConfigError(f"a transfer network must be readable; got {error}") from error
        if len(network.mean) != NUM_CONTEXT + 1 or len(layers[-1]) != NUM_BINS:
            raise ConfigError(
                f"a transfer network must have {NUM_CONTEXT + 1} inputs and {NUM_BINS} bins; got "
                f"{len(network.mean)} and {len(layers[-1])}; train it with this version"
            )
        return network


def transfer_quantiles_s(chances: Floats) -> Floats:
    """Equally likely transfer times of every payload, `(L, NUM_READINGS, P)`.

    Args:
        chances: Chance of every bin, shape `(L, P, NUM_BINS)`.
    """
    total = np.cumsum(chances, -1)
    # Levels (i + 1/2) / NUM_READINGS that each bin's upper bound has passed; in the end, all.
    passed = np.ceil(total * NUM_READINGS - 0.5).astype(np.int64)
    passed[..., -1] = NUM_READINGS
    in_bin = np.diff(passed, prepend=0, axis=-1)
    bins = np.broadcast_to(np.arange(chances.shape[-1]), chances.shape)
    shape = (*chances.shape[:-1], NUM_READINGS)
    index = np.repeat(bins.ravel(), in_bin.ravel()).reshape(shape)
    levels = (np.arange(NUM_READINGS) + 0.5) / NUM_READINGS
    chance = np.take_along_axis(chances, index, -1)
    end = np.take_along_axis(total, index, -1)
    inside = 1 - (end - levels) / np.maximum(chance, 1e-12)
    low, high = np.log(BIN_EDGES_S[index]), np.log(BIN_EDGES_S[index + 1])
    times = np.exp(low + np.clip(inside, 0.0, 1.0) * (high - low))
    return np.asarray(times.transpose(0, 2, 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferKnobs:
    """The trained network and the backlog prices."""

    network: str
    """As `TransferNetwork.to_text` writes it."""
    device_price: float = 0.3
    """Utility per frame of backlog on the device."""
    uplink_price: float = 0.1
    """Utility per frame of backlog on the uplink."""
    occupied_price: float = 0.0
    """Utility per frame period on the uplink."""


class LearnedTransferPlanner:
    """The distribution planner with a learned distribution in place of the last 16 pairs.

    Fugu's idea (Yan et al., "Learning in situ", NSDI 2020, section 4): a small network, trained
    with supervision, gives a distribution over binned transfer times of a payload of given size;
    a classical planner takes the expectation. Here the transfer time runs from the moment when
    the payload is believed to begin until the reply, less the server's own work.
    """

    name = "learned-transfer-planner"
    probes = True

    def __init__(self, table: CandidateTable, knobs: TransferKnobs) -> None:
        self.table, self.knobs = table, knobs
        self.prices = BacklogPrices(
            device=knobs.device_price, uplink=knobs.uplink_price, occupied=knobs.occupied_price
        )
        self.network = TransferNetwork.from_text(knobs.network)

    def choose(self, moment: Moment) -> Choice:
        """Take the candidate of highest mean utility over the learned distribution."""
        readings = self.read(moment)
        base, gain = utility_terms(self.table, moment, self.prices, readings)
        return np.asarray(combine(self.table, base, gain, readings.share()).argmax(1))

    def read(self, moment: Moment) -> Readings:
        """What equally likely transfer times mean for every payload."""
        table = self.table
        chances = self.network.chances(transfer_context(moment), table.mean_bytes)
        transfer = transfer_quantiles_s(chances)
        server_slow = np.nan_to_num(moment.sample_slowdown[:, :1], nan=1.0)
        fixed = believed_begin_s(table, moment) + table.tail_s * server_slow
        arrival = transfer + fixed[:, None, :]
        # What is not round trip or queue is time on the uplink.
        _, delay, _ = link_pairs(moment, 1)
        upload = np.maximum(transfer - delay[:, :, None], 0.0)
        valid = np.ones(arrival.shape[:2], bool)
        return Readings(valid, upload, arrival, arrival <= give_up_s(table, moment)[:, None, :])
