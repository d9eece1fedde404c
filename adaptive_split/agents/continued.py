"""The SAC from deployed weights on: half of what it learns from is simulated, half is recorded.

Only the forecast learns, from what recorded frames reveal about every payload. The residual stays
as deployed: a greedy log shows the value of the decisions taken and of no other, and a residual
fitted to those alone lost 0.02 of utility.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.callbacks import BaseCallback
from torch import Tensor, nn

from adaptive_split.agents.networks import Forecast, Residual, export_weights
from adaptive_split.agents.sac import CandidateSAC, CounterfactualBuffer
from adaptive_split.agents.sb3_env import TraceVecEnv
from adaptive_split.agents.task import scaled
from adaptive_split.agents.variation import Variation
from adaptive_split.envs.vector_env import TraceVectorEnv
from adaptive_split.errors import BundleError
from adaptive_split.observation import CONTEXT
from adaptive_split.planner import BacklogPrices
from adaptive_split.runtime.controller import ForecastWeights
from adaptive_split.runtime.controller_bundle import ControllerBundle
from adaptive_split.scenario import Scenario
from adaptive_split.trace import Trace

Floats32 = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class ContinuedConfig:
    """One continuation."""

    seed: int = 0
    num_frames: int = 48_000
    """Simulated along with the logs."""
    num_envs: int = 16
    """Lanes; each step of all of them is followed by a gradient step: 3,000 in all."""
    learning_rate: float = 3e-4
    """Falls linearly to a twentieth."""
    batch_size: int = 256


def load_weights(forecast: Forecast, residual: Residual, weights: ForecastWeights) -> None:
    """Put exported weights back into networks; the inverse of `networks.export_weights`.

    Context columns that the weights do not know yet get the weight 0.

    Raises:
        BundleError: If a layer has another size than this version's.
    """
    known = weights.context_mean.size
    missing = len(CONTEXT) - known
    context = {
        "context_mean": np.append(weights.context_mean, np.zeros(missing)),
        "context_scale": np.append(weights.context_scale, np.ones(missing)),
    }
    for name in ("context_mean", "context_scale", "payload_mean", "payload_scale"):
        _copy(getattr(forecast, name), context.get(name, getattr(weights, name)))
    layers = (*forecast.context_layers, *forecast.payload_layers)
    for modules, arrays in ((layers, weights.forecast), (residual.layers, weights.residual)):
        rows = np.zeros((missing, arrays[0].shape[1]), np.float32)
        first = np.concatenate([arrays[0][:known], rows, arrays[0][known:]])
        for index, layer in enumerate(modules):
            assert isinstance(layer, nn.Linear)
            _copy(layer.weight, (first if index == 0 else arrays[2 * index]).T)
            _copy(layer.bias, arrays[2 * index + 1])


def networks_of(bundle: ControllerBundle) -> ForecastWeights:
    """The networks of a controller as they were learned: trusted in full, in this version's shape.

    Raises:
        BundleError: If a layer has another size than this version's, or the trust that they were
            scaled by is none.
    """
    trust = bundle.provenance.get("trust", 1.0)
    if not isinstance(trust, (int, float)) or not trust > 0:
        raise BundleError(
            f"the controller's provenance must hold a positive trust; got {trust!r}; train it again"
        )
    forecast, residual = Forecast(bundle.weights.forecast[0].shape[1]), Residual()
    load_weights(forecast, residual, scaled(bundle.weights, 1 / trust))
    return export_weights(forecast, residual)


def _copy(target: Tensor, values: NDArray[np.floating]) -> None:
    if tuple(target.shape) != values.shape:
        raise BundleError(
            f"a layer of the controller must have the shape {tuple(target.shape)}; "
            f"got {values.shape}; train it again with 'adaptive-split train'"
        )
    with torch.no_grad():
        target.copy_(torch.as_tensor(np.ascontiguousarray(values)))


class MixedBuffer(CounterfactualBuffer):
    """Half of every draw is simulated, half is recorded."""

    def __init__(
        self, *args: Any, recorded: Floats32, labels: NDArray[np.int8], **kwargs: Any
    ) -> None:
        """Take recorded observations `(T, D)` and labels `(T, P)`, at least one known in a row."""
        super().__init__(*args, **kwargs)
        self._recorded = {"observation": torch.tensor(recorded), "on_time": torch.tensor(labels)}

    def draw(self, count: int) -> dict[str, Tensor]:
        """Sample `count` transitions; of the recorded ones only what the forecast learns from."""
        simulated = super().draw(count - count // 2)
        total = len(self._recorded["on_time"])
        rows = np.random.randint(0, total, count // 2)  # noqa: NPY002 - SB3 seeds this generator
        return {
            name: torch.cat([
                values,
                self._recorded[name][rows]
                if name in self._recorded
                else torch.zeros((len(rows), *values.shape[1:]), dtype=values.dtype),
            ])
            for name, values in simulated.items()
        }  # fmt: skip


class ContinuedSAC(CandidateSAC):
    """A `CandidateSAC` that starts from weights."""

    def start_from(
        self, weights: ForecastWeights, recorded: Floats32, labels: NDArray[np.int8]
    ) -> None:
        """Take over weights and normalization; mix recorded frames into the replay."""
        load_weights(self.policy.forecast, self.policy.residual, weights)
        self.policy.residual_used = any(np.any(layer) for layer in weights.residual[-2:])
        self._normalized = True
        self.replay_buffer = MixedBuffer(
            self.buffer_size, self.observation_space, self.action_space, self.device,
            n_envs=self.n_envs, num_payloads=labels.shape[1], recorded=recorded, labels=labels,
        )  # fmt: skip


class _Progress(BaseCallback):
    def __init__(self, tell: Callable[[int, int], None], total: int) -> None:
        super().__init__()
        self._tell, self._total = tell, total

    def _on_step(self) -> bool:
        self._tell(min(self.num_timesteps, self._total), self._total)
        return True


def continue_training(
    weights: ForecastWeights,
    scenario: Scenario,
    traces: Sequence[Trace],
    prices: BacklogPrices,
    recorded: Floats32,
    labels: NDArray[np.int8],
    config: ContinuedConfig,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> ForecastWeights:
    """Train the forecast further and return its last weights.

    Args:
        weights: The deployed ones.
        scenario: Where they are deployed.
        traces: Training traces for the simulated half, varied as in `train.learn`.
        prices: Backlog prices of the deployed controller.
        recorded: Recorded observations, shape `(T, D)`.
        labels: Which payloads were on time, shape `(T, P)`, at least one known in every row.
        config: Frames, lanes, seed.
        progress: Called with `(frames done, frames in all)`.
    """
    torch.manual_seed(config.seed)
    lanes = TraceVectorEnv(scenario, traces, config.num_envs, prices=prices, draw=Variation())
    env = TraceVecEnv(lanes)
    env.seed(config.seed)
    model = ContinuedSAC(
        env, layout=env.layout, width=len(weights.forecast[1]), batch_size=config.batch_size,
        seed=config.seed, learning_rate=lambda left: config.learning_rate * (0.05 + 0.95 * left),
    )  # fmt: skip
    model.start_from(weights, recorded, labels)
    callback = _Progress(progress, config.num_frames)
    model.learn(config.num_frames, callback=callback, log_interval=10**9)
    return model.policy.export()
