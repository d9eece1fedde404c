"""The networks of the candidate-scoring SAC, in torch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from adaptive_split.observation import CONTEXT, PAYLOAD_COLUMNS
from adaptive_split.runtime.controller import ForecastWeights

WIDTH = 64


class Forecast(nn.Module):
    """Log odds that each payload is on time: the planner's, plus a learned residual.

    The last layer starts at zero, so that the untrained network is the planner. The twin in numpy
    is `runtime.controller.forecast`.
    """

    context_mean: Tensor
    context_scale: Tensor
    payload_mean: Tensor
    payload_scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        context, columns = len(CONTEXT), len(PAYLOAD_COLUMNS)
        self.context_layers = nn.ModuleList([nn.Linear(context, WIDTH), nn.Linear(WIDTH, WIDTH)])
        self.payload_layers = nn.ModuleList(
            [nn.Linear(WIDTH + columns, WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 1)]
        )
        nn.init.zeros_(self.payload_layers[2].weight)
        nn.init.zeros_(self.payload_layers[2].bias)
        self.register_buffer("context_mean", torch.zeros(context))
        self.register_buffer("context_scale", torch.ones(context))
        self.register_buffer("payload_mean", torch.zeros(columns))
        self.register_buffer("payload_scale", torch.ones(columns))

    def normalize_on(self, context: Tensor, payloads: Tensor) -> None:
        """Fix means and scales on a sample of `(B, C)` contexts and `(B, P, F)` payload rows."""
        rows = payloads.reshape(-1, payloads.shape[-1])
        for values, mean, scale in (
            (context, self.context_mean, self.context_scale),
            (rows, self.payload_mean, self.payload_scale),
        ):
            mean.copy_(values.mean(0))
            spread = values.std(0)
            scale.copy_(torch.where(spread > 1e-3, spread, torch.ones_like(spread)))

    def forward(self, context: Tensor, payloads: Tensor) -> Tensor:
        """Map `(B, C)` and `(B, P, F)` to log odds `(B, P)`."""
        hidden = (context - self.context_mean) / self.context_scale
        for layer in self.context_layers:
            hidden = torch.relu(layer(hidden))
        rows = (payloads - self.payload_mean) / self.payload_scale
        wide = hidden[:, None, :].expand(-1, rows.shape[1], -1)
        deep = torch.cat([wide, rows], -1)
        for layer in self.payload_layers[:-1]:
            deep = torch.relu(layer(deep))
        residual: Tensor = self.payload_layers[-1](deep)[..., 0]
        return payloads[..., 0] + residual

    def export(self) -> ForecastWeights:
        """Copy the weights for the numpy twin."""
        layers = []
        for layer in (*self.context_layers, *self.payload_layers):
            layers.append(layer.weight.detach().numpy().T.copy())
            layers.append(layer.bias.detach().numpy().copy())
        return ForecastWeights(
            context_mean=self.context_mean.numpy().copy(),
            context_scale=self.context_scale.numpy().copy(),
            payload_mean=self.payload_mean.numpy().copy(),
            payload_scale=self.payload_scale.numpy().copy(),
            layers=tuple(layers),
        )


class Residual(nn.Module):
    """What the planner's formula leaves out of a candidate's value, learned from taken actions.

    Sees the context and each candidate's `(base, gain, chance)`; starts at zero.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(len(CONTEXT) + 3, WIDTH)
        self.last = nn.Linear(WIDTH, 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, context: Tensor, base: Tensor, gain: Tensor, chance: Tensor) -> Tensor:
        """Map context `(B, C)` and candidate columns `(B, N)` to residuals `(B, N)`."""
        columns = torch.stack([base.clamp(-2, 2), gain, chance], -1)
        wide = context[:, None, :].expand(-1, columns.shape[1], -1)
        hidden = torch.relu(self.first(torch.cat([wide, columns], -1)))
        value: Tensor = self.last(hidden)[..., 0]
        return value
