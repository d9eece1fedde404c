"""Runs the stages, exits, encoders and decoders of a model bundle with ONNX Runtime."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from adaptive_split.bundle import GRAPH_INPUT, GRAPH_OUTPUT, ModelBundle
from adaptive_split.errors import BundleError
from adaptive_split.outcomes import confidence
from adaptive_split.runtime.providers import CPU, with_options

Tensor = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ExitAnswer:
    """What one exit said about one picture."""

    answer: int
    """Class index."""
    confidence: float
    """1 - normalized entropy, in [0, 1]."""
    logits: Tensor
    """Shape `(classes,)`."""


class StageRunner:
    """The graphs of a bundle as functions; each is opened when first used, or at once.

    Every tensor has a batch dimension, so the server may stack requests: `stage`, `exit_all` and
    `decode_all` take any number, `exit`, `encode` and `decode` are for one picture. Calls from
    several threads are safe.
    """

    def __init__(
        self,
        bundle: ModelBundle,
        *,
        num_threads: int = 1,
        providers: Sequence[str] = (CPU,),
        parts: Iterable[tuple[str, int]] = (),
    ) -> None:
        """Open nothing but `parts`, e.g. `bundle.parts`: a first frame then costs no more."""
        self.bundle = bundle
        self._providers = with_options(providers, bundle.hash)
        self._options = onnxruntime.SessionOptions()
        self._options.intra_op_num_threads = num_threads
        self._options.inter_op_num_threads = 1
        self._options.log_severity_level = 3
        # A spinning pool would take the cores that codec, transport and other stages need.
        self._options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._sessions: dict[tuple[str, int], Any] = {}
        self._opening = threading.Lock()
        for part, index in parts:
            self._session(part, index)

    def __enter__(self) -> StageRunner:
        """Return the runner itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Release every graph; a later call opens what it needs again."""
        with self._opening:
            self._sessions.clear()

    def prepare(self, pixels: NDArray[np.uint8]) -> Tensor:
        """Turn pixels `(H, W, 3)` into the input of stage 1, `(1, 3, H, W)` in [0, 1]."""
        planes = np.ascontiguousarray(pixels.transpose(2, 0, 1), np.float32)
        planes *= np.float32(1 / 255)
        return planes[None]

    def stage(self, index: int, tensor: Tensor) -> Tensor:
        """Run stage `index` (1..S) on pictures or features `(N, C, H, W)`."""
        return self._run("stage", index, tensor)

    def exit(self, index: int, feature: Tensor) -> ExitAnswer:
        """Ask exit `index` (1..S) about one feature `(1, C, H, W)`."""
        return self.exit_all(index, feature)[0]

    def exit_all(self, index: int, features: Tensor) -> list[ExitAnswer]:
        """Ask exit `index` about features `(N, C, H, W)`."""
        logits = self._run("exit", index, features)
        sure = confidence(logits)
        return [
            ExitAnswer(int(row.argmax()), float(value), row)
            for row, value in zip(logits, sure, strict=True)
        ]

    def encode(self, split_point: int, feature: Tensor) -> Tensor:
        """Narrow one feature `(1, C, H, W)` to codes `(C', H', W')` in [0, 1]."""
        return cast("Tensor", self._run("encoder", split_point, feature)[0])

    def decode(self, split_point: int, codes: Tensor) -> Tensor:
        """Widen codes `(C', H', W')` to one feature `(1, C, H, W)`."""
        return self.decode_all(split_point, codes[None])

    def decode_all(self, split_point: int, codes: Tensor) -> Tensor:
        """Widen codes `(N, C', H', W')` to features `(N, C, H, W)`."""
        return self._run("decoder", split_point, codes)

    def _run(self, part: str, index: int, tensor: Tensor) -> Tensor:
        session = self._sessions.get((part, index)) or self._session(part, index)
        return cast("Tensor", session.run([GRAPH_OUTPUT], {GRAPH_INPUT: tensor})[0])

    def _session(self, part: str, index: int) -> Any:
        file = self.bundle.file(part, index)
        with self._opening:
            if (part, index) not in self._sessions:
                try:
                    session = onnxruntime.InferenceSession(
                        str(file), self._options, providers=self._providers
                    )
                # ONNX Runtime raises bare classes of its own, one for every status code.
                except Exception as error:
                    raise BundleError(f"ONNX Runtime must open {file}; got {error}") from error
                self._sessions[part, index] = session
            return self._sessions[part, index]
