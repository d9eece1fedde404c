"""Comparisons as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from adaptive_split.cli.tables import table

if TYPE_CHECKING:
    from adaptive_split.agents.report_tables import Column

Controllers = Mapping[str, Mapping[str, Any]]


def controller_tables(controllers: Controllers) -> str:
    """What every controller brings, below it what it costs; the best utility first."""
    from adaptive_split.agents.report_tables import COSTS, QUALITY, provenance

    return "\n".join([
        _table(controllers, QUALITY),
        "",
        _table(controllers, COSTS),
        f"95 % intervals; energy: {provenance(controllers)}",
    ])  # fmt: skip


def differences(paired: Mapping[str, Mapping[str, float]]) -> str:
    """Sac minus each rival, in words."""
    lines = ["sac minus rival, same streams (95 % interval):"]
    width = max(map(len, paired), default=0)
    for name, one in paired.items():
        lines.append(
            f"  {name:<{width}}  {one['value']:+.4f}  [{one['low']:+.4f}, {one['high']:+.4f}]"
        )
    return "\n".join(lines)


def _table(controllers: Controllers, columns: Sequence[Column]) -> str:
    """One row per controller; values and intervals of a column are aligned each."""
    from adaptive_split.agents.report_tables import by_utility

    names, head = by_utility(controllers), ["controller"]
    body = [[name] for name in names]
    for column in columns:
        pairs = [column.words(controllers[name]) for name in names]
        width = max(len(interval) for _, interval in pairs)
        head.append(column.head)
        for row, (value, interval) in zip(body, pairs, strict=True):
            row.append(f"{value}  {interval:>{width}}" if interval else value)
    return table([head, *body])
