"""What the page of `adaptive-split dash` shows of a device and a server, as plain JSON values.

A quantity that nobody knows is `None`; a quantile beyond the last bound of its histogram is
`BEYOND`. Shares are in [0, 1]; times are in milliseconds and rates in Mbit/s, as they are for
reading.
"""

from __future__ import annotations

import math
from typing import Any

from adaptive_split.runtime.telemetry.scrape import Change

BEYOND = "beyond"
SIGNIFICANT = 4
"""Digits kept of a number: more are not read, and a page is sent every second."""
View = dict[str, Any]


def device_view(change: Change) -> View:
    """Everything that a device told over some seconds."""
    after = change.after
    return {
        "info": after.info,
        "uptime_s": short(after.uptime_s),
        "window_s": short(change.seconds),
        "link": _link(change),
        "frames": _frames(change),
        "latency": _latency(change),
        "fallbacks": _rates(change, "fallbacks_total", "reason"),
        "decisions": _decisions(change),
        "battery": _battery(change),
        "process": _process(change),
    }


def server_view(change: Change) -> View:
    """Everything that a server told over some seconds."""
    after = change.after
    return {
        "info": after.info,
        "uptime_s": short(after.uptime_s),
        "window_s": short(change.seconds),
        "answered_per_s": short(change.rate("requests_total")),
        "refusals": _rates(change, "refusals_total", "reason"),
        "load": short(after.gauge("server_load_ratio")),
        "waiting": exact(after.total("queued_requests")),
        "queue_p95_ms": _quantile_ms(change, "request_queue_seconds", 0.95),
        "compute_p95_ms": _quantile_ms(change, "request_compute_seconds", 0.95),
        "batch": short(change.mean("batch_size")),
        "devices": exact(after.gauge("open_devices")),
        "process": _process(change),
    }


def point_view(second: Change, window: Change) -> View:
    """One point of every curve.

    Args:
        second: What changed since the last point.
        window: What changed over the last seconds, for quantiles that one second is too short for.
    """
    after, settled = second.after, second.count("frames_total")
    failed = settled - second.count("frames_total", outcome="on_time")
    return {
        "uplink_mbps": _mbps(after.gauge("uplink_bytes_per_second")),
        "used_mbps": _mbps(second.rate("payload_bytes_total") + second.rate("probe_bytes_total")),
        "rtt_ms": _ms(after.gauge("round_trip_seconds")),
        "p50_ms": _quantile_ms(window, "frame_latency_seconds", 0.5),
        "p95_ms": _quantile_ms(window, "frame_latency_seconds", 0.95),
        "missed": _share(failed, settled),
    }


def short(value: float | None) -> float | None:
    """A number with the digits that matter; `None` for what is unknown or not finite."""
    known = exact(value)
    return None if known is None else float(f"{known:.{SIGNIFICANT}g}")


def exact(value: float | None) -> float | None:
    """A number as it is; `None` for what is unknown or not finite, which JSON cannot tell."""
    return value if value is not None and math.isfinite(value) else None


def _link(change: Change) -> View:
    after = change.after
    obstacles = [name for (name,), state in after.by("breaker_open", "reason").items() if state]
    return {
        "uplink_mbps": _mbps(after.gauge("uplink_bytes_per_second")),
        "used_mbps": _mbps(change.rate("payload_bytes_total") + change.rate("probe_bytes_total")),
        "rtt_ms": _ms(after.gauge("round_trip_seconds")),
        "heard_s": short(after.gauge("link_sample_age_seconds")),
        "server_wait_ms": _ms(after.gauge("server_wait_seconds")),
        "obstacle": obstacles[0] if obstacles else "",
    }


def _frames(change: Change) -> View:
    settled = change.count("frames_total")
    shares = {
        outcome: _share(change.count("frames_total", outcome=outcome), settled)
        for outcome in ("on_time", "missed", "dropped")
    }
    sides = {
        side: _share(change.count("frames_total", answered_by=side), settled)
        for side in ("device", "server", "nobody")
    }
    return {
        "per_s": short(change.rate("frames_total")),
        "total": exact(change.after.total("frames_total")),
        "open": exact(change.after.gauge("open_frames")),
        **shares,
        "answered_by": sides,
    }


def _latency(change: Change) -> View:
    return {
        "p50_ms": _quantile_ms(change, "frame_latency_seconds", 0.5),
        "p95_ms": _quantile_ms(change, "frame_latency_seconds", 0.95),
        "promised_ms": _ms(change.after.gauge("slo_seconds")),
        "deciding_p95_ms": _quantile_ms(change, "decision_seconds", 0.95),
    }


def _decisions(change: Change) -> list[View]:
    counts = change.by("decisions_total", "split_point", "bits")
    total = sum(counts.values())
    return [
        {"split_point": int(split), "bits": int(bits), "share": _share(count, total)}
        for (split, bits), count in sorted(counts.items(), key=lambda one: -one[1])
    ]


def _battery(change: Change) -> View:
    joules = change.by("energy_joules_total", "provenance")
    return {
        "soc": short(change.after.gauge("battery_charge_ratio")),
        "power": [
            {"watts": short(j / change.seconds), "provenance": name}
            for (name,), j in joules.items()
        ],
    }


def _process(change: Change) -> View:
    memory_bytes = change.after.gauge("process_resident_memory_bytes")
    return {
        "memory_mb": None if memory_bytes is None else short(memory_bytes / 1e6),
        "processor": short(change.rate("process_cpu_seconds_total")),
    }


def _rates(change: Change, name: str, label: str) -> list[View]:
    """How often per second, by the value of a label, the most frequent first."""
    counts = sorted(change.by(name, label).items(), key=lambda one: -one[1])
    return [{label: value, "per_s": short(n / change.seconds)} for (value,), n in counts]


def _share(count: float, total: float) -> float | None:
    return short(count / total) if total else None


def _quantile_ms(change: Change, name: str, share: float) -> float | str | None:
    seconds = change.quantile(name, share)
    return BEYOND if seconds is not None and math.isinf(seconds) else _ms(seconds)


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else short(1e3 * seconds)


def _mbps(bytes_per_s: float | None) -> float | None:
    return None if bytes_per_s is None else short(bytes_per_s * 8e-6)
