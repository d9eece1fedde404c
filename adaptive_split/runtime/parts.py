"""The parts of a bundle as both sides run them, and how a slower machine is emulated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from adaptive_split.clock import Clock
from adaptive_split.runtime.stages import ExitAnswer, Tensor

Result = TypeVar("Result")


class Stages(Protocol):
    """Stages, exits, encoders and decoders of a bundle; `StageRunner` is one."""

    def prepare(self, pixels: NDArray[np.uint8]) -> Tensor:
        """Turn pixels `(H, W, 3)` into the input of stage 1."""
        ...

    def stage(self, index: int, tensor: Tensor) -> Tensor:
        """Run stage `index` (1..S) on pictures or features `(N, C, H, W)`."""
        ...

    def exit(self, index: int, feature: Tensor) -> ExitAnswer:
        """Ask exit `index` (1..S) about one feature."""
        ...

    def exit_all(self, index: int, features: Tensor) -> list[ExitAnswer]:
        """Ask exit `index` about features `(N, C, H, W)`."""
        ...

    def encode(self, split_point: int, feature: Tensor) -> Tensor:
        """Narrow a feature to codes in [0, 1]."""
        ...

    def decode_all(self, split_point: int, codes: Tensor) -> Tensor:
        """Widen codes `(N, C', H', W')` to features."""
        ...


class Pacer:
    """Runs parts no faster than a slower machine would.

    A part takes `max(measured, slowdown * profiled)`: after its work the pacer sleeps until the
    profiled time has passed since its start. The work is done in full, and no CPU quota is set: a
    quota stalls a process for tens of milliseconds at a time. A slowdown of 0 paces nothing; 1
    plays the machine of the profile.
    """

    def __init__(self, clock: Clock, slowdown: float) -> None:
        self._clock, self._slowdown = clock, slowdown

    def run(self, profiled_s: float, work: Callable[[], Result]) -> tuple[Result, float]:
        """Run one part; return its result and the time it took."""
        begin_s = self._clock.now_s()
        result = work()
        if self._slowdown:
            self._clock.sleep_until(begin_s + self._slowdown * profiled_s)
        return result, self._clock.now_s() - begin_s
