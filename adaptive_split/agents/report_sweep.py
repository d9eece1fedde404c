"""The figure of the report that shows every split point against the uplink."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adaptive_split.agents.report_figures import HALF, legend
from adaptive_split.agents.report_svg import Drawing, decades, nice_ticks
from adaptive_split.agents.static_sweep import split_words

SWEEP_CAPTION = (
    "Mean over all frames; latency over the answered ones. A frame without an answer of the server "
    "by its deadline is answered by the device, so no latency passes the deadline."
)
_PANELS = (
    ("utility", "utility per frame", 1.0, "{:.2f}"),
    ("accuracy", "on-time accuracy", 1.0, "{:.2f}"),
    ("latency_s", "latency, ms", 1e3, "{:.0f}"),
    ("energy_j", "energy, mJ per frame", 1e3, "{:.0f}"),
)
_FIXED, _ADAPTIVE = "s-fixed", "s-adaptive"
_COLORS = 6
"""Of split points; a deeper model uses them again."""


def sweep_figure(sweep: Mapping[str, Any]) -> str:
    """Four panels, the rate on a logarithmic axis, and the names of the lines."""
    panels = "".join(f"<div>{_panel(sweep, *panel)}</div>" for panel in _PANELS)
    entries = [(_kind(split), curve["words"]) for split, curve in sweep["curves"].items()]
    entries.append((_FIXED, "best fixed decision of every link (utility)"))
    if sweep["adaptive"]:
        entries.append((_ADAPTIVE, sweep["adaptive"]["name"]))
    return f'<div class="panels">{panels}</div>' + legend(entries, line=True)


def _kind(split: str) -> str:
    return f"s{int(split) % _COLORS}"


def _panel(sweep: Mapping[str, Any], name: str, title: str, factor: float, form: str) -> str:
    rates, lines = sweep["rates_mbps"], []
    for split, curve in sweep["curves"].items():
        lines.append((curve[name], _kind(split), split_words(int(split), sweep["num_stages"])))
    if name == "utility":
        lines.append((sweep["best_fixed"][name], _FIXED, "best fixed decision"))
    if sweep["adaptive"]:
        lines.append((sweep["adaptive"][name], _ADAPTIVE, sweep["adaptive"]["name"]))
    values = [factor * value for line, *_ in lines for value in line]
    low, high = min(values), max(values)
    pad = 0.06 * max(high - low, 1e-3)
    drawing = Drawing(
        HALF, 260, x_range=(rates[0], rates[-1]), y_range=(low - pad, high + pad), log_x=True,
        margins=(26, 12, 40, 44), label=f"{title} against uplink rate",
    )  # fmt: skip
    drawing.text(drawing.left, 14, title, kind="panel")
    ticks = sorted({rates[0], *decades(rates[0], rates[-1])})
    drawing.axis_x(ticks, "{:g}".format, "uplink, Mbit/s")
    drawing.axis_y(nice_ticks(low - pad, high + pad, 5), form.format)
    for line, kind, words in lines:
        drawing.line(rates, [factor * value for value in line], kind, words)
    return drawing.close()
