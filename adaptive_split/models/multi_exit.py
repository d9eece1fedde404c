"""The multi-exit network behind the `garments` bundle, with a bottleneck at every inner split."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

INPUT_MEAN = (0.485, 0.456, 0.406)
INPUT_STD = (0.229, 0.224, 0.225)


class ConvBlock(nn.Sequential):
    """Convolution, batch norm and, unless told otherwise, a ReLU."""

    def __init__(
        self, in_channels: int, out_channels: int, size: int, stride: int = 1, *, act: bool = True
    ) -> None:
        layers: list[nn.Module] = [
            nn.Conv2d(in_channels, out_channels, size, stride, size // 2, bias=False),
            nn.BatchNorm2d(out_channels),
        ]
        super().__init__(*layers, *([nn.ReLU()] if act else []))
        self.out_channels = out_channels


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut and channel attention (squeeze-and-excitation)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.first = ConvBlock(in_channels, out_channels, 3, stride)
        self.second = ConvBlock(out_channels, out_channels, 3, act=False)
        self.attention = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(out_channels, out_channels // 8, 1),
            nn.ReLU(),
            nn.Conv2d(out_channels // 8, out_channels, 1),
            nn.Sigmoid(),
        )
        same = stride == 1 and in_channels == out_channels
        self.shortcut: nn.Module = (
            nn.Identity() if same else ConvBlock(in_channels, out_channels, 1, stride, act=False)
        )

    def forward(self, feature: Tensor) -> Tensor:
        """Map `(N, C_in, H, W)` to `(N, C_out, H / stride, W / stride)`."""
        update = self.second(self.first(feature))
        return torch.relu(self.shortcut(feature) + update * self.attention(update))


class Encoder(nn.Module):
    """The device's half of a bottleneck: a feature becomes a few channels in `[0, 1]`."""

    def __init__(self, in_channels: int, code_channels: int, stride: int) -> None:
        super().__init__()
        self.narrow = nn.Sequential(
            ConvBlock(in_channels, 64, 3, stride),
            nn.Conv2d(64, code_channels, 1, bias=False),
            nn.BatchNorm2d(code_channels),
        )

    def forward(self, feature: Tensor) -> Tensor:
        """Map `(N, C, H, W)` to `(N, code_channels, H / stride, W / stride)` in `[0, 1]`.

        Batch norm gives each channel unit spread, so the clip keeps two standard deviations.
        """
        return torch.clamp(0.5 + 0.25 * self.narrow(feature), 0.0, 1.0)


class Decoder(nn.Module):
    """The server's half of a bottleneck: dequantized codes become the feature again."""

    def __init__(self, code_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.widen = nn.Sequential(
            ConvBlock(code_channels, 96, 3),
            ResidualBlock(96, 96),
            nn.Conv2d(96, out_channels * stride * stride, 1),
            nn.PixelShuffle(stride),
            ConvBlock(out_channels, out_channels, 3, act=False),
        )

    def forward(self, codes: Tensor) -> Tensor:
        """Map codes in `[0, 1]` to a feature `(N, out_channels, H * stride, W * stride)`."""
        return torch.relu(self.widen(codes))


def quantize_straight_through(codes: Tensor, bits: Tensor) -> Tensor:
    """Round `codes` in `[0, 1]` to `2**bits - 1` equal steps; the gradient passes unchanged.

    Args:
        codes: Encoder output, shape `(N, C, H, W)`.
        bits: Width per sample, shape `(N,)`, each in 1..8.
    """
    levels = (2.0 ** bits.to(codes.dtype) - 1.0).view(-1, 1, 1, 1)
    return codes + (torch.round(codes * levels) / levels - codes).detach()


@dataclass(frozen=True, kw_only=True, slots=True)
class BottleneckShape:
    """How narrow a bottleneck is: channels sent and the spatial stride of its encoder."""

    code_channels: int
    stride: int


BOTTLENECKS = (
    BottleneckShape(code_channels=24, stride=2),
    BottleneckShape(code_channels=16, stride=2),
    BottleneckShape(code_channels=8, stride=1),
    BottleneckShape(code_channels=16, stride=2),
)
"""Bottlenecks of split points 1..4."""


class GarmentsNet(nn.Module):
    """Five stages for 224x224 pictures, an exit after each and bottlenecks between them.

    The stages cost about 9, 15, 30, 17 and 29 % of the 342 million multiply-adds; features are
    `(48, 28, 28)`, `(64, 28, 28)`, `(128, 14, 14)`, `(128, 14, 14)` and `(256, 7, 7)`.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(INPUT_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(INPUT_STD).view(1, 3, 1, 1))
        self.stages = nn.ModuleList(
            [
                nn.Sequential(
                    ConvBlock(3, 16, 3, 2), ConvBlock(16, 32, 3, 2), ConvBlock(32, 48, 3, 2)
                ),
                ResidualBlock(48, 64),
                nn.Sequential(ResidualBlock(64, 128, 2), ResidualBlock(128, 128)),
                ResidualBlock(128, 128),
                nn.Sequential(ResidualBlock(128, 256, 2), ResidualBlock(256, 256)),
            ]
        )
        widths = (48, 64, 128, 128, 256)
        neck = (ConvBlock(48, 96, 3, 2), ConvBlock(64, 128, 3, 2), ConvBlock(128, 192, 3, 2),
                ConvBlock(128, 192, 3, 2), ConvBlock(256, 384, 1))  # fmt: skip
        self.exits = nn.ModuleList(
            nn.Sequential(
                layer,
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),
                nn.Dropout(0.2),
                nn.Linear(layer.out_channels, num_classes),
            )
            for layer in neck
        )
        self.encoders = nn.ModuleList(
            Encoder(width, shape.code_channels, shape.stride)
            for width, shape in zip(widths, BOTTLENECKS, strict=False)
        )
        self.decoders = nn.ModuleList(
            Decoder(shape.code_channels, width, shape.stride)
            for width, shape in zip(widths, BOTTLENECKS, strict=False)
        )

    def normalize(self, pictures: Tensor) -> Tensor:
        """Center pictures `(N, 3, H, W)` with values in `[0, 1]` on the input statistics."""
        return (pictures - self.mean) / self.std

    def forward(
        self, pictures: Tensor, split_points: Tensor, bits: Tensor
    ) -> tuple[list[Tensor], Tensor]:
        """Run all stages; each sample passes the bottleneck of its own split point, if inner.

        Args:
            pictures: Shape `(N, 3, H, W)`, in `[0, 1]`.
            split_points: Shape `(N,)`; 0 or the number of stages means no bottleneck.
            bits: Quantizer width per sample, shape `(N,)`, each in 1..8.

        Returns:
            `(logits of every exit, mean relative error of the decoded features)`.
        """
        feature = self.normalize(pictures)
        logits, errors = [], []
        for index, (stage, exit_) in enumerate(zip(self.stages, self.exits, strict=True), start=1):
            feature = stage(feature)
            logits.append(exit_(feature))
            rows = torch.nonzero(split_points == index).flatten()
            if index <= len(self.encoders) and len(rows) > 1:
                sent = feature[rows]
                codes = quantize_straight_through(self.encoders[index - 1](sent), bits[rows])
                decoded = self.decoders[index - 1](codes)
                target = sent.detach()
                errors.append((decoded - target).square().mean() / (target.var() + 1e-6))
                feature = feature.index_copy(0, rows, decoded)
        error = torch.stack(errors).mean() if errors else feature.new_zeros(())
        return logits, error
