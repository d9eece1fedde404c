"""What a device counts of its frames, and what it tells of its link when it is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from adaptive_split.clock import Clock
from adaptive_split.decision import Decision
from adaptive_split.measurement import DEVICE, SERVER, FrameReport
from adaptive_split.runtime.backend import Controller, Situation
from adaptive_split.runtime.device import Device
from adaptive_split.runtime.sensors.battery import Battery
from adaptive_split.runtime.telemetry.endpoint import PREFIX

LATENCY_BUCKETS_S = (
    0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.125, 0.15, 0.175, 0.2, 0.25, 0.3, 0.4, 0.5,
    0.75, 1.0, 2.0,
)  # fmt: skip
DECISION_BUCKETS_S = (5e-5, 1e-4, 2e-4, 3e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1)
ON_TIME, MISSED, DROPPED = "on_time", "missed", "dropped"
OUTCOMES = ((DEVICE, ON_TIME), (DEVICE, MISSED), (SERVER, ON_TIME), (SERVER, MISSED),
            ("nobody", DROPPED))  # fmt: skip
REASONS = ("late", "link", "refused", "breaker", "bundle", "unsent")
"""Why the server's answer was not used; see `FrameReport.fallback_reason`."""
OBSTACLES = ("breaker", "bundle")
"""Why the breaker may be open."""


class DeviceMetrics:
    """Counts settled frames and times decisions; safe to use from several threads."""

    def __init__(self, registry: CollectorRegistry, slo_s: float) -> None:
        """Register every metric.

        Args:
            registry: Where to.
            slo_s: The latency promised, told beside the latencies found.
        """
        self._registry = registry
        promised = Gauge(PREFIX + "slo_seconds", "Latency promised.", registry=registry)
        promised.set(slo_s)
        self._frames = self._counter("frames", "Frames settled.", "answered_by", "outcome")
        self._fallbacks = self._counter("fallbacks", "Frames that the server did not answer "
                                        "although it was to.", "reason")  # fmt: skip
        self._decisions = self._counter("decisions", "Frames started.", "split_point", "bits")
        self._payload_bytes = self._counter("payload_bytes", "Sent for frames, with framing.")
        self._energy_j = self._counter("energy_joules", "Drawn by frames.", "provenance")
        self._latency_s = Histogram(
            PREFIX + "frame_latency_seconds", "Capture to answer.",
            buckets=LATENCY_BUCKETS_S, registry=registry,
        )  # fmt: skip
        self._decision_s = Histogram(
            PREFIX + "decision_seconds", "Observing and deciding, per frame.",
            buckets=DECISION_BUCKETS_S, registry=registry,
        )  # fmt: skip
        for answered_by, outcome in OUTCOMES:
            self._frames.labels(answered_by, outcome)
        for reason in REASONS:
            self._fallbacks.labels(reason)

    def count(self, report: FrameReport) -> None:
        """Count a settled frame."""
        decision = report.decision
        if decision is None:
            self._frames.labels("nobody", DROPPED).inc()
            return
        outcome = ON_TIME if report.on_time else MISSED
        self._frames.labels(report.answered_by or "nobody", outcome).inc()
        self._decisions.labels(decision.split_point, decision.bits).inc()
        if report.fallback_reason:
            self._fallbacks.labels(report.fallback_reason).inc()
        if report.payload_bytes:
            self._payload_bytes.inc(report.payload_bytes)
        self._energy_j.labels(report.energy_provenance).inc(report.energy_j)
        if report.latency_s is not None:
            self._latency_s.observe(report.latency_s)

    def time_decision(self, took_s: float) -> None:
        """Note how long a decision took."""
        self._decision_s.observe(took_s)

    def watch(self, device: Device, battery: Battery) -> None:
        """Tell link, breaker and charge of a device at every scrape from now on."""
        self._registry.register(_DeviceState(device, battery))

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(PREFIX + name, text, labels, registry=self._registry)


class TimedController:
    """A controller whose decisions are timed."""

    def __init__(
        self, controller: Controller, clock: Clock, on_decision: Callable[[float], None]
    ) -> None:
        """Take the controller and who is told the seconds of every decision."""
        self.name = controller.name
        self._controller, self._clock, self._tell = controller, clock, on_decision

    def decide(self, situation: Situation) -> Decision:
        """Choose as the controller does."""
        begin_s = self._clock.now_s()
        decision = self._controller.decide(situation)
        self._tell(self._clock.now_s() - begin_s)
        return decision

    def reset(self) -> None:
        """Forget the run."""
        self._controller.reset()


class _DeviceState(Collector):
    """Reads the device when asked; what nobody knows is left out."""

    def __init__(self, device: Device, battery: Battery) -> None:
        self._device, self._battery = device, battery

    def collect(self) -> Iterator[Metric]:
        """Read link, breaker, frames under way and charge."""
        yield from self._link()
        obstacle = self._device.sender.obstacle
        breaker = GaugeMetricFamily(
            PREFIX + "breaker_open", "1 = nothing is sent, for this reason.", labels=["reason"]
        )
        for reason in OBSTACLES:
            breaker.add_metric([reason], float(obstacle == reason))
        yield breaker
        yield _gauge("open_frames", "Frames started and not settled.", self._device.ledger.num_open)
        soc = self._battery.soc()
        if soc is not None:
            yield _gauge("battery_charge_ratio", "State of charge.", soc)

    def _link(self) -> Iterator[Metric]:
        sender = self._device.sender
        yield CounterMetricFamily(
            PREFIX + "probe_bytes", "Sent only to measure the link.", value=sender.probe_bytes
        )
        samples = sender.samples
        if not samples:
            return
        now_s, last = self._device.clock.now_s(), samples[-1]
        link = sender.estimate
        bytes_per_s = link.uplink_mbps * 1e6 / 8
        yield _gauge("uplink_bytes_per_second", "Rate the next payload may expect.", bytes_per_s)
        yield _gauge("round_trip_seconds", "Round trip of an empty message.", link.rtt_s)
        yield _gauge("link_sample_age_seconds", "Since the last reply.", now_s - last.time_s)
        yield _gauge("server_wait_seconds", "Last wait in the server's queue.", last.server_wait_s)
        yield _gauge(
            "server_slowdown_ratio", "Server's last compute time over the profile's.",
            last.server_slowdown,
        )  # fmt: skip


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(PREFIX + name, text, value=value)
