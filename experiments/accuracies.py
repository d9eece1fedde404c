"""How well are accuracies known? `python experiments/accuracies.py`.

Each half of a bundle's pictures is cut in two at random, many times; one part tells the accuracy of
every payload, the other what it was. And each half tells of the other one. The error is the root of
the mean square over payloads, in points, of the difference to the mean payload: what a decision
between payloads goes by. The last column is the error that even the true accuracies would have
against so few pictures.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adaptive_split.accuracy import expected_right
from adaptive_split.outcomes import Outcomes
from adaptive_split.scenario import load_scenario

SCENARIOS = {"garments": "default", "garments-light": "nano-light-30fps-100ms"}
Values = NDArray[Any]


def main() -> None:
    """Print a row per half and direction."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=60)
    arguments = parser.parse_args()
    print("| pictures | judged by | counted | expected | luck of those who judge |")
    print("| --- | --- | --- | --- | --- |")
    for bundle, name in SCENARIOS.items():
        halves = {subset: load_scenario(name).outcomes(subset) for subset in ("policy", "judge")}
        for (subset, mine), other in zip(halves.items(), reversed(halves.values()), strict=True):
            cells = within(mine, arguments.repeats)
            print(row(f"{bundle}, {subset}, {len(mine.label) // 2}", "the rest of them", cells))
            print(row(f"{bundle}, {subset}, {len(mine.label)}", "the other half",
                      errors(mine, other)))  # fmt: skip


def within(outcomes: Outcomes, repeats: int) -> Values:
    """Errors of one part of a half against the rest, root of the mean square over cuts, `(3,)`."""
    generator, found = np.random.default_rng(0), []
    for _ in range(repeats):
        order = generator.permutation(len(outcomes.label))
        one, other = np.array_split(order, 2)
        found.append(errors(outcomes.select(one.tolist()), outcomes.select(other.tolist())) ** 2)
    return np.asarray(np.sqrt(np.mean(found, 0)))


def errors(one: Outcomes, other: Outcomes) -> Values:
    """Error in points of what is counted, of what is expected, and the luck of the others."""
    truth = apart(other.server_right)
    estimates = (one.server_right, expected_right(one.server_confidence, one.server_right))
    found = [np.square(apart(estimate) - truth).mean() for estimate in estimates]
    single = other.server_right - other.server_right.mean(1, keepdims=True)
    found.append(single.var(0).mean() / len(single))
    return 100 * np.sqrt(found)


def apart(right: Values) -> Values:
    """By how much every payload is above the mean one, shape `(P,)`."""
    return np.asarray(right.mean(0) - right.mean())


def row(pictures: str, judges: str, cells: Values) -> str:
    """One row of the table."""
    return f"| {pictures} | {judges} | " + " | ".join(f"{cell:.2f}" for cell in cells) + " |"


if __name__ == "__main__":
    main()
