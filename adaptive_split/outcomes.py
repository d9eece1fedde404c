"""Measured answers of a bundle: what every exit and every payload said about labelled pictures."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from adaptive_split.decision import NEVER
from adaptive_split.errors import BundleError, ConfigError

VERSION = 1
_VIEW = re.compile(r"#\d+$")


@dataclass(frozen=True, slots=True, eq=False)
class Outcomes:
    """Answers and bytes for M labelled pictures or views of them, S exits and P payloads."""

    bundle_hash: str
    """Hash of the model bundle that answered."""
    subset: str
    """Which pictures: `policy` (train the policy on them) or `judge` (judge it on them)."""
    files: tuple[str, ...]
    """Of every row; see `view_name` where it is another view of the picture than the file's."""
    label: NDArray[np.int64]
    """Shape `(M,)`."""
    exit_answer: NDArray[np.int64]
    """Class index at every exit, shape `(M, S)`."""
    exit_confidence: NDArray[np.float64]
    """1 - normalized entropy of the softmax at every exit, shape `(M, S)`, in [0, 1]."""
    payloads: tuple[tuple[int, int], ...]
    """`(split_point, bits)` of every payload, in the grid's order."""
    server_answer: NDArray[np.int64]
    """Class index after each payload went through codec and tail, shape `(M, P)`."""
    server_confidence: NDArray[np.float64]
    """Confidence of those answers, shape `(M, P)`."""
    payload_bytes: NDArray[np.int64]
    """Measured size of every payload, shape `(M, P)`."""

    def __post_init__(self) -> None:
        """Refuse arrays whose shapes do not agree."""
        num_samples, num_payloads = len(self.label), len(self.payloads)
        if num_samples == 0:
            raise ConfigError("outcomes must hold at least one picture; got none")
        shapes = {
            "exit_answer": (self.exit_answer.shape, (num_samples, self.num_stages)),
            "exit_confidence": (self.exit_confidence.shape, (num_samples, self.num_stages)),
            "server_answer": (self.server_answer.shape, (num_samples, num_payloads)),
            "server_confidence": (self.server_confidence.shape, (num_samples, num_payloads)),
            "payload_bytes": (self.payload_bytes.shape, (num_samples, num_payloads)),
        }
        for name, (got, expected) in shapes.items():
            if got != expected:
                raise ConfigError(f"outcomes {name} must have shape {expected}; got {got}")

    @property
    def num_stages(self) -> int:
        """Number of exits, S."""
        return int(self.exit_answer.shape[-1])

    @property
    def picture(self) -> NDArray[np.int64]:
        """Which picture each row is a view of, shape `(M,)`, from 0 on."""
        files = [_VIEW.sub("", file) for file in self.files]
        return np.unique(files, return_inverse=True)[1].astype(np.int64)

    def plain(self) -> Outcomes:
        """The rows of the pictures as they are in their files."""
        return self.select([row for row, file in enumerate(self.files) if not _VIEW.search(file)])

    @property
    def exit_right(self) -> NDArray[np.bool_]:
        """Whether each exit is right, shape `(M, S)`."""
        return np.asarray(self.exit_answer == self.label[:, None])

    @property
    def server_right(self) -> NDArray[np.bool_]:
        """Whether the answer to each payload is right, shape `(M, P)`."""
        return np.asarray(self.server_answer == self.label[:, None])

    def select(self, rows: Sequence[int]) -> Outcomes:
        """The outcomes of some of the pictures."""
        kept = np.asarray(rows, np.int64)
        arrays = (
            "label", "exit_answer", "exit_confidence", "server_answer", "server_confidence",
            "payload_bytes",
        )  # fmt: skip
        return replace(
            self,
            files=tuple(self.files[row] for row in kept),
            **{name: getattr(self, name)[kept] for name in arrays},
        )

    def save(self, path: Path) -> None:
        """Write `outcomes.npz`; loads without pickle. The file appears when it is whole."""
        meta = {
            "version": VERSION,
            "bundle_hash": self.bundle_hash,
            "subset": self.subset,
            "files": list(self.files),
            "payloads": [list(pair) for pair in self.payloads],
        }
        unfinished = path.with_name(f".{path.stem}-unfinished.npz")
        np.savez_compressed(
            unfinished,
            meta=np.frombuffer(json.dumps(meta).encode(), np.uint8),
            label=self.label.astype(np.int16),
            exit_answer=self.exit_answer.astype(np.int16),
            exit_confidence=self.exit_confidence.astype(np.float32),
            server_answer=self.server_answer.astype(np.int16),
            server_confidence=self.server_confidence.astype(np.float32),
            payload_bytes=self.payload_bytes.astype(np.int32),
        )
        unfinished.replace(path)

    @classmethod
    def load(cls, path: Path) -> Outcomes:
        """Read `outcomes.npz`.

        Raises:
            BundleError: If the file is damaged or of an unknown version.
        """
        try:
            with np.load(path, allow_pickle=False) as data:
                meta = json.loads(data["meta"].tobytes())
                if meta["version"] != VERSION:
                    raise BundleError(
                        f"outcomes must be of version {VERSION}; got {meta['version']!r} in {path}"
                    )
                return cls(
                    bundle_hash=meta["bundle_hash"],
                    subset=meta["subset"],
                    files=tuple(meta["files"]),
                    label=data["label"].astype(np.int64),
                    exit_answer=data["exit_answer"].astype(np.int64),
                    exit_confidence=data["exit_confidence"].astype(np.float64),
                    payloads=tuple((int(a), int(b)) for a, b in meta["payloads"]),
                    server_answer=data["server_answer"].astype(np.int64),
                    server_confidence=data["server_confidence"].astype(np.float64),
                    payload_bytes=data["payload_bytes"].astype(np.int64),
                )
        except FileNotFoundError:
            raise BundleError(
                f"outcomes must exist; got no file {path}; make it with 'adaptive-split measure'"
            ) from None
        except (OSError, KeyError, ValueError, json.JSONDecodeError) as error:
            if isinstance(error, BundleError):
                raise
            raise BundleError(
                f"outcomes must be readable; got a damaged {path}: {error}"
            ) from error


def view_name(file: str, number: int) -> str:
    """Name a view of a picture; number 0 is the picture itself."""
    return f"{file}#{number}" if number else file


def confidence(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """1 - normalized entropy of the softmax, `1 - H(p) / log C` (DDNN, arXiv 1709.01921, sec. 3.4).

    Args:
        logits: Shape `(..., C)`.

    Returns:
        Shape `(...)`, in [0, 1]; 1 = one class holds everything.
    """
    shifted = np.asarray(logits, np.float64)
    shifted = shifted - shifted.max(-1, keepdims=True)
    log_sum = np.log(np.exp(shifted).sum(-1, keepdims=True))
    log_probability = shifted - log_sum
    entropy = -(np.exp(log_probability) * log_probability).sum(-1)
    return np.asarray(np.clip(1 - entropy / np.log(shifted.shape[-1]), 0.0, 1.0))


def useful_thresholds(outcomes: Outcomes, num_thresholds: int = 5) -> tuple[float, ...]:
    """Place exit thresholds so that each, raised to the next, moves some picture to a later exit.

    Where a picture leaves changes exactly when the threshold passes one of its records: the
    confidences of the exits before the last that are higher than at every exit before. The
    thresholds are quantiles of all records, so equal shares of these changes lie between them.

    Args:
        outcomes: Measured on pictures that the policy is trained on.
        num_thresholds: How many at most, `NEVER` included; fewer if the records tell no more apart.

    Returns:
        Thresholds in (0, 1], strictly rising, the last one `NEVER`.
    """
    early = outcomes.exit_confidence[:, :-1]
    highest = np.maximum.accumulate(early, axis=1)
    before = np.pad(highest[:, :-1], ((0, 0), (1, 0)), constant_values=-1.0)
    records = np.sort(early[early > before])
    shares = np.arange(1, num_thresholds) / num_thresholds
    chosen = np.ceil(1e4 * np.quantile(records, shares, method="higher")) / 1e4
    rungs: list[float] = []
    for value in chosen[(chosen > 0) & (chosen < NEVER)]:
        # An exit answers at a confidence of the threshold or more.
        if ((records >= (rungs[-1] if rungs else 0.0)) & (records < value)).any():
            rungs.append(float(value))
    if rungs and not (records >= rungs[-1]).any():
        rungs.pop()
    return (*rungs, NEVER)
