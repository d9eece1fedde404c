"""The rate-accuracy figure: bytes of a payload against top-1, for every way to send."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from adaptive_split.agents.report_style import STYLE
from adaptive_split.agents.report_svg import Drawing
from adaptive_split.bundle import ModelBundle

WIDTH, HEIGHT = 920, 560
TICKS = (100, 200, 500, 1000, 2000, 5000, 10_000, 20_000)
LEAST_TOP1 = 0.73
"""What lies below is left out; the table has it."""
PICTURES = {"JPEG": "c5", "WebP": "c4"}
COLORS = ("c3", "c0", "c1", "c2")
"""Of split points 1..4."""
ANCHOR, ANCHOR_LOSS = 256, 0.04
"""AECNN's compression of a float32 feature, and about what it costs (arXiv 2211.13745)."""
OWN_STYLE = """
svg { background: var(--card); } path.plain { stroke-dasharray: 3 5; stroke-width: 1.5; }
path.line.c0 { stroke-width: 2; } path.line.c5, path.line.c4 { stroke-width: 2.5; }
circle.plain { fill: var(--card); stroke-width: 1.5; } rect.anchor { fill: none; }
""" + "\n".join(
    f"circle.plain.{c}, rect.{c} {{ stroke: var(--{c}); stroke-width: 2; }}" for c in COLORS
)


class Shown(Protocol):
    """What is drawn of one way to send."""

    @property
    def family(self) -> str:
        """Ways of one family are joined by a line."""
        ...

    @property
    def setting(self) -> int:
        """Quality or bits."""
        ...

    @property
    def payload_bytes(self) -> float:
        """Mean over the pictures."""
        ...

    @property
    def top1(self) -> float:
        """Share of right answers."""
        ...


def draw(bundle: ModelBundle, whole: Shown, points: Sequence[Shown], standard_error: float) -> str:
    """Draw all points of `LEAST_TOP1` or more as an SVG that is a file of its own."""
    high = max(point.top1 for point in (whole, *points)) + 0.02
    drawing = Drawing(
        WIDTH, HEIGHT, x_range=(math.log10(80), math.log10(30_000)), y_range=(LEAST_TOP1, high),
        margins=(74, 26, 46, 58), label="bytes of a payload against top-1",
    )  # fmt: skip
    ticks = [math.log10(tick) for tick in TICKS]
    drawing.axis_x(ticks, lambda tick: f"{round(10**tick):,}", "bytes of a frame (mean)")
    drawing.axis_y([tick / 100 for tick in range(74, 84, 2)], lambda tick: f"{100 * tick:.0f} %")
    at = drawing.y(whole.top1)
    drawing.segment(drawing.left, at, drawing.right, at, "zero")
    words = f"line: the uncut model; one standard error of top-1: {100 * standard_error:.1f} points"
    drawing.text(drawing.right, drawing.top + 16, words, anchor="end", kind="note")
    for family in dict.fromkeys(point.family for point in points):
        _family(drawing, [point for point in points if point.family == family])
    for split, shape in enumerate(bundle.feature_shapes[:-1], start=1):
        size = 4 * int(np.prod(shape)) / ANCHOR
        x, y = drawing.x(math.log10(size)), drawing.y(whole.top1 - ANCHOR_LOSS)
        title = f"split point {split}: {ANCHOR} times smaller at {100 * ANCHOR_LOSS:.0f} points"
        drawing.rect(x - 6, y - 6, 12, 12, f"anchor {COLORS[split - 1]}", title)
    _legend(drawing, bundle.num_stages)
    return _alone(drawing.close())


def _family(drawing: Drawing, points: Sequence[Shown]) -> None:
    shown = sorted(
        (point for point in points if point.top1 >= LEAST_TOP1), key=lambda p: p.payload_bytes
    )
    kind = _kind(points[0].family)
    xs, ys = [math.log10(point.payload_bytes) for point in shown], [point.top1 for point in shown]
    if len(shown) > 1:
        drawing.line(xs, ys, kind)
    for x, y, point in zip(xs, ys, shown, strict=True):
        title = f"{point.family}, {point.setting}: {point.payload_bytes:.0f} bytes, {y:.3f}"
        drawing.dot(drawing.x(x), drawing.y(y), kind, title, radius=4.5)


def _kind(family: str) -> str:
    if family in PICTURES:
        return PICTURES[family]
    name, split = family.split()
    color = COLORS[int(split) - 1]
    return f"plain {color}" if name == "plain" else color


def _legend(drawing: Drawing, num_stages: int) -> None:
    """Two rows: what a color is, and what a mark is."""
    colors = [*PICTURES.items()]
    colors += [(f"split point {k}", COLORS[k - 1]) for k in range(1, num_stages)]
    for index, (words, color) in enumerate(colors):
        x = drawing.left + 140 * index
        drawing.segment(x, 18, x + 22, 18, f"whisker {color}")
        drawing.text(x + 29, 22, words)
    left, y = drawing.left, 48
    drawing.dot(left + 11, y - 4, "c0", radius=4.5)
    drawing.text(left + 29, y, "bottleneck, 1 2 4 8 bits")
    drawing.dot(left + 231, y - 4, "plain c0", radius=4.5)
    drawing.text(left + 249, y, "the feature itself, 1 2 4 8 bits")
    drawing.rect(left + 475, y - 10, 12, 12, "anchor c0")
    drawing.text(left + 497, y, f"{ANCHOR} times smaller, 4 points lost (AECNN)")


def _alone(svg: str) -> str:
    """Give a drawing its name space and style."""
    opening, rest = svg.split(">", 1)
    opening = opening.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ')
    return f"{opening}><style>{STYLE}{OWN_STYLE}</style>{rest}\n"
