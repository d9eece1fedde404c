"""What is attached to a model at a cut: an exit, and a bottleneck in two halves."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from adaptive_split.models.layout import Layout
from adaptive_split.models.multi_exit import BottleneckShape, ConvBlock, Decoder, Encoder

LEAST_GRID = 8
"""A grid of this side or more is halved by exits and encoders."""
FEWEST_CODES, MOST_CODES, NARROWING = 4, 32, 8
"""Channels sent: those of the feature over `NARROWING`, within these bounds. With halved sides that
is 32 times fewer elements: at 4 bits, 256 times fewer bits than the float32 feature."""


def bottleneck_shape(layout: Layout) -> BottleneckShape:
    """Choose how narrow the bottleneck of a feature is."""
    channels = layout.channels
    least = min(channels, FEWEST_CODES)
    return BottleneckShape(
        code_channels=max(least, min(channels // NARROWING, MOST_CODES)),
        stride=_stride(layout),
        encoder_channels=max(16, min(channels, 64)),
        decoder_channels=max(16, min(channels, 96)),
    )


class AttachedExit(nn.Module):
    """A small classifier: one convolution over the grid, mean over positions, linear layer."""

    def __init__(self, layout: Layout, num_classes: int) -> None:
        super().__init__()
        self.layout = layout
        width = max(32, min(layout.channels, 256))
        self.look = ConvBlock(layout.channels, width, 3, _stride(layout))
        pooled = width + layout.channels * layout.num_prefix
        self.answer = nn.Sequential(nn.BatchNorm1d(pooled), nn.Linear(pooled, num_classes))

    def forward(self, feature: Tensor) -> Tensor:
        """Map feature maps `(N, C, H, W)` to logits `(N, classes)`."""
        patches, prefix = self.layout.split(feature)
        pooled = self.look(patches).mean((2, 3))
        if self.layout.num_prefix:
            pooled = torch.cat([pooled, prefix.flatten(1)], 1)
        return cast("Tensor", self.answer(pooled))


class AttachedEncoder(nn.Module):
    """The device's half of a bottleneck; a prefix token becomes one more row of codes."""

    def __init__(self, layout: Layout, shape: BottleneckShape) -> None:
        super().__init__()
        self.layout = layout
        self.patches = Encoder(layout.channels, shape)
        self.row = (shape.code_channels, _halved(layout.grid[1], shape.stride))
        if layout.num_prefix:
            width = self.row[0] * self.row[1]
            self.prefix = nn.Sequential(
                nn.Conv1d(layout.channels, width, 1, bias=False), nn.BatchNorm1d(width)
            )

    def forward(self, feature: Tensor) -> Tensor:
        """Map feature maps `(N, C, H, W)` to codes `(N, C', H', W')` in [0, 1]."""
        patches, prefix = self.layout.split(feature)
        codes = cast("Tensor", self.patches(patches))
        if not self.layout.num_prefix:
            return codes
        rows = torch.clamp(0.5 + 0.25 * self.prefix(prefix), 0.0, 1.0)
        rows = rows.reshape(-1, *self.row, self.layout.num_prefix).movedim(3, 2)
        return torch.cat([rows, codes], 2)


class AttachedDecoder(nn.Module):
    """The server's half of a bottleneck: codes become the feature again, in its own scale."""

    center: Tensor
    spread: Tensor
    floor: Tensor

    def __init__(self, layout: Layout, shape: BottleneckShape) -> None:
        super().__init__()
        self.layout = layout
        self.widen = Decoder(shape, layout.channels).widen
        if layout.num_prefix:
            width = shape.code_channels * _halved(layout.grid[1], shape.stride)
            self.prefix = nn.Conv1d(width, layout.channels, 1)
        self.register_buffer("center", torch.zeros(1, layout.channels, 1, 1))
        self.register_buffer("spread", torch.ones(1, layout.channels, 1, 1))
        self.register_buffer("floor", torch.tensor(-torch.inf))

    @torch.no_grad()
    def calibrate(self, feature: Tensor) -> None:
        """Take mean, spread and least value of features `(N, C, H, W)`, so that training need not.

        The least value is 0 behind a ReLU, -0.28 behind a SiLU, and never undercut.
        """
        self.center.copy_(feature.mean((0, 2, 3), keepdim=True))
        self.spread.copy_(feature.std((0, 2, 3), keepdim=True).clamp(min=1e-4))
        self.floor.copy_(feature.min())

    def forward(self, codes: Tensor) -> Tensor:
        """Map codes in [0, 1] to feature maps `(N, C, H, W)`."""
        count, (height, width) = self.layout.num_prefix, self.layout.grid
        patches = self.widen(codes[:, :, count:])[:, :, :height, :width]
        prefix = patches.flatten(2)[:, :, :0]
        if count:
            prefix = self.prefix(codes[:, :, :count].movedim(2, 3).flatten(1, 2))
        joined = self.layout.join(patches, prefix)
        return torch.maximum(joined * self.spread + self.center, self.floor)


def _stride(layout: Layout) -> int:
    return 2 if min(layout.grid) >= LEAST_GRID else 1


def _halved(side: int, stride: int) -> int:
    """What a convolution of size 3, padded by 1, leaves of a side."""
    return (side - 1) // stride + 1
