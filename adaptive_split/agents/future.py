"""The future part of a choice's value: a residual fitted to what rollouts brought."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from adaptive_split.agents.networks import Residual, layer_arrays
from adaptive_split.agents.rollouts import Rollouts, joined, roll_out
from adaptive_split.runtime.controller import ForecastController, ForecastWeights
from adaptive_split.runtime.simulated.streams import StreamSource

PER_FAMILY = 32
"""Streams of each link family that are played at a time."""
NUM_ROUNDS = 2
"""Of streams in a pass."""
NUM_PASSES = 3
"""The controller of a pass goes by what the passes before it have taught."""
NUM_EPOCHS = 9
BATCH_SIZE = 256
LEARNING_RATE = 1e-3
"""Falls linearly to a twentieth."""
WEIGHT_DECAY = 1e-4
LARGEST = 3.0
"""Differences of returns are clipped to this many frames' utility: the rest is luck."""


def learn_future(
    controller: ForecastController, source: StreamSource, seed: int
) -> ForecastWeights:
    """Roll out on training streams and fit the residual to what the controller did not foresee.

    Who goes by a learned future meets other moments, and other frames follow, than who does not: so
    the controller with what it has learned is rolled out again (approximate policy iteration,
    Bertsekas and Tsitsiklis, Neuro-Dynamic Programming, 1996), and the residual is fitted to the
    moments of all passes.

    Args:
        controller: Without a residual; its prices stay.
        source: Of training streams, with the pictures that the controller decides with.
        seed: Picks streams, alternatives and first weights.

    Returns:
        The controller's networks with the residual.
    """
    generator = np.random.default_rng(seed)
    weights = controller.weights
    found: list[Rollouts] = []
    for _ in range(NUM_PASSES):
        taught = ForecastController(controller.table, weights, controller.prices)
        found += [
            roll_out(taught, source.draw_evenly(PER_FAMILY, int(draw)), generator)
            for draw in generator.integers(2**31, size=NUM_ROUNDS)
        ]
        weights = fit(controller.weights, joined(found), seed)
    return weights


def fit(weights: ForecastWeights, rollouts: Rollouts, seed: int) -> ForecastWeights:
    """Fit the residual by Huber's loss on differences to the controller's own choice.

    What all choices of a moment share, as how good the link will be, falls out of a difference.
    """
    torch.manual_seed(seed)
    inputs = _inputs(weights, rollouts)
    gained = torch.tensor(rollouts.returns[:, 1:] - rollouts.returns[:, :1])
    foreseen = torch.tensor(rollouts.values[:, 1:] - rollouts.values[:, :1])
    target = gained.clamp(-LARGEST, LARGEST) - foreseen
    residual = Residual()
    optimizer = torch.optim.Adam(residual.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    falling = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, NUM_EPOCHS)
    for _ in range(NUM_EPOCHS):
        for rows in torch.split(torch.randperm(len(target)), BATCH_SIZE):
            values = residual(*(part[rows] for part in inputs))
            loss = functional.huber_loss(values[:, 1:] - values[:, :1], target[rows], delta=0.5)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        falling.step()
    return replace(weights, residual=layer_arrays(*residual.layers))


def _inputs(weights: ForecastWeights, rollouts: Rollouts) -> Sequence[Tensor]:
    """What `Residual.forward` takes."""
    known = rollouts.context[:, : weights.context_mean.size]
    rows = (rollouts.payloads - weights.payload_mean) / weights.payload_scale
    arrays: tuple[NDArray[np.float32], ...] = (
        (known - weights.context_mean) / weights.context_scale,
        rows * rollouts.sends[..., None],
        rollouts.candidates,
        rollouts.chance,
    )
    return [torch.tensor(array, dtype=torch.float32) for array in arrays]
