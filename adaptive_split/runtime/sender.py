"""The device's side of the uplink: what was sent, what came back, what to believe of the link."""

from __future__ import annotations

import logging
import secrets
from concurrent.futures import Future
from dataclasses import replace

from adaptive_split.clock import Clock
from adaptive_split.errors import BundleError, LinkTimeout, PayloadError
from adaptive_split.measurement import LinkSample
from adaptive_split.profile import Profile
from adaptive_split.runtime.breaker import Breaker
from adaptive_split.runtime.ledger import Ledger, OpenFrame
from adaptive_split.runtime.link import LinkReading
from adaptive_split.runtime.probes import ProbeBudget, Prober, note_failure
from adaptive_split.runtime.traffic import Sent, Traffic
from adaptive_split.runtime.transport import Transport
from adaptive_split.runtime.wire import Bundle, RefusedError, TailReply, TailRequest

_log = logging.getLogger(__name__)

GRACE_S = 2.0
"""A late reply is still waited for this long, as a measurement."""


class Sender:
    """Sends payloads first in, first out, and learns from every reply, late ones included."""

    def __init__(
        self,
        transport: Transport,
        ledger: Ledger,
        clock: Clock,
        *,
        bundle: Bundle,
        server_profile: Profile,
        overhead_bytes: int,
        probes: bool = True,
        probe_budget: ProbeBudget | None = None,
    ) -> None:
        self._transport, self._ledger, self._clock = transport, ledger, clock
        self._server_profile, self._overhead_bytes = server_profile, overhead_bytes
        self._breaker, self._traffic = Breaker(clock), Traffic()
        self._prober = Prober(
            transport, self._traffic, self._breaker, clock,
            bundle=bundle, measures=probes, budget=probe_budget,
        )  # fmt: skip
        self.reset()

    def reset(self) -> None:
        """Forget the link; a request still under way is ignored from now on."""
        self._traffic.reset(self._clock.now_s())
        self._prober.reset()
        # Frames are counted anew; so the server tells them from those of before.
        self._run_id = secrets.token_hex(4)

    def rebase(self) -> None:
        """Take what the greeting told as known at moment 0, where the clock has just restarted."""
        self._traffic.rebase()
        self._prober.rebase()
        self._breaker.rebase()

    @property
    def obstacle(self) -> str:
        """Why nothing may be sent, `breaker` or `bundle`; empty while requests may go."""
        return self._breaker.reason

    @property
    def samples(self) -> tuple[LinkSample, ...]:
        """The last finished requests, oldest first."""
        return self._traffic.samples

    @property
    def estimate(self) -> LinkReading:
        """Rate and round trip that the next payload may expect."""
        return self._traffic.estimate

    @property
    def probe_bytes(self) -> int:
        """Bytes sent only to measure the link."""
        return self._prober.bytes

    def timeouts(self, now_s: float) -> int:
        """How many of the last 16 requests missed their deadline."""
        return self._traffic.timeouts(now_s)

    def oldest(self) -> tuple[float | None, int]:
        """When the oldest request without a reply was sent, and its bytes."""
        return self._traffic.oldest()

    def free_s(self) -> float:
        """When the uplink should have sent all it was given, at the estimated rate."""
        return self._traffic.free_s()

    def blocked_until_s(self, now_s: float) -> float:
        """When a new payload should get on the uplink."""
        return self._traffic.blocked_until_s(now_s)

    def greet(self) -> list[Future[None] | Future[str]]:
        """Begin a run: compare bundles, measure the link once."""
        return self._prober.greet()

    def tend(self) -> None:
        """Send what is due to learn of link and server; no wait."""
        self._prober.tend()

    def send(self, frame: OpenFrame, payload: bytes) -> None:
        """Send a frame's payload; the ledger hears of what becomes of it."""
        self._prober.accompany(self._clock.now_s())
        now_s, decision = self._clock.now_s(), frame.decision
        wire_bytes, epoch = len(payload) + self._overhead_bytes, self._breaker.epoch
        sent = Sent(now_s, wire_bytes, frame.give_up_s, decision.split_point, epoch)
        upload_s, rtt_s = self._traffic.begin(sent, of_frame=True)
        frame.ready_s, frame.wire_bytes = now_s, wire_bytes
        frame.upload_s, frame.downlink_s = upload_s, rtt_s / 2
        timeout_s = frame.give_up_s - now_s
        request = TailRequest(
            frame_index=frame.index,
            split_point=decision.split_point,
            bits=decision.bits,
            payload=payload,
            # The server counts from when the headers come, until it replies.
            slack_s=timeout_s - rtt_s,
            run_id=self._run_id,
        )
        future = self._transport.send(request, timeout_s=max(timeout_s, 0.0) + GRACE_S)
        future.add_done_callback(lambda done: self._on_reply(frame, sent, done))

    def _on_reply(self, frame: OpenFrame, sent: Sent, done: Future[TailReply]) -> None:
        now_s, error = self._clock.now_s(), done.exception()
        if error is not None:
            self._on_error(frame, sent, error, now_s)
            return
        reply = _believable(done.result(), now_s - sent.sent_s)
        self._ledger.settle_by_server(frame, reply, now_s)
        profiled_s = self._server_profile.tail_s(sent.split_point)
        if self._traffic.finish(
            sent,
            now_s,
            server_s=reply.queue_s + reply.compute_s,
            wait_s=reply.queue_s,
            slowdown=reply.compute_s / max(profiled_s, 1e-6),
        ):
            self._breaker.succeed()

    def _on_error(self, frame: OpenFrame, sent: Sent, error: BaseException, now_s: float) -> None:
        if isinstance(error, RefusedError):
            self._ledger.fail(frame, "refused")
            if self._traffic.finish(sent, now_s, server_s=0.0, wait_s=error.wait_s, slowdown=None):
                self._breaker.hear()
            return
        _log.debug("frame %d: %s", frame.index, error)
        self._traffic.drop(sent)
        note_failure(error, sent, self._traffic, self._breaker)
        self._ledger.fail(frame, _reason(error))


def _reason(error: BaseException) -> str:
    """The fallback reason of a frame whose request failed."""
    if isinstance(error, BundleError):
        return "bundle"
    if isinstance(error, PayloadError):
        return "refused"
    return "late" if isinstance(error, LinkTimeout) else "link"


def _believable(reply: TailReply, took_s: float) -> TailReply:
    """Cut times that the server tells down to what its reply took."""
    queue_s = min(reply.queue_s, took_s)
    return replace(reply, queue_s=queue_s, compute_s=min(reply.compute_s, took_s - queue_s))
