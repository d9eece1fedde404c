"""The guard at the door of a gRPC server, and the status codes of what fails behind it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import grpc
from google.protobuf.message import DecodeError

from adaptive_split.clock import Clock
from adaptive_split.errors import AdaptiveSplitError, BundleError, PayloadError
from adaptive_split.runtime.credentials import caller_of
from adaptive_split.runtime.serving.guard import Guard, NotAllowedError, SlowError
from adaptive_split.runtime.wire import RefusedError

WAIT_HEADER = "queue-s"
"""Trailing metadata of a refusal: after how long the request might have been taken."""
LOOK_EVERY_S = 0.5

Handler = Any
"""A `grpc.RpcMethodHandler`, which takes type arguments in its stubs only."""


class Door(grpc.ServerInterceptor):
    """Every call of every service passes it, the health service's too.

    gRPC's threads wait for the message of a call. So the guard is asked before, as the caller is
    known by then; and whoever lets a message trickle in is hung up on.
    """

    def __init__(self, guard: Guard, clock: Clock) -> None:
        self._guard, self._bodies = guard, _Bodies(clock, guard.limits.message_s)
        self._clock, self._begun_s = clock, dict[grpc.ServicerContext, float]()

    def close(self) -> None:
        """Stop looking for slow messages."""
        self._bodies.close()

    def since_headers_s(self, context: grpc.ServicerContext) -> float:
        """How long ago the headers of a call came: its message's upload, and waits for a thread."""
        return self._clock.now_s() - self._begun_s[context]

    def intercept_service(
        self, continuation: Callable[[Any], Handler | None], details: grpc.HandlerCallDetails
    ) -> Handler | None:
        """Put the guard before a method."""
        handler = continuation(details)
        if handler is None:
            return None
        if not handler.response_streaming:
            return grpc.stream_unary_rpc_method_handler(
                self._before(handler.unary_unary, handler.request_deserializer),
                response_serializer=handler.response_serializer,
            )
        guarded = self._before(handler.unary_stream, handler.request_deserializer)
        # As `Watch` of the health service says of itself: it holds no thread.
        guarded.experimental_non_blocking = True  # type: ignore[attr-defined]
        return grpc.stream_stream_rpc_method_handler(
            guarded, response_serializer=handler.response_serializer
        )

    def _before(
        self, method: Callable[..., Any], read: Callable[[bytes], Any]
    ) -> Callable[..., Any]:
        begun_s = self._clock.now_s()  # gRPC asks for the handler when the headers of a call come

        def guarded(messages: Iterator[bytes], context: grpc.ServicerContext, *rest: Any) -> Any:
            self._begun_s[context] = begun_s
            try:
                with self._admitted(messages, context, read) as message:
                    return method(message, context, *rest)
            finally:
                del self._begun_s[context]

        return guarded

    @contextmanager
    def _admitted(
        self, messages: Iterator[bytes], context: grpc.ServicerContext, read: Callable[[bytes], Any]
    ) -> Iterator[Any]:
        caller = caller_of(context)
        try:
            with self._guard.admit(caller):
                body = self._bodies.receive(messages, context)
                self._guard.weigh(caller, len(body))
                try:
                    message = read(body)
                except DecodeError as error:
                    raise PayloadError(
                        f"a message must be one of the protocol; got {len(body)} bytes: {error}"
                    ) from error
                yield message
        except AdaptiveSplitError as error:
            _abort(context, error)


class _Bodies:
    """Waits for messages, on the threads of their calls, and ends calls whose message is late."""

    def __init__(self, clock: Clock, message_s: float) -> None:
        self._clock, self._message_s = clock, message_s
        self._awaited: dict[grpc.ServicerContext, float] = {}
        self._late: set[grpc.ServicerContext] = set()
        self._lock, self._closed = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._look, name="slow-bodies", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closed.set()
        self._thread.join()

    def receive(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        with self._lock:
            self._awaited[context] = self._clock.now_s() + self._message_s
        try:
            return next(messages)
        except (StopIteration, grpc.RpcError) as error:
            if context in self._late:
                raise SlowError(
                    f"a message must come within {self._message_s:g} s; got a slow one"
                ) from None
            if isinstance(error, StopIteration):
                # Given up by the caller, mostly; gRPC does not tell that from a call left empty.
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, "a call must bring a message")
            raise
        finally:
            with self._lock:
                self._awaited.pop(context, None)
                self._late.discard(context)

    def _look(self) -> None:
        while not self._closed.wait(LOOK_EVERY_S):
            now_s = self._clock.now_s()
            with self._lock:
                late = [context for context, end_s in self._awaited.items() if end_s < now_s]
                self._late.update(late)
            for context in late:
                context.cancel()


def _abort(context: grpc.ServicerContext, error: AdaptiveSplitError) -> NoReturn:
    code = grpc.StatusCode.INTERNAL
    if isinstance(error, PayloadError):
        code = grpc.StatusCode.INVALID_ARGUMENT
    elif isinstance(error, BundleError):
        code = grpc.StatusCode.FAILED_PRECONDITION
    elif isinstance(error, NotAllowedError):
        code = grpc.StatusCode.PERMISSION_DENIED
    elif isinstance(error, RefusedError):
        code = grpc.StatusCode.RESOURCE_EXHAUSTED
        context.set_trailing_metadata(((WAIT_HEADER, f"{error.wait_s:.6f}"),))
    context.abort(code, str(error))
