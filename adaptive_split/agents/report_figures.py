"""The figures of the report, each from plain numbers to SVG."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from adaptive_split.agents.frames import CAUSES
from adaptive_split.agents.report_svg import Drawing, decades, nice_ticks
from adaptive_split.agents.report_tables import by_utility
from adaptive_split.agents.roster import BEST_STATIC, LEARNED, ORACLE, ORACLE_PICTURES, ORACLES

Numbers = Mapping[str, Any]
WIDTH = 920
HALF = 452
ROW = 26

CAUSE_WORDS = {
    "dropped": "never started", "late": "answered late", "fallback-wrong": "fallback, wrong",
    "device-wrong": "device, wrong", "server-wrong": "server, wrong",
    "energy-and-bytes": "energy and bytes",
}  # fmt: skip


_COLORS = {
    LEARNED: "c0", "planner": "c1", "distribution-planner": "c2", "two-window-planner": "c3",
    "two-arm": "c4", "two-arm-hindsight": "c4 dotted", BEST_STATIC: "c5", ORACLE: "c6",
    ORACLE_PICTURES: "c6 dotted",
}  # fmt: skip
_OTHERS = "c7"


def color_of(name: str) -> str:
    """CSS classes of a controller, the same in every figure."""
    return _COLORS.get(name, _OTHERS)


def label_width(names: Iterable[str]) -> int:
    """Pixels to the left of a plot that the longest name needs."""
    return max(148, 24 + round(6.6 * max(map(len, names))))


def utility_figure(controllers: Mapping[str, Numbers], *, width: int = WIDTH) -> str:
    """A dot and an interval per controller."""
    values = {name: controllers[name]["utility"] for name in by_utility(controllers)}
    return _dots(values, width, "utility per captured frame", signed=False)


def difference_figure(paired: Mapping[str, Numbers], *, width: int = WIDTH) -> str:
    """Sac minus every rival, around zero."""
    ordered = dict(sorted(paired.items(), key=lambda item: item[1]["value"]))
    return _dots(ordered, width, "sac minus rival, utility per captured frame", signed=True)


def _dots(values: Mapping[str, Numbers], width: int, title: str, *, signed: bool) -> str:
    lows = [one["low"] for one in values.values()] + [0.0] * signed
    highs = [one["high"] for one in values.values()] + [0.0] * signed
    pad = 0.06 * max(max(highs) - min(lows), 1e-3)
    drawing = Drawing(
        width, 46 + ROW * len(values), x_range=(min(lows) - pad, max(highs) + pad),
        y_range=(0, 1), margins=(6, 66, 40, label_width(values)), label=title,
    )  # fmt: skip
    ticks = nice_ticks(*drawing.x_range, 9 if width > HALF else 4)
    form = "{:+.3g}" if signed else "{:.3g}"
    drawing.axis_x(ticks, lambda tick: form.format(tick) if tick else "0", title)
    if signed:
        drawing.segment(drawing.x(0), drawing.top, drawing.x(0), drawing.bottom, "zero")
    for row, (name, one) in enumerate(values.items()):
        at = drawing.top + ROW * (row + 0.5)
        strong = "" if signed else (" strong" if name == LEARNED else "")
        drawing.text(drawing.left - 12, at + 4, name, anchor="end", kind="label" + strong)
        kind = "c0" if signed else color_of(name)
        drawing.segment(drawing.x(one["low"]), at, drawing.x(one["high"]), at, f"whisker {kind}")
        number = f"{one['value']:+.4f}" if signed else f"{one['value']:.4f}"
        hover = f"{name}: {number}, 95 % interval {one['low']:.4f} to {one['high']:.4f}"
        drawing.dot(drawing.x(one["value"]), at, kind, hover)
        drawing.text(drawing.right + 60, at + 4, number, anchor="end", kind="value" + strong)
    return drawing.close()


def latency_figure(controllers: Mapping[str, Numbers], slo_s: float) -> str:
    """Share of the captured frames answered within a time, with the deadline."""
    longest = 1e3 * slo_s * 1.15
    drawing = Drawing(
        WIDTH, 300, x_range=(0, longest), y_range=(0, 1), margins=(14, 20, 42, 52),
        label="latency distribution",
    )  # fmt: skip
    drawing.axis_x(nice_ticks(0, longest, 6), "{:.0f}".format, "capture to answer, ms")
    drawing.axis_y(nice_ticks(0, 1, 4), lambda tick: f"{100 * tick:.0f} %")
    deadline = drawing.x(1e3 * slo_s)
    drawing.segment(deadline, drawing.top, deadline, drawing.bottom, "deadline")
    drawing.text(deadline - 6, drawing.bottom - 8, "deadline", anchor="end", kind="note")
    for name in reversed(by_utility(controllers)):
        one = controllers[name]
        answered = 1 - one["dropped_share"]["value"]
        marks = [1e3 * value for value in one["latency_percentiles_s"]]
        shares = [answered * index / 100 for index in range(len(marks))]
        # The longest answer may lie far behind the deadline: the line ends at the edge.
        inside = [(x, y) for x, y in zip(marks, shares, strict=True) if x <= longest]
        if inside:
            xs, ys = zip(*inside, strict=True)
            drawing.line(xs, ys, color_of(name), name)
    return drawing.close() + controller_legend(list(controllers))


def loss_figure(controllers: Mapping[str, Numbers]) -> str:
    """What keeps each controller from a utility of 1, stacked by cause."""
    names = by_utility(controllers)
    totals = {name: sum(controllers[name]["loss"].values()) for name in names}
    drawing = Drawing(
        WIDTH, 46 + ROW * len(names), x_range=(0, 1.03 * max(totals.values())), y_range=(0, 1),
        margins=(6, 66, 40, label_width(names)), label="losses by cause",
    )  # fmt: skip
    title = "utility lost per captured frame (1 - utility)"
    drawing.axis_x(nice_ticks(*drawing.x_range, 6), "{:.2g}".format, title)
    for row, name in enumerate(names):
        at, begin = drawing.top + ROW * row + 4, 0.0
        drawing.text(drawing.left - 12, at + 13, name, anchor="end",
                     kind="label strong" if name == LEARNED else "label")  # fmt: skip
        for index, cause in enumerate(CAUSES):
            part = max(controllers[name]["loss"][cause], 0.0)
            x1, x2 = drawing.x(begin), drawing.x(begin + part)
            if x2 - x1 > 0.3:
                hover = f"{name}, {CAUSE_WORDS[cause]}: {part:.4f}"
                gap = min(1.5, (x2 - x1) / 2)
                drawing.rect(x1, at, x2 - x1 - gap, ROW - 8, f"k{index}", hover)
            begin += part
        drawing.text(drawing.right + 60, at + 13, f"{totals[name]:.4f}", anchor="end",
                     kind="value")  # fmt: skip
    entries = [(f"k{index}", CAUSE_WORDS[cause]) for index, cause in enumerate(CAUSES)]
    return drawing.close() + legend(entries)


def timeline_figure(timeline: Mapping[str, Any]) -> str:
    """The link above, and below it one panel of decisions per controller."""
    panels = [_rate_panel(timeline)]
    panels += [
        _decision_panel(timeline, name, rows) for name, rows in timeline["controllers"].items()
    ]
    bits = timeline["bits"]
    entries = [
        (f"b{index}", f"{width} bit" + "s" * (width > 1)) for index, width in enumerate(bits)
    ]
    entries += [("b-local", "all on the device"), ("miss", "missed"), ("fell", "fell back")]
    return "".join(panels) + legend(entries)


def _span(timeline: Mapping[str, Any]) -> tuple[float, float]:
    return 0.0, max(rows["time_s"][-1] for rows in timeline["controllers"].values()) + 0.05


def _rate_panel(timeline: Mapping[str, Any]) -> str:
    rates = [max(rate, 0.05) for rate in timeline["uplink_mbps"]]
    top = max(*rates, 1.0) * 1.3
    drawing = Drawing(
        WIDTH, 118, x_range=_span(timeline), y_range=(0.05, top), log_y=True,
        margins=(22, 12, 8, 96), label="link rate",
    )  # fmt: skip
    drawing.text(drawing.left, 13, f"uplink, Mbit/s ({timeline['source']})", kind="panel")
    times = [index * timeline["period_s"] for index in range(len(rates))]
    drawing.axis_y(decades(0.1, top), "{:g}".format)
    drawing.step(times, rates, "area", fill=True)
    drawing.step(times, rates, "edge", fill=False)
    return drawing.close()


def _decision_panel(timeline: Mapping[str, Any], name: str, rows: Mapping[str, Any]) -> str:
    stages = timeline["num_stages"]
    drawing = Drawing(
        WIDTH, 62 + 18 * (stages + 2), x_range=_span(timeline), y_range=(-1.6, stages + 0.6),
        margins=(22, 12, 38, 96), label=f"decisions of {name}",
    )  # fmt: skip
    words = {0: "picture", stages: "local"}
    drawing.text(drawing.left, 13, f"{name}: split point of every frame", kind="panel")
    ticks = [float(split) for split in range(stages + 1)]
    drawing.axis_y(ticks, lambda tick: words.get(int(tick), f"split {tick:.0f}"))
    drawing.axis_x(nice_ticks(*drawing.x_range, 10), "{:g}".format, "time, s")
    drawing.text(drawing.left - 7, drawing.y(-1.1) + 4, "missed", anchor="end", kind="tick")
    order = {width: index for index, width in enumerate(timeline["bits"])}
    columns = ("time_s", "started", "split_point", "bits", "missed", "fell_back")
    for moment, started, split, bits, missed, fell in zip(
        *(rows[column] for column in columns), strict=True
    ):
        at = drawing.x(moment)
        if started:
            kind = f"b{order[bits]}" if bits else "b-local"
            hover = f"{moment:.2f} s: split {split}, {bits} bits"
            drawing.rect(at - 1, drawing.y(split) - 6, 2, 12, kind, hover)
        if missed:
            drawing.rect(at - 1, drawing.y(-1.1) - 5, 2, 10, "miss", f"{moment:.2f} s: missed")
        elif fell:
            drawing.rect(at - 1, drawing.y(-1.1) - 2, 2, 4, "fell", f"{moment:.2f} s: fell back")
    return drawing.close()


def controller_legend(names: Sequence[str]) -> str:
    """Name the controllers' colors; those that share one are counted."""
    entries = [(color_of(name), name) for name in names if color_of(name) != _OTHERS]
    others = [name for name in names if color_of(name) == _OTHERS]
    if others:
        words = others[0] if len(others) == 1 else f"{len(others)} others, named under the pointer"
        entries.append((_OTHERS, words))
    return legend(entries, line=True)


def legend(entries: Sequence[tuple[str, str]], *, line: bool = False) -> str:
    """Name colors below a figure."""
    shape = "swatch line" if line else "swatch"
    items = "".join(
        f'<span><i class="{shape} {kind}"></i>{words}</span>' for kind, words in entries
    )
    return f'<div class="legend">{items}</div>'


def oracle_loss_rows(controllers: Mapping[str, Numbers]) -> list[list[str]]:
    """What each controller loses more than `oracle`, by cause; empty without it."""
    if ORACLE not in controllers:
        return []
    best = controllers[ORACLE]["loss"]
    rows = []
    for name in by_utility(controllers):
        if name != ORACLE:
            loss = controllers[name]["loss"]
            parts = [loss[cause] - best[cause] for cause in CAUSES]
            rows.append([name, *(f"{part:+.4f}" for part in parts), f"{sum(parts):+.4f}"])
    return rows


def rivals_that_win(summary: Mapping[str, Any]) -> dict[str, list[str]]:
    """Rivals other than the oracles that are ahead of sac, in words, by place; sure ones first."""
    places = {"all families": summary["paired_difference"]}
    places |= {name: one["paired_difference"] for name, one in summary["families"].items()}
    found: dict[str, list[str]] = {}
    for place, paired in places.items():
        ahead = sorted(
            (one["value"], one["high"] < 0, name)
            for name, one in paired.items()
            if one["value"] < 0 and name not in ORACLES
        )
        for sure, words in ((True, ""), (False, "not beyond the interval: ")):
            some = [f"{name} {-value:.4f}" for value, beyond, name in ahead if beyond == sure]
            if some:
                found.setdefault(place, []).append(words + ", ".join(some))
    return found
