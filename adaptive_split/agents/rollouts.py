"""What a choice does to the frames after it: alternatives played out under the same conditions.

A simulator is stopped, the frame is decided in several ways, and the same controller goes on from
each, over the same link, server and pictures (a rollout, Tesauro and Galperin, NIPS 1996). The
return of each is the utility of all frames *captured* within the horizon: a frame that is dropped
because an earlier choice kept device or uplink is missed, which a count of decisions would hide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import count

import numpy as np
from numpy.typing import NDArray

from adaptive_split.candidates import Floats
from adaptive_split.observation import observe
from adaptive_split.planner import BacklogPrices
from adaptive_split.runtime.controller import ForecastController, forecast, value_residual
from adaptive_split.runtime.simulated.simulator import Simulator
from adaptive_split.runtime.simulated.streams import Stream

HORIZON_S = 0.7
"""Longer ones add more of other frames' luck than of this frame's doing."""
EVERY = 8
"""Decisions between two moments that are played out."""
AMONG = 10
"""An alternative is one of so many candidates that the controller values most."""
NUM_ALTERNATIVES = 3
UNPRICED = BacklogPrices(device=0.0, uplink=0.0)

Floats32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Rollouts:
    """M moments, each decided in K ways; the first is the controller's own choice."""

    context: Floats32
    """Shape `(M, C)`, as `observation.CONTEXT`."""
    payloads: Floats32
    """Row of each choice's payload, zeros where it is local, shape `(M, K, F)`."""
    candidates: Floats32
    """Shape `(M, K, G)`, as `observation.CANDIDATE_COLUMNS`."""
    sends: NDArray[np.bool_]
    """Whether a choice may send at all, shape `(M, K)`."""
    chance: Floats32
    """Forecast chance of its payload, 0 where it is local, shape `(M, K)`."""
    values: Floats32
    """What the controller thinks of it but for a learned future, shape `(M, K)`."""
    returns: Floats32
    """Expected utility of the frames captured within the horizon, its own included, `(M, K)`."""


def roll_out(
    controller: ForecastController, streams: Sequence[Stream], generator: np.random.Generator
) -> Rollouts:
    """Play streams with a controller and try alternatives now and then.

    Args:
        controller: Decides all other frames.
        streams: All are played at once; their pictures are those of the controller's table.
        generator: Draws the alternatives.
    """
    simulator = Simulator(controller.table, streams)
    frames = max(round(HORIZON_S * controller.table.objective.fps), 1)
    horizon = min(frames, simulator.num_frames - 1)
    found: list[Rollouts] = []
    for index in count():
        if simulator.done.any() or simulator.frame_index.max() + horizon >= simulator.num_frames:
            break
        if index % EVERY == 0:
            found.append(_alternatives(controller, simulator, horizon, generator))
        simulator.step(controller.choose(simulator.moment()))
    return joined(found)


def joined(parts: Sequence[Rollouts]) -> Rollouts:
    """All moments of several."""
    columns = [[getattr(part, field.name) for part in parts] for field in fields(Rollouts)]
    return Rollouts(*(np.concatenate(column) for column in columns))


def _alternatives(
    controller: ForecastController,
    simulator: Simulator,
    horizon: int,
    generator: np.random.Generator,
) -> Rollouts:
    table, lane = controller.table, np.arange(simulator.lanes)[:, None]
    view = observe(table, simulator.moment(), controller.prices)
    values = controller.values(view)
    among = min(AMONG, len(table.grid))
    ranked = np.argsort(-values, 1)[:, :among]
    others = generator.integers(1, among, (simulator.lanes, NUM_ALTERNATIVES))
    chosen = ranked[lane, np.hstack([np.zeros_like(lane), others])]
    index, weights = table.grid.payload_index, controller.weights
    payload, sends = np.maximum(index, 0)[chosen], ~table.grid.local[chosen]
    on_time = forecast(weights, view.context, view.payloads)
    learned = value_residual(weights, view.context, view.payloads, view.candidates, on_time, index)
    chance = on_time[lane, payload]
    tried = simulator.copy(1 + NUM_ALTERNATIVES)
    returns = _return(controller, tried, chosen.T.ravel(), horizon).reshape(chosen.T.shape).T
    return Rollouts(
        context=view.context.astype(np.float32),
        payloads=(view.payloads[lane, payload] * sends[..., None]).astype(np.float32),
        candidates=view.candidates[lane, chosen].astype(np.float32),
        sends=sends,
        chance=(chance * sends).astype(np.float32),
        values=(values - learned)[lane, chosen].astype(np.float32),
        returns=returns.astype(np.float32),
    )


def _return(
    controller: ForecastController,
    simulator: Simulator,
    first: NDArray[np.int64],
    horizon: int,
) -> Floats:
    """Expected utility of the frames captured within the horizon, `(L,)`."""
    lane, end = np.arange(simulator.lanes), simulator.frame_index + horizon
    total, choice = np.zeros(simulator.lanes), first
    while True:
        counts = ~simulator.done & (simulator.frame_index < end)
        if not counts.any():
            return total
        values = simulator.true_utility(simulator.moment(), UNPRICED)
        total += counts * values[lane, choice]
        simulator.step(choice)
        choice = controller.choose(simulator.moment())
