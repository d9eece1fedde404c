"""How a device reaches its server: the transport's contract, and gRPC."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Protocol, TypeVar

import grpc

from adaptive_split.errors import BundleError, ConfigError, LinkError, LinkTimeout, PayloadError
from adaptive_split.runtime import wire
from adaptive_split.runtime.credentials import TlsFiles
from adaptive_split.runtime.protos import open_inference as oip
from adaptive_split.runtime.wire import Bundle, RefusedError, TailReply, TailRequest

_log = logging.getLogger(__name__)
Reply = TypeVar("Reply")

OPTIONS = (
    ("grpc.enable_retries", 0),  # a retry is a late frame
    ("grpc.use_local_subchannel_pool", 1),  # one connection per transport: the uplink is a FIFO
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 1000),
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

    def probe(self, payload: bytes, *, timeout_s: float) -> Future[None]:
        """Send bytes that the server throws away, answering at once."""
        ...

    def peer_hash(self, *, timeout_s: float) -> Future[str]:
        """Ask which bundle the server holds."""
        ...

    def close(self) -> None:
        """Give up what is under way, with `LinkError`, and hang up."""
        ...


class GrpcTransport:
    """One gRPC channel to one server.

    The channel is one TCP connection. Its HTTP/2 writer puts a message of up to 64 KB (the stream
    window) on the socket in one piece, so payloads of that size queue first in, first out.
    """

    def __init__(
        self, address: str, bundle: Bundle, *, tls: TlsFiles | None = None, insecure: bool = False
    ) -> None:
        """Connect lazily.

        Args:
            address: `host:port`.
            bundle: What the device holds.
            tls: Files for mutual TLS.
            insecure: Speak plain text; must be said where `tls` is missing.
        """
        if (tls is None) != insecure:
            raise ConfigError("a transport must have either TLS files or insecure=True")
        self._bundle = bundle
        if tls is None:
            self._channel = grpc.insecure_channel(address, options=OPTIONS)
        else:
            self._channel = grpc.secure_channel(address, tls.for_device(), options=OPTIONS)
        self._infer = self._method("ModelInfer", oip.ModelInferResponse)
        self._live = self._method("ServerLive", oip.ServerLiveResponse)
        self._metadata = self._method("ModelMetadata", oip.ModelMetadataResponse)

    def __enter__(self) -> GrpcTransport:
        """Return the transport itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Hang up."""
        self.close()

    def send(self, request: TailRequest, *, timeout_s: float) -> Future[TailReply]:
        """Send one payload."""
        message = wire.pack_request(self._bundle, request)
        return self._start(self._infer, message, timeout_s, wire.unpack_reply)

    def ping(self, *, timeout_s: float) -> Future[None]:
        """Send an empty message."""
        return self._start(self._live, oip.ServerLiveRequest(), timeout_s, lambda reply: None)

    def probe(self, payload: bytes, *, timeout_s: float) -> Future[None]:
        """Send bytes that the server throws away, answering at once."""
        message = wire.payload_message(wire.PROBE_MODEL, payload)
        return self._start(self._infer, message, timeout_s, lambda reply: None)

    def peer_hash(self, *, timeout_s: float) -> Future[str]:
        """Ask which bundle the server holds; a server without our model holds another."""
        message = oip.ModelMetadataRequest(name=wire.model_name(self._bundle, 0))
        return self._start(
            self._metadata, message, timeout_s, lambda reply: next(iter(reply.versions), "")
        )

    def close(self) -> None:
        """Give up what is under way and hang up."""
        self._channel.close()

    def _method(self, name: str, reply: Any) -> grpc.UnaryUnaryMultiCallable[Any, Any]:
        return self._channel.unary_unary(
            f"/{wire.SERVICE}/{name}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=reply.FromString,
        )

    def _start(
        self,
        method: grpc.UnaryUnaryMultiCallable[Any, Any],
        message: Any,
        timeout_s: float,
        read: Callable[[Any], Reply],
    ) -> Future[Reply]:
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
                future.set_result(reply)

        call.add_done_callback(finish)
        return future


def _our_error(error: Any) -> Exception:
    code, text = error.code(), f"{error.code().name}: {error.details()}"
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return LinkTimeout(text)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        trailing = dict(error.trailing_metadata() or ())
        try:
            return RefusedError(text, float(trailing.get("queue-s", 0.0)))
        except ValueError:
            return RefusedError(text)
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        return PayloadError(text)
    if code is grpc.StatusCode.CANCELLED:
        return LinkError(f"the transport must be open; got {text}")
    if code in (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.NOT_FOUND):
        return BundleError(text)
    return LinkError(text)
