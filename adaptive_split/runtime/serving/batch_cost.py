"""What a batch costs: measured lines, one for every part that a server runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from adaptive_split.bundle import ModelBundle
from adaptive_split.clock import Clock
from adaptive_split.codec import decode_feature, decode_picture, encode_feature, encode_picture
from adaptive_split.profile import Profile
from adaptive_split.runtime.parts import Stages
from adaptive_split.runtime.stages import Tensor

MEASURED_BATCH = 4
"""Size of the larger of the two batches that a line is drawn through."""
REPEATS = 6
"""Runs of each; the shortest counts, as other programs only ever lengthen a run."""


@dataclass(frozen=True, slots=True)
class Line:
    """Time of a batch of n: `one_s + (n - 1) * more_s`."""

    one_s: float
    more_s: float

    def batch_s(self, count: int) -> float:
        """Time of a batch; none takes none."""
        return self.one_s + (count - 1) * self.more_s if count else 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchCosts:
    """Lines of a bundle of S stages on one machine; every tuple has S entries."""

    stage: tuple[Line, ...]
    """Of stages 1..S."""
    exit: tuple[Line, ...]
    """Of exits 1..S."""
    decoder: tuple[Line, ...]
    """Of the decoders of split points 0..S-1, payload to feature; 0 is the image codec."""

    def rest_s(self, first: int, last: int, *, entering: bool) -> float:
        """Time from stage `first` to the answer of exit `last`, alone; decoder where entering."""
        rest_s = self.exit[last - 1].one_s
        for line in self.stage[first - 1 : last]:
            rest_s += line.one_s
        return rest_s + self.decoder[first - 1].one_s if entering else rest_s

    def step_s(self, stage: int, count: int, entering: int, asked: int = 0) -> float:
        """Time of one stage for a batch, of which some enter and some ask its exit."""
        entered_s = self.decoder[stage - 1].batch_s(entering)
        return (
            entered_s + self.stage[stage - 1].batch_s(count) + self.exit[stage - 1].batch_s(asked)
        )


def profiled_costs(profile: Profile, factor: float = 1.0) -> BatchCosts:
    """Take the times of a profile, times a factor; it tells nothing of batches, so they save none.

    Args:
        profile: Medians at batch size 1.
        factor: How much slower the server is to be.
    """

    def lines(times_s: tuple[float, ...]) -> tuple[Line, ...]:
        return tuple(Line(factor * time_s, factor * time_s) for time_s in times_s)

    return BatchCosts(
        stage=lines(profile.stage_s), exit=lines(profile.exit_s), decoder=lines(profile.decoder_s)
    )


def free_costs(bundle: ModelBundle) -> BatchCosts:
    """Costs of nothing, for a machine that nobody measured."""
    lines = (Line(0.0, 0.0),) * bundle.num_stages
    return BatchCosts(stage=lines, exit=lines, decoder=lines)


def measured_costs(bundle: ModelBundle, stages: Stages, clock: Clock) -> BatchCosts:
    """Time every part of the tails here, alone and in a batch: about a second for `garments`."""
    generator = np.random.default_rng(0)

    def batch(shape: tuple[int, int, int]) -> Tensor:
        return generator.random((MEASURED_BATCH, *shape), np.float32)

    def line(run: Callable[[Tensor], object], shape: tuple[int, int, int]) -> Line:
        tensor = batch(shape)
        one_s = _least_s(clock, lambda: run(tensor[:1]))
        all_s = _least_s(clock, lambda: run(tensor))
        # One more never costs more than one alone: a batch may be run one by one.
        more_s = (all_s - one_s) / (MEASURED_BATCH - 1)
        return Line(one_s, min(max(more_s, 0.0), one_s))

    shapes = (bundle.input_shape, *bundle.feature_shapes)
    indices = range(1, bundle.num_stages + 1)
    picture_s = _least_s(clock, _picture_decoder(bundle, stages))
    decoders = [Line(picture_s, picture_s)]
    for split, shape in sorted(bundle.code_shapes.items()):
        graph = line(lambda codes, k=split: stages.decode_all(k, codes), shape)  # type: ignore[misc]
        payload = encode_feature(batch(shape)[0], 4)
        codec_s = _least_s(clock, lambda p=payload, s=shape: decode_feature(p, s))  # type: ignore[misc]
        decoders.append(Line(graph.one_s + codec_s, graph.more_s + codec_s))
    return BatchCosts(
        stage=tuple(line(lambda x, k=k: stages.stage(k, x), shapes[k - 1]) for k in indices),  # type: ignore[misc]
        exit=tuple(line(lambda x, k=k: stages.exit_all(k, x), shapes[k]) for k in indices),  # type: ignore[misc]
        decoder=tuple(decoders),
    )


def _picture_decoder(bundle: ModelBundle, stages: Stages) -> Callable[[], object]:
    """Decoding of a picture that costs what that of a photo does."""
    _, height, width = bundle.input_shape
    rows, columns = np.mgrid[0:height, 0:width]
    noise = np.random.default_rng(0).normal(0, 8, (height, width, 3))
    waves = 60 * np.sin(rows / 9) * np.cos(columns / 7)
    pixels = np.clip(128 + waves[..., None] + noise, 0, 255).astype(np.uint8)
    payload = encode_picture(pixels, 60, bundle.picture_format)
    size, form = (height, width), bundle.picture_format
    return lambda: stages.prepare(decode_picture(payload, size, form))


def _least_s(clock: Clock, run: Callable[[], object]) -> float:
    times_s = []
    for _ in range(REPEATS):
        begin_s = clock.now_s()
        run()
        times_s.append(clock.now_s() - begin_s)
    return min(times_s)
