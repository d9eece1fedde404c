"""A user's labelled pictures: some to train exits on, and two halves that nothing is trained on."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from adaptive_split.errors import ConfigError
from adaptive_split.models.pictures import LabelledPictures
from adaptive_split.runtime.picture_folder import ENDINGS, LABELS
from adaptive_split.runtime.views import LabelledPicture

SPLITS = ("train", "val")
HELD_OUT_OF = 4
"""Where nobody says which, every fourth picture of a class is held out, in file order."""
MOST_SIDE = 4096


@dataclass(frozen=True, slots=True)
class OwnPictures:
    """Pictures by what they are for."""

    train: LabelledPictures
    """What exits and bottlenecks learn from."""
    policy: LabelledPictures
    """What temperatures are fitted on and a policy is trained on,"""
    judge: LabelledPictures
    """and what it is judged on; both halves of `val`."""


def read_own_pictures(folder: Path, height: int, width: int | None = None) -> OwnPictures:
    """Read a folder, pictures squeezed to one size as the runtime squeezes them.

    Where no width is given they become square.

    A label is that of `labels.csv` (columns `file,label` and maybe `split`), else the name of the
    picture's folder: `DIR/CLASS/*.jpg` or `DIR/train/CLASS/*.jpg` and `DIR/val/CLASS/*.jpg`.
    Classes are in the order of their names, which must be that of the model's logits.

    Raises:
        ConfigError: If the folder holds too few pictures or classes, or one cannot be read.
    """
    size = (height, height if width is None else width)
    if not all(0 < side <= MOST_SIDE for side in size):
        raise ConfigError(f"sides of pictures must lie in 1..{MOST_SIDE}; got {size}")
    if not folder.is_dir():
        raise ConfigError(f"pictures must be a folder; got {folder}")
    rows = _rows(folder)
    classes = tuple(sorted({label for _, label, _ in rows}))
    if len(classes) < 2:
        raise ConfigError(
            f"{folder} must hold a folder of pictures for each of 2 classes or more; "
            f"got {classes!r}"
        )
    splits = _complete(rows)
    labels = [classes.index(label) for _, label, _ in rows]
    chosen = {
        "train": [index for index, split in enumerate(splits) if split == "train"],
        **_halves([index for index, split in enumerate(splits) if split == "val"], labels),
    }
    for name, indices in chosen.items():
        if len(indices) < 2:
            raise ConfigError(
                f"{folder} must leave 2 pictures or more for {name}; got {len(indices)}"
            )
    parts = {
        name: _load(folder, [rows[index][0] for index in indices],
                    [labels[index] for index in indices], classes, size)
        for name, indices in chosen.items()
    }  # fmt: skip
    return OwnPictures(**parts)


def labelled(pictures: LabelledPictures) -> Iterator[LabelledPicture]:
    """Give file, label and pixels `(H, W, 3)` of every picture."""
    for index, file in enumerate(pictures.files):
        pixels = pictures.pixels[0, index].numpy().transpose(1, 2, 0)
        yield file, int(pictures.labels[index]), np.ascontiguousarray(pixels)


def _rows(folder: Path) -> list[tuple[str, str, str]]:
    """`(file, label, split)` of every picture in file order; an unknown split is empty."""
    files = sorted(
        path.relative_to(folder)
        for path in folder.rglob("*")
        if path.suffix.lower() in ENDINGS and path.is_file()
    )
    if (folder / LABELS).is_file():
        named = _labels(folder / LABELS)
        return [(f.as_posix(), *named[f.as_posix()]) for f in files if f.as_posix() in named]
    rows = []
    for file in files:
        split = file.parts[0] if file.parts[0] in SPLITS and len(file.parts) > 2 else ""
        if file.parent.name:
            rows.append((file.as_posix(), file.parent.name, split))
    return rows


def _labels(path: Path) -> dict[str, tuple[str, str]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return {
                row["file"]: (row["label"], row.get("split") or "") for row in csv.DictReader(file)
            }
    except (OSError, UnicodeDecodeError, KeyError, csv.Error) as error:
        raise ConfigError(f"{path} must have columns file and label; got {error!r}") from error


def _complete(rows: list[tuple[str, str, str]]) -> list[str]:
    """The split of every row; held out by us where none is given."""
    given = {split for _, _, split in rows}
    if given <= set(SPLITS):
        return [split for _, _, split in rows]
    if given != {""}:
        raise ConfigError(
            f"pictures must all be in {' or '.join(SPLITS)}, or none; got splits {sorted(given)}"
        )
    seen: dict[str, int] = {}
    splits = []
    for _, label, _ in rows:
        seen[label] = seen.get(label, 0) + 1
        splits.append("val" if seen[label] % HELD_OUT_OF == 0 else "train")
    return splits


def _halves(indices: list[int], labels: list[int]) -> dict[str, list[int]]:
    """Part pictures in two, alternating within every class, classes taking turns in beginning."""
    halves: dict[str, list[int]] = {"policy": [], "judge": []}
    seen: dict[int, int] = {}
    for index in indices:
        label = labels[index]
        halves[("policy", "judge")[seen.setdefault(label, label % 2) % 2]].append(index)
        seen[label] += 1
    return halves


def _load(
    folder: Path,
    files: list[str],
    labels: list[int],
    classes: tuple[str, ...],
    size: tuple[int, int],
) -> LabelledPictures:
    pixels = np.empty((1, len(files), 3, *size), np.uint8)
    for index, file in enumerate(files):
        pixels[0, index] = _read(folder / file, size).transpose(2, 0, 1)
    return LabelledPictures(torch.from_numpy(pixels), torch.tensor(labels), tuple(files), classes)


def _read(file: Path, size: tuple[int, int]) -> NDArray[np.uint8]:
    try:
        with Image.open(file) as picture:
            height, width = size
            rgb = picture.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
            return np.asarray(rgb)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise ConfigError(f"pictures must be readable; got {file}: {error}") from error
