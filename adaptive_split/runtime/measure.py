"""Measures outcomes: runs every exit and every payload on labelled pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from adaptive_split.bundle import ModelBundle
from adaptive_split.codec import decode_feature, decode_picture, encode_feature, encode_picture
from adaptive_split.decision import DecisionGrid
from adaptive_split.errors import ConfigError
from adaptive_split.outcomes import Outcomes
from adaptive_split.runtime.stages import ExitAnswer, StageRunner, Tensor

LabelledPicture = tuple[str, int, NDArray[np.uint8]]
"""File, class index, pixels `(H, W, 3)`."""


def measure(
    bundle: ModelBundle,
    pictures: Iterable[LabelledPicture],
    grid: DecisionGrid,
    *,
    subset: str,
    progress: Callable[[int], None] = lambda count: None,
) -> Outcomes:
    """Answer every picture at every exit and, through codec and tail, with every payload.

    Args:
        bundle: The model.
        pictures: What to answer.
        grid: Gives the payloads; must have the bundle's number of stages.
        subset: `policy` or `judge`, kept with the outcomes.
        progress: Called with the number of pictures done after each.
    """
    if grid.num_stages != bundle.num_stages:
        raise ConfigError(
            f"grid must have the bundle's {bundle.num_stages} stages; got {grid.num_stages}"
        )
    files: list[str] = []
    labels: list[int] = []
    exits: list[list[ExitAnswer]] = []
    served: list[list[ExitAnswer]] = []
    sizes: list[list[int]] = []
    with StageRunner(bundle) as runner:
        for file, label, pixels in pictures:
            features, answers = _run_exits(runner, pixels)
            payloads = [
                _encode(runner, grid.bits, k, pixels, features) for k in range(len(features))
            ]
            files.append(file)
            labels.append(label)
            exits.append(answers)
            served.append([a for k, sent in enumerate(payloads) for a in _serve(runner, k, sent)])
            sizes.append([len(payload) for sent in payloads for payload in sent])
            progress(len(files))
    return Outcomes(
        bundle_hash=bundle.hash,
        subset=subset,
        files=tuple(files),
        label=np.array(labels, np.int64),
        exit_answer=_answers(exits),
        exit_confidence=_confidences(exits),
        payloads=grid.payloads,
        server_answer=_answers(served),
        server_confidence=_confidences(served),
        payload_bytes=np.array(sizes, np.int64),
    )


def _run_exits(
    runner: StageRunner, pixels: NDArray[np.uint8]
) -> tuple[list[Tensor], list[ExitAnswer]]:
    tensor = runner.prepare(pixels)
    features, answers = [], []
    for index in range(1, runner.bundle.num_stages + 1):
        tensor = runner.stage(index, tensor)
        features.append(tensor)
        answers.append(runner.exit(index, tensor))
    return features, answers


def _encode(
    runner: StageRunner,
    all_bits: tuple[int, ...],
    split_point: int,
    pixels: NDArray[np.uint8],
    features: list[Tensor],
) -> list[bytes]:
    """The payloads of one split point, one for each of `all_bits`."""
    if split_point == 0:
        qualities = runner.bundle.picture_qualities
        return [encode_picture(pixels, qualities[bits]) for bits in all_bits]
    codes = runner.encode(split_point, features[split_point - 1])
    return [encode_feature(codes, bits) for bits in all_bits]


def _serve(runner: StageRunner, split_point: int, payloads: list[bytes]) -> list[ExitAnswer]:
    """Decode the payloads of one split point and run the rest of the model on them."""
    bundle = runner.bundle
    if split_point == 0:
        size = bundle.input_shape[1]
        pictures = [runner.prepare(decode_picture(payload, size)) for payload in payloads]
        tensor = np.concatenate(pictures)
    else:
        shape = bundle.code_shapes[split_point]
        codes = np.stack([decode_feature(payload, shape) for payload in payloads])
        tensor = runner.decode_all(split_point, codes)
    for index in range(split_point + 1, bundle.num_stages + 1):
        tensor = runner.stage(index, tensor)
    return runner.exit_all(bundle.num_stages, tensor)


def _answers(rows: list[list[ExitAnswer]]) -> NDArray[np.int64]:
    return np.array([[answer.answer for answer in row] for row in rows], np.int64)


def _confidences(rows: list[list[ExitAnswer]]) -> NDArray[np.float64]:
    return np.array([[answer.confidence for answer in row] for row in rows], np.float64)
