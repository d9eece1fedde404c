"""The device's side of the uplink: what was sent, what came back, what to believe of the link."""

from __future__ import annotations

import logging
import threading
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, replace

from adaptive_split.clock import Clock
from adaptive_split.errors import BundleError, LinkError, LinkTimeout, PayloadError
from adaptive_split.measurement import LinkSample
from adaptive_split.profile import Profile
from adaptive_split.runtime.breaker import Breaker
from adaptive_split.runtime.ledger import Ledger, OpenFrame
from adaptive_split.runtime.link import WINDOW, LinkEstimator
from adaptive_split.runtime.transport import Transport
from adaptive_split.runtime.wire import Bundle, RefusedError, TailReply, TailRequest

_log = logging.getLogger(__name__)

GRACE_S = 2.0
"""A late reply is still waited for this long, as a measurement."""
PING_EVERY_S = 0.2
"""A payload on an idle uplink takes an empty message along this often, for the round trip."""
PING_TIMEOUT_S = 2.0
PROBE_AFTER_S = 1.0
PROBE_BYTES = 4096


@dataclass(slots=True, eq=False)
class _Sent:
    """A request without a reply, or one of the last 16."""

    sent_s: float
    wire_bytes: int
    give_up_s: float
    split_point: int = 0
    reply_s: float | None = None


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
    ) -> None:
        self._transport, self._ledger, self._clock = transport, ledger, clock
        self._bundle, self._server_profile = bundle, server_profile
        self._overhead_bytes, self._probes = overhead_bytes, probes
        self._breaker = Breaker(clock)
        self._lock = threading.Lock()
        self._told_bundle = False
        self.reset()

    def reset(self) -> None:
        """Forget the link; a request still under way is ignored from now on."""
        with self._lock:
            self._link = LinkEstimator()
            self._unanswered: dict[_Sent, None] = {}
            self._recent: deque[_Sent] = deque(maxlen=WINDOW)
            self._samples: deque[LinkSample] = deque(maxlen=WINDOW)
            self._last_traffic_s = self._clock.now_s()
            self._last_ping_s = -PING_EVERY_S
            self.probe_bytes = 0
            """Bytes sent only to measure the link."""

    def rebase(self) -> None:
        """Take what the greeting told as known at moment 0, where the clock has just restarted."""
        with self._lock:
            self._unanswered.clear()
            self._link.rebase()
            self._samples = deque([replace(s, time_s=0.0) for s in self._samples], WINDOW)
            self._last_traffic_s = self._last_ping_s = 0.0

    @property
    def obstacle(self) -> str:
        """Why nothing may be sent, `breaker` or `bundle`; empty while requests may go."""
        return self._breaker.reason

    @property
    def samples(self) -> tuple[LinkSample, ...]:
        """The last finished requests, oldest first."""
        with self._lock:
            return tuple(self._samples)

    def timeouts(self, now_s: float) -> int:
        """How many of the last 16 requests missed their deadline."""
        with self._lock:
            moments = [(now_s if s.reply_s is None else s.reply_s, s) for s in self._recent]
            return sum(moment > sent.give_up_s for moment, sent in moments)

    def oldest(self) -> tuple[float | None, int]:
        """When the oldest request without a reply was sent, and its bytes."""
        with self._lock:
            for sent in self._unanswered:
                return sent.sent_s, sent.wire_bytes
            return None, 0

    def free_s(self) -> float:
        """When the uplink should have sent all it was given, at the estimated rate."""
        with self._lock:
            free_s = self._link.free_s
            for sent in self._unanswered:
                free_s = max(free_s, sent.sent_s) + self._upload_s(sent.wire_bytes)
            return free_s

    def blocked_until_s(self, now_s: float) -> float:
        """When a new payload should get on the uplink; half of an overdue reply's delay is added.

        Outages last the longer the older they are; the planner reckons with the same half.
        """
        free_s = self.free_s()
        with self._lock:
            for sent in self._unanswered:
                expected_s = sent.sent_s + self._upload_s(sent.wire_bytes) + self._link.rtt_s
                return max(free_s, now_s + 0.5 * max(now_s - expected_s - 0.05, 0.0))
        return max(free_s, now_s)

    def send(self, frame: OpenFrame, payload: bytes) -> None:
        """Send a frame's payload; the ledger hears of what becomes of it."""
        now_s = self._clock.now_s()
        if now_s - self._last_ping_s >= PING_EVERY_S and self.free_s() <= now_s:
            self._ping(now_s)
        sent = _Sent(
            now_s, len(payload) + self._overhead_bytes, frame.give_up_s, frame.decision.split_point
        )
        with self._lock:
            frame.ready_s, frame.wire_bytes = now_s, sent.wire_bytes
            frame.upload_s = self._upload_s(sent.wire_bytes)
            frame.downlink_s = self._link.rtt_s / 2
            self._unanswered[sent] = None
            self._recent.append(sent)
            self._last_traffic_s = now_s
        slack_s = frame.give_up_s - now_s
        request = TailRequest(
            frame_index=frame.index,
            split_point=frame.decision.split_point,
            bits=frame.decision.bits,
            payload=payload,
            slack_s=slack_s,
        )
        future = self._transport.send(request, timeout_s=max(slack_s, 0.0) + GRACE_S)
        future.add_done_callback(lambda done: self._on_reply(frame, sent, done))

    def tend(self) -> None:
        """Send a probe if the link has been idle for long or the breaker wants to try; no wait."""
        now_s = self._clock.now_s()
        if self._breaker.take_probe():
            self._ask_for_bundle()
        elif (
            self._probes
            and not self.obstacle
            and not self._unanswered
            and now_s - self._last_traffic_s >= PROBE_AFTER_S
        ):
            self._probe()

    def greet(self) -> list[Future[None] | Future[str]]:
        """Begin a run: compare bundles, measure the link once."""
        return [self._ask_for_bundle(), *self._probe()]

    def _probe(self) -> list[Future[None] | Future[str]]:
        """An empty message for the round trip and, behind it, bytes for the rate."""
        now_s = self._clock.now_s()
        sent = _Sent(now_s, PROBE_BYTES + self._overhead_bytes, now_s + PING_TIMEOUT_S)
        ping = self._ping(now_s)
        with self._lock:
            self._last_traffic_s = now_s
            self._unanswered[sent] = None
            self.probe_bytes += sent.wire_bytes
        probe = self._transport.probe(bytes(PROBE_BYTES), timeout_s=PING_TIMEOUT_S)
        probe.add_done_callback(lambda done: self._on_probe(sent, done))
        return [ping, probe]

    def _ping(self, now_s: float) -> Future[None]:
        link = self._link
        with self._lock:
            self._last_ping_s = now_s
            self.probe_bytes += self._overhead_bytes
        ping = self._transport.ping(timeout_s=PING_TIMEOUT_S)
        ping.add_done_callback(lambda done: self._on_ping(link, now_s, done))
        return ping

    def _ask_for_bundle(self) -> Future[str]:
        asked = self._transport.peer_hash(timeout_s=PING_TIMEOUT_S)
        asked.add_done_callback(self._on_hash)
        return asked

    def _on_hash(self, done: Future[str]) -> None:
        error = done.exception()
        if isinstance(error, LinkError):
            self._breaker.refuse("breaker")
        elif error is not None:
            self._on_error(error)
        elif done.result() != self._bundle.hash:
            self._refuse_bundle(f"the server holds {done.result()!r}")
        else:
            self._breaker.close()
            self._told_bundle = False

    def _on_ping(self, link: LinkEstimator, sent_s: float, done: Future[None]) -> None:
        if done.exception() is None:
            now_s = self._clock.now_s()
            with self._lock:
                link.add_ping(now_s=now_s, rtt_s=now_s - sent_s)

    def _on_probe(self, sent: _Sent, done: Future[None]) -> None:
        error, now_s = done.exception(), self._clock.now_s()
        if error is None:
            self._learn(sent, now_s, server_s=0.0, wait_s=0.0, slowdown=None)
        else:
            with self._lock:
                self._unanswered.pop(sent, None)
            self._on_error(error)

    def _on_reply(self, frame: OpenFrame, sent: _Sent, done: Future[TailReply]) -> None:
        now_s, error = self._clock.now_s(), done.exception()
        if error is None:
            reply = done.result()
            self._ledger.settle_by_server(frame, reply, now_s)
            profiled_s = self._server_profile.tail_s(sent.split_point)
            self._learn(
                sent,
                now_s,
                server_s=reply.queue_s + reply.compute_s,
                wait_s=reply.queue_s,
                slowdown=reply.compute_s / max(profiled_s, 1e-6),
            )
            return
        if isinstance(error, RefusedError):
            self._ledger.fail(frame, "refused")
            self._learn(sent, now_s, server_s=0.0, wait_s=error.wait_s, slowdown=None)
            return
        with self._lock:
            self._unanswered.pop(sent, None)
        self._on_error(error)
        if isinstance(error, BundleError):
            self._ledger.fail(frame, "bundle")
        elif isinstance(error, PayloadError):
            self._ledger.fail(frame, "refused")
        else:
            self._ledger.fail(frame, "late" if isinstance(error, LinkTimeout) else "link")

    def _on_error(self, error: BaseException) -> None:
        if isinstance(error, BundleError):
            self._refuse_bundle(str(error))
        elif isinstance(error, LinkTimeout):
            # Half open: no reply to the probe keeps the breaker open; closed: the controller's.
            if self.obstacle:
                self._breaker.fail()
        elif isinstance(error, LinkError) and not isinstance(error, RefusedError):
            _log.debug("request failed: %s", error)
            self._breaker.fail()

    def _refuse_bundle(self, why: str) -> None:
        self._breaker.refuse("bundle")
        if not self._told_bundle:
            self._told_bundle = True
            _log.warning(
                "staying local: both sides must hold bundle %s; %s", self._bundle.hash, why
            )

    def _learn(
        self, sent: _Sent, now_s: float, *, server_s: float, wait_s: float, slowdown: float | None
    ) -> None:
        with self._lock:
            if sent not in self._unanswered:
                return
            del self._unanswered[sent]
            sent.reply_s = now_s
            reading = self._link.add(
                sent_s=sent.sent_s, reply_s=now_s, server_s=server_s, wire_bytes=sent.wire_bytes
            )
            before = self._samples[-1].server_slowdown if self._samples else 1.0
            self._samples.append(
                LinkSample(
                    time_s=now_s,
                    uplink_mbps=reading.uplink_mbps,
                    rtt_s=reading.rtt_s,
                    server_wait_s=wait_s,
                    server_slowdown=before if slowdown is None else slowdown,
                )
            )
        self._breaker.succeed()

    def _upload_s(self, wire_bytes: int) -> float:
        return wire_bytes * 8e-6 / self._link.uplink_mbps
