"""The networks of the candidate-scoring SAC, in torch."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from adaptive_split.observation import CANDIDATE_COLUMNS, CONTEXT, PAYLOAD_COLUMNS
from adaptive_split.runtime.controller import VALUE_CLIP, ForecastWeights

WIDTH = 64
"""Of the forecast's layers, unless asked otherwise."""
RESIDUAL_WIDTH = 64
NEVER_VARIED = 1e9
"""Scale of a column that was constant in training: what it means was never learnt, so that a charge
or a deadline that changes in the field must not move the networks."""


class Forecast(nn.Module):
    """Log odds that each payload is on time: the planner's, plus a learned residual.

    The last layer starts at zero, so that the untrained network is the planner. The twin in numpy
    is `runtime.controller.forecast`.
    """

    context_mean: Tensor
    context_scale: Tensor
    payload_mean: Tensor
    payload_scale: Tensor

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        context, columns = len(CONTEXT), len(PAYLOAD_COLUMNS)
        self.context_layers = nn.ModuleList([nn.Linear(context, width), nn.Linear(width, width)])
        wide = [nn.Linear(width + columns, width), nn.Linear(width, width)]
        self.payload_layers = nn.ModuleList([*wide, _zero_linear(width)])
        self.register_buffer("context_mean", torch.zeros(context))
        self.register_buffer("context_scale", torch.ones(context))
        self.register_buffer("payload_mean", torch.zeros(columns))
        self.register_buffer("payload_scale", torch.ones(columns))

    def normalize_on(self, context: Tensor, payloads: Tensor) -> None:
        """Fix means and scales on a sample of `(B, C)` contexts and `(B, P, F)` payload rows.

        Rows of zeros fill up the lists of scenarios with fewer payloads: they do not count.
        """
        rows = payloads.reshape(-1, payloads.shape[-1])
        rows = rows[rows.abs().sum(1) > 0]
        for values, mean, scale in (
            (context, self.context_mean, self.context_scale),
            (rows, self.payload_mean, self.payload_scale),
        ):
            mean.copy_(values.mean(0))
            spread = values.std(0)
            unknown = torch.full_like(spread, NEVER_VARIED)
            scale.copy_(torch.where(spread > 1e-3, spread, unknown))

    def normalize(self, context: Tensor, payloads: Tensor) -> tuple[Tensor, Tensor]:
        """Put inputs on the stored means and scales."""
        scaled = (context - self.context_mean) / self.context_scale
        return scaled, (payloads - self.payload_mean) / self.payload_scale

    def forward(self, context: Tensor, payloads: Tensor) -> Tensor:
        """Map `(B, C)` and `(B, P, F)` to log odds `(B, P)`."""
        hidden, rows = self.normalize(context, payloads)
        for layer in self.context_layers:
            hidden = torch.relu(layer(hidden))
        first, second, last = self.payload_layers
        assert isinstance(first, nn.Linear)
        # The context's part of the first layer is the same for every payload of a moment.
        of_context, of_rows = torch.split(first.weight, [hidden.shape[1], rows.shape[2]], 1)
        shared = functional.linear(hidden, of_context, first.bias)
        deep = torch.relu(functional.linear(rows, of_rows) + shared[:, None, :])
        residual: Tensor = last(torch.relu(second(deep)))[..., 0]
        return payloads[..., 0] + residual


def _zero_linear(size: int) -> nn.Linear:
    layer = nn.Linear(size, 1)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class Residual(nn.Module):
    """What the planner's formula leaves out of a candidate's value; starts at zero.

    The twin in numpy is `runtime.controller.value_residual`.
    """

    def __init__(self) -> None:
        super().__init__()
        size = len(CONTEXT) + len(PAYLOAD_COLUMNS) + len(CANDIDATE_COLUMNS) + 1
        wide = [nn.Linear(size, RESIDUAL_WIDTH), nn.Linear(RESIDUAL_WIDTH, 32)]
        self.layers = nn.ModuleList([*wide, _zero_linear(32)])

    def forward(
        self, context: Tensor, payloads: Tensor, candidates: Tensor, chance: Tensor
    ) -> Tensor:
        """Map K candidates of B moments to residuals `(B, K)`.

        Args:
            context: Normalized, shape `(B, C)`.
            payloads: Normalized row of each candidate's payload, zeros where it is local,
                shape `(B, K, F)`.
            candidates: Own row of each candidate, shape `(B, K, G)`.
            chance: Chance of its payload, 0 where it is local, shape `(B, K)`.
        """
        wide = context[:, None, :].expand(-1, candidates.shape[1], -1)
        own = candidates.clamp(-VALUE_CLIP, 10)
        hidden = torch.cat([wide, payloads, own, chance[..., None]], -1)
        for layer in self.layers[:-1]:
            hidden = torch.relu(layer(hidden))
        value: Tensor = self.layers[-1](hidden)[..., 0]
        return value


def export_weights(forecast: Forecast, residual: Residual) -> ForecastWeights:
    """Copy the weights for the numpy twins."""
    return ForecastWeights(
        context_mean=forecast.context_mean.numpy().copy(),
        context_scale=forecast.context_scale.numpy().copy(),
        payload_mean=forecast.payload_mean.numpy().copy(),
        payload_scale=forecast.payload_scale.numpy().copy(),
        forecast=layer_arrays(*forecast.context_layers, *forecast.payload_layers),
        residual=layer_arrays(*residual.layers),
    )


def layer_arrays(*layers: nn.Module) -> tuple[NDArray[np.float32], ...]:
    """Copy weights, as `(in, out)`, and biases of linear layers."""
    return tuple(
        values.detach().numpy().T.copy()
        for layer in layers
        for values in (layer.weight, layer.bias)
        if isinstance(values, Tensor)
    )
