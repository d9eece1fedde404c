"""The edge server: tails of a model bundle behind gRPC and the Open Inference Protocol."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from adaptive_split.bundle import ModelBundle
from adaptive_split.clock import Clock, MonotonicClock
from adaptive_split.errors import ConfigError
from adaptive_split.profile import Profile
from adaptive_split.runtime import wire
from adaptive_split.runtime.credentials import TlsFiles, caller_of
from adaptive_split.runtime.notify import Notifier
from adaptive_split.runtime.parts import Stages
from adaptive_split.runtime.protos import open_inference as oip
from adaptive_split.runtime.serving.allow_list import AllowList
from adaptive_split.runtime.serving.background import BackgroundLoad
from adaptive_split.runtime.serving.batch_cost import measured_costs
from adaptive_split.runtime.serving.door import Door
from adaptive_split.runtime.serving.guard import Guard, Limits
from adaptive_split.runtime.serving.scheduler import MAX_BATCH, Scheduler, WorkerThread
from adaptive_split.runtime.serving.server_metrics import ServerMetrics, ServerState
from adaptive_split.runtime.serving.service import TailService
from adaptive_split.runtime.serving.stage_queues import Finished
from adaptive_split.runtime.serving.tails import Tails
from adaptive_split.runtime.telemetry.endpoint import new_registry
from adaptive_split.runtime.wire import TailReply, TailRequest
from adaptive_split.server_load import arrivals

_log = logging.getLogger(__name__)

MORE_BYTES = 4096
"""Of a message beside its payload."""
LONGEST_CONNECTION_MS = 3_600_000
"""Then a device connects anew, so that certificates that ran out or lost their CA's trust end."""
BACKGROUND_S = 3600.0
LONGEST_CALL_S = 60.0
SPARE_THREADS = 168
"""For messages on their way, five of each of 32 devices, and for probes; made when needed."""


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
    """Names of the certificates let in; with `allow_file` missing too: all that the CA signed."""
    allow_file: Path | None = None
    """More such names, one per line; followed while serving."""
    limits: Limits = field(default_factory=Limits)
    """Of every device."""
    max_queue: int = 64
    """Requests that may wait; one more is refused."""
    exit_threshold: float = 0.8
    """With many waiting, an exit on the way answers from this confidence on; 1 = none does."""
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
        if not 0 < self.exit_threshold <= 1:
            raise ConfigError(f"exit_threshold must lie in (0, 1]; got {self.exit_threshold!r}")
        if self.tls is None and not self.insecure:
            raise ConfigError("a server must have TLS files; got none; or say insecure=True")
        if self.tls is None and (self.allowed_names or self.allow_file):
            raise ConfigError("an allow-list must come with TLS files; got none")


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
        tails: Tails | None = None,
    ) -> None:
        """Listen.

        Args:
            bundle: The model.
            stages: Computes the tails.
            config: Where and how.
            profile: Of this machine; measured here where it is missing.
            clock: Real, or a test's.
            tails: Compute instead of `stages`, as on a cluster; whoever made them closes them.
        """
        if tails and (config.slowdown or config.background_utilization):
            raise ConfigError(
                "a slowdown or background load must be of a server that computes; got another's"
            )
        if config.slowdown and profile is None:
            raise ConfigError("a server's slowdown must come with a profile; got none")
        self._config, self._clock = config, clock or MonotonicClock()
        measured = profile is None and tails is None
        costs = measured_costs(bundle, stages, self._clock) if measured else None
        self._service = TailService(
            bundle, stages, self._clock, profile=profile, slowdown=config.slowdown, costs=costs
        )
        self._guard = Guard(
            self._clock, config.limits, AllowList(config.allowed_names, config.allow_file),
            most_bytes=max(self._service.most_bytes, wire.MOST_PROBE_BYTES) + MORE_BYTES,
        )  # fmt: skip
        own = Scheduler(
            self._service.steps, self._service.costs, self._clock, max_queue=config.max_queue,
            exit_threshold=config.exit_threshold,
        )  # fmt: skip
        self._scheduler: Tails = tails or own
        self.metrics = self._make_metrics()
        self._ready = True
        self._health = health.HealthServicer()
        self._door = Door(self._guard, self._clock)
        # Every request holds a thread from its headers to its reply.
        num_threads = config.max_queue + MAX_BATCH + SPARE_THREADS
        self._threads = ThreadPoolExecutor(num_threads, thread_name_prefix="rpc")
        self._server = self._make_server()
        try:
            self.port = self._listen()
        except ConfigError:
            self._door.close()
            self._threads.shutdown()
            raise
        self._worker = WorkerThread(own)
        self._background = self._make_background(own)
        self._open()

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
        self._door.close()
        self._worker.close()
        self._threads.shutdown()

    def serve_until_signal(self) -> None:
        """Block until SIGTERM or SIGINT, then drain; call it from the main thread.

        The service manager, if there is one, hears that the server is ready, alive, and ending.
        """
        stop, notifier = threading.Event(), Notifier(self._clock)

        def on_signal(number: int, frame: FrameType | None) -> None:
            stop.set()

        before = {sig: signal.signal(sig, on_signal) for sig in (signal.SIGTERM, signal.SIGINT)}
        notifier.ready()
        try:
            # A wait without end would not let Python run the handler on every platform.
            while not stop.wait(0.5):
                notifier.alive()
        finally:
            for sig, handler in before.items():
                signal.signal(sig, handler)
        notifier.stopping()
        _log.info("draining")
        self.close()

    def refused(self) -> dict[str, int]:
        """How many requests were refused since the start, by reason."""
        return self._guard.refused()

    def _make_metrics(self) -> ServerMetrics:
        bundle = self._service.bundle
        metrics = ServerMetrics(new_registry("server", bundle=bundle.name), self._clock)
        metrics.watch(
            ServerState(
                load=lambda: self._scheduler.load, counts=lambda: self._scheduler.counts,
                refused=self.refused,
            )
        )  # fmt: skip
        return metrics

    def _make_server(self) -> grpc.Server:
        server = grpc.server(self._threads, options=self._options(), interceptors=[self._door])
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(wire.SERVICE, self._handlers()),)
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        return server

    def _make_background(self, scheduler: Scheduler) -> BackgroundLoad | None:
        config = self._config
        if not config.background_utilization:
            return None
        moments, work = arrivals(config.seed, BACKGROUND_S, config.background_utilization)
        jobs = zip(moments.tolist(), work.tolist(), strict=True)
        return BackgroundLoad(scheduler, self._clock, jobs)

    def _open(self) -> None:
        """Let requests in."""
        self._server.start()
        for name in ("", wire.SERVICE):
            self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        bundle = self._service.bundle
        _log.info(
            "serving %s (%s) on %s:%d", bundle.name, bundle.hash, self._config.host, self.port
        )
        self._tell_whom_it_serves()

    def _tell_whom_it_serves(self) -> None:
        config = self._config
        if config.tls is None and config.host not in ("127.0.0.1", "::1", "localhost"):
            _log.warning("plain text on %s: whoever reaches it is served", config.host)
        if config.tls and not config.allowed_names and config.allow_file is None:
            _log.info("no allow-list: every device whose certificate the CA signed is served")

    def _listen(self) -> int:
        address = f"{self._config.host}:{self._config.port}"
        try:
            if self._config.tls is None:
                return self._server.add_insecure_port(address)
            return self._server.add_secure_port(address, self._config.tls.for_server())
        except RuntimeError as error:
            raise ConfigError(f"a server must be able to bind {address}; got {error}") from error

    def _options(self) -> list[tuple[str, int]]:
        connection_ms = LONGEST_CONNECTION_MS if self._config.tls else 2**31 - 1
        return [
            ("grpc.max_connection_age_ms", connection_ms),
            # What is a little too large reaches the guard, which counts it.
            ("grpc.max_receive_message_length", self._guard.most_bytes + 65_536),
            ("grpc.compression_enabled_algorithms_bitset", 1),  # none: payloads are compressed
            ("grpc.server_handshake_timeout_ms", 10_000),
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
                method,
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

    def _infer(
        self, message: oip.ModelInferRequest, context: grpc.ServicerContext
    ) -> oip.ModelInferResponse:
        if message.model_name == wire.PROBE_MODEL:
            wire.payload_of(message, wire.MOST_PROBE_BYTES)
            return wire.pack_probe_reply(message, self._clock.now_s())
        begin_s = self._clock.now_s()
        request, last = self._service.parse(message)
        with self._guard.once(caller_of(context), request.run_id, request.frame_index):
            return self._answer(message, request, last, begin_s, context)

    def _answer(
        self, message: oip.ModelInferRequest, request: TailRequest, last: int, begin_s: float,
        context: grpc.ServicerContext,
    ) -> oip.ModelInferResponse:  # fmt: skip
        future = self._scheduler.submit(
            request, last, slack_s=request.slack_s - self._door.since_headers_s(context)
        )
        context.add_callback(lambda: _cancel(future))
        try:
            # A call without a deadline tells one beyond what Python can wait for.
            done = future.result(min(context.time_remaining() or LONGEST_CALL_S, LONGEST_CALL_S))
        except FutureTimeout:
            context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "the call's deadline has passed")
        reply = TailReply(
            answer=done.answer.answer,
            confidence=done.answer.confidence,
            exit_index=done.exit_index,
            # All that is not computing, threads that hand over included: no device may take it for
            # time on the network.
            queue_s=max(self._clock.now_s() - begin_s - done.compute_s, 0.0),
            compute_s=done.compute_s,
            server_load=self._scheduler.load,
        )
        self.metrics.replied(reply, caller_of(context).device)
        return wire.pack_reply(self._service.bundle, message, reply)


def _cancel(future: Future[Finished]) -> None:
    future.cancel()
