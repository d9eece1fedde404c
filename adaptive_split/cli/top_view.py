"""How `adaptive-split top` draws a device and a server."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from adaptive_split.runtime.telemetry.scrape import Change
from adaptive_split.runtime.telemetry.watched import Watched

Row = tuple[str, str]
Counts = Mapping[tuple[str, ...], float]
UNKNOWN = "unknown"


def view(watched: Watched) -> RenderableType:
    """The last seconds of an endpoint; why there are none where it never answered."""
    address, change = watched.address, watched.window()
    if change is None:
        problem = Text(watched.problem)
        return Panel(problem, title=Text(address), title_align="left", border_style="red")
    return panel(address, change, gone=not watched.answers)


def panel(address: str, change: Change, *, gone: bool) -> RenderableType:
    """Everything an endpoint told.

    Args:
        address: Where it is.
        change: What it counted.
        gone: Whether it did not answer the last time.
    """
    info = change.after.info
    what = ", ".join(info[key] for key in ("controller", "bundle") if key in info)
    span = "last " if change.before.values else "since its start, "
    title = f"{info['side']} {address} ({what}): {span}{change.seconds:.0f} s"
    body = _rows(_server_rows(change)) if info["side"] == "server" else _device(change)
    if gone:
        body = Group(Text("gone, waiting for it; what it said last:", "red"), body)
    style = "red" if gone else "green"
    return Panel(body, title=Text(title), title_align="left", border_style=style)


def _device(change: Change) -> RenderableType:
    return Group(_rows(_device_rows(change)), _decisions(change))


def _device_rows(change: Change) -> list[Row]:
    by_frames = _megabits(change.rate("payload_bytes_total"))
    by_probes = _megabits(change.rate("probe_bytes_total"))
    return [
        ("link", _link(change)),
        ("frames", _frames(change)),
        ("answered by", _answered_by(change)),
        ("latency", _latency(change)),
        ("not by server", _list(change.by("fallbacks_total", "reason"), change) or "-"),
        ("uplink use", f"frames {by_frames}, probes {by_probes}"),
        ("battery", _battery(change)),
        ("process", _process(change)),
    ]


def _frames(change: Change) -> str:
    total = change.count("frames_total")
    on_time = _percent(change.count("frames_total", outcome="on_time"), total)
    late = _percent(change.count("frames_total", outcome="missed"), total)
    dropped = _percent(change.count("frames_total", outcome="dropped"), total)
    return (
        f"{total / change.seconds:.1f}/s; on time {on_time}, late {late}, "
        f"never started {dropped}; under way {change.after.total('open_frames'):.0f}"
    )


def _answered_by(change: Change) -> str:
    total = change.count("frames_total")
    device, server = (
        _percent(change.count("frames_total", answered_by=side), total)
        for side in ("device", "server")
    )
    return f"device {device}, server {server}"


def _latency(change: Change) -> str:
    return (
        f"{_spread(change, 'frame_latency_seconds')}; "
        f"promised {_ms(change.after.gauge('slo_seconds'))}; "
        f"deciding {_spread(change, 'decision_seconds')}"
    )


def _link(change: Change) -> str:
    after = change.after
    reasons = [name for (name,), state in after.by("breaker_open", "reason").items() if state]
    breaker = f"open ({reasons[0]})" if reasons else "closed"
    rate = after.gauge("uplink_bytes_per_second")
    if rate is None:
        return f"nothing heard yet; breaker {breaker}"
    return (
        f"{_megabits(rate)}, round trip {_ms(after.gauge('round_trip_seconds'))}, "
        f"heard {after.total('link_sample_age_seconds'):.1f} s ago; "
        f"server wait {_ms(after.gauge('server_wait_seconds'))}; breaker {breaker}"
    )


def _battery(change: Change) -> str:
    charge = change.after.gauge("battery_charge_ratio")
    told = "charge unknown" if charge is None else f"charge {100 * charge:.1f} %"
    watts = change.by("energy_joules_total", "provenance")
    drawn = [f"{j / change.seconds:.2f} W ({name})" for (name,), j in watts.items()]
    return "; ".join([told, *drawn])


def _decisions(change: Change) -> RenderableType:
    """Shares of split points (rows) and bits (columns)."""
    counts = change.by("decisions_total", "split_point", "bits")
    total = sum(counts.values())
    widths = sorted({int(bits) for _, bits in counts})
    table = Table(box=box.SIMPLE_HEAD, title="decisions, %", title_justify="left", pad_edge=False)
    table.add_column("split point")
    for bits in widths:
        table.add_column(f"{bits} bits" if bits else "local", justify="right")
    for split in sorted({int(split) for split, _ in counts}):
        shares = [counts.get((str(split), str(bits)), 0.0) for bits in widths]
        table.add_row(str(split), *[f"{100 * n / total:.1f}" if n else "" for n in shares])
    return table if counts else Text("no decisions")


def _server_rows(change: Change) -> list[Row]:
    after, batch = change.after, change.mean("batch_size")
    exits: Counts = {(f"exit {k}",): n for (k,), n in change.by("requests_total", "exit").items()}
    early = change.rate("early_answers_total")
    queued = after.by("queued_requests", "stage").items()
    waiting = [f"{n:.0f} {'of others' if k == '0' else f'at stage {k}'}" for (k,), n in queued]
    return [
        ("answered", f"{_list(exits, change) or 'nothing'}; before the last exit {early:.1f}/s"),
        ("refused", _list(change.by("refusals_total", "reason"), change) or "-"),
        ("load", f"{100 * after.total('server_load_ratio'):.0f} %"),
        ("waiting now", ", ".join(sorted(waiting)) or "none"),
        ("in the queue", _spread(change, "request_queue_seconds")),
        ("computing", _spread(change, "request_compute_seconds")),
        ("batch", "-" if batch is None else f"{batch:.2f} requests on average"),
        ("devices", f"{after.total('open_devices'):.0f}"),
        ("process", _process(change)),
    ]


def _spread(change: Change, name: str) -> str:
    return f"p50 {_ms(change.quantile(name, 0.5))}, p95 {_ms(change.quantile(name, 0.95))}"


def _process(change: Change) -> str:
    after = change.after
    return (
        f"{after.total('process_resident_memory_bytes') / 2**20:.0f} MiB, processor "
        f"{100 * change.rate('process_cpu_seconds_total'):.0f} %, "
        f"{after.total('process_threads'):.0f} threads"
    )


def _rows(rows: Iterable[Row]) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column()
    for name, value in rows:
        grid.add_row(name, Text(value))
    return grid


def _list(counts: Counts, change: Change) -> str:
    """`late 1.2/s, refused 0.1/s`, the most frequent first."""
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {count / change.seconds:.1f}/s" for (name,), count in ordered)


def _ms(seconds: float | None) -> str:
    if seconds is None:
        return UNKNOWN
    if math.isinf(seconds):
        return "off the scale"
    return f"{1e3 * seconds:.2f} ms" if seconds < 0.01 else f"{1e3 * seconds:.0f} ms"


def _percent(count: float, total: float) -> str:
    return f"{100 * count / total:.1f} %" if total else "-"


def _megabits(bytes_per_s: float) -> str:
    return f"{bytes_per_s * 8e-6:.2f} Mbit/s"
