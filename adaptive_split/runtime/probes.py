"""What is sent only to learn: is the server there, with which bundle, and how is the link."""

from __future__ import annotations

from concurrent.futures import Future

from adaptive_split.clock import Clock
from adaptive_split.errors import BundleError, LinkTimeout
from adaptive_split.runtime.breaker import Breaker
from adaptive_split.runtime.link import LinkEstimator
from adaptive_split.runtime.traffic import Sent, Traffic
from adaptive_split.runtime.transport import Transport
from adaptive_split.runtime.wire import Bundle

PING_EVERY_S = 0.2
"""A payload on an idle uplink takes an empty message along this often, for the round trip."""
PING_TIMEOUT_S = 2.0
PROBE_AFTER_S = 1.0
PROBE_BYTES = 4096
SILENCE_S = 1.5
"""A server from which a reply is overdue for so long counts as lost; as long as the round trip that
a single lost reply has in emulated links."""


class Prober:
    """Greets the server, measures an idle link, and looks for a server that was lost."""

    def __init__(
        self,
        transport: Transport,
        traffic: Traffic,
        breaker: Breaker,
        clock: Clock,
        *,
        bundle: Bundle,
        overhead_bytes: int,
        measures: bool,
    ) -> None:
        self._transport, self._traffic, self._breaker = transport, traffic, breaker
        self._clock, self._bundle = clock, bundle
        self._overhead_bytes, self._measures = overhead_bytes, measures
        self.reset()

    def reset(self) -> None:
        """Begin to count anew."""
        self.bytes = 0
        """Sent only to measure the link."""
        self._last_ping_s = -PING_EVERY_S

    def rebase(self) -> None:
        """Go on where the clock has just restarted at 0."""
        self._last_ping_s = 0.0

    def greet(self) -> list[Future[None] | Future[str]]:
        """Begin a run: compare bundles, measure the link once."""
        asked = self._transport.peer_hash(timeout_s=PING_TIMEOUT_S)
        asked.add_done_callback(self._on_greeting)
        return [asked, *self._probe()]

    def tend(self) -> None:
        """Notice silence; look for a lost server when that is due; measure an idle link; no wait.

        A lost server is looked for on a new connection: an old one may look alive for minutes
        though its other end is gone, or wait ever longer between its own attempts.
        """
        now_s = self._clock.now_s()
        silent_s = self._traffic.silent_s(now_s)
        if silent_s > SILENCE_S:
            self._breaker.open("breaker", f"replies are overdue; got none for {silent_s:.1f} s")
        if self._breaker.take_probe():
            knocked = self._transport.knock(timeout_s=PING_TIMEOUT_S)
            knocked.add_done_callback(self._on_knock)
        elif (
            self._measures
            and not self._breaker.reason
            and self._traffic.idle_s(now_s) >= PROBE_AFTER_S
        ):
            self._probe()

    def accompany(self, now_s: float) -> None:
        """Send a ping ahead of a payload, if the uplink is idle and the last one long ago."""
        if now_s - self._last_ping_s >= PING_EVERY_S and self._traffic.free_s() <= now_s:
            self._ping(now_s)

    def _probe(self) -> list[Future[None] | Future[str]]:
        """An empty message for the round trip and, behind it, bytes for the rate."""
        now_s = self._clock.now_s()
        sent = Sent(
            now_s, PROBE_BYTES + self._overhead_bytes, now_s + PING_TIMEOUT_S,
            epoch=self._breaker.epoch,
        )  # fmt: skip
        ping = self._ping(now_s)
        self._traffic.begin(sent, of_frame=False)
        self.bytes += sent.wire_bytes
        probe = self._transport.probe(bytes(PROBE_BYTES), timeout_s=PING_TIMEOUT_S)
        probe.add_done_callback(lambda done: self._on_probe(sent, done))
        return [ping, probe]

    def _ping(self, now_s: float) -> Future[None]:
        link = self._traffic.link
        self._last_ping_s = now_s
        self.bytes += self._overhead_bytes
        ping = self._transport.ping(timeout_s=PING_TIMEOUT_S)
        ping.add_done_callback(lambda done: self._on_ping(link, now_s, done))
        return ping

    def _on_ping(self, link: LinkEstimator, sent_s: float, done: Future[None]) -> None:
        if done.exception() is None:
            now_s = self._clock.now_s()
            self._traffic.add_ping(link, now_s=now_s, rtt_s=now_s - sent_s)

    def _on_probe(self, sent: Sent, done: Future[None]) -> None:
        error = done.exception()
        if error is not None:
            self._traffic.drop(sent)
            note_failure(error, sent, self._traffic, self._breaker)
        elif (
            self._traffic.finish(sent, self._clock.now_s(), server_s=0.0, wait_s=0.0, slowdown=None)
            and self._breaker.reason != "bundle"
        ):
            self._breaker.close()

    def _on_greeting(self, done: Future[str]) -> None:
        reason, why = self._judge(done)
        if reason:
            self._breaker.open(reason, why)
        else:
            self._breaker.close()

    def _on_knock(self, done: Future[str]) -> None:
        self._breaker.end_probe(*self._judge(done))

    def _judge(self, done: Future[str]) -> tuple[str, str]:
        """Why the server cannot be used, as a word and as a sentence; empty if it can."""
        error, ours = done.exception(), f"both sides must hold bundle {self._bundle.hash}"
        if isinstance(error, BundleError):
            return "bundle", f"{ours}; got {error}"
        if error is not None:
            return "breaker", f"the server must be within reach; got {error}"
        self._traffic.hear(self._clock.now_s())
        if done.result() != self._bundle.hash:
            return "bundle", f"{ours}; the server holds {done.result()!r}"
        return "", ""


def note_failure(error: BaseException, sent: Sent, traffic: Traffic, breaker: Breaker) -> None:
    """Tell the breaker what an error proves.

    A late reply comes from a slow link, and the controller sees that one itself; but where nothing
    at all was heard since the request was sent, the connection is dead.
    """
    if isinstance(error, BundleError):
        breaker.open("bundle", f"both sides must hold one bundle; got {error}")
    elif isinstance(error, LinkTimeout):
        if traffic.heard_s < sent.sent_s and sent.epoch == breaker.epoch:
            breaker.open("breaker", f"replies are overdue; got {error}")
    else:
        breaker.fail(sent.epoch, f"the server must answer; got {error}")
