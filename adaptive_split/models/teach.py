"""Trains what is attached to a model: exits and bottlenecks, taught by the model's last exit."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from adaptive_split.errors import ConfigError
from adaptive_split.models.division import SplitNet
from adaptive_split.models.multi_exit import code_entropy, quantize_straight_through
from adaptive_split.models.pictures import LabelledPictures, augment

TAUGHT_BITS = (1, 2, 3, 4, 6, 8)
SOFTNESS = 2.0
"""Temperature of distillation (arXiv 1503.02531)."""
BACKBONE_RATE = 0.05
"""Learning rate of the model's own weights, as a share of that of what is attached."""
FEWEST_BATCHES = 8
"""Batches of an epoch; of few pictures, batches are smaller."""
FEWEST_STEPS = 100
"""Steps for each bottleneck at least; an epoch of few pictures sees them several times. With 27,
all answers behind two of three bottlenecks were one class; with 107 they were about as often right
as the model's own."""
CALIBRATED_ON = 64
"""Pictures that decoders take the scale of a feature from."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TeachConfig:
    """One training of exits and bottlenecks."""

    epochs: int = 10
    fine_tune: bool = False
    """Whether the model's own weights are trained as well; its norms keep their statistics."""
    batch_size: int = 32
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    plain_share: float = 0.5
    """Share of the pictures that are not augmented."""
    entropy_weight: float = 0.0
    """Loss per bit of entropy of a code, beside losses of about 1."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be run."""
        if self.epochs < 0:
            raise ConfigError(f"epochs must be 0 or more; got {self.epochs}")
        if self.batch_size < 2:
            raise ConfigError(f"batch_size must be 2 or more; got {self.batch_size}")
        if not 0 <= self.entropy_weight < math.inf:
            raise ConfigError(f"entropy_weight must be 0 or more; got {self.entropy_weight}")


def teach(
    net: SplitNet,
    config: TeachConfig,
    train: LabelledPictures,
    checkpoint: Path,
    identity: str,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Train in place, or go on from `checkpoint`, which is written at once and after every epoch.

    Exits match labels and the softened softmax of the last exit. A bottleneck drawn for each
    batch, with a quantizer of 1..8 bits drawn for each picture, restores its feature such that
    the last exit behind it does so, too.

    Args:
        net: Its last exit must be trained; without `fine_tune` only what is attached changes.
        config: The training.
        train: The pictures, 2 or more.
        checkpoint: A file, there or not; afterwards it is there.
        identity: Of model, data and division: a checkpoint of another is refused.
        progress: Called with the steps done and all steps, after each.

    Raises:
        ConfigError: If the checkpoint is of another training.
    """
    lesson = _Lesson(net, config, train)
    identity = f"{identity} {sorted(asdict(config).items())}"
    if checkpoint.is_file():
        first = lesson.load(checkpoint, identity)
    else:
        first = lesson.begin()
        lesson.save(checkpoint, identity, first)
    total = config.epochs * lesson.num_batches
    for epoch in range(first, config.epochs):
        for step, rows in enumerate(lesson.batches(epoch), start=epoch * lesson.num_batches):
            lesson.step(rows, step / total)
            progress(step + 1, total)
        lesson.save(checkpoint, identity, epoch + 1)
    net.eval()


class _Lesson:
    """A net in training, with its optimizer and its randomness."""

    def __init__(self, net: SplitNet, config: TeachConfig, train: LabelledPictures) -> None:
        self.batch_size = max(2, min(config.batch_size, len(train.labels) // FEWEST_BATCHES))
        self.net, self.config, self.train = net, config, train
        fewest = math.ceil(FEWEST_STEPS * len(net.encoders) / max(config.epochs, 1))
        self.num_batches = max(fewest, len(train.labels) // self.batch_size)
        self.generator = torch.Generator()
        net.eval().requires_grad_(config.fine_tune)
        for module in net.attached:
            module.train().requires_grad_(True)
        attached = [p for module in net.attached for p in module.parameters()]
        ours = set(attached)
        own = [p for p in net.parameters() if p.requires_grad and p not in ours]
        self.rates = (config.learning_rate, BACKBONE_RATE * config.learning_rate)
        groups: list[dict[str, Any]] = [{"params": attached}, {"params": own}]
        self.optimizer = torch.optim.AdamW(groups, weight_decay=config.weight_decay)

    def begin(self) -> int:
        """Take the scale of every feature; return the number of epochs done, none."""
        pictures = self.train.pixels[0, :CALIBRATED_ON].float() / 255
        with torch.no_grad():
            for decoder, feature in zip(self.net.decoders, self.net.features(pictures)):  # noqa: B905 - one feature more
                decoder.calibrate(feature)  # type: ignore[operator]
        return 0

    def batches(self, epoch: int) -> Sequence[Tensor]:
        """Draw the rows of an epoch's batches; the same whether it was reached at once or not."""
        self.generator.manual_seed(self.config.seed * 10_000 + epoch)
        count = len(self.train.labels)
        passes = math.ceil(self.num_batches * self.batch_size / count)
        orders = [torch.randperm(count, generator=self.generator) for _ in range(passes)]
        rows = torch.cat(orders)
        return cast("Sequence[Tensor]", rows.split(self.batch_size)[: self.num_batches])  # type: ignore[no-untyped-call]

    def step(self, rows: Tensor, progress: float) -> None:
        """Learn from one batch, `progress` of the training done."""
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * one_cycle(progress)
        split = 1 + int(torch.randint(len(self.net.encoders), (), generator=self.generator))
        bits = torch.tensor(TAUGHT_BITS)[
            torch.randint(len(TAUGHT_BITS), (len(rows),), generator=self.generator)
        ]
        labels, weight = self.train.labels[rows], self.config.entropy_weight
        loss = _loss(self.net, self._pictures(rows), labels, split, bits, weight)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 5.0)
        self.optimizer.step()

    def load(self, checkpoint: Path, identity: str) -> int:
        """Go on from a saved state; return the number of epochs done."""
        saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
        if saved["identity"] != identity:
            raise ConfigError(
                f"{checkpoint} must belong to this model, data and settings; got another's; "
                "remove it to begin anew"
            )
        self.net.load_state_dict(saved["net"], strict=False)
        self.optimizer.load_state_dict(saved["optimizer"])
        return int(saved["epoch"])

    def save(self, checkpoint: Path, identity: str, epoch: int) -> None:
        """Keep what was trained; appears whole or not at all."""
        state = self.net.state_dict()
        if not self.config.fine_tune:
            state = {name: value for name, value in state.items() if not name.startswith("stages.")}
        part = checkpoint.with_name(checkpoint.name + ".part")
        saved = {"net": state, "optimizer": self.optimizer.state_dict()}
        torch.save(saved | {"identity": identity, "epoch": epoch}, part)
        part.replace(checkpoint)

    def _pictures(self, rows: Tensor) -> Tensor:
        pixels = self.train.pixels[0, rows]
        drawn = augment(pixels, pixels.shape[-2], self.generator, pixels.shape[-1])
        plain = torch.rand(len(rows), generator=self.generator) < self.config.plain_share
        return torch.where(plain.view(-1, 1, 1, 1), pixels.float() / 255, drawn)


def bottleneck_loss(
    net: SplitNet,
    split: int,
    feature: Tensor,
    teacher: Tensor,
    labels: Tensor,
    bits: Tensor,
    entropy_weight: float,
) -> Tensor:
    """Loss of bottleneck `split`: of the last exit behind it, of decoding, of its codes' entropy.

    Args:
        net: The network.
        split: Split point, 1..S-1.
        feature: What is sent, shape `(N, C, H, W)`.
        teacher: Logits of the last exit for the same pictures, shape `(N, classes)`.
        labels: Shape `(N,)`.
        bits: Width of the quantizer per picture, shape `(N,)`.
        entropy_weight: Loss per bit of entropy of a code.
    """
    plain = net.encoders[split - 1](feature)
    decoded = net.decoders[split - 1](quantize_straight_through(plain, bits))
    answer = net.exits[-1](_rest(net.stages, decoded, split))
    target = feature.detach()
    error = functional.mse_loss(decoded, target) / (target.var() + 1e-6)
    loss = _taught(answer, teacher, labels) + 0.3 * error
    return loss + entropy_weight * code_entropy(plain) if entropy_weight else loss


def _loss(
    net: SplitNet,
    pictures: Tensor,
    labels: Tensor,
    split: int,
    bits: Tensor,
    entropy_weight: float,
) -> Tensor:
    """Loss of the exits and of bottleneck `split`."""
    features = net.features(pictures)
    logits = [exit_(feature) for exit_, feature in zip(net.exits, features, strict=True)]
    teacher, sent = logits[-1].detach(), features[split - 1]
    losses = [_taught(student, teacher, labels) for student in logits[:-1]]
    own = functional.cross_entropy(logits[-1], labels)
    narrow = bottleneck_loss(net, split, sent, teacher, labels, bits, entropy_weight)
    return torch.stack([*losses, own, narrow]).sum()


def _rest(stages: nn.ModuleList, feature: Tensor, split: int) -> Tensor:
    for index in range(split, len(stages)):
        feature = stages[index](feature)
    return feature


def _taught(logits: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    """Loss against the labels and against the softened answers of the last exit, half each."""
    soft = functional.kl_div(
        functional.log_softmax(logits / SOFTNESS, 1),
        functional.log_softmax(teacher / SOFTNESS, 1),
        reduction="batchmean",
        log_target=True,
    )
    return 0.5 * functional.cross_entropy(logits, labels) + 0.5 * SOFTNESS**2 * soft


def one_cycle(progress: float) -> float:
    """Factor of the learning rate: linear warm-up over 10 %, then a half cosine."""
    if progress < 0.1:
        return 0.1 + 9 * progress
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (progress - 0.1) / 0.9))
