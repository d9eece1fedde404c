"""The multi-exit networks behind the shipped bundles, with a bottleneck at every inner split."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from adaptive_split.errors import ConfigError

INPUT_MEAN = (0.485, 0.456, 0.406)
INPUT_STD = (0.229, 0.224, 0.225)
SHARPNESS = 2.0
"""Of soft histograms: a code at a level counts to it by 0.79, and to each neighbor by 0.11."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BottleneckShape:
    """How narrow a bottleneck is, and how wide its own layers are."""

    code_channels: int
    """Channels sent."""
    stride: int
    """Spatial stride of the encoder."""
    encoder_channels: int = 64
    decoder_channels: int = 96


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkShape:
    """Everything about a multi-exit network of S stages except its number of classes."""

    name: str
    """Also the name of its bundle."""
    stem: tuple[int, ...]
    """Channels after every convolution of stage 1, each of stride 2."""
    stages: tuple[tuple[tuple[int, int], ...], ...]
    """`(channels, stride)` of the residual blocks of stages 2..S."""
    exits: tuple[tuple[int, int, int], ...]
    """`(channels, size, stride)` of the convolution in exits 1..S."""
    bottlenecks: tuple[BottleneckShape, ...]
    """Bottlenecks of split points 1..S-1."""

    def __post_init__(self) -> None:
        """Refuse counts that do not agree."""
        counts = (len(self.stages) + 1, len(self.exits), len(self.bottlenecks) + 1)
        if len(set(counts)) != 1:
            raise ConfigError(
                f"network {self.name} must have as many exits as stages and one bottleneck less; "
                f"got {counts[0]} stages, {counts[1]} exits, {len(self.bottlenecks)} bottlenecks"
            )

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of the feature after every stage."""
        return (self.stem[-1], *(blocks[-1][0] for blocks in self.stages))


GARMENTS = NetworkShape(
    name="garments",
    stem=(16, 32, 48),
    stages=(((64, 1),), ((128, 2), (128, 1)), ((128, 1),), ((256, 2), (256, 1))),
    exits=((96, 3, 2), (128, 3, 2), (192, 3, 2), (192, 3, 2), (384, 1, 1)),
    bottlenecks=(
        BottleneckShape(code_channels=24, stride=2),
        BottleneckShape(code_channels=16, stride=2),
        BottleneckShape(code_channels=8, stride=1),
        BottleneckShape(code_channels=16, stride=2),
    ),
)
"""342 million multiply-adds in five stages: about 9, 15, 30, 17 and 29 %. Features are
`(48, 28, 28)`, `(64, 28, 28)`, `(128, 14, 14)`, `(128, 14, 14)` and `(256, 7, 7)`."""

GARMENTS_LIGHT = NetworkShape(
    name="garments-light",
    stem=(8, 16, 32),
    stages=(((64, 2),), ((80, 1),), ((112, 2), (96, 1))),
    exits=((32, 3, 2), (48, 3, 2), (64, 3, 2), (160, 1, 1)),
    bottlenecks=(
        BottleneckShape(code_channels=12, stride=2, encoder_channels=32, decoder_channels=48),
        BottleneckShape(code_channels=8, stride=1, encoder_channels=32, decoder_channels=64),
        BottleneckShape(code_channels=12, stride=2, encoder_channels=48, decoder_channels=64),
    ),
)
"""62 million multiply-adds in four stages: about 16, 18, 35 and 31 %. Features are
`(32, 28, 28)`, `(64, 14, 14)`, `(80, 14, 14)` and `(96, 7, 7)`."""

NETWORKS = {shape.name: shape for shape in (GARMENTS, GARMENTS_LIGHT)}


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


class ChannelAttention(nn.Sequential):
    """A weight in [0, 1] for every channel, from the channels' means (arXiv 1709.01507)."""

    def __init__(self, channels: int) -> None:
        hidden = max(1, channels // 8)
        super().__init__(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, hidden, 1),
            nn.ReLU(),
            nn.Conv2d(hidden, channels, 1),
            nn.Sigmoid(),
        )


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut and channel attention."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.first = ConvBlock(in_channels, out_channels, 3, stride)
        self.second = ConvBlock(out_channels, out_channels, 3, act=False)
        self.attention = ChannelAttention(out_channels)
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

    def __init__(self, in_channels: int, shape: BottleneckShape) -> None:
        super().__init__()
        self.narrow = nn.Sequential(
            ConvBlock(in_channels, shape.encoder_channels, 3, shape.stride),
            nn.Conv2d(shape.encoder_channels, shape.code_channels, 1, bias=False),
            nn.BatchNorm2d(shape.code_channels),
        )

    def forward(self, feature: Tensor) -> Tensor:
        """Map `(N, C, H, W)` to `(N, code_channels, H / stride, W / stride)` in `[0, 1]`.

        Batch norm starts each channel at unit spread, which the clip cuts at two standard
        deviations; its scale and shift then learn each channel's own range.
        """
        return torch.clamp(0.5 + 0.25 * self.narrow(feature), 0.0, 1.0)


class Decoder(nn.Module):
    """The server's half of a bottleneck: dequantized codes become the feature again."""

    def __init__(self, shape: BottleneckShape, out_channels: int) -> None:
        super().__init__()
        width = shape.decoder_channels
        self.widen = nn.Sequential(
            ConvBlock(shape.code_channels, width, 3),
            ResidualBlock(width, width),
            nn.Conv2d(width, out_channels * shape.stride**2, 1),
            nn.PixelShuffle(shape.stride),
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


def code_entropy(codes: Tensor, num_levels: int = 16) -> Tensor:
    """Estimate the entropy of quantized codes in bits per code, such that gradients pass.

    Every code counts towards all levels, as a softmax of its squared distances; the entropy is
    that of these soft histograms, mean over channels (arXiv 1704.00648, section 3).

    Args:
        codes: Encoder output, shape `(N, C, H, W)`, in [0, 1].
        num_levels: Levels of the quantizer.
    """
    steps = codes.movedim(1, 0).flatten(1).unsqueeze(2) * (num_levels - 1)
    distances = steps - torch.arange(num_levels, dtype=codes.dtype)
    shares = torch.softmax(-SHARPNESS * distances.square(), 2).mean(1)
    return -(shares * torch.log2(shares + 1e-9)).sum(1).mean()


class GarmentsNet(nn.Module):
    """A network of a given shape: its stages, an exit after each and bottlenecks between them."""

    mean: Tensor
    std: Tensor

    def __init__(self, shape: NetworkShape, num_classes: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(INPUT_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(INPUT_STD).view(1, 3, 1, 1))
        self.stages = _stages(shape)
        self.exits = _exits(shape, num_classes)
        inner = tuple(zip(shape.widths, shape.bottlenecks, strict=False))
        self.encoders = nn.ModuleList(Encoder(width, neck) for width, neck in inner)
        self.decoders = nn.ModuleList(Decoder(neck, width) for width, neck in inner)

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


def _stages(shape: NetworkShape) -> nn.ModuleList:
    stem = zip((3, *shape.stem), shape.stem, strict=False)
    stages: list[nn.Module] = [nn.Sequential(*(ConvBlock(a, b, 3, 2) for a, b in stem))]
    width = shape.stem[-1]
    for blocks in shape.stages:
        layers = []
        for channels, stride in blocks:
            layers.append(ResidualBlock(width, channels, stride))
            width = channels
        stages.append(layers[0] if len(layers) == 1 else nn.Sequential(*layers))
    return nn.ModuleList(stages)


def _exits(shape: NetworkShape, num_classes: int) -> nn.ModuleList:
    layers = [ConvBlock(w, *exit_) for w, exit_ in zip(shape.widths, shape.exits, strict=True)]
    return nn.ModuleList(
        nn.Sequential(
            layer,
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(0.2),
            nn.Linear(layer.out_channels, num_classes),
        )
        for layer in layers
    )
