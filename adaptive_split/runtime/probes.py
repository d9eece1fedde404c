"""What is sent only to learn: is the server there, with which bundle, and how is the link."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from adaptive_split.clock import Clock
from adaptive_split.errors import BundleError, ConfigError, LinkTimeout
from adaptive_split.runtime.breaker import Breaker
from adaptive_split.runtime.link import LinkEstimator
from adaptive_split.runtime.traffic import Sent, Traffic
from adaptive_split.runtime.transport import Transport
from adaptive_split.runtime.wire import Bundle

PING_EVERY_S = 0.2
"""A payload on an idle uplink takes an empty message along this often, for the round trip."""
PING_TIMEOUT_S = 2.0
PROBE_AFTER_S = 1.0
"""A link whose rate nothing has told for so long is measured, with what the budget gives for it."""
PING_FRAMING_BYTES, PROBE_FRAMING_BYTES = 45, 91
"""What empty messages and probes take on the wire beside their payload, as counted there."""
LEAST_BYTES = 400
"""A second's budget must hold a ping and a probe of half the size."""
LATE_S = 0.1
"""While a reply is overdue by so much nothing is measured: it would only queue."""
SILENCE_S = 1.5
"""A server from which a reply is overdue for so long counts as lost; as long as the round trip that
a single lost reply has in emulated links."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeBudget:
    """How much of the uplink may be spent on measuring it; a probe takes what a second gives.

    The pings beside payloads, 45 bytes at most every 0.2 s, come on top.
    """

    share: float = 0.01
    """Of the estimated rate."""
    most_bytes_per_s: float = 8000.0
    """Less than the ten packets that TCP sends at once: with more, round trips would count, too."""
    least_bytes_per_s: float = 600.0
    """Even where that is more than the share, or a link that has recovered would not be seen."""

    def __post_init__(self) -> None:
        """Refuse a budget too small for one probe a second."""
        if not 0 < self.share <= 1:
            raise ConfigError(f"a probe budget's share must lie in (0, 1]; got {self.share!r}")
        if not LEAST_BYTES <= self.least_bytes_per_s <= self.most_bytes_per_s:
            raise ConfigError(
                f"a probe budget must be at least {LEAST_BYTES} bytes/s, the most no less than the "
                f"least; got {self.least_bytes_per_s!r} to {self.most_bytes_per_s!r}; or do not "
                "probe at all"
            )

    def bytes_per_s(self, uplink_mbps: float) -> float:
        """What may be spent at an estimated rate."""
        wanted = self.share * uplink_mbps * 1e6 / 8
        return min(max(wanted, self.least_bytes_per_s), self.most_bytes_per_s)


class Prober:
    """Greets the server, measures a link whose rate nothing tells, looks for a lost server."""

    def __init__(
        self,
        transport: Transport,
        traffic: Traffic,
        breaker: Breaker,
        clock: Clock,
        *,
        bundle: Bundle,
        measures: bool,
        budget: ProbeBudget | None = None,
    ) -> None:
        self._transport, self._traffic, self._breaker = transport, traffic, breaker
        self._clock, self._bundle = clock, bundle
        self._measures, self._budget = measures, budget or ProbeBudget()
        self.reset()

    def reset(self) -> None:
        """Begin to count anew."""
        self.bytes = 0
        """Sent only to measure the link."""
        self._last_ping_s, self._last_probe_s = -PING_EVERY_S, -PROBE_AFTER_S
        self._small = True

    def rebase(self) -> None:
        """Go on where the clock has just restarted at 0."""
        self._last_ping_s = self._last_probe_s = 0.0

    def greet(self) -> list[Future[Any]]:
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
            and self._traffic.untold_s(now_s) >= PROBE_AFTER_S
            and now_s >= max(self._last_probe_s + PROBE_AFTER_S, self._traffic.free_s())
            and silent_s < LATE_S
        ):
            self._probe()

    def accompany(self, now_s: float) -> None:
        """Send a ping ahead of a payload, if the uplink is idle and the last one long ago."""
        if now_s - self._last_ping_s >= PING_EVERY_S and self._traffic.free_s() <= now_s:
            self._ping(now_s)

    def _probe(self) -> list[Future[Any]]:
        """An empty message for the round trip and, behind it, bytes for the rate."""
        ping = self._ping(self._clock.now_s())
        now_s = self._clock.now_s()
        budget = self._budget.bytes_per_s(self._traffic.estimate.uplink_mbps) * PROBE_AFTER_S
        # Two sizes in turn tell what a probe costs beside its bytes.
        self._small = not self._small
        wire_bytes = int(budget - PING_FRAMING_BYTES) // (1 + self._small)
        num_bytes = wire_bytes - PROBE_FRAMING_BYTES
        sent = Sent(now_s, wire_bytes, now_s + PING_TIMEOUT_S, epoch=self._breaker.epoch)
        self._traffic.begin(sent, of_frame=False)
        self.bytes += wire_bytes
        self._last_probe_s = now_s
        probe = self._transport.probe(bytes(num_bytes), timeout_s=PING_TIMEOUT_S)
        probe.add_done_callback(lambda done: self._on_probe(sent, done))
        return [ping, probe]

    def _ping(self, now_s: float) -> Future[None]:
        link = self._traffic.link
        self._last_ping_s = now_s
        self.bytes += PING_FRAMING_BYTES
        ping = self._transport.ping(timeout_s=PING_TIMEOUT_S)
        ping.add_done_callback(lambda done: self._on_ping(link, now_s, done))
        return ping

    def _on_ping(self, link: LinkEstimator, sent_s: float, done: Future[None]) -> None:
        if done.exception() is None:
            now_s = self._clock.now_s()
            self._traffic.add_ping(link, now_s=now_s, rtt_s=now_s - sent_s)

    def _on_probe(self, sent: Sent, done: Future[float | None]) -> None:
        error = done.exception()
        if error is not None:
            self._traffic.drop(sent)
            note_failure(error, sent, self._traffic, self._breaker)
        elif self._traffic.finish(
            sent, self._clock.now_s(), server_s=0.0, wait_s=0.0, slowdown=None
        ):
            self._breaker.hear()

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
