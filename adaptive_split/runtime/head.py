"""The device's part of the model: stages, exits and encoders, paced, and how slow they run."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from adaptive_split.clock import Clock
from adaptive_split.codec import encode_feature, encode_picture
from adaptive_split.runtime.parts import Pacer, Stages
from adaptive_split.runtime.setup import Setup
from adaptive_split.runtime.stages import ExitAnswer, Tensor

SMOOTHING = 0.1
MOST_RISE = 4.0
"""A part that took longer than this multiple of its expected time counts as this long: the process
was held up, and believing it would let no frame start again."""


class Head:
    """Runs the parts of a bundle on the device and predicts their times."""

    def __init__(self, setup: Setup, stages: Stages, clock: Clock, slowdown: float) -> None:
        self._bundle, self._profile = setup.bundle, setup.device_profile
        self._stages, self._pacer = stages, Pacer(clock, slowdown)
        self.slowdown = 1.0
        """Measured compute time over the profile's, smoothed."""

    @property
    def num_stages(self) -> int:
        """Number of stages, S."""
        return self._bundle.num_stages

    @property
    def first_s(self) -> float:
        """Time of stage 1 and exit 1: the least a frame needs for an answer."""
        return self.stages_s(0, 1)

    def stages_s(self, done: int, last: int) -> float:
        """Time of the stages after `done` up to `last` with their exits, as they run now."""
        profile = self._profile
        profiled_s = sum(profile.stage_s[done:last]) + sum(profile.exit_s[done:last])
        return profiled_s * self.slowdown

    def encoder_s(self, split_point: int) -> float:
        """Time of an encoder, as it runs now."""
        return self._profile.encoder_s[split_point] * self.slowdown

    def run_stage(
        self, index: int, tensor: Tensor | None, pixels: NDArray[np.uint8]
    ) -> tuple[Tensor, ExitAnswer, float]:
        """Run one stage and its exit; return the feature, the answer and the time taken.

        Args:
            index: Which stage, 1..S.
            tensor: The feature before it; `None` for stage 1.
            pixels: The picture.
        """
        stages, profile = self._stages, self._profile

        def run() -> Tensor:
            before = stages.prepare(pixels) if tensor is None else tensor
            return stages.stage(index, before)

        feature, stage_s = self._pacer.run(profile.stage_s[index - 1], run)
        answer, exit_s = self._pacer.run(
            profile.exit_s[index - 1], lambda: stages.exit(index, feature)
        )
        took_s = stage_s + exit_s
        profiled_s = max(profile.stage_s[index - 1] + profile.exit_s[index - 1], 1e-6)
        ratio = min(took_s / profiled_s, MOST_RISE * max(self.slowdown, 1.0))
        self.slowdown += SMOOTHING * (ratio - self.slowdown)
        if not math.isfinite(answer.confidence):
            answer = replace(answer, confidence=0.0)  # an exit that cannot tell is not sure
        return feature, answer, took_s

    def doubt(self) -> None:
        """Move a slowdown that lets no frame start back towards the profile, to measure again."""
        self.slowdown += SMOOTHING * (1.0 - self.slowdown)

    def encode(
        self, split_point: int, bits: int, tensor: Tensor | None, pixels: NDArray[np.uint8]
    ) -> tuple[bytes, float]:
        """Encode the feature at a split point, or at 0 the picture; return payload and time."""

        def run() -> bytes:
            if tensor is None:
                quality = self._bundle.picture_qualities[bits]
                return encode_picture(pixels, quality, self._bundle.picture_format)
            return encode_feature(self._stages.encode(split_point, tensor), bits)

        return self._pacer.run(self._profile.encoder_s[split_point], run)
