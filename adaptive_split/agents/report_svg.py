"""Small SVG drawings: scales, axes and marks, styled by the page's CSS."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape

Number = float


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers within a range, about `count` of them."""
    span = max(high - low, 1e-12)
    raw = span / max(count, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw - 1e-15)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def decades(low: float, high: float) -> list[float]:
    """Powers of ten within a range."""
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    return [10.0**power for power in range(first, last + 1)]


class Drawing:
    """An SVG with a plot area; `x` and `y` map data to pixels."""

    def __init__(
        self,
        width: int,
        height: int,
        *,
        x_range: tuple[float, float],
        y_range: tuple[float, float],
        margins: tuple[int, int, int, int] = (12, 16, 34, 48),
        log_x: bool = False,
        log_y: bool = False,
        label: str = "",
    ) -> None:
        """Open a drawing; margins are top, right, bottom, left."""
        self.width, self.height, self.log_x, self.log_y = width, height, log_x, log_y
        self.top, right, bottom, self.left = margins
        self.right, self.bottom = width - right, height - bottom
        self.x_range, self.y_range = x_range, y_range
        self._parts: list[str] = []
        self._label = label

    def x(self, value: Number) -> float:
        """Horizontal pixel of a value."""
        low, high = self.x_range
        if self.log_x:
            low, high, value = math.log(low), math.log(high), math.log(max(value, low))
        return self.left + (value - low) / (high - low or 1.0) * (self.right - self.left)

    def y(self, value: Number) -> float:
        """Vertical pixel of a value."""
        low, high = self.y_range
        if self.log_y:
            low, high, value = math.log(low), math.log(high), math.log(max(value, low))
        return self.bottom - (value - low) / (high - low or 1.0) * (self.bottom - self.top)

    def text(
        self, x: float, y: float, words: str, *, anchor: str = "start", kind: str = "label"
    ) -> None:
        """Write words at pixels."""
        self._parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{kind}">'
            f"{escape(words)}</text>"
        )

    def segment(self, x1: float, y1: float, x2: float, y2: float, kind: str) -> None:
        """Draw a straight line between pixels."""
        self._parts.append(
            f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'
        )

    def axis_x(self, ticks: Sequence[float], form: Callable[[float], str], title: str = "") -> None:
        """Draw vertical grid lines with their values below, and the axis' title."""
        for tick in ticks:
            at = self.x(tick)
            self.segment(at, self.top, at, self.bottom, "grid")
            self.text(at, self.bottom + 15, form(tick), anchor="middle", kind="tick")
        if title:
            middle = (self.left + self.right) / 2
            self.text(middle, self.bottom + 31, title, anchor="middle", kind="axis")

    def axis_y(self, ticks: Sequence[float], form: Callable[[float], str]) -> None:
        """Draw horizontal grid lines with their values to the left."""
        for tick in ticks:
            at = self.y(tick)
            self.segment(self.left, at, self.right, at, "grid")
            self.text(self.left - 7, at + 4, form(tick), anchor="end", kind="tick")

    def line(self, xs: Sequence[float], ys: Sequence[float], kind: str, title: str = "") -> None:
        """Join points of data."""
        path = "M" + "L".join(
            f"{self.x(a):.1f},{self.y(b):.1f}" for a, b in zip(xs, ys, strict=True)
        )
        self._mark(f'<path d="{path}" class="line {kind}"', title)

    def step(self, xs: Sequence[float], ys: Sequence[float], kind: str, *, fill: bool) -> None:
        """Draw a step function: every value holds until the next position."""
        edges = [*xs[1:], self.x_range[1]]
        path = "M" + "L".join(
            f"{self.x(a):.1f},{self.y(v):.1f}L{self.x(b):.1f},{self.y(v):.1f}"
            for a, b, v in zip(xs, edges, ys, strict=True)
        )
        if fill:
            path += f"L{self.right:.1f},{self.bottom:.1f}L{self.left:.1f},{self.bottom:.1f}Z"
        self._mark(f'<path d="{path}" class="{kind}"', "")

    def dot(self, x: float, y: float, kind: str, title: str = "", radius: float = 5.0) -> None:
        """Draw a dot at pixels."""
        self._mark(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" class="dot {kind}"', title)

    def rect(
        self, x: float, y: float, width: float, height: float, kind: str, title: str = ""
    ) -> None:
        """Draw a rectangle at pixels."""
        self._mark(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" '
            f'height="{height:.1f}" class="{kind}"',
            title,
        )

    def close(self) -> str:
        """Give the whole drawing."""
        return (
            f'<svg viewBox="0 0 {self.width} {self.height}" role="img" '
            f'aria-label="{escape(self._label)}">{"".join(self._parts)}</svg>'
        )

    def _mark(self, opening: str, title: str) -> None:
        if title:
            tag = opening[1:].split(" ", 1)[0]
            self._parts.append(f"{opening}><title>{escape(title)}</title></{tag}>")
        else:
            self._parts.append(opening + "/>")
