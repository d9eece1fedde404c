"""The edge server: tails of a model bundle behind gRPC and the Open Inference Protocol."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from types import FrameType
from typing import Any, NoReturn

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from adaptive_split.bundle import ModelBundle
from adaptive_split.clock import Clock, MonotonicClock
from adaptive_split.errors import AdaptiveSplitError, BundleError, ConfigError, PayloadError
from adaptive_split.profile import Profile
from adaptive_split.runtime import wire
from adaptive_split.runtime.background import BackgroundLoad
from adaptive_split.runtime.credentials import TlsFiles, peer_names
from adaptive_split.runtime.parts import Stages
from adaptive_split.runtime.protos import open_inference as oip
from adaptive_split.runtime.scheduler import Finished, Scheduler
from adaptive_split.runtime.service import TailService
from adaptive_split.runtime.stages import ExitAnswer
from adaptive_split.runtime.wire import RefusedError, TailReply
from adaptive_split.server_load import arrivals

_log = logging.getLogger(__name__)

WAIT_HEADER = "queue-s"
"""Trailing metadata of a refusal: how long the request would have waited."""
BACKGROUND_S = 3600.0
LONGEST_CALL_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """Where and how an edge server listens."""

    host: str = "127.0.0.1"
    port: int = 0
    """0 = one that is free; `EdgeServer.port` tells which."""
    tls: TlsFiles | None = None
    insecure: bool = False
    """Plain text, for tests and trusted links; needed where `tls` is missing."""
    allowed_names: frozenset[str] = frozenset()
    """Names of the certificates let in; empty = all that the CA signed."""
    max_queue: int = 16
    """Requests that may wait; one more is refused."""
    slowdown: float = 0.0
    """Emulate a server this much slower than its profile; 0 = as fast as the machine."""
    background_utilization: float = 0.0
    """Share of the server that other devices' requests take, in [0, 1)."""
    seed: int = 0
    """Of the background load."""

    def __post_init__(self) -> None:
        """Refuse what could not be served."""
        if not 0 <= self.background_utilization < 1:
            raise ConfigError(
                f"background_utilization must lie in [0, 1); got {self.background_utilization!r}"
            )
        if self.max_queue < 1:
            raise ConfigError(f"max_queue must be at least 1 request; got {self.max_queue!r}")
        if self.tls is None and not self.insecure:
            raise ConfigError("a server must have TLS files; got none; or say insecure=True")


class EdgeServer:
    """Serves every stage range of a bundle, such as `garments.3-5`; listens once constructed."""

    def __init__(
        self,
        bundle: ModelBundle,
        stages: Stages,
        config: ServerConfig,
        *,
        profile: Profile | None = None,
        clock: Clock | None = None,
    ) -> None:
        if config.slowdown and profile is None:
            raise ConfigError("a server's slowdown must come with a profile; got none")
        self._config, self._clock = config, clock or MonotonicClock()
        self._service = TailService(
            bundle, stages, self._clock, profile=profile, slowdown=config.slowdown
        )
        self._scheduler = Scheduler(self._clock, max_queue=config.max_queue)
        self._ready = True
        self._health = health.HealthServicer()
        # Every waiting request holds a thread; the rest answer probes and refusals meanwhile.
        self._threads = ThreadPoolExecutor(config.max_queue + 8, thread_name_prefix="rpc")
        self._server = grpc.server(self._threads, options=self._options())
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(wire.SERVICE, self._handlers()),)
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        try:
            self.port = self._listen()
        except ConfigError:
            self._scheduler.close()
            self._threads.shutdown()
            raise
        self._server.start()
        for name in ("", wire.SERVICE):
            self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        self._background: BackgroundLoad | None = None
        if config.background_utilization:
            moments, work = arrivals(config.seed, BACKGROUND_S, config.background_utilization)
            jobs = zip(moments.tolist(), work.tolist(), strict=True)
            self._background = BackgroundLoad(self._scheduler, self._clock, jobs)
        _log.info("serving %s (%s) on %s:%d", bundle.name, bundle.hash, config.host, self.port)

    def __enter__(self) -> EdgeServer:
        """Return the server itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop at once."""
        self.close(grace_s=0.0)

    def close(self, grace_s: float = 2.0) -> None:
        """Drain: say so to health checks, refuse new requests, finish those under way."""
        self._ready = False
        self._health.enter_graceful_shutdown()
        if self._background:
            self._background.close()
        self._server.stop(grace_s).wait()
        self._scheduler.close()
        self._threads.shutdown()

    def serve_until_signal(self) -> None:
        """Block until SIGTERM or SIGINT, then drain; call it from the main thread."""
        stop = threading.Event()

        def on_signal(number: int, frame: FrameType | None) -> None:
            stop.set()

        before = {sig: signal.signal(sig, on_signal) for sig in (signal.SIGTERM, signal.SIGINT)}
        try:
            # A wait without end would not let Python run the handler on every platform.
            while not stop.wait(0.5):
                pass
        finally:
            for sig, handler in before.items():
                signal.signal(sig, handler)
        _log.info("draining")
        self.close()

    def _listen(self) -> int:
        address = f"{self._config.host}:{self._config.port}"
        try:
            if self._config.tls is None:
                return self._server.add_insecure_port(address)
            return self._server.add_secure_port(address, self._config.tls.for_server())
        except RuntimeError as error:
            raise ConfigError(f"a server must be able to bind {address}; got {error}") from error

    def _options(self) -> list[tuple[str, int]]:
        return [
            ("grpc.max_receive_message_length", self._service.most_bytes + 65_536),
            ("grpc.so_reuseport", 0),
            # Devices keep idle connections alive with a ping every 20 s.
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ]

    def _handlers(self) -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
        def unary(
            method: Callable[[Any, grpc.ServicerContext], Any], request: Any
        ) -> grpc.RpcMethodHandler[Any, Any]:
            return grpc.unary_unary_rpc_method_handler(
                self._guarded(method),
                request_deserializer=request.FromString,
                response_serializer=lambda reply: reply.SerializeToString(),
            )

        service = self._service
        return {
            "ServerLive": unary(
                lambda request, _: oip.ServerLiveResponse(live=True), oip.ServerLiveRequest
            ),
            "ServerReady": unary(
                lambda request, _: oip.ServerReadyResponse(ready=self._ready),
                oip.ServerReadyRequest,
            ),
            "ModelReady": unary(
                lambda request, _: oip.ModelReadyResponse(
                    ready=self._ready and service.serves(request.name, request.version)
                ),
                oip.ModelReadyRequest,
            ),
            "ServerMetadata": unary(
                lambda request, _: service.server_metadata(), oip.ServerMetadataRequest
            ),
            "ModelMetadata": unary(
                lambda request, _: service.metadata(request.name), oip.ModelMetadataRequest
            ),
            "ModelInfer": unary(self._infer, oip.ModelInferRequest),
        }

    def _guarded(
        self, method: Callable[[Any, grpc.ServicerContext], Any]
    ) -> Callable[[Any, grpc.ServicerContext], Any]:
        """Let in who is allowed, and turn our exceptions into status codes."""

        def call(request: Any, context: grpc.ServicerContext) -> Any:
            allowed = self._config.allowed_names
            if allowed and not allowed & peer_names(context.auth_context()):
                context.abort(grpc.StatusCode.PERMISSION_DENIED, "this device is not on the list")
            try:
                return method(request, context)
            except AdaptiveSplitError as error:
                _abort(context, error)

        return call

    def _infer(
        self, message: oip.ModelInferRequest, context: grpc.ServicerContext
    ) -> oip.ModelInferResponse:
        if message.model_name == wire.PROBE_MODEL:
            wire.payload_of(message, wire.MOST_PROBE_BYTES)
            return oip.ModelInferResponse(model_name=wire.PROBE_MODEL, id=message.id)
        request, last = self._service.parse(message)
        future = self._scheduler.submit(
            lambda: self._service.answer(request, last),
            expected_s=self._service.expected_s(request.split_point, last),
            slack_s=request.slack_s,
        )
        context.add_callback(lambda: _cancel(future))
        try:
            # A call without a deadline tells one beyond what Python can wait for.
            done = future.result(min(context.time_remaining() or LONGEST_CALL_S, LONGEST_CALL_S))
        except FutureTimeout:
            context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "the call's deadline has passed")
        reply = TailReply(
            answer=done.result.answer,
            confidence=done.result.confidence,
            exit_index=last,
            queue_s=done.queue_s,
            compute_s=done.compute_s,
            server_load=self._scheduler.load,
        )
        return wire.pack_reply(self._service.bundle, message, reply)


def _cancel(future: Future[Finished[ExitAnswer]]) -> None:
    future.cancel()


def _abort(context: grpc.ServicerContext, error: AdaptiveSplitError) -> NoReturn:
    code = grpc.StatusCode.INTERNAL
    if isinstance(error, PayloadError):
        code = grpc.StatusCode.INVALID_ARGUMENT
    elif isinstance(error, BundleError):
        code = grpc.StatusCode.FAILED_PRECONDITION
    elif isinstance(error, RefusedError):
        code = grpc.StatusCode.RESOURCE_EXHAUSTED
        context.set_trailing_metadata(((WAIT_HEADER, f"{error.wait_s:.6f}"),))
    context.abort(code, str(error))
