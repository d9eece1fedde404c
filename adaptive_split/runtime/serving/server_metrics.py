"""What an edge server counts of its requests, and what it tells of its queues when it is asked."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from adaptive_split.clock import Clock
from adaptive_split.runtime.serving.scheduler import SchedulerCounts
from adaptive_split.runtime.telemetry.endpoint import PREFIX
from adaptive_split.runtime.wire import TailReply

TIME_BUCKETS_S = (
    0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15,
    0.2, 0.5, 1.0,
)  # fmt: skip
BATCH_BUCKETS = (1, 2, 3, 4, 6, 8, 12, 16, 32)
OPEN_S = 10.0
"""A device counts as open for this long after its last answer."""
MOST_NAMES = 64
"""Devices told by name; more of them are told together, as `OTHERS`."""
OTHERS = "others"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerState:
    """How to read what a server does at a moment; each is called at every scrape."""

    load: Callable[[], float]
    """Busy share of the last second."""
    counts: Callable[[], SchedulerCounts]
    """What the scheduler did and what waits."""
    refused: Callable[[], Mapping[str, int]]
    """Requests refused since the start, by reason."""


class ServerMetrics:
    """Counts answers; safe to use from several threads."""

    def __init__(self, registry: CollectorRegistry, clock: Clock) -> None:
        """Register every metric."""
        self.registry, self._clock = registry, clock
        self._devices = _Devices(clock)
        registry.register(self._devices)
        self._requests = Counter(
            PREFIX + "requests", "Tails answered.", ("exit",), registry=registry
        )
        self._queue_s, self._compute_s = (
            Histogram(PREFIX + name, text, buckets=TIME_BUCKETS_S, registry=registry)
            for name, text in (
                ("request_queue_seconds", "Waiting of an answered request."),
                ("request_compute_seconds", "Computing of an answered request."),
            )
        )

    def replied(self, reply: TailReply, device: str) -> None:
        """Count an answer.

        Args:
            reply: What was answered.
            device: Name of its certificate, or its address.
        """
        self._requests.labels(reply.exit_index).inc()
        self._queue_s.observe(reply.queue_s)
        self._compute_s.observe(reply.compute_s)
        self._devices.saw(device)

    def watch(self, state: ServerState) -> None:
        """Tell load, queues and refusals at every scrape from now on."""
        self.registry.register(_State(state))


class _State(Collector):
    """Reads the server when asked."""

    def __init__(self, state: ServerState) -> None:
        self._state = state

    def collect(self) -> Iterator[Metric]:
        """Read load, queues, batches and refusals."""
        load, counts = self._state.load(), self._state.counts()
        yield GaugeMetricFamily(
            PREFIX + "server_load_ratio", "Busy share of the last second.", value=load
        )
        queued = GaugeMetricFamily(
            PREFIX + "queued_requests", "Requests waiting, by next stage.", labels=["stage"]
        )
        for stage, num_waiting in sorted(counts.waiting.items()):
            queued.add_metric([str(stage)], num_waiting)
        yield queued
        yield CounterMetricFamily(
            PREFIX + "early_answers", "Answered before the last exit.", value=counts.answered_early
        )
        yield _batch_sizes(counts.batches)
        refused = CounterMetricFamily(
            PREFIX + "refusals", "Requests refused, by reason.", labels=["reason"]
        )
        for reason, num_refused in self._state.refused().items():
            refused.add_metric([reason.replace("-", "_")], num_refused)
        yield refused


def _batch_sizes(batches: Mapping[int, int]) -> Metric:
    """A histogram of how many requests were computed together, by the number of steps of a size."""
    buckets = [
        (str(float(most)), sum(n for size, n in batches.items() if size <= most))
        for most in BATCH_BUCKETS
    ]
    buckets.append(("+Inf", sum(batches.values())))
    total = sum(size * count for size, count in batches.items())
    return HistogramMetricFamily(
        PREFIX + "batch_size", "Requests computed together.", buckets=buckets, sum_value=total
    )


class _Devices(Collector):
    """Who was answered, and when the last time; the longest silent is forgotten."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._counts: dict[str, int] = {}
        self._seen_s: OrderedDict[str, float] = OrderedDict()

    def saw(self, device: str) -> None:
        """Note an answer to a device."""
        now_s = self._clock.now_s()
        with self._lock:
            named = device in self._counts or len(self._counts) < MOST_NAMES
            label = device if named else OTHERS
            self._counts[label] = self._counts.get(label, 0) + 1
            self._seen_s[device] = now_s
            self._seen_s.move_to_end(device)
            while next(iter(self._seen_s.values())) < now_s - OPEN_S:
                self._seen_s.popitem(last=False)

    def collect(self) -> Iterator[Metric]:
        """Tell answers by device and how many devices are open."""
        since_s = self._clock.now_s() - OPEN_S
        with self._lock:
            num_open = sum(seen_s >= since_s for seen_s in self._seen_s.values())
            counts = dict(self._counts)
        yield GaugeMetricFamily(
            PREFIX + "open_devices", "Answered in the last ten seconds.", value=num_open
        )
        answered = CounterMetricFamily(
            PREFIX + "device_requests", "Tails answered, by device.", labels=["device"]
        )
        for device, count in counts.items():
            answered.add_metric([device], count)
        yield answered
