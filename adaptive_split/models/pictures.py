"""Labelled pictures as tensors, and the augmentation that training draws from them."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from adaptive_split.errors import ConfigError

PICTURE_SIZE = 224
JPEG_QUALITIES = (6, 12, 25)
"""Qualities that training pictures are also seen at, so that split point 0 is not a surprise."""


@dataclass(frozen=True, slots=True)
class LabelledPictures:
    """Pictures in memory: `pixels` `(V, N, 3, S, S)` uint8 (V codec variants) and `labels`."""

    pixels: Tensor
    labels: Tensor
    files: tuple[str, ...]
    classes: tuple[str, ...]


def largest_classes(folder: Path, count: int) -> tuple[str, ...]:
    """Name the `count` classes with the most training pictures in `labels.csv`, largest first."""
    sizes: dict[str, int] = {}
    for row in _rows(folder):
        if row["split"] == "train":
            sizes[row["label"]] = sizes.get(row["label"], 0) + 1
    return tuple(sorted(sizes, key=lambda name: (-sizes[name], name))[:count])


def held_out_senders(folder: Path, classes: tuple[str, ...]) -> tuple[str, ...]:
    """Name the senders of about a third of the training pictures, to be kept from training.

    The second of every three senders, most pictures first: a sender's pictures resemble each
    other, so all stay on one side, and both sides hold busy senders and rare ones.
    """
    sizes: dict[str, int] = {}
    for row in _rows(folder):
        if row["split"] == "train" and row["label"] in classes:
            sizes[row["sender_id"]] = sizes.get(row["sender_id"], 0) + 1
    return tuple(sorted(sizes, key=lambda sender: (-sizes[sender], sender))[1::3])


def load_pictures(
    folder: Path,
    split: str,
    classes: tuple[str, ...],
    *,
    held_out: Collection[str] = (),
    with_jpeg: bool = False,
) -> LabelledPictures:
    """Read the pictures of one split, squeezed to 224x224, in file-name order.

    Args:
        folder: A folder with `labels.csv` (columns `file`, `label`, `split` and, if any are held
            out, `sender_id`) and the pictures.
        split: `train`, `val`, or `held`: the training pictures of the senders held out.
        classes: The classes to keep; a label is its position here.
        held_out: Senders whose pictures `train` leaves to `held`.
        with_jpeg: Also keep a variant of every picture at each of `JPEG_QUALITIES`.
    """
    rows = sorted(
        (row["file"], row["label"])
        for row in _rows(folder)
        if row["label"] in classes and _split(row, held_out) == split
    )
    variants = 1 + (len(JPEG_QUALITIES) if with_jpeg else 0)
    pixels = np.empty((variants, len(rows), 3, PICTURE_SIZE, PICTURE_SIZE), np.uint8)
    for index, (name, _) in enumerate(rows):
        picture = read_picture(folder / name)
        pixels[0, index] = np.asarray(picture).transpose(2, 0, 1)
        for variant in range(1, variants):
            buffer = io.BytesIO()
            picture.save(buffer, "JPEG", quality=JPEG_QUALITIES[variant - 1])
            pixels[variant, index] = np.asarray(Image.open(buffer)).transpose(2, 0, 1)
    labels = torch.tensor([classes.index(label) for _, label in rows])
    return LabelledPictures(
        torch.from_numpy(pixels), labels, tuple(name for name, _ in rows), classes
    )


def read_picture(path: Path) -> Image.Image:
    """Open one picture as RGB, squeezed to 224x224 (bilinear)."""
    with Image.open(path) as picture:
        size = (PICTURE_SIZE, PICTURE_SIZE)
        return picture.convert("RGB").resize(size, Image.Resampling.BILINEAR)


def augment(
    pixels: Tensor, height: int, generator: torch.Generator, width: int | None = None
) -> Tensor:
    """Draw one augmented batch: random affine and flip, color jitter, erased rectangles.

    Args:
        pixels: Shape `(N, 3, H, W)`, uint8.
        height: Of the pictures returned.
        generator: The source of randomness.
        width: Likewise; the height where none is given.

    Returns:
        Shape `(N, 3, height, width)`, float32 in `[0, 1]`.
    """
    count, size = len(pixels), (height, height if width is None else width)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator)

    angle = uniform(-25, 25) * math.pi / 180
    zoom, aspect = torch.exp(uniform(-0.45, 0.2)), torch.exp(uniform(-0.22, 0.22))
    mirror = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    shear = uniform(-0.2, 0.2)
    scale_x, scale_y = zoom * aspect, zoom / aspect
    cos, sin = torch.cos(angle), torch.sin(angle)
    slack = (1 - zoom).clamp(min=0) + 0.1
    theta = torch.stack(
        [
            torch.stack(
                [mirror * scale_x * cos, scale_y * (shear - sin), slack * uniform(-1, 1)], 1
            ),
            torch.stack([mirror * scale_x * sin, scale_y * cos, slack * uniform(-1, 1)], 1),
        ],
        1,
    )
    grid = functional.affine_grid(theta, [count, 3, *size], align_corners=False)
    source = pixels.float().div_(255)
    if source.shape[2:] != size:
        source = functional.interpolate(source, size=size, mode="area")
    batch = functional.grid_sample(source, grid, padding_mode="reflection", align_corners=False)

    def per_sample(low: float, high: float) -> Tensor:
        return uniform(low, high).view(-1, 1, 1, 1)

    gray = batch.mean(1, keepdim=True)
    batch = gray + (batch - gray) * per_sample(0.4, 1.6)
    level = batch.mean((1, 2, 3), keepdim=True)
    batch = (level + (batch - level) * per_sample(0.6, 1.4)) * per_sample(0.6, 1.4)
    batch = batch * torch.exp(0.12 * torch.randn(count, 3, 1, 1, generator=generator))
    for index in torch.nonzero(uniform(0, 1) < 0.25).flatten().tolist():
        rows, columns = (uniform(0.15, 0.5)[:2] * torch.tensor(size)).int().tolist()
        top = int(torch.randint(size[0] - rows, (1,), generator=generator))
        left = int(torch.randint(size[1] - columns, (1,), generator=generator))
        batch[index, :, top : top + rows, left : left + columns] = 0.5
    return batch.clamp_(0, 1)


def mix(pictures: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Blend pairs of samples: mixup (arXiv 1710.09412) or cutmix (arXiv 1905.04899), half each."""
    order = torch.randperm(len(pictures), generator=generator)
    share = float(torch.rand(1, generator=generator))
    if float(torch.rand(1, generator=generator)) < 0.5:
        share = 0.5 + 0.5 * max(share, 0.2)
        pictures = share * pictures + (1 - share) * pictures[order]
    else:
        side = pictures.shape[-1]
        cut = int(side * math.sqrt(1 - share))
        top, left = torch.randint(max(side - cut, 1), (2,), generator=generator).tolist()
        pictures = pictures.clone()
        area = (..., slice(top, top + cut), slice(left, left + cut))
        pictures[area] = pictures[order][area]
        share = 1 - cut * cut / (side * side)
    return pictures, share * targets + (1 - share) * targets[order]


def _split(row: dict[str, str], held_out: Collection[str]) -> str:
    held = row["split"] == "train" and bool(held_out) and row["sender_id"] in held_out
    return "held" if held else row["split"]


def _rows(folder: Path) -> list[dict[str, str]]:
    path = folder / "labels.csv"
    if not path.is_file():
        raise ConfigError(f"a picture folder must hold labels.csv; got {str(folder)!r}")
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))
