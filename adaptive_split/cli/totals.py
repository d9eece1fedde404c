"""What a run of the device cost, summed up as it goes; a frame takes eight bytes."""

from __future__ import annotations

from array import array
from collections import Counter

from adaptive_split.measurement import DEVICE, SERVER, FrameReport
from adaptive_split.profile import UNAVAILABLE


class Totals:
    """Sums over the frames of a run."""

    def __init__(self) -> None:
        self.count = 0
        self._by: Counter[str] = Counter()
        self._on_time = self._correct = self._payload_bytes = 0
        self._energy_j = 0.0
        self._provenances: set[str] = set()
        self._latencies_s = array("d")

    def add(self, report: FrameReport) -> None:
        """Add one frame."""
        self.count += 1
        self._by[report.answered_by] += 1
        self._on_time += report.on_time
        self._correct += report.correct
        self._payload_bytes += report.payload_bytes
        self._energy_j += report.energy_j
        self._provenances.add(report.energy_provenance)
        if report.latency_s is not None:
            self._latencies_s.append(report.latency_s)

    def text(self, controller: str, *, labels_known: bool) -> str:
        """A few lines for a person."""
        import numpy as np

        count, late_s = self.count, np.array(self._latencies_s)
        p50, p95, p99 = 1e3 * np.percentile(late_s, (50, 95, 99)) if late_s.size else [np.nan] * 3
        by_device, by_server = self._by[DEVICE], self._by[SERVER]
        lines = [
            f"{controller}: {count} frames, {by_device} answered by the device, "
            f"{by_server} by the server, {count - by_device - by_server} not started",
            f"on time {self._on_time} ({100 * self._on_time / count:.1f} %), "
            f"latency p50 {p50:.0f} ms, p95 {p95:.0f} ms, p99 {p99:.0f} ms",
            f"per frame: {self._payload_bytes / count:.0f} bytes, "
            f"{1e3 * self._energy_j / count:.1f} mJ ({', '.join(sorted(self._provenances))}"
            + (": the radio's alone, modelled)" if self._provenances == {UNAVAILABLE} else ")"),
        ]
        if labels_known:
            right = self._correct
            lines.append(f"right and on time {right} ({100 * right / count:.1f} %)")
        return "\n".join(lines)
