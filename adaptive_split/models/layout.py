"""How the feature at a cut, maps or tokens, becomes the `(C, H, W)` that bundles speak of."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

MOST_PREFIX_TOKENS = 8
"""A sequence of a square and up to this many tokens is patches behind class or register tokens."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """The feature of a cut and the feature map that stands for it; both hold the same elements.

    Maps stay what they are, channels last is turned around. Tokens `(T, C)` of a square picture
    become `(C, n, n)` where `T = n * n`; with prefix tokens before these, or where T is no square,
    `(C, T, 1)`. A vector is `(C, 1, 1)`.
    """

    shape: tuple[int, ...]
    """Of the feature in the model, without the batch."""
    channels_last: bool
    num_prefix: int
    """Tokens before those of the patches, e.g. 1 class token."""
    grid: tuple[int, int]
    """Height and width of the positions without prefix tokens."""

    @classmethod
    def of(cls, shape: tuple[int, ...]) -> Layout:
        """Guess from a shape which side holds the channels; costs compression if wrong, no answer.

        Three sides are channels last where only the first two agree, else channels first.
        """
        if len(shape) == 1:
            return cls(shape=shape, channels_last=False, num_prefix=0, grid=(1, 1))
        if len(shape) == 3:
            last = shape[0] == shape[1] != shape[2]
            grid = shape[:2] if last else shape[1:]
            return cls(shape=shape, channels_last=last, num_prefix=0, grid=(grid[0], grid[1]))
        num_tokens = shape[0]
        side = math.isqrt(num_tokens)
        num_prefix = num_tokens - side * side
        if num_prefix > MOST_PREFIX_TOKENS:
            return cls(shape=shape, channels_last=True, num_prefix=0, grid=(num_tokens, 1))
        return cls(shape=shape, channels_last=True, num_prefix=num_prefix, grid=(side, side))

    @property
    def channels(self) -> int:
        """Channels of the feature map, C."""
        return self.shape[-1 if self.channels_last else 0]

    @property
    def map_shape(self) -> tuple[int, int, int]:
        """`(C, H, W)` of the feature map."""
        if self.num_prefix:
            return self.channels, self.shape[0], 1
        return self.channels, *self.grid

    def to_map(self, feature: Tensor) -> Tensor:
        """Turn features `(N, *shape)` into feature maps `(N, C, H, W)`."""
        if self.channels_last:
            feature = feature.movedim(-1, 1)
        return feature.reshape(-1, *self.map_shape)

    def from_map(self, feature_map: Tensor) -> Tensor:
        """Turn feature maps `(N, C, H, W)` back into features `(N, *shape)`."""
        if not self.channels_last:
            return feature_map.reshape(-1, *self.shape)
        sides = self.shape[:-1]
        return feature_map.reshape(-1, self.channels, *sides).movedim(1, -1)

    def split(self, feature_map: Tensor) -> tuple[Tensor, Tensor]:
        """Part a feature map into its positions `(N, C, *grid)` and prefix tokens `(N, C, P)`."""
        if not self.num_prefix:
            return feature_map, feature_map.flatten(2)[:, :, :0]
        tokens = feature_map.flatten(2)
        patches = tokens[:, :, self.num_prefix :].reshape(-1, self.channels, *self.grid)
        return patches, tokens[:, :, : self.num_prefix]

    def join(self, patches: Tensor, prefix: Tensor) -> Tensor:
        """Undo `split`."""
        if not self.num_prefix:
            return patches
        return torch.cat([prefix, patches.flatten(2)], 2).unsqueeze(3)
