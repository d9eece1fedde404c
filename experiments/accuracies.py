"""How well are accuracies known? `python experiments/accuracies.py`.

Each half of a bundle's pictures is cut in two at random, many times; one part tells the accuracy of
every payload, the other what it was. And each half tells of the other one. The error is the root of
the mean square over payloads, in points, of the difference to the mean payload: what a decision
between payloads goes by. The last column is the error that even the true accuracies would have
against so few pictures. All of it with the pictures as they are, and in all the views measured.
"""

from __future__ import annotations

import argparse
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adaptive_split.accuracy import expected_right, sampling_variance
from adaptive_split.outcomes import Outcomes
from adaptive_split.scenario import load_scenario

SCENARIOS = {"garments": "default", "garments-light": "nano-light-30fps-100ms"}
SUBSETS = ("policy", "judge")
Values = NDArray[Any]


def main() -> None:
    """Print a row per half and direction."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=60)
    arguments = parser.parse_args()
    print("| pictures | judged by | views | counted | expected | luck of those who judge |")
    print("| --- | --- | --- | --- | --- | --- |")
    for bundle, name in SCENARIOS.items():
        seen = {subset: load_scenario(name).outcomes(subset) for subset in SUBSETS}
        plain = {subset: half.plain() for subset, half in seen.items()}
        for (subset, other), halves in product((SUBSETS, SUBSETS[::-1]), (plain, seen)):
            mine = halves[subset]
            pictures = len(np.unique(mine.picture))
            views = len(mine.label) // pictures
            print(row(f"{bundle}, {subset}, {pictures // 2}", "the rest of them", views,
                      within(mine, arguments.repeats)))  # fmt: skip
            print(row(f"{bundle}, {subset}, {pictures}", "the other half", views,
                      errors(mine, halves[other])))  # fmt: skip


def within(outcomes: Outcomes, repeats: int) -> Values:
    """Errors of one part of a half against the rest, root of the mean square over cuts, `(3,)`."""
    generator, found = np.random.default_rng(0), []
    for _ in range(repeats):
        order = generator.permutation(outcomes.picture.max() + 1)
        mine = np.isin(outcomes.picture, order[: len(order) // 2])
        one, other = (outcomes.select(np.flatnonzero(rows).tolist()) for rows in (mine, ~mine))
        found.append(errors(one, other) ** 2)
    return np.asarray(np.sqrt(np.mean(found, 0)))


def errors(one: Outcomes, other: Outcomes) -> Values:
    """Error in points of what is counted, of what is expected, and the luck of the others."""
    truth = apart(other.server_right)
    expected = expected_right(one.server_confidence, one.server_right, one.picture)
    estimates = (one.server_right, expected)
    found = [np.square(apart(estimate) - truth).mean() for estimate in estimates]
    single = other.server_right - other.server_right.mean(1, keepdims=True)
    found.append(sampling_variance(single, other.picture).mean())
    return 100 * np.sqrt(found)


def apart(right: Values) -> Values:
    """By how much every payload is above the mean one, shape `(P,)`."""
    return np.asarray(right.mean(0) - right.mean())


def row(pictures: str, judges: str, views: int, cells: Values) -> str:
    """One row of the table."""
    return (
        f"| {pictures} | {judges} | {views} | " + " | ".join(f"{cell:.2f}" for cell in cells) + " |"
    )


if __name__ == "__main__":
    main()
