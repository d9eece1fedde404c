"""The table of all published systems: `python -m experiments.systems.table`.

Reads the finding that each experiment has left, prints them as a Markdown table, and writes it
between the two marks in `experiments/SYSTEMS.md`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from adaptive_split.errors import ConfigError
from experiments.systems.common import FOLDER, Finding, load_finding, result_path

NAMES = (
    "sac_d", "neurosurgeon", "spinn", "dyno", "dynamic_split", "ddnn", "branchynet", "aecnn",
    "fluid_batching",
)  # fmt: skip
"""Modules of the experiments, in the order of the table."""
PAGE = FOLDER / "SYSTEMS.md"
BEGIN, END = "<!-- systems: begin -->", "<!-- systems: end -->"
HEAD = "| system | what its paper says | command | what we measured | verdict |"


def markdown(findings: Sequence[Finding]) -> str:
    """The table."""
    return "\n".join([HEAD, "| --- | --- | --- | --- | --- |", *(one.row for one in findings)])


def write_between(page: Path, table: str) -> None:
    """Replace what stands between the marks of a page.

    Raises:
        ConfigError: If the page does not have both marks once, in order.
    """
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in after:
        raise ConfigError(f"{page} must hold the lines {BEGIN} and {END} once each, in this order")
    page.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}", encoding="utf-8")


def main() -> None:
    """Print and write the table; name what was not measured yet."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    there = [name for name in NAMES if result_path(name).exists()]
    for name in (name for name in NAMES if name not in there):
        print(f"not in the table: {name}; 'python -m experiments.systems.{name}' measures it",
              file=sys.stderr)  # fmt: skip
    table = markdown([load_finding(name) for name in there])
    print(table)
    write_between(PAGE, table)


if __name__ == "__main__":
    main()
