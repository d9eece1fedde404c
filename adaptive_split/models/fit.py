"""Train the stages, exits and bottlenecks of `garments` together, with quantization in the loop."""

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

from adaptive_split.models.multi_exit import GarmentsNet
from adaptive_split.models.pictures import LabelledPictures, augment, mix

EXIT_WEIGHTS = (0.3, 0.4, 0.6, 0.8, 1.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class FitConfig:
    """One training run of `garments`."""

    seed: int = 0
    phases: tuple[tuple[int, int], ...] = ((20, 96), (30, 128), (14, 160), (5, 224))
    """`(epochs, picture side)` of each phase, in order: small pictures first."""
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
    torch.manual_seed(config.seed)
    net: GarmentsNet = GarmentsNet(len(train.classes))
    net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = copy.deepcopy(net)
    decayed = [p for p in net.parameters() if p.ndim > 1]
    plain = [p for p in net.parameters() if p.ndim <= 1]
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, weight_decay=config.weight_decay)
    sides = [side for epochs, side in config.phases for _ in range(epochs)]
    per_epoch = len(train.labels) // config.batch_size
    total = per_epoch * len(sides)
    first = 0
    if checkpoint.is_file():
        saved = torch.load(checkpoint, weights_only=True)
        net.load_state_dict(saved["net"])
        average.load_state_dict(saved["average"])
        optimizer.load_state_dict(saved["optimizer"])
        first = int(saved["epoch"])
        log(f"resumed after epoch {first}")
    started = time.monotonic()
    for epoch in range(first, len(sides)):
        generator = torch.Generator().manual_seed(config.seed * 10_000 + epoch)
        order = torch.randperm(len(train.labels), generator=generator)
        net.train()
        sums = torch.zeros(3)
        for index in range(per_epoch):
            step = epoch * per_epoch + index
            for group in optimizer.param_groups:
                group["lr"] = _one_cycle(step / total) * config.learning_rate
            rows = order[index * config.batch_size : (index + 1) * config.batch_size]
            inner = step / total >= config.bottleneck_from
            mixed = next(share for until, share in config.mix_shares if step / total < until)
            losses = _step_loss(net, train, rows, sides[epoch], config, inner, mixed, generator)
            optimizer.zero_grad(set_to_none=True)
            sum(losses).backward()  # type: ignore[union-attr]
            torch.nn.utils.clip_grad_norm_(net.parameters(), 5.0)
            optimizer.step()
            _move_average(average, net, min(config.average_decay, (step + 1) / (step + 10)))
            sums += torch.stack([loss.detach() for loss in losses])
        state: dict[str, Any] = {"net": net.state_dict(), "average": average.state_dict()}
        state |= {"optimizer": optimizer.state_dict(), "epoch": epoch + 1}
        torch.save(state, checkpoint)
        label, distilled, decoded = (sums / per_epoch).tolist()
        line = (
            f"epoch {epoch + 1:3d}/{len(sides)} side {sides[epoch]} loss {label:.3f} "
            f"distillation {distilled:.3f} decoding {decoded:.3f} "
            f"{time.monotonic() - started:.0f} s"
        )
        if (epoch + 1) % 5 == 0 or epoch + 1 == len(sides):
            line += " | " + " ".join(f"{value:.3f}" for value in accuracy(average, val, 0, 8))
            line += " | 4 bits: " + " ".join(
                f"{accuracy(average, val, split, 4)[-1]:.3f}" for split in range(1, len(net.stages))
            )
        log(line)
    return average


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
    inner: bool,
    mixed: float,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor, Tensor]:
    count = len(rows)
    variants = len(train.pixels)
    plain = torch.rand(count, generator=generator) < 0.6
    variant = torch.randint(variants, (count,), generator=generator).masked_fill(plain, 0)
    pictures = augment(train.pixels[variant, rows], side, generator)
    targets = functional.one_hot(train.labels[rows], len(train.classes)).float()
    targets = targets * (1 - config.label_smoothing) + config.label_smoothing / len(train.classes)
    if float(torch.rand(1, generator=generator)) < mixed:
        pictures, targets = mix(pictures, targets, generator)
    splits = torch.randint(1, len(net.stages), (count,), generator=generator)
    skipped = torch.rand(count, generator=generator) < (0.5 if inner else 2.0)
    splits = splits.masked_fill(skipped, 0)
    bits = torch.tensor([1, 2, 3, 4, 6, 8])[torch.randint(6, (count,), generator=generator)]
    logits, error = net(pictures.contiguous(memory_format=torch.channels_last), splits, bits)
    label_loss = sum(
        weight * functional.cross_entropy(out, targets)
        for weight, out in zip(EXIT_WEIGHTS, logits, strict=True)
    )
    teacher = functional.softmax(logits[-1].detach() / 2, dim=1)
    distilled = sum(
        weight
        * functional.kl_div(functional.log_softmax(out / 2, 1), teacher, reduction="batchmean")
        for weight, out in zip(EXIT_WEIGHTS[:-1], logits[:-1], strict=True)
    )
    return label_loss, distilled, 0.3 * error  # type: ignore[return-value]


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
