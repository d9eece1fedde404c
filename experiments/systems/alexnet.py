"""A small AlexNet with exits, as BranchyNet and SAC-d use it: its training and its model bundle.

Five convolutions and two linear layers, on pictures of 64 x 64 pixels. Unlike AlexNet it has
batch norm instead of local response norm, and a second convolution of 3 x 3 instead of 5 x 5: so it
learns from 3,000 pictures, from scratch, in minutes of one core.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from adaptive_split.errors import ConfigError
from adaptive_split.models.build import BuildConfig, build, divide_for
from adaptive_split.models.multi_exit import ConvBlock
from adaptive_split.models.own_pictures import OwnPictures, read_own_pictures
from adaptive_split.models.pictures import LabelledPictures, augment, largest_classes
from adaptive_split.models.teach import TeachConfig

SIDE = 64
NUM_CLASSES = 10
BUNDLE = "alexnet"
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class AlexNetConfig:
    """One training of the network."""

    exit_weights: tuple[float, ...] = (1.0, 0.3, 0.3, 0.3)
    """Weight of every exit's loss; BranchyNet weighs its first exit 1.0 and the last 0.3."""
    epochs: int = 20
    batch_size: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    seed: int = 0

    @property
    def plain(self) -> bool:
        """Whether only the last exit is trained: the network without exits."""
        return not any(self.exit_weights[:-1])


class AlexNet(nn.Module):
    """Four stages, features `(32, 16, 16)`, `(64, 8, 8)`, `(96, 8, 8)`, `(64, 4, 4)`; 4 exits."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            [
                nn.Sequential(ConvBlock(3, 32, 5, 2), nn.MaxPool2d(3, 2, 1)),
                nn.Sequential(ConvBlock(32, 64, 3), nn.MaxPool2d(3, 2, 1)),
                ConvBlock(64, 96, 3),
                nn.Sequential(ConvBlock(96, 96, 3), ConvBlock(96, 64, 3), nn.MaxPool2d(3, 2, 1)),
            ]
        )
        sides = [_side_exit(32, 2), _side_exit(64, 2), _side_exit(96, 2)]
        last = nn.Sequential(
            nn.Flatten(), nn.Dropout(0.5), nn.Linear(1024, 256), nn.ReLU(),
            nn.Dropout(0.5), nn.Linear(256, NUM_CLASSES),
        )  # fmt: skip
        self.exits = nn.ModuleList([*sides, last])

    def all_logits(self, pictures: Tensor) -> list[Tensor]:
        """Logits `(N, C)` of every exit, for normalized pictures `(N, 3, 64, 64)`."""
        feature, found = pictures, []
        for stage, exit_ in zip(self.stages, self.exits, strict=True):
            feature = stage(feature)
            found.append(exit_(feature))
        return found

    def forward(self, pictures: Tensor) -> Tensor:
        """Logits of the last exit."""
        feature = pictures
        for stage in self.stages:
            feature = stage(feature)
        return cast("Tensor", self.exits[-1](feature))

    def split_stages(self) -> tuple[Sequence[nn.Module], Sequence[nn.Module | None]]:
        """Declare stages and exits, so that a build attaches the bottlenecks alone."""
        return list(self.stages), list(self.exits)


def _side_exit(channels: int, stride: int) -> nn.Module:
    """One convolution and a linear layer, as BranchyNet's branches."""
    look = ConvBlock(channels, 64, 3, stride)
    return nn.Sequential(look, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, NUM_CLASSES))


def read_pictures(folder: Path) -> OwnPictures:
    """Read the pictures of the ten largest classes, 64 x 64 pixels: to train, decide and judge."""
    every, kept = read_own_pictures(folder, SIDE), largest_classes(folder, NUM_CLASSES)
    return OwnPictures(*(_only(part, kept) for part in (every.train, every.policy, every.judge)))


def _only(part: LabelledPictures, classes: tuple[str, ...]) -> LabelledPictures:
    names = [part.classes[label] for label in part.labels.tolist()]
    rows = [index for index, name in enumerate(names) if name in classes]
    labels = torch.tensor([classes.index(names[row]) for row in rows])
    return LabelledPictures(
        part.pixels[:, rows], labels, tuple(part.files[row] for row in rows), classes
    )


def normalize(pictures: Tensor) -> Tensor:
    """Center pictures in [0, 1] as the bundle does."""
    defaults = BuildConfig()
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (defaults.mean, defaults.std))
    return (pictures - mean) / std


def train(config: AlexNetConfig, pictures: LabelledPictures, checkpoint: Path, say: Say) -> AlexNet:
    """Train from scratch, or go on from `checkpoint`, which is written after every epoch.

    Raises:
        ConfigError: If the checkpoint is of another training.
    """
    torch.manual_seed(config.seed)
    net: AlexNet = AlexNet().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=config.weight_decay)
    first = _resume(net, optimizer, config, checkpoint)
    for epoch in range(first, config.epochs):
        loss = _epoch(net, optimizer, config, pictures, epoch)
        _keep(net, optimizer, config, checkpoint, epoch + 1)
        if (epoch + 1) % 5 == 0:
            say(f"{checkpoint.stem}: epoch {epoch + 1}/{config.epochs}, loss {loss:.3f}")
    return net.eval()


def _resume(
    net: AlexNet, optimizer: torch.optim.Optimizer, config: AlexNetConfig, checkpoint: Path
) -> int:
    if not checkpoint.is_file():
        return 0
    saved = torch.load(checkpoint, weights_only=True)
    if saved["config"] != repr(config):
        raise ConfigError(
            f"{checkpoint} must belong to {config}; got {saved['config']}; remove it to begin anew"
        )
    net.load_state_dict(saved["net"])
    optimizer.load_state_dict(saved["optimizer"])
    return int(saved["epoch"])


def _keep(
    net: AlexNet,
    optimizer: torch.optim.Optimizer,
    config: AlexNetConfig,
    checkpoint: Path,
    epoch: int,
) -> None:
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    state: dict[str, Any] = {"net": net.state_dict(), "optimizer": optimizer.state_dict()}
    part = checkpoint.with_suffix(".part")
    torch.save(state | {"config": repr(config), "epoch": epoch}, part)
    part.replace(checkpoint)


def _epoch(
    net: AlexNet,
    optimizer: torch.optim.Optimizer,
    config: AlexNetConfig,
    pictures: LabelledPictures,
    epoch: int,
) -> float:
    """See every picture once; the randomness of an epoch is its own. Give the mean loss."""
    generator = torch.Generator().manual_seed(config.seed * 10_000 + epoch)
    torch.manual_seed(config.seed * 10_000 + epoch)
    count = len(pictures.labels)
    batches = torch.randperm(count, generator=generator).split(config.batch_size)  # type: ignore[no-untyped-call]
    batches = batches[: count // config.batch_size]
    net.train()
    total = 0.0
    for index, rows in enumerate(batches):
        progress = (epoch + index / len(batches)) / config.epochs
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * min(1.0, 20 * progress + 0.05) * _cosine(progress)
        batch = normalize(augment(pictures.pixels[0, rows], SIDE, generator))
        batch = batch.contiguous(memory_format=torch.channels_last)
        loss = _loss(net, config, batch, pictures.labels[rows])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        total += float(loss.detach())
    return total / len(batches)


def _loss(net: AlexNet, config: AlexNetConfig, batch: Tensor, labels: Tensor) -> Tensor:
    """Weighted sum of the exits' cross-entropies (BranchyNet, arXiv 1709.01686, sec. III)."""
    logits = [net(batch)] if config.plain else net.all_logits(batch)
    weights = config.exit_weights[-len(logits) :]
    losses = [
        weight * functional.cross_entropy(out, labels, label_smoothing=config.label_smoothing)
        for weight, out in zip(weights, logits, strict=True)
    ]
    return torch.stack(losses).sum()


def _cosine(progress: float) -> float:
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress))


def make_bundle(net: AlexNet, pictures: OwnPictures, out: Path, say: Say) -> None:
    """Build the bundle with the house's own tool: bottlenecks, export, outcomes, profile.

    A bundle that is there already is left as it is: remove it after another training.
    """
    if (out / "profile_server.json").is_file():
        return
    config = BuildConfig(teach=TeachConfig(epochs=5, batch_size=64))

    def progress(phase: str, done: int, total: int) -> None:
        if done == total or done % 100 == 0:
            say(f"{phase}: {done}/{total}")

    build(divide_for(net, pictures, config), pictures, out, config, progress)
