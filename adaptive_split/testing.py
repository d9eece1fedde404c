"""Stand-ins for clock, model and network: small, honest, and held to the contract tests."""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from adaptive_split.bundle import ModelBundle
from adaptive_split.candidates import Radio
from adaptive_split.errors import AdaptiveSplitError, LinkError, LinkTimeout
from adaptive_split.objective import Objective
from adaptive_split.profile import Profile
from adaptive_split.runtime import wire
from adaptive_split.runtime.serving.service import TailService
from adaptive_split.runtime.setup import Setup
from adaptive_split.runtime.stages import ExitAnswer, Tensor
from adaptive_split.runtime.wire import Bundle, RefusedError, TailReply, TailRequest

Result = TypeVar("Result")
TINY_SIZE = 16


class ManualClock:
    """A clock that moves only when told to, or slept on."""

    def __init__(self, now_s: float = 0.0) -> None:
        self._now_s = now_s
        self._order = itertools.count()
        self._calls: list[tuple[float, int, Callable[[], None]]] = []

    def now_s(self) -> float:
        """The moment it was set to."""
        return self._now_s

    def sleep_until(self, moment_s: float) -> None:
        """Move to a moment, making the calls due on the way."""
        while self._calls and self._calls[0][0] <= moment_s:
            due_s, _, call = heapq.heappop(self._calls)
            self._now_s = max(self._now_s, due_s)
            call()
        self._now_s = max(self._now_s, moment_s)

    def advance(self, duration_s: float) -> None:
        """Move on by some seconds."""
        self.sleep_until(self._now_s + duration_s)

    def call_at(self, moment_s: float, call: Callable[[], None]) -> None:
        """Have something happen when the clock reaches a moment."""
        heapq.heappush(self._calls, (moment_s, next(self._order), call))


def tiny_bundle(hash_digit: str = "0") -> ModelBundle:
    """A bundle of three stages and four classes that needs no files; runs on `TinyStages`."""
    return ModelBundle(
        path=Path(),
        name="tiny",
        hash=hash_digit * 64,
        classes=("a", "b", "c", "d"),
        input_shape=(3, TINY_SIZE, TINY_SIZE),
        feature_shapes=((8, 8, 8), (8, 4, 4), (8, 2, 2)),
        code_shapes={1: (4, 8, 8), 2: (4, 4, 4)},
        picture_qualities={1: 10, 2: 30, 4: 60, 8: 90},
        temperatures=(1.0, 1.0, 1.0),
        files={},
        provenance={},
    )


def tiny_profile(scale: float = 1.0, machine: str = "tiny") -> Profile:
    """A profile of `tiny_bundle`: every stage 10 ms, every exit and codec 2 ms, times `scale`."""
    short, long = (0.002 * scale,) * 3, (0.010 * scale,) * 3
    return Profile(
        bundle_hash="0" * 64, machine=machine, provider="none", power_mode="", num_threads=1,
        scale=scale, stage_s=long, exit_s=short, encoder_s=short, decoder_s=short,
        stage_p95_s=long, spread=0.0, compute_w=5.0, energy_provenance="modelled",
        energy_source="made up",
    )  # fmt: skip


def tiny_setup(objective: Objective | None = None) -> Setup:
    """A device of 36 ms in full and a server ten times faster, at 10 fps and 100 ms by default."""
    return Setup(
        bundle=tiny_bundle(),
        device_profile=tiny_profile(),
        server_profile=tiny_profile(0.1),
        objective=objective or Objective(slo_s=0.1, fps=10.0),
        radio=Radio(),
    )


def tiny_picture(label: int, ease: float = 0.0) -> NDArray[np.uint8]:
    """A picture of a class 0..3 whose exits are as confident as `ease` says, in [0, 1]."""
    pixels = np.empty((TINY_SIZE, TINY_SIZE, 3), np.uint8)
    pixels[:] = round(255 * (label + 0.5) / 4), round(255 * ease), 0
    return pixels


class TinyStages:
    """Passes class and ease of a tiny picture through; every exit reads them off, always right.

    Attributes:
        gate: Stages wait for it; clear it to stall the server.
    """

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self._bundle = tiny_bundle()

    def prepare(self, pixels: NDArray[np.uint8]) -> Tensor:
        """Turn pixels into the input of stage 1."""
        return (pixels.transpose(2, 0, 1)[None] / 255).astype(np.float32)

    def stage(self, index: int, tensor: Tensor) -> Tensor:
        """Shrink the feature."""
        self.gate.wait()
        shape = self._bundle.feature_shapes[index - 1]
        return np.stack([self._spread(one, shape) for one in tensor])

    def exit(self, index: int, feature: Tensor) -> ExitAnswer:
        """Read the class; deeper exits are a little surer."""
        return self.exit_all(index, feature)[0]

    def exit_all(self, index: int, features: Tensor) -> list[ExitAnswer]:
        """Read the classes of several."""
        found = []
        for label, ease in features[:, :2].mean((2, 3)).tolist():
            logits = -np.abs(np.arange(4, dtype=np.float32) + 0.5 - 4 * label)
            answer = int(logits.argmax())
            found.append(ExitAnswer(answer, min(ease + 0.01 * index, 1.0), logits))
        return found

    def encode(self, split_point: int, feature: Tensor) -> Tensor:
        """Narrow the feature."""
        return self._spread(feature[0], self._bundle.code_shapes[split_point])

    def decode_all(self, split_point: int, codes: Tensor) -> Tensor:
        """Widen the codes of several."""
        shape = self._bundle.feature_shapes[split_point - 1]
        return np.stack([self._spread(one, shape) for one in codes])

    def _spread(self, source: Tensor, shape: tuple[int, int, int]) -> Tensor:
        feature = np.zeros(shape, np.float32)
        feature[0], feature[1] = source[0].mean(), source[1].mean()
        return feature


class MemoryTransport:
    """A server behind a perfect wire, in this process and on a manual clock.

    Attributes:
        delay_s: From sending to the reply; beyond a request's timeout it never comes.
        reachable: Whether anybody is there.
    """

    def __init__(
        self, bundle: Bundle, service: TailService, clock: ManualClock, *, delay_s: float = 0.0
    ) -> None:
        self._bundle, self._service, self._clock = bundle, service, clock
        self.delay_s, self.reachable, self._closed = delay_s, True, False
        self._pending: list[Future[object]] = []

    def send(self, request: TailRequest, *, timeout_s: float) -> Future[TailReply]:
        """Send one payload."""
        message = wire.pack_request(self._bundle, request)

        def answer() -> TailReply:
            parsed, last = self._service.parse(message)
            needed_s = self._service.expected_s(parsed.split_point, last)
            if needed_s > parsed.slack_s:
                raise RefusedError(f"slack must be at least {needed_s} s; got {parsed.slack_s}")
            done = self._service.answer(parsed, last)
            reply = TailReply(
                answer=done.answer, confidence=done.confidence, exit_index=last,
                queue_s=0.0, compute_s=0.0, server_load=0.0,
            )  # fmt: skip
            return wire.unpack_reply(wire.pack_reply(self._service.bundle, message, reply))

        return self._start(answer, timeout_s)

    def ping(self, *, timeout_s: float) -> Future[None]:
        """Send an empty message."""
        return self._start(lambda: None, timeout_s)

    def probe(self, payload: bytes, *, timeout_s: float) -> Future[float | None]:
        """Send bytes that the server throws away."""
        return self._start(self._clock.now_s, timeout_s)

    def peer_hash(self, *, timeout_s: float) -> Future[str]:
        """Ask which bundle the server holds."""
        name = wire.model_name(self._bundle, 0)
        return self._start(lambda: str(self._service.metadata(name).versions[0]), timeout_s)

    def knock(self, *, timeout_s: float) -> Future[str]:
        """Ask the same; there is but one wire."""
        return self.peer_hash(timeout_s=timeout_s)

    def close(self) -> None:
        """Give up what is under way."""
        self._closed = True
        for future in self._pending:
            if not future.done():
                future.set_exception(LinkError("the transport must be open; got closed meanwhile"))

    def _start(self, work: Callable[[], Result], timeout_s: float) -> Future[Result]:
        future: Future[Result] = Future()
        future.set_running_or_notify_cancel()
        if self._closed or not self.reachable:
            future.set_exception(LinkError("the transport must be open and the server there"))
            return future

        def finish() -> None:
            if future.done():
                return
            try:
                if self.delay_s >= timeout_s:
                    raise LinkTimeout(f"a reply must come within {timeout_s} s; got none")
                future.set_result(work())
            except AdaptiveSplitError as error:
                future.set_exception(error)

        self._pending.append(future)  # type: ignore[arg-type]
        self._clock.call_at(self._clock.now_s() + min(self.delay_s, max(timeout_s, 0.0)), finish)
        return future
