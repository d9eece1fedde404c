"""Summaries as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def table(rows: Sequence[Sequence[str]]) -> str:
    """Align columns: the first to the left, the rest to the right; the first row is the header."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def controller_table(
    controllers: Mapping[str, Mapping[str, Any]], gap_closed: Mapping[str, Any] | None = None
) -> str:
    """One row per controller, the best utility first."""
    head = ["controller", "utility", "95 % interval", "on-time acc", "miss %", "p50 ms", "p95 ms",
            "p99 ms", "bytes/frame", "mJ/frame"]  # fmt: skip
    if gap_closed:
        head.append("gap closed")
    rows = [head]
    ordered = sorted(controllers.items(), key=lambda item: -item[1]["utility"]["value"])
    for name, one in ordered:
        latency = one["latency_s"]
        row = [
            name,
            f"{one['utility']['value']:.4f}",
            f"{one['utility']['low']:.4f} - {one['utility']['high']:.4f}",
            f"{one['on_time_accuracy']:.4f}",
            f"{100 * one['miss_rate']:.2f}",
            *(f"{1e3 * latency[key]:.0f}" for key in ("p50", "p95", "p99")),
            f"{one['payload_bytes']:.0f}",
            f"{1e3 * one['energy_j']:.1f}",
        ]
        if gap_closed:
            share = gap_closed.get(name)
            row.append("-" if share is None else f"{100 * share:.0f} %")
        rows.append(row)
    return table(rows)


def differences(paired: Mapping[str, Mapping[str, float]]) -> str:
    """Sac minus each rival, in words."""
    lines = ["sac minus rival, same streams (95 % interval):"]
    width = max(map(len, paired), default=0)
    for name, one in paired.items():
        lines.append(
            f"  {name:<{width}}  {one['value']:+.4f}  [{one['low']:+.4f}, {one['high']:+.4f}]"
        )
    return "\n".join(lines)


def energy_note(controllers: Mapping[str, Mapping[str, Any]]) -> str:
    """Where the joules come from."""
    kinds = sorted({str(one["energy_provenance"]) for one in controllers.values()})
    return f"energy: {', '.join(kinds)}"
