"""Trains the network of the learned transfer-time planner on simulated training streams."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from adaptive_split.agents.evaluate import steps_of
from adaptive_split.agents.learned_link import (
    BIN_EDGES_S,
    NUM_BINS,
    NUM_CONTEXT,
    TransferNetwork,
    believed_begin_s,
    transfer_context,
)
from adaptive_split.candidates import CandidateTable, Floats
from adaptive_split.planner import Moment
from adaptive_split.runtime.controller import Choice, DistributionPlanner, PlannerSettings
from adaptive_split.runtime.simulated.simulator import Simulator
from adaptive_split.runtime.simulated.streams import Stream

WIDTH = 64
BATCH = 1024
STEPS = 800
LEARNING_RATE = 2e-3


def true_transfer_s(simulator: Simulator, moment: Moment) -> Floats:
    """Time from when each payload is believed to begin to its reply, less the tail, `(L, P)`.

    Link and server do not depend on the decision, so every payload has a true answer.
    """
    table, links = simulator.table, simulator.links
    count = len(table.mean_bytes)
    lane = np.repeat(simulator.lane, count)
    now = simulator.start_s[:, None]
    ready = now + table.ready_s * moment.device_slowdown[:, None]
    begin = np.maximum(ready, simulator.uplink_free_s[:, None]).ravel()
    sent = links.sent_at(lane, begin, np.tile(table.mean_bytes * 8, simulator.lanes))
    rtt = links.rtt_at(lane, sent)
    arrived = sent + rtt + links.wait_at(lane, sent + rtt / 2)
    believed = now + believed_begin_s(table, moment)
    return np.asarray(arrived.reshape(-1, count) - believed)


class _Watched:
    """The distribution planner, which notes what it saw and what was true."""

    name = "watched"
    probes = True

    def __init__(self, table: CandidateTable) -> None:
        self._planner = DistributionPlanner(table, PlannerSettings())
        self._simulator: Simulator | None = None
        self.contexts: list[Floats] = []
        self.transfers: list[Floats] = []

    def bind(self, simulator: Simulator) -> None:
        self._simulator = simulator

    def choose(self, moment: Moment) -> Choice:
        assert self._simulator is not None
        playing = ~self._simulator.done
        self.contexts.append(transfer_context(moment)[playing])
        self.transfers.append(true_transfer_s(self._simulator, moment)[playing])
        return self._planner.choose(moment)


def collect(table: CandidateTable, streams: Sequence[Stream]) -> tuple[Floats, Floats]:
    """Play the distribution planner and note every frame.

    Returns:
        `(contexts (M, NUM_CONTEXT), transfer times of all payloads in s (M, P))`.
    """
    simulator, watched = Simulator(table, streams), _Watched(table)
    watched.bind(simulator)
    for _ in steps_of(watched, simulator):
        pass
    return np.concatenate(watched.contexts), np.concatenate(watched.transfers)


def train_transfer(
    table: CandidateTable, streams: Sequence[Stream], seed: int = 0, num_steps: int = STEPS
) -> TransferNetwork:
    """Fit the distribution of transfer times by cross-entropy over its bins.

    Args:
        table: Payloads and their sizes.
        streams: Training streams; each is played once.
        seed: Of weights and batches.
        num_steps: Steps of the optimizer.
    """
    contexts, transfers = collect(table, streams)
    target = np.clip(np.searchsorted(BIN_EDGES_S, transfers) - 1, 0, NUM_BINS - 1)
    sizes = np.log(table.mean_bytes)
    mean = np.append(contexts.mean(0), sizes.mean()).astype(np.float32)
    scale = (np.append(contexts.std(0), sizes.std()) + 1e-3).astype(np.float32)
    inputs = ((contexts - mean[:-1]) / scale[:-1]).astype(np.float32)
    scaled_sizes = ((sizes - mean[-1]) / scale[-1]).astype(np.float32)
    layers = _fit(inputs, scaled_sizes, target, seed, num_steps)
    return TransferNetwork(mean, scale, layers)


def _fit(
    contexts: NDArray[np.float32],
    sizes: NDArray[np.float32],
    target: NDArray[np.int64],
    seed: int,
    num_steps: int,
) -> tuple[NDArray[np.float32], ...]:
    """Train on random (frame, payload) pairs; weights as `(in, out)`."""
    generator = np.random.default_rng(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = nn.Sequential(
            nn.Linear(NUM_CONTEXT + 1, WIDTH), nn.ReLU(),
            nn.Linear(WIDTH, WIDTH), nn.ReLU(),
            nn.Linear(WIDTH, NUM_BINS),
        )  # fmt: skip
    optimizer = torch.optim.Adam(net.parameters(), LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_steps)
    for _ in range(num_steps):
        frame = generator.integers(0, len(contexts), BATCH)
        payload = generator.integers(0, len(sizes), BATCH)
        rows = np.concatenate([contexts[frame], sizes[payload, None]], 1)
        wanted = torch.from_numpy(target[frame, payload])
        loss = nn.functional.cross_entropy(net(torch.from_numpy(rows)), wanted)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return tuple(parameter.detach().numpy().T.copy() for parameter in net.parameters())
