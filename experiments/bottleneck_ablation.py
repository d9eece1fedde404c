"""What attention, the clip range and an entropy loss are worth in a bottleneck.

    python -m experiments.rate_accuracy --ablation --pictures DIR

Trains, at one split point of `garments` and with everything else frozen, the bottleneck that
`build` attaches, as `build` trains it, once per variant and seed. Features are computed once, half
of them of augmented pictures. Every result is kept in a file, so an interrupted run goes on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from adaptive_split.codec import decode_feature, encode_feature
from adaptive_split.decision import BITS
from adaptive_split.models.attach import AttachedDecoder, AttachedEncoder, bottleneck_shape
from adaptive_split.models.division import Division, SplitNet
from adaptive_split.models.layout import Layout
from adaptive_split.models.multi_exit import INPUT_MEAN, INPUT_STD, ChannelAttention, GarmentsNet
from adaptive_split.models.pictures import LabelledPictures, augment
from adaptive_split.models.teach import TAUGHT_BITS, TeachConfig, bottleneck_loss, one_cycle

BATCH = 32
CLIPS = (0.8, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0)
"""Clip ranges tried after training, in standard deviations of a channel."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """One way to make a bottleneck."""

    name: str
    attention: bool = False
    clip: float | None = None
    """Where codes are clipped, in standard deviations of a channel; None learns it."""
    entropy_weight: float = 0.0


VARIANTS = (
    Variant(name="clip learned"),
    Variant(name="clip learned, attention", attention=True),
    Variant(name="clip fixed at 2 sd", clip=2.0),
    Variant(name="clip learned, entropy .05", entropy_weight=0.05),
    Variant(name="clip fixed at 1 sd", clip=1.0),
    Variant(name="clip learned, entropy .2", entropy_weight=0.2),
    Variant(name="clip fixed at 4 sd", clip=4.0),
    Variant(name="attention, entropy .05", attention=True, entropy_weight=0.05),
)


class Attending(nn.Module):
    """Weighs the channels of a feature before it is narrowed, as AECNN does (arXiv 2211.13745)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weigh = ChannelAttention(channels)

    def forward(self, feature: Tensor) -> Tensor:
        """Map `(N, C, H, W)` to the same shape."""
        return feature * self.weigh(feature)


@dataclass(frozen=True, slots=True)
class Sent:
    """What passes one split point: `(V, N, C, H, W)` features of V versions of every picture."""

    features: Tensor
    teacher: Tensor
    """Logits of the last exit, `(V, N, classes)`."""
    labels: Tensor


def ablate(
    garments: GarmentsNet,
    train: LabelledPictures,
    judged: LabelledPictures,
    *,
    split: int,
    seeds: Sequence[int],
    num_steps: int,
    kept: Path,
) -> list[dict[str, Any]]:
    """Train every variant and give its row of the table; rows in `kept` are not made again."""
    rows = json.loads(kept.read_text()) if kept.is_file() else []
    torch.manual_seed(0)
    net = attachable(garments)
    missing = [
        (seed, variant)
        for seed in seeds
        for variant in VARIANTS
        if not any(_is_of(row, split, seed, num_steps, variant) for row in rows)
    ]
    if missing:
        lesson, exam = sent(net, train, split, augmented=True), sent(net, judged, split)
    for seed, variant in missing:
        learn(net, lesson, variant, split, seed, num_steps)
        row = {"split": split, "seed": seed, "steps": num_steps, **asdict(variant)}
        rows.append(row | {"bits": examine(net, exam, split), "clips": clips(net, exam, split)})
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(rows, indent=1))
        print(json.dumps(rows[-1]["bits"]), variant.name, seed, flush=True)
    return [row for row in rows if row["split"] == split and row["steps"] == num_steps]


def attachable(garments: GarmentsNet) -> SplitNet:
    """Give the network as `build` sees a model that declares its stages, nothing trained yet."""
    shapes = []
    feature = torch.zeros(1, 3, 224, 224)
    with torch.no_grad():
        for stage in garments.eval().stages:
            feature = stage(feature)
            shapes.append(tuple(feature.shape[1:]))
    division = Division(
        stages=tuple(garments.stages), exits=tuple(garments.exits), cuts=(),
        layouts=tuple(Layout.of(shape) for shape in shapes),
        names=tuple(f"stage {index + 1}" for index in range(len(shapes))),
    )  # fmt: skip
    net = SplitNet(division, garments.exits[0][-1].out_features, INPUT_MEAN, INPUT_STD)
    return net.eval().requires_grad_(False)


@torch.no_grad()
def sent(net: SplitNet, pictures: LabelledPictures, split: int, *, augmented: bool = False) -> Sent:
    """Compute features and the last exit's logits; the second version is augmented."""
    generator = torch.Generator().manual_seed(0)
    versions = []
    for version in range(1 + augmented):
        features, logits = [], []
        for pixels in pictures.pixels[0].split(BATCH):
            shown = augment(pixels, pixels.shape[-1], generator) if version else pixels / 255
            found = net.features(shown)
            features.append(found[split - 1])
            logits.append(net.exits[-1](found[-1]))
        versions.append((torch.cat(features), torch.cat(logits)))
    both = [torch.stack(parts) for parts in zip(*versions, strict=True)]
    return Sent(both[0], both[1], pictures.labels)


def learn(
    net: SplitNet, lesson: Sent, variant: Variant, split: int, seed: int, num_steps: int
) -> None:
    """Put a fresh bottleneck into the net and train it."""
    torch.manual_seed(seed)
    layout = net.encoders[split - 1].layout
    shape = bottleneck_shape(layout)
    attending = Attending(layout.channels) if variant.attention else None
    encoder, decoder = AttachedEncoder(layout, shape), AttachedDecoder(layout, shape)
    if attending is not None:
        encoder.patches.narrow.insert(0, attending)
    net.encoders[split - 1], net.decoders[split - 1] = encoder, decoder
    decoder.calibrate(lesson.features[0, :64])
    if variant.clip is not None:
        norm = encoder.patches.narrow[-1]
        norm.weight.data.fill_(2.0 / variant.clip)
        norm.requires_grad_(False)
    config = TeachConfig()
    learned = [p for p in (*encoder.parameters(), *decoder.parameters()) if p.requires_grad]
    optimizer = torch.optim.AdamW(
        learned, lr=config.learning_rate, weight_decay=config.weight_decay
    )
    for step, (version, rows) in enumerate(_batches(lesson, num_steps)):
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * one_cycle(step / num_steps)
        bits = torch.tensor(TAUGHT_BITS)[torch.randint(len(TAUGHT_BITS), (len(rows),))]
        loss = bottleneck_loss(
            net, split, lesson.features[version, rows], lesson.teacher[version, rows],
            lesson.labels[rows], bits, variant.entropy_weight,
        )  # fmt: skip
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(learned, 5.0)
        optimizer.step()
    net.eval()


@torch.no_grad()
def examine(net: SplitNet, exam: Sent, split: int) -> dict[str, list[float]]:
    """Give `(top-1, agreement, decoding error, bytes)` for every width of a code."""
    found = {}
    features, teacher = exam.features[0], exam.teacher[0].argmax(1)
    codes = torch.cat([net.encoders[split - 1](batch) for batch in features.split(BATCH)])
    for bits in BITS:
        payloads = [encode_feature(one.numpy(), bits) for one in codes]
        read = np.stack([decode_feature(one, tuple(codes.shape[1:])) for one in payloads])
        decoded, answers = [], []
        for batch in torch.from_numpy(read).split(BATCH):
            decoded.append(net.decoders[split - 1](batch))
            feature = decoded[-1]
            for stage in net.stages[split:]:
                feature = stage(feature)
            answers.append(net.exits[-1](feature).argmax(1))
        answer = torch.cat(answers)
        found[str(bits)] = [
            float((answer == exam.labels).float().mean()),
            float((answer == teacher).float().mean()),
            float(functional.mse_loss(torch.cat(decoded), features) / features.var()),
            float(np.mean([len(one) for one in payloads])),
        ]
    return found


@torch.no_grad()
def clips(net: SplitNet, exam: Sent, split: int) -> dict[str, list[float]]:
    """Decoding error of one trained bottleneck for every width, clipped at each of `CLIPS`.

    A narrower clip is undone before decoding: the steps become finer, and what lies outside is cut.
    """
    features = exam.features[0, ::4]
    narrow = net.encoders[split - 1].patches.narrow
    wide = torch.cat([narrow(batch) for batch in features.split(BATCH)])
    spread = wide.std((0, 2, 3), keepdim=True)
    found = {}
    for bits in BITS:
        levels, row = 2**bits - 1, []
        for clip in CLIPS:
            half = clip * spread
            steps = torch.round(((wide / half).clamp(-1, 1) + 1) / 2 * levels)
            read = 0.5 + 0.25 * half * (2 * steps / levels - 1)
            back = torch.cat([net.decoders[split - 1](batch) for batch in read.split(BATCH)])
            row.append(float(functional.mse_loss(back, features) / features.var()))
        found[str(bits)] = row
    return found


def _batches(lesson: Sent, num_steps: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Draw versions and rows of every batch."""
    versions, count = lesson.features.shape[:2]
    order = torch.empty(0, dtype=torch.long)
    for _ in range(num_steps):
        if len(order) < BATCH:
            order = torch.randperm(count)
        rows, order = order[:BATCH], order[BATCH:]
        yield torch.randint(versions, (BATCH,)), rows


def _is_of(row: dict[str, Any], split: int, seed: int, num_steps: int, variant: Variant) -> bool:
    return (row["split"], row["seed"], row["steps"], row["name"]) == (
        split, seed, num_steps, variant.name,
    )  # fmt: skip


def print_ablation(rows: list[dict[str, Any]]) -> None:
    """Print a row for every variant and the clip that decodes best, means over the seeds."""
    by_name: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_name.setdefault(row["name"], []).append(row)
    print(f"\n| variant | {' | '.join(f'{bits} bits' for bits in BITS)} |")
    print(f"| --- {'| --- ' * len(BITS)}|")
    for name, runs in by_name.items():
        cells = []
        for bits in map(str, BITS):
            top1, same, error, size = np.mean([run["bits"][bits] for run in runs], axis=0)
            cells.append(f"{top1:.3f}, {same:.3f}, {error:.3f}, {size:.0f} B")
        print(f"| {name} | {' | '.join(cells)} |")
    print("top-1, agreement with the uncut model, decoding error, bytes\n")
    print(f"| bits | {' | '.join(f'{clip:g} sd' for clip in CLIPS)} |")
    print(f"| --- {'| --- ' * len(CLIPS)}|")
    for bits in map(str, BITS):
        errors = np.mean([run["clips"][bits] for run in by_name[VARIANTS[0].name]], axis=0)
        print(f"| {bits} | {' | '.join(f'{error:.4f}' for error in errors)} |")
