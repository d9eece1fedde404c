"""What the experiments on published systems share: a finding, its file, and one small figure."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adaptive_split.agents.intervals import Bootstrap, Estimate
from adaptive_split.agents.report_style import STYLE
from adaptive_split.agents.report_svg import Drawing, nice_ticks
from adaptive_split.errors import ConfigError

FOLDER = Path("experiments")
"""Where experiments live, from the root of the repository."""
VERDICTS = ("agrees", "partly", "disagrees")
WIDTH, HEIGHT = 680, 380


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One claim of a paper beside what we measured of it."""

    system: str
    """Its name, as `BranchyNet`."""
    paper: str
    """Title or venue, with its arXiv identifier where it has one."""
    claim: str
    """What the paper says, with its number."""
    command: str
    """What prints `measured`, run from the root of the repository."""
    measured: str
    """Our numbers, with their unit and on how much data."""
    verdict: str
    """One of `VERDICTS`."""
    sentence: str
    """What agrees and what does not."""

    def __post_init__(self) -> None:
        """Refuse a finding that leaves something out."""
        if self.verdict not in VERDICTS:
            raise ConfigError(
                f"a verdict must be one of {', '.join(VERDICTS)}; got {self.verdict!r}"
            )
        empty = [name for name, value in asdict(self).items() if not value.strip()]
        if empty:
            raise ConfigError(f"a finding must have a {empty[0]}; got an empty one")

    @property
    def row(self) -> str:
        """The finding as a row of a Markdown table."""
        cells = (f"{self.system} ({self.paper})", self.claim, f"`{self.command}`", self.measured,
                 f"{self.verdict}: {self.sentence}")  # fmt: skip
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """Points of one kind in a figure."""

    name: str
    """Of the legend."""
    x: Sequence[float]
    y: Sequence[float]
    color: int = 0
    """0..7 of the report's palette; 6 is dashed."""
    joined: bool = True
    """Whether a line joins the points."""
    dots: bool = True
    """Whether every point has a dot."""
    notes: Sequence[str] = ()
    """What each dot says when pointed at; by default its two numbers."""


def result_path(name: str) -> Path:
    """The file that holds the finding and the numbers of one experiment."""
    return FOLDER / "systems" / f"{name}.json"


def figure_path(name: str) -> Path:
    """The figure of one experiment."""
    return FOLDER / "figures" / f"systems_{name}.svg"


def publish(
    name: str, finding: Finding, config: Any, results: Mapping[str, Any], figure: str
) -> None:
    """Write the result and the figure of one experiment, and print its row.

    Args:
        name: Of the experiment's module.
        finding: Claim and measurement.
        config: The frozen dataclass that it was run with.
        results: Everything behind the finding, as JSON has it.
        figure: The drawing, as `chart` gives it.
    """
    held = {"finding": asdict(finding), "config": asdict(config), "results": results}
    text = json.dumps(held, indent=1, allow_nan=False, default=str)
    for path, content in ((result_path(name), text), (figure_path(name), figure)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content + "\n", encoding="utf-8")
    print(f"{finding.row}\nwrote {result_path(name)} and {figure_path(name)}")


def load_finding(name: str) -> Finding:
    """Read back the finding of one experiment.

    Raises:
        ConfigError: If the experiment has left none, or a damaged one.
    """
    path = result_path(name)
    try:
        return Finding(**json.loads(path.read_text(encoding="utf-8"))["finding"])
    except FileNotFoundError:
        raise ConfigError(
            f"a finding must have been measured; got no file {path}; make it with "
            f"'python -m experiments.systems.{name}'"
        ) from None
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ConfigError(f"a finding must be readable; got a damaged {path}: {error!r}") from error


def over_pictures(values: NDArray[np.floating[Any]]) -> Estimate:
    """Mean of a value per picture, shape `(M,)`, and its 95 % interval over pictures."""
    return _draws(len(values)).estimate(np.asarray(values, np.float64))


@cache
def _draws(num_pictures: int) -> Bootstrap:
    same = ["pictures"] * num_pictures
    return Bootstrap(same, same)


def points(estimate: Mapping[str, float]) -> str:
    """A difference of accuracies, an `Estimate` as JSON has it, in points with its interval."""
    value, low, high = (100 * estimate[part] for part in ("value", "low", "high"))
    return f"{value:+.1f} points [{low:+.1f}, {high:+.1f}]"


def chart(
    title: str,
    series: Sequence[Series],
    *,
    x_title: str,
    y_title: str,
    log_x: bool = False,
    marks: Mapping[str, float] | None = None,
) -> str:
    """Draw lines and dots over two axes: an SVG that needs no other file, light and dark.

    Args:
        title: Written above.
        series: What is drawn; the last on top.
        x_title: Of the horizontal axis, with its unit.
        y_title: Of the vertical axis, with its unit.
        log_x: Whether the horizontal axis is logarithmic; then every x must be positive.
        marks: Levels to draw a dashed line at, by the word written beside it.
    """
    marks = marks or {}
    xs = [_place(value, log_x) for one in series for value in one.x]
    ys = [*(value for one in series for value in one.y), *marks.values()]
    rows = _legend_rows(series)
    drawing = Drawing(
        WIDTH, HEIGHT + 20 * len(rows), x_range=_padded(xs), y_range=_padded(ys),
        margins=(52, 22, 46 + 20 * len(rows), 62), label=title,
    )  # fmt: skip
    drawing.text(drawing.left, 20, title, kind="panel")
    drawing.text(drawing.left, 40, y_title, kind="axis")
    _axes(drawing, x_title, log_x)
    for word, level in marks.items():
        drawing.segment(drawing.left, drawing.y(level), drawing.right, drawing.y(level), "deadline")
        drawing.text(drawing.left + 6, drawing.y(level) - 6, word, kind="note")
    for one in series:
        _draw(drawing, one, log_x)
    for index, row in enumerate(rows):
        _legend(drawing, row, drawing.bottom + 54 + 20 * index)
    return _alone(drawing.close())


def _place(value: float, log_x: bool) -> float:
    return math.log10(value) if log_x else value


def _padded(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    room = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return low - room, high + room


def _axes(drawing: Drawing, x_title: str, log_x: bool) -> None:
    if log_x:
        low, high = (10.0**edge for edge in drawing.x_range)
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        steps = (1,) if high / low > 3_000 else (1, 3) if high / low > 30 else (1, 2, 5)
        ticks = [math.log10(step * 10.0**power) for power in powers for step in steps]
        inside = [t for t in ticks if drawing.x_range[0] <= t <= drawing.x_range[1]]
        drawing.axis_x(inside, lambda tick: f"{10.0**tick:,.6g}", x_title)
    else:
        drawing.axis_x(nice_ticks(*drawing.x_range, 7), "{:.6g}".format, x_title)
    drawing.axis_y(nice_ticks(*drawing.y_range, 6), "{:.6g}".format)


def _draw(drawing: Drawing, one: Series, log_x: bool) -> None:
    xs = [_place(value, log_x) for value in one.x]
    if one.joined:
        drawing.line(xs, one.y, f"c{one.color}", one.name)
    if one.dots:
        notes = one.notes or [f"{one.name}: {x:.4g}, {y:.4g}" for x, y in zip(one.x, one.y)]  # noqa: B905 - checked below
        for x, y, note in zip(xs, one.y, notes, strict=True):
            drawing.dot(drawing.x(x), drawing.y(y), f"c{one.color}", note, radius=4.5)


def _legend_rows(series: Sequence[Series]) -> list[list[Series]]:
    """Part the legend into rows that fit the width."""
    rows: list[list[Series]] = [[]]
    for one in series:
        if rows[-1] and sum(map(_entry_width, [*rows[-1], one])) > WIDTH - 84:
            rows.append([])
        rows[-1].append(one)
    return rows


def _entry_width(one: Series) -> float:
    return 52 + 6.6 * len(one.name)


def _legend(drawing: Drawing, row: Sequence[Series], y: float) -> None:
    at = float(drawing.left)
    for one in row:
        if one.joined:
            drawing.segment(at, y - 4, at + 26, y - 4, f"whisker c{one.color}")
        if one.dots:
            drawing.dot(at + 13, y - 4, f"c{one.color}", radius=4.5)
        drawing.text(at + 33, y, one.name)
        at += _entry_width(one)


def _alone(svg: str) -> str:
    """Give a drawing its name space and the report's style, so that it is a file of its own."""
    opening, rest = svg.split(">", 1)
    opening = opening.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ')
    own = "svg { background: var(--card); } line.c6 { stroke-dasharray: 6 4; }"
    return f"{opening}><style>{STYLE}{own}</style>{rest}"
