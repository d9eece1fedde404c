"""Columns of controllers in words, for the report and for a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from adaptive_split.agents.roster import LEARNED

Numbers = Mapping[str, Any]
UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Column:
    """One number of a controller, as people read it."""

    head: str
    pick: Callable[[Numbers], Mapping[str, float] | None]
    """The estimate among a controller's numbers."""
    form: str
    factor: float = 1.0
    best: Callable[[Iterable[float]], float] | None = None
    """Which of the values is the best; none where more is neither better nor worse."""
    missing: str = "-"

    def words(self, numbers: Numbers) -> tuple[str, str]:
        """Value and interval."""
        found = self.pick(numbers)
        if found is None:
            return self.missing, ""
        value, low, high = (
            self.form.format(self.factor * found[key]) for key in ("value", "low", "high")
        )
        return value, f"{low}-{high}" if float(low) >= 0 else f"{low} to {high}"


def _of(name: str) -> Callable[[Numbers], Mapping[str, float] | None]:
    return lambda numbers: numbers.get(name)


def _latency(name: str) -> Callable[[Numbers], Mapping[str, float] | None]:
    return lambda numbers: numbers["latency_s"][name]


QUALITY = (
    Column("utility", _of("utility"), "{:.4f}", best=max),
    Column("on-time accuracy", _of("on_time_accuracy"), "{:.3f}", best=max),
    Column("missed, %", _of("miss_rate"), "{:.2f}", 100, best=min),
    Column("gap closed, %", _of("gap_closed"), "{:.0f}", 100),
    Column("switches, %", _of("switch_share"), "{:.1f}", 100),
)
COSTS = (
    *(Column(f"{name}, ms", _latency(name), "{:.0f}", 1e3, best=min)
      for name in ("p50", "p95", "p99")),
    Column("bytes/frame", _of("payload_bytes"), "{:.0f}", best=min),
    Column("mJ/frame", _of("energy_j"), "{:.1f}", 1e3, best=min),
    Column("battery, h", _of("battery_life_h"), "{:.1f}", best=max, missing=UNKNOWN),
)  # fmt: skip


def by_utility(controllers: Mapping[str, Numbers]) -> list[str]:
    """Names, the best utility first."""
    return sorted(controllers, key=lambda name: -controllers[name]["utility"]["value"])


def provenance(controllers: Mapping[str, Numbers]) -> str:
    """Where the joules come from."""
    return ", ".join(sorted({str(one["energy_provenance"]) for one in controllers.values()}))


def column_tables(
    controllers: Mapping[str, Numbers], *, ordered: Sequence[str] = (), strong: str = LEARNED
) -> str:
    """Two tables, what it brings and what it costs; the best of a column stands out.

    Args:
        controllers: Numbers by name.
        ordered: The rows; the best utility first by default.
        strong: Rows whose name ends so stand out.
    """
    names = ordered or by_utility(controllers)
    tables = []
    for columns in (QUALITY, COSTS):
        head = [column.head for column in columns]
        head = [f"{one} ({provenance(controllers)})" if one == "mJ/frame" else one for one in head]
        best = [_best(column, controllers) for column in columns]
        rows = []
        for name in names:
            cells = [_cell(*one.words(controllers[name]), top)
                     for one, top in zip(columns, best, strict=True)]  # fmt: skip
            rows.append([escape(name), *cells])
        tables.append(_table(["controller", *head], rows, strong))
    return "".join(tables)


def plain_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of words."""
    return _table(head, [[escape(cell) for cell in row] for row in rows], "")


def _best(column: Column, controllers: Mapping[str, Numbers]) -> str:
    """How the best value reads; nothing where all read alike."""
    found = {}
    for numbers in controllers.values():
        if (estimate := column.pick(numbers)) is not None:
            found[estimate["value"]] = column.words(numbers)[0]
    if column.best is None or len(set(found.values())) < 2:
        return ""
    return found[column.best(found)]


def _cell(value: str, interval: str, best: str) -> str:
    shown = f"<b>{escape(value)}</b>" if value == best else escape(value)
    return f"{shown}<small>{escape(interval)}</small>" if interval else shown


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], strong: str) -> str:
    """A table whose cells are HTML."""
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join(
        f"<tr{' class=strong' if strong and row[0].endswith(strong) else ''}>"
        + "".join(f"<td>{cell}</td>" for cell in row)
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>'
        "</div>"
    )
