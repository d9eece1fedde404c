"""Pictures of a folder, squeezed to a bundle's input, with their labels where these are known."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from adaptive_split.bundle import ModelBundle
from adaptive_split.errors import ConfigError
from adaptive_split.runtime.source import Picture

LABELS = "labels.csv"
ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


@dataclass(frozen=True, slots=True, eq=False)
class PictureFolder:
    """M pictures in memory, in the order of their file names."""

    files: tuple[str, ...]
    """Paths below the folder, with `/`."""
    pixels: tuple[NDArray[np.uint8], ...]
    """Each of the bundle's input size, `(H, W, 3)`."""
    labels: tuple[int | None, ...]

    def picture(self, frame_index: int) -> Picture:
        """Fetch a frame's picture: one after the other, from the start again at the end."""
        sample = frame_index % len(self.files)
        return Picture(sample, self.pixels[sample], self.labels[sample])


class Scenes:
    """Pictures of a folder in a given order, numbered as in outcomes."""

    def __init__(
        self, folder: PictureFolder, rows: Mapping[int, int], samples: Sequence[int]
    ) -> None:
        """Take the position in the folder of every row of the outcomes, and the rows to show."""
        self._folder, self._rows, self._samples = folder, rows, samples

    def picture(self, frame_index: int) -> Picture:
        """Fetch a frame's picture; the sequence repeats."""
        row = int(self._samples[frame_index % len(self._samples)])
        found = self._folder.picture(self._rows[row])
        return Picture(row, found.pixels, found.label)


def read_folder(folder: Path, bundle: ModelBundle) -> PictureFolder:
    """Read every picture below a folder.

    A label is the class of the file's row in `labels.csv` (columns `file,label`), else the name of
    its folder if that is a class, else unknown.

    Raises:
        ConfigError: If there is no picture, one cannot be read, or `labels.csv` is damaged.
    """
    if not folder.is_dir():
        raise ConfigError(f"pictures must be a folder; got {folder}")
    files = sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.suffix.lower() in ENDINGS
    )
    if not files:
        raise ConfigError(f"a picture folder must hold {', '.join(ENDINGS)}; got none in {folder}")
    named = _labels(folder)
    classes = {name: index for index, name in enumerate(bundle.classes)}
    labels = [classes.get(named.get(file, Path(file).parent.name)) for file in files]
    pixels = [_read(folder / file, bundle.input_shape[1:]) for file in files]
    return PictureFolder(tuple(files), tuple(pixels), tuple(labels))


def squeeze(picture: Image.Image, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Turn any picture into one of a bundle's height and width, `(H, W, 3)`, RGB."""
    height, width = size
    return np.asarray(picture.convert("RGB").resize((width, height), Image.Resampling.BILINEAR))


def _labels(folder: Path) -> dict[str, str]:
    path = folder / LABELS
    if not path.is_file():
        return {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return {row["file"]: row["label"] for row in csv.DictReader(file)}
    except (OSError, UnicodeDecodeError, KeyError, csv.Error) as error:
        raise ConfigError(f"{path} must have columns file and label; got {error!r}") from error


def _read(file: Path, size: tuple[int, int]) -> NDArray[np.uint8]:
    try:
        with Image.open(file) as picture:
            return squeeze(picture, size)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise ConfigError(f"pictures must be readable; got {file}: {error}") from error
