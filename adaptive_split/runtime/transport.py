"""How a device reaches its server: the transport's contract, and gRPC."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Protocol, TypeAlias, TypeVar

import grpc

from adaptive_split.errors import BundleError, ConfigError, LinkError, LinkTimeout, PayloadError
from adaptive_split.runtime import wire
from adaptive_split.runtime.credentials import TlsFiles, handshake_hint
from adaptive_split.runtime.protos import open_inference as oip
from adaptive_split.runtime.wire import Bundle, RefusedError, TailReply, TailRequest

_log = logging.getLogger(__name__)
Reply = TypeVar("Reply")
Method: TypeAlias = "grpc.UnaryUnaryMultiCallable[Any, Any]"

OPTIONS = (
    ("grpc.enable_retries", 0),  # a retry is a late frame
    ("grpc.use_local_subchannel_pool", 1),  # one connection per transport: the uplink is a FIFO
    # A lost server is looked for by `knock`, on new connections; gRPC's own attempts only add.
    ("grpc.initial_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 30_000),
    # By its name a wait; in fact how long an attempt may take, several round trips with TLS.
    ("grpc.min_reconnect_backoff_ms", 5000),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", 65_536),
)


class Transport(Protocol):
    """Sends without blocking; a future ends with the reply or one of these.

    `LinkTimeout`: no reply in time. `RefusedError`: the server takes no more. `PayloadError`: the
    request is wrong. `BundleError`: the server holds another bundle. `LinkError`: all else.
    Requests cross the uplink in the order of `send`. Callbacks of a future run on any thread.
    """

    def send(self, request: TailRequest, *, timeout_s: float) -> Future[TailReply]:
        """Send one payload."""
        ...

    def ping(self, *, timeout_s: float) -> Future[None]:
        """Send an empty message."""
        ...

    def probe(self, payload: bytes, *, timeout_s: float) -> Future[float | None]:
        """Send bytes that the server throws away, answering at once when it had them all.

        The moment is on the server's own clock, to be compared with its others only; `None` if it
        does not tell.
        """
        ...

    def peer_hash(self, *, timeout_s: float) -> Future[str]:
        """Ask which bundle the server holds."""
        ...

    def knock(self, *, timeout_s: float) -> Future[str]:
        """Ask the same on a new connection and, if that is answered first, change over to it.

        Then what is under way on the old connection ends with `LinkError`.
        """
        ...

    def close(self) -> None:
        """Give up what is under way, with `LinkError`, and hang up."""
        ...


class _Line:
    """One gRPC channel, which is one TCP connection, and the methods called on it."""

    def __init__(self, address: str, tls: TlsFiles | None) -> None:
        if tls is None:
            self._channel = grpc.insecure_channel(address, options=OPTIONS)
        else:
            self._channel = grpc.secure_channel(address, tls.for_device(), options=OPTIONS)
        self.infer = self._method("ModelInfer", oip.ModelInferResponse)
        self.live = self._method("ServerLive", oip.ServerLiveResponse)
        self.metadata = self._method("ModelMetadata", oip.ModelMetadataResponse)
        self.close = self._channel.close
        self.num_replies = 0

    def _method(self, name: str, reply: Any) -> Method:
        return self._channel.unary_unary(
            f"/{wire.SERVICE}/{name}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=reply.FromString,
        )

    def start(
        self, method: Method, message: Any, timeout_s: float, read: Callable[[Any], Reply]
    ) -> Future[Reply]:
        """Call a method; its reply goes through `read`, its failure becomes one of our errors."""
        future: Future[Reply] = Future()
        future.set_running_or_notify_cancel()
        try:
            call = method.future(message, timeout=max(timeout_s, 0.0), wait_for_ready=False)
        except ValueError as error:  # what gRPC says of a closed channel
            future.set_exception(LinkError(f"the transport must be open; got {error}"))
            return future

        def finish(ended: grpc.Future[Any]) -> None:
            try:
                reply = read(ended.result())
            except grpc.RpcError as error:
                future.set_exception(_our_error(error))
            except grpc.FutureCancelledError:
                future.set_exception(LinkError("the transport must be open; got closed meanwhile"))
            except PayloadError as error:
                future.set_exception(error)
            else:
                self.num_replies += 1
                future.set_result(reply)

        call.add_done_callback(finish)
        return future


class GrpcTransport:
    """One gRPC channel to one server, replaced by a new one when that is answered and it is not.

    The channel's HTTP/2 writer puts a message of up to 64 KB (the stream window) on the socket in
    one piece, so payloads of that size queue first in, first out.
    """

    def __init__(
        self, address: str, bundle: Bundle, *, tls: TlsFiles | None = None, insecure: bool = False
    ) -> None:
        """Connect lazily.

        Args:
            address: `host:port`.
            bundle: What the device holds.
            tls: Files for mutual TLS, read again for every new connection.
            insecure: Speak plain text; must be said where `tls` is missing.
        """
        if (tls is None) != insecure:
            raise ConfigError("a transport must have either TLS files or insecure=True")
        self._address, self._bundle, self._tls = address, bundle, tls
        self._lock = threading.Lock()
        self._line = _Line(address, tls)
        self._closers: list[threading.Thread] = []

    def __enter__(self) -> GrpcTransport:
        """Return the transport itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Hang up."""
        self.close()

    def send(self, request: TailRequest, *, timeout_s: float) -> Future[TailReply]:
        """Send one payload."""
        line, message = self._line, wire.pack_request(self._bundle, request)
        return line.start(line.infer, message, timeout_s, _reply)

    def ping(self, *, timeout_s: float) -> Future[None]:
        """Send an empty message."""
        line = self._line
        return line.start(line.live, oip.ServerLiveRequest(), timeout_s, lambda reply: None)

    def probe(self, payload: bytes, *, timeout_s: float) -> Future[float | None]:
        """Send bytes that the server throws away, answering at once when it had them all."""
        line, message = self._line, wire.payload_message(wire.PROBE_MODEL, payload)
        return line.start(line.infer, message, timeout_s, wire.received_s)

    def peer_hash(self, *, timeout_s: float) -> Future[str]:
        """Ask which bundle the server holds; a server without our model holds another."""
        return self._ask(self._line, timeout_s)

    def knock(self, *, timeout_s: float) -> Future[str]:
        """Ask the same on a new connection and, if that is answered first, change over to it."""
        old, num_replies = self._line, self._line.num_replies
        try:
            new = _Line(self._address, self._tls)
        except ConfigError as error:  # the TLS files are being exchanged
            failed: Future[str] = Future()
            failed.set_exception(LinkError(str(error)))
            return failed

        def choose(done: Future[str]) -> None:
            with self._lock:
                better = done.exception() is None and old.num_replies == num_replies
                loser = old if better and self._line is old else new
                self._line = new if loser is old else self._line
                self._hang_up(loser)

        asked = self._ask(new, timeout_s)
        asked.add_done_callback(choose)
        return asked

    def close(self) -> None:
        """Give up what is under way and hang up."""
        self._line.close()
        for closer in self._closers:
            closer.join()

    def _ask(self, line: _Line, timeout_s: float) -> Future[str]:
        message = oip.ModelMetadataRequest(name=wire.model_name(self._bundle, 0))
        return line.start(
            line.metadata, message, timeout_s, lambda reply: next(iter(reply.versions), "")
        )

    def _hang_up(self, line: _Line) -> None:
        """Close a channel on a thread of its own: the one that runs its callbacks must not."""
        self._closers = [closer for closer in self._closers if closer.is_alive()]
        closer = threading.Thread(target=line.close, name="hang-up", daemon=True)
        closer.start()
        self._closers.append(closer)


def _reply(message: Any) -> TailReply:
    """Read a reply; what it tells must be possible, as estimates and records are made of it."""
    reply = wire.unpack_reply(message)
    times_s = (reply.queue_s, reply.compute_s)
    if not (
        0 <= reply.confidence <= 1.001
        and reply.answer >= 0
        and all(math.isfinite(time_s) and time_s >= 0 for time_s in times_s)
    ):
        raise PayloadError(
            f"a reply must hold a class, a confidence in [0, 1] and times in seconds; got {reply}"
        )
    return reply


def _our_error(error: Any) -> Exception:
    code, text = error.code(), f"{error.code().name}: {error.details()}"
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return LinkTimeout(text)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        trailing = dict(error.trailing_metadata() or ())
        try:
            wait_s = float(trailing.get("queue-s", 0.0))
        except ValueError:
            wait_s = math.nan
        return RefusedError(text, wait_s if 0 <= wait_s < math.inf else 0.0)
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        return PayloadError(text)
    if code is grpc.StatusCode.CANCELLED:
        return LinkError(f"the transport must be open; got {text}")
    if code in (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.NOT_FOUND):
        return BundleError(text)
    return LinkError(text + handshake_hint(text))
