"""Where a run's pictures come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from adaptive_split.errors import ConfigError


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """One captured picture."""

    sample_index: int
    pixels: NDArray[np.uint8]
    """Shape `(H, W, 3)`."""
    label: int | None
    """The right class, where it is known."""


class FrameSource(Protocol):
    """Gives the picture of every frame; called on the device's thread, so it must not block."""

    def picture(self, frame_index: int) -> Picture | None:
        """Fetch the picture captured at `frame_index / fps`; `None` if there is none."""
        ...


class PictureSequence:
    """Labelled pictures in a given order, all in memory."""

    def __init__(
        self,
        pictures: Sequence[NDArray[np.uint8]],
        labels: Sequence[int],
        samples: Sequence[int] | NDArray[np.int64],
    ) -> None:
        """Take M pictures, their labels, and the index of the picture of every frame."""
        if len(pictures) != len(labels):
            raise ConfigError(
                f"every picture must have a label; got {len(pictures)} and {len(labels)}"
            )
        if not all(0 <= sample < len(pictures) for sample in samples):
            raise ConfigError(f"samples must lie in [0, {len(pictures)}); got others")
        self._pictures, self._labels, self._samples = pictures, labels, samples

    def picture(self, frame_index: int) -> Picture:
        """Fetch a frame's picture; the sequence repeats."""
        sample = int(self._samples[frame_index % len(self._samples)])
        return Picture(sample, self._pictures[sample], int(self._labels[sample]))
