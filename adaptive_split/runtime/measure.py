"""Measures outcomes: runs every exit and every payload on labelled pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adaptive_split.bundle import ModelBundle
from adaptive_split.codec import decode_feature, decode_picture, encode_feature, encode_picture
from adaptive_split.decision import DecisionGrid
from adaptive_split.errors import ConfigError
from adaptive_split.outcomes import Outcomes
from adaptive_split.runtime.answer_log import AnswerLog, PictureAnswers
from adaptive_split.runtime.stages import ExitAnswer, StageRunner, Tensor
from adaptive_split.runtime.views import LabelledPicture


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """Outcomes, and how sure every exit was with and without its temperature."""

    outcomes: Outcomes
    exit_probability: NDArray[np.float64]
    """Softmax of the class that each exit answered, shape `(M, S)`,"""
    plain_probability: NDArray[np.float64]
    """and what it would be at temperature 1."""


def measure(
    bundle: ModelBundle,
    pictures: Iterable[LabelledPicture],
    grid: DecisionGrid,
    *,
    subset: str,
    progress: Callable[[int], None] = lambda count: None,
) -> Outcomes:
    """Give the outcomes alone; see `measure_exits`."""
    return measure_exits(bundle, pictures, grid, subset=subset, progress=progress).outcomes


def measure_exits(
    bundle: ModelBundle,
    pictures: Iterable[LabelledPicture],
    grid: DecisionGrid,
    *,
    subset: str,
    log: AnswerLog | None = None,
    progress: Callable[[int], None] = lambda count: None,
) -> Measured:
    """Answer every picture at every exit and, through codec and tail, with every payload.

    Args:
        bundle: The model.
        pictures: What to answer.
        grid: Gives the payloads; must have the bundle's number of stages.
        subset: `policy` or `judge`, kept with the outcomes.
        log: Where answers are kept, so that an interrupted measurement goes on where it stopped;
            its identity is that of `identity` for the same pictures.
        progress: Called with the number of pictures done after each.

    Raises:
        ConfigError: If the grid is of another model.
    """
    if grid.num_stages != bundle.num_stages:
        raise ConfigError(
            f"grid must have the bundle's {bundle.num_stages} stages; got {grid.num_stages}"
        )
    rows = [] if log is None else list(log.rows)
    files: list[str] = []
    labels: list[int] = []
    with StageRunner(bundle) as runner:
        for file, label, pixels in pictures:
            files.append(file)
            labels.append(label)
            if len(files) <= len(rows):
                continue
            rows.append(_answer(runner, grid, pixels))
            if log is not None:
                log.append(rows[-1])
            progress(len(rows))
    outcomes = Outcomes(
        bundle_hash=bundle.hash,
        subset=subset,
        files=tuple(files),
        label=np.array(labels, np.int64),
        exit_answer=np.array([row.exit_answer for row in rows], np.int64),
        exit_confidence=np.array([row.exit_confidence for row in rows], np.float64),
        payloads=grid.payloads,
        server_answer=np.array([row.server_answer for row in rows], np.int64),
        server_confidence=np.array([row.server_confidence for row in rows], np.float64),
        payload_bytes=np.array([row.payload_bytes for row in rows], np.int64),
    )
    return Measured(
        outcomes,
        exit_probability=np.array([row.exit_probability for row in rows], np.float64),
        plain_probability=np.array([row.plain_probability for row in rows], np.float64),
    )


def identity(bundle: ModelBundle, grid: DecisionGrid, pictures: Iterable[LabelledPicture]) -> str:
    """A digest of everything that answers depend on; labels and subset do not matter to them."""
    digest = hashlib.sha256(repr((bundle.hash, grid.payloads)).encode())
    for file, _, pixels in pictures:
        digest.update(repr((file, pixels.shape)).encode())
        digest.update(pixels.tobytes())
    return digest.hexdigest()


def _answer(runner: StageRunner, grid: DecisionGrid, pixels: NDArray[np.uint8]) -> PictureAnswers:
    """Ask every exit and every payload about one picture."""
    features, exits = _run_exits(runner, pixels)
    payloads = [_encode(runner, grid.bits, k, pixels, features) for k in range(len(features))]
    served = [answer for k, sent in enumerate(payloads) for answer in _serve(runner, k, sent)]
    heats = runner.bundle.temperatures
    return PictureAnswers(
        exit_answer=[one.answer for one in exits],
        exit_confidence=[one.confidence for one in exits],
        exit_probability=[_top(one.logits) for one in exits],
        plain_probability=[_top(one.logits * heat) for one, heat in zip(exits, heats, strict=True)],
        server_answer=[one.answer for one in served],
        server_confidence=[one.confidence for one in served],
        payload_bytes=[len(payload) for sent in payloads for payload in sent],
    )


def _top(logits: Tensor) -> float:
    """The largest entry of the softmax of logits `(C,)`."""
    exact = logits.astype(np.float64)
    return float(1 / np.exp(exact - exact.max()).sum())


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
        qualities, form = runner.bundle.picture_qualities, runner.bundle.picture_format
        return [encode_picture(pixels, qualities[bits], form) for bits in all_bits]
    codes = runner.encode(split_point, features[split_point - 1])
    return [encode_feature(codes, bits) for bits in all_bits]


def _serve(runner: StageRunner, split_point: int, payloads: list[bytes]) -> list[ExitAnswer]:
    """Decode the payloads of one split point and run the rest of the model on them."""
    bundle = runner.bundle
    if split_point == 0:
        how = (bundle.input_shape[1:], bundle.picture_format)
        tensor = np.concatenate([runner.prepare(decode_picture(one, *how)) for one in payloads])
    else:
        shape = bundle.code_shapes[split_point]
        codes = np.stack([decode_feature(payload, shape) for payload in payloads])
        tensor = runner.decode_all(split_point, codes)
    for index in range(split_point + 1, bundle.num_stages + 1):
        tensor = runner.stage(index, tensor)
    return runner.exit_all(bundle.num_stages, tensor)
