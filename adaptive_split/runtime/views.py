"""Labelled pictures as a camera that moves would see them, so that few of them tell more."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from adaptive_split.errors import ConfigError
from adaptive_split.outcomes import view_name

LabelledPicture = tuple[str, int, NDArray[np.uint8]]
"""File, class index, pixels `(H, W, 3)`."""

CUT = 0.9375
"""Side of what is cut out, as a share of the picture's."""
MOST_VIEWS = 10


def in_views(pictures: Iterable[LabelledPicture], count: int) -> Iterator[LabelledPicture]:
    """Give every picture in several views, one after the other.

    The first is the picture itself, under its own name; the others are it mirrored, then cut in
    from each corner, plain and mirrored.

    Args:
        pictures: File, class index, pixels `(H, W, 3)`.
        count: Views of each picture, 1 to `MOST_VIEWS`.

    Raises:
        ConfigError: If there are not so many views.
    """
    check_count(count)
    for file, label, pixels in pictures:
        for number in range(count):
            yield view_name(file, number), label, _view(pixels, number)


def check_count(count: int) -> None:
    """Refuse a number of views that there is not."""
    if not 1 <= count <= MOST_VIEWS:
        raise ConfigError(f"views of a picture must be 1 to {MOST_VIEWS}; got {count}")


def _view(pixels: NDArray[np.uint8], number: int) -> NDArray[np.uint8]:
    """Views of odd number are mirrored; every two later, another corner."""
    turned = pixels[:, ::-1] if number % 2 else pixels
    corner = number // 2
    return np.ascontiguousarray(turned if corner == 0 else _cut(turned, corner - 1))


def _cut(pixels: NDArray[np.uint8], corner: int) -> NDArray[np.uint8]:
    """A part in one of four corners, stretched to the picture's size (bilinear)."""
    height, width = pixels.shape[:2]
    high, wide = round(CUT * height), round(CUT * width)
    top, left = (corner // 2) * (height - high), (corner % 2) * (width - wide)
    part = Image.fromarray(np.ascontiguousarray(pixels[top : top + high, left : left + wide]))
    return np.asarray(part.resize((width, height), Image.Resampling.BILINEAR))
