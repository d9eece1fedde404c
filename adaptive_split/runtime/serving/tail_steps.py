"""One step of a tail for a batch: enter, run a stage, ask an exit."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from adaptive_split.bundle import ModelBundle
from adaptive_split.clock import Clock
from adaptive_split.codec import decode_feature, decode_picture
from adaptive_split.errors import PayloadError
from adaptive_split.runtime.parts import Pacer, Stages
from adaptive_split.runtime.serving.batch_cost import BatchCosts
from adaptive_split.runtime.stages import ExitAnswer, Tensor


class TailSteps:
    """Runs the steps of the tails of one bundle; every feature has shape `(1, C, H, W)`."""

    def __init__(
        self, bundle: ModelBundle, stages: Stages, clock: Clock, costs: BatchCosts, *, paced: bool
    ) -> None:
        """Take what runs the parts; paced, no step takes less than `costs` say."""
        self._bundle, self._stages, self._costs = bundle, stages, costs
        self._pacer = Pacer(clock, float(paced))

    def enter(self, split_point: int, payloads: Sequence[bytes]) -> list[Tensor | PayloadError]:
        """Decode payloads to the input of the stage after a split point; a damaged one to why."""
        least_s = self._costs.decoder[split_point].batch_s(len(payloads))
        decode = self._pictures if split_point == 0 else self._features
        return self._pacer.run(least_s, lambda: decode(split_point, payloads))[0]

    def advance(self, stage: int, features: Sequence[Tensor]) -> list[Tensor]:
        """Run stage 1..S."""
        least_s = self._costs.stage[stage - 1].batch_s(len(features))
        joined = self._pacer.run(least_s, lambda: self._stages.stage(stage, _join(features)))[0]
        return _part(joined)

    def ask(self, exit_index: int, features: Sequence[Tensor]) -> list[ExitAnswer]:
        """Ask exit 1..S."""
        least_s = self._costs.exit[exit_index - 1].batch_s(len(features))
        return self._pacer.run(least_s, lambda: self._stages.exit_all(exit_index, _join(features)))[
            0
        ]

    def _pictures(self, split_point: int, payloads: Sequence[bytes]) -> list[Tensor | PayloadError]:
        how = (self._bundle.input_shape[1:], self._bundle.picture_format)

        def decode(payload: bytes) -> Tensor:
            return self._stages.prepare(decode_picture(payload, *how))

        return [_decoded(decode, payload) for payload in payloads]

    def _features(self, split_point: int, payloads: Sequence[bytes]) -> list[Tensor | PayloadError]:
        shape = self._bundle.code_shapes[split_point]
        found = [_decoded(lambda one: decode_feature(one, shape)[None], p) for p in payloads]
        codes = [codes for codes in found if not isinstance(codes, PayloadError)]
        if codes:
            wide = iter(_part(self._stages.decode_all(split_point, _join(codes))))
            found = [one if isinstance(one, PayloadError) else next(wide) for one in found]
        return found


def _decoded(decode: Callable[[bytes], Tensor], payload: bytes) -> Tensor | PayloadError:
    try:
        return decode(payload)
    except PayloadError as error:
        return error


def _join(tensors: Sequence[Tensor]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else np.concatenate(tensors)


def _part(tensor: Tensor) -> list[Tensor]:
    return [tensor[index : index + 1] for index in range(len(tensor))]
