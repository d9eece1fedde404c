"""Admission: which devices a server listens to, how much they may send and how often."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields

from adaptive_split.clock import Clock
from adaptive_split.errors import (
    AdaptiveSplitError,
    BundleError,
    ConfigError,
    LinkError,
    PayloadError,
)
from adaptive_split.runtime.credentials import Caller
from adaptive_split.runtime.serving.allow_list import AllowList
from adaptive_split.runtime.serving.refusals import Refusals
from adaptive_split.runtime.serving.replay import ReplayedError, Runs
from adaptive_split.runtime.wire import RefusedError

MAX_DEVICES = 1024
"""Devices remembered, so that inventing them costs no memory; the longest silent makes room."""


class NotAllowedError(LinkError):
    """No name of the caller's certificate is on the list."""


class OversizedError(PayloadError):
    """A message is larger than any that the bundle needs."""


class SlowError(PayloadError):
    """A message trickled in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one device may ask of a server."""

    requests_per_s: float = 120.0
    """Messages of any kind; four times what a camera of 30 fps sends."""
    bytes_per_s: float = 25e6
    """Of messages; 200 Mbit/s."""
    burst_s: float = 2.0
    """A device that was silent for so long may make up for it at once, as after an outage."""
    max_concurrent: int = 16
    """Requests without an answer yet; half a second of frames."""
    message_s: float = 5.0
    """A message must have come this long after its headers; deadlines of devices are shorter."""

    def __post_init__(self) -> None:
        """Refuse what would let nothing through."""
        for entry in fields(self):
            if not getattr(self, entry.name) > 0:
                raise ConfigError(
                    f"{entry.name} must be positive; got {getattr(self, entry.name)!r}"
                )


UNLIMITED = Limits(requests_per_s=1e12, bytes_per_s=1e15, max_concurrent=10**9)
"""For benchmarks on one machine."""


class _Bucket:
    """Fills at a rate up to a burst; may be emptied as long as there is something in it.

    So the last request may exceed what is left and the next one waits for it: a message larger
    than the burst passes when the bucket is full.
    """

    def __init__(self, rate: float, burst_s: float, now_s: float) -> None:
        self._rate, self._most = rate, rate * burst_s
        self._left, self._then_s = self._most, now_s

    def wait_s(self, now_s: float) -> float:
        """How long until something may be taken; 0 = now."""
        self._left = min(self._left + (now_s - self._then_s) * self._rate, self._most)
        self._then_s = now_s
        return max(-self._left / self._rate, 0.0)

    def take(self, amount: float) -> None:
        self._left -= amount


@dataclass(slots=True)
class _Device:
    requests: _Bucket
    volume: _Bucket
    runs: Runs = field(default_factory=Runs)
    num_open: int = 0


_REASONS: tuple[tuple[type[AdaptiveSplitError], str], ...] = (
    (NotAllowedError, "not-allowed"),
    (OversizedError, "size"),
    (SlowError, "slow"),
    (ReplayedError, "replayed"),
    (PayloadError, "malformed"),
    (BundleError, "bundle"),
)
REASONS = ("rate", "bytes", "concurrent", *(reason for _, reason in _REASONS))
"""The guard's own; a scheduler's come on top."""


class Guard:
    """Lets requests in or refuses them, and counts and logs every refusal.

    Refused is also what fails later, while the request is worked on: a damaged payload, another
    bundle, a full queue. What is wrong before there is a request (no certificate, a wrong one,
    bytes that are no HTTP/2) gRPC refuses and logs by itself, uncounted.
    """

    def __init__(
        self, clock: Clock, limits: Limits, allow_list: AllowList, *, most_bytes: int
    ) -> None:
        """Take the limits of every device and the size of the largest message of use."""
        self._clock, self.limits, self._allow_list = clock, limits, allow_list
        self.most_bytes = most_bytes
        """Of a message; a larger one is refused."""
        self._devices: OrderedDict[str, _Device] = OrderedDict()
        self._lock = threading.Lock()
        self._refusals = Refusals(clock, REASONS)

    def refused(self) -> dict[str, int]:
        """How many requests were refused since the start, by reason."""
        return self._refusals.counts()

    @contextmanager
    def admit(self, caller: Caller) -> Iterator[None]:
        """Let a request in, for as long as the context lasts.

        Raises:
            NotAllowedError: If the caller is not on the list.
            RefusedError: If the caller asks too often or too much.
        """
        try:
            if not self._allow_list.admits(caller.names):
                raise NotAllowedError("a device must be on the server's list; got another name")
            device = self._enter(caller.device)
            try:
                yield
            finally:
                with self._lock:
                    device.num_open -= 1
        except AdaptiveSplitError as error:
            self._refusals.add(_reason(error), caller.device, str(error))
            raise

    def weigh(self, caller: Caller, num_bytes: int) -> None:
        """Count the bytes of an admitted request, before anything in them is read.

        Raises:
            OversizedError: If there are more than any request needs.
        """
        with self._lock:
            self._device(caller.device).volume.take(num_bytes)
        if num_bytes > self.most_bytes:
            raise OversizedError(
                f"a message must hold {self.most_bytes} bytes at most; got {num_bytes}"
            )

    @contextmanager
    def once(self, caller: Caller, run_id: str, frame_index: int) -> Iterator[None]:
        """Let a frame be answered once; one that fails may come again.

        Raises:
            ReplayedError: If it came before.
        """
        if not run_id:
            yield
            return
        with self._lock:
            runs = self._device(caller.device).runs
            runs.take(run_id, frame_index)
        try:
            yield
        except BaseException:
            with self._lock:
                runs.give_back(run_id, frame_index)
            raise

    def _enter(self, name: str) -> _Device:
        limits = self.limits
        with self._lock:
            device, now_s = self._device(name), self._clock.now_s()
            if device.num_open >= limits.max_concurrent:
                raise RefusedError(
                    f"a device must have at most {limits.max_concurrent} requests open; got more",
                    reason="concurrent",
                )
            for bucket, reason, most in (
                (device.requests, "rate", f"{limits.requests_per_s:g} requests"),
                (device.volume, "bytes", f"{limits.bytes_per_s:g} bytes"),
            ):
                if wait_s := bucket.wait_s(now_s):
                    raise RefusedError(
                        f"a device must send at most {most} per second; got more, wait "
                        f"{wait_s:.3f} s", wait_s, reason,
                    )  # fmt: skip
            device.requests.take(1)
            device.num_open += 1
        return device

    def _device(self, name: str) -> _Device:
        device = self._devices.get(name)
        if device is None:
            limits, now_s = self.limits, self._clock.now_s()
            device = self._devices[name] = _Device(
                _Bucket(limits.requests_per_s, limits.burst_s, now_s),
                _Bucket(limits.bytes_per_s, limits.burst_s, now_s),
            )
            if len(self._devices) > MAX_DEVICES:
                self._devices.popitem(last=False)
        self._devices.move_to_end(name)
        return device


def _reason(error: AdaptiveSplitError) -> str:
    if isinstance(error, RefusedError):
        return error.reason
    return next((reason for kind, reason in _REASONS if isinstance(error, kind)), "failed")
