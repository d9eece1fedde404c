"""What Prometheus is told of two controllers that share a device; a label with two values."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Histogram, Summary

from adaptive_split.measurement import FrameReport
from adaptive_split.runtime.telemetry.device_metrics import (
    DROPPED,
    LATENCY_BUCKETS_S,
    MISSED,
    ON_TIME,
)
from adaptive_split.runtime.telemetry.endpoint import PREFIX
from adaptive_split.runtime.updates.canary import ARMS


class ArmMetrics:
    """Counts settled frames by who decided; safe to use from several threads."""

    def __init__(self, registry: CollectorRegistry, arm_of: Callable[[int], str]) -> None:
        """Register every metric.

        Args:
            registry: Where to.
            arm_of: Tells whose a frame is by its index; empty: nobody's.
        """
        self._arm_of = arm_of
        self._frames = Counter(
            PREFIX + "arm_frames", "Frames settled, by who decided.", ("arm", "outcome"),
            registry=registry,
        )  # fmt: skip
        self._fallbacks = Counter(
            PREFIX + "arm_fallbacks", "Frames that the server did not answer although it was to.",
            ("arm",), registry=registry,
        )  # fmt: skip
        self._utility = Summary(
            PREFIX + "arm_utility", "Utility of frames; its sum may fall.", ("arm",),
            registry=registry,
        )  # fmt: skip
        self._latency_s = Histogram(
            PREFIX + "arm_frame_latency_seconds", "Capture to answer.", ("arm",),
            buckets=LATENCY_BUCKETS_S, registry=registry,
        )  # fmt: skip
        for arm in ARMS:
            for outcome in (ON_TIME, MISSED, DROPPED):
                self._frames.labels(arm, outcome)
            self._fallbacks.labels(arm)

    def count(self, report: FrameReport) -> None:
        """Count a settled frame."""
        arm = self._arm_of(report.frame_index)
        if not arm:
            return
        outcome = ON_TIME if report.on_time else MISSED if report.decision else DROPPED
        self._frames.labels(arm, outcome).inc()
        self._utility.labels(arm).observe(report.utility)
        if report.fallback_reason and report.decision:
            self._fallbacks.labels(arm).inc()
        if report.latency_s is not None:
            self._latency_s.labels(arm).observe(report.latency_s)
