"""Train stages, exits and bottlenecks of a network together, with quantization in the loop."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from adaptive_split.models.multi_exit import GarmentsNet, NetworkShape
from adaptive_split.models.pictures import LabelledPictures, augment, mix


@dataclass(frozen=True, kw_only=True, slots=True)
class FitConfig:
    """One training run."""

    phases: tuple[tuple[int, int], ...]
    """`(epochs, picture side)` of each phase, in order: small pictures first."""
    exit_weights: tuple[float, ...]
    """Weight of every exit's loss."""
    seed: int = 0
    batch_size: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    bottleneck_from: float = 0.1
    """Share of the steps after which samples begin to pass bottlenecks."""
    mix_shares: tuple[tuple[float, float], ...] = ((0.4, 0.7), (0.85, 0.4), (1.0, 0.0))
    """`(until, share)`: up to this share of the steps, this share of batches is mixed."""
    average_decay: float = 0.998
    """Decay of the weight average that is evaluated and exported."""


def fit(
    shape: NetworkShape,
    config: FitConfig,
    train: LabelledPictures,
    val: LabelledPictures,
    checkpoint: Path,
    log: Callable[[str], None],
) -> GarmentsNet:
    """Train from scratch, or go on from `checkpoint`; return the averaged network.

    Deeper exits teach shallower ones (self-distillation, arXiv 1905.08094): each exit but the
    last also matches the softened softmax of the last.
    """
    run = _Run(shape, config, train)
    first = 0
    if checkpoint.is_file():
        first = run.load(checkpoint)
        log(f"resumed after epoch {first}")
    started = time.monotonic()
    for epoch in range(first, len(run.sides)):
        label, distilled, decoded = run.epoch(epoch).tolist()
        run.save(checkpoint, epoch + 1)
        line = (
            f"epoch {epoch + 1:3d}/{len(run.sides)} side {run.sides[epoch]} loss {label:.3f} "
            f"distillation {distilled:.3f} decoding {decoded:.3f} "
            f"{time.monotonic() - started:.0f} s"
        )
        if (epoch + 1) % 10 == 0 or epoch + 1 == len(run.sides):
            line += " | " + _accuracies(run.average, val)
        log(line)
    return run.average


class _Run:
    """A network in training, with its optimizer and the average of its weights."""

    def __init__(self, shape: NetworkShape, config: FitConfig, train: LabelledPictures) -> None:
        torch.manual_seed(config.seed)
        net: GarmentsNet = GarmentsNet(shape, len(train.classes))
        self.net: GarmentsNet = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average: GarmentsNet = copy.deepcopy(self.net)
        self.config, self.train = config, train
        self.sides = [side for epochs, side in config.phases for _ in range(epochs)]
        decayed = [p for p in self.net.parameters() if p.ndim > 1]
        plain = [p for p in self.net.parameters() if p.ndim <= 1]
        groups: list[dict[str, Any]] = [{"params": decayed}, {"params": plain, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(
            groups, lr=config.learning_rate, weight_decay=config.weight_decay
        )

    def load(self, checkpoint: Path) -> int:
        """Go on from a saved state; return the number of epochs done."""
        saved = torch.load(checkpoint, weights_only=True)
        self.net.load_state_dict(saved["net"])
        self.average.load_state_dict(saved["average"])
        self.optimizer.load_state_dict(saved["optimizer"])
        return int(saved["epoch"])

    def save(self, checkpoint: Path, epoch: int) -> None:
        """Keep the state after `epoch` epochs."""
        state: dict[str, Any] = {"net": self.net.state_dict(), "average": self.average.state_dict()}
        torch.save(state | {"optimizer": self.optimizer.state_dict(), "epoch": epoch}, checkpoint)

    def epoch(self, epoch: int) -> Tensor:
        """See every picture once; return the mean label, distillation and decoding loss, `(3,)`."""
        config, count = self.config, len(self.train.labels)
        generator = torch.Generator().manual_seed(config.seed * 10_000 + epoch)
        batches = torch.randperm(count, generator=generator).split(config.batch_size)  # type: ignore[no-untyped-call]
        full = batches[: count // config.batch_size]
        self.net.train()
        sums = torch.zeros(3)
        for index, rows in enumerate(full):
            step = epoch * len(full) + index
            sums += self._step(step, step / (len(full) * len(self.sides)), rows, epoch, generator)
        return sums / len(full)

    def _step(
        self, step: int, progress: float, rows: Tensor, epoch: int, generator: torch.Generator
    ) -> Tensor:
        config = self.config
        for group in self.optimizer.param_groups:
            group["lr"] = _one_cycle(progress) * config.learning_rate
        losses = torch.stack(
            _step_loss(self.net, self.train, rows, self.sides[epoch], config, progress, generator)
        )
        self.optimizer.zero_grad(set_to_none=True)
        losses.sum().backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 5.0)
        self.optimizer.step()
        _move_average(self.average, self.net, min(config.average_decay, (step + 1) / (step + 10)))
        return losses.detach()


def _accuracies(net: GarmentsNet, val: LabelledPictures) -> str:
    """Accuracy of every exit, and of the last behind every bottleneck at 4 bits."""
    whole = " ".join(f"{value:.3f}" for value in accuracy(net, val, 0, 8))
    splits = range(1, len(net.stages))
    sent = " ".join(f"{accuracy(net, val, split, 4)[-1]:.3f}" for split in splits)
    return f"{whole} | 4 bits: {sent}"


@torch.no_grad()
def accuracy(
    net: GarmentsNet, pictures: LabelledPictures, split_point: int, bits: int
) -> list[float]:
    """Share of right answers of every exit, all pictures passing the same bottleneck."""
    net.eval()
    right = torch.zeros(len(net.stages))
    for rows in torch.arange(len(pictures.labels)).split(64):  # type: ignore[no-untyped-call]
        batch = pictures.pixels[0, rows].float() / 255
        full = torch.full((len(rows),), split_point)
        logits, _ = net(batch.contiguous(memory_format=torch.channels_last), full, full * 0 + bits)
        right += torch.stack([(out.argmax(1) == pictures.labels[rows]).sum() for out in logits])
    return [float(value) for value in right / len(pictures.labels)]


def _step_loss(
    net: GarmentsNet,
    train: LabelledPictures,
    rows: Tensor,
    side: int,
    config: FitConfig,
    progress: float,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss of labels, distillation and decoding on one batch, `progress` of the run done."""
    pictures, targets = _batch(train, rows, side, config, progress, generator)
    count = len(rows)
    splits = torch.randint(1, len(net.stages), (count,), generator=generator)
    inner = progress >= config.bottleneck_from
    skipped = torch.rand(count, generator=generator) < (0.5 if inner else 2.0)
    splits = splits.masked_fill(skipped, 0)
    bits = torch.tensor([1, 2, 3, 4, 6, 8])[torch.randint(6, (count,), generator=generator)]
    logits, error = net(pictures.contiguous(memory_format=torch.channels_last), splits, bits)
    weights = config.exit_weights
    label_loss = sum(
        weight * functional.cross_entropy(out, targets)
        for weight, out in zip(weights, logits, strict=True)
    )
    teacher = functional.softmax(logits[-1].detach() / 2, dim=1)
    distilled = sum(
        weight
        * functional.kl_div(functional.log_softmax(out / 2, 1), teacher, reduction="batchmean")
        for weight, out in zip(weights[:-1], logits[:-1], strict=True)
    )
    return label_loss, distilled, 0.3 * error  # type: ignore[return-value]


def _batch(
    train: LabelledPictures,
    rows: Tensor,
    side: int,
    config: FitConfig,
    progress: float,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Draw augmented pictures `(N, 3, side, side)` and their smoothed targets `(N, classes)`."""
    plain = torch.rand(len(rows), generator=generator) < 0.6
    variant = torch.randint(len(train.pixels), (len(rows),), generator=generator)
    pictures = augment(train.pixels[variant.masked_fill(plain, 0), rows], side, generator)
    targets = functional.one_hot(train.labels[rows], len(train.classes)).float()
    targets = targets * (1 - config.label_smoothing) + config.label_smoothing / len(train.classes)
    mixed = next(share for until, share in config.mix_shares if progress < until)
    if float(torch.rand(1, generator=generator)) < mixed:
        pictures, targets = mix(pictures, targets, generator)
    return pictures, targets


def _one_cycle(progress: float) -> float:
    """Factor of the learning rate: linear warm-up over 10 %, then a half cosine to 1/500."""
    if progress < 0.1:
        return 0.04 + 0.96 * progress / 0.1
    return 0.002 + 0.998 * 0.5 * (1 + math.cos(math.pi * (progress - 0.1) / 0.9))


@torch.no_grad()
def _move_average(average: GarmentsNet, net: GarmentsNet, decay: float) -> None:
    for kept, new in zip(average.state_dict().values(), net.state_dict().values(), strict=True):
        if kept.dtype.is_floating_point:
            kept.lerp_(new, 1 - decay)
        else:
            kept.copy_(new)
