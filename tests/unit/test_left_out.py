"""What is left of a gain where a policy was never trained: shares, differences, directions."""

import argparse
import importlib
from pathlib import Path

import numpy as np
import pytest

from adaptive_split.errors import ConfigError

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
FAMILY, FILE = ["a", "a", "b", "b"], ["a1", "a2", "b1", "b2"]


@pytest.fixture
def left_out(monkeypatch, tmp_path):
    """The experiment, and directions that were trained."""
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    module = importlib.import_module("left_out")
    (tmp_path / "B" / "seed-0").mkdir(parents=True)
    return module, argparse.Namespace(left=tmp_path, seeds=[0])


def played(monkeypatch, module, gains):
    """Let the policies gain so much: trained there, and elsewhere."""
    there, elsewhere = (np.full(4, 0.5 + gain) for gain in gains)
    boards = []

    def play_direction(letter, inside, arguments):
        boards.append((inside, arguments.halves))
        return there, elsewhere, np.full(4, 0.5), FAMILY, FILE

    monkeypatch.setattr(module, "play_direction", play_direction)
    return boards


def test_the_share_of_the_gain_is_told_with_its_parts(left_out, monkeypatch):
    module, arguments = left_out
    boards = played(monkeypatch, module, (0.02, 0.019))

    cells = module.row("B", arguments).strip("| ").split(" | ")

    assert boards == [(Path(), "given")]
    assert cells == [
        "B", "4", "+0.0200 [+0.0200, +0.0200]", "+0.0190 [+0.0190, +0.0190]", "95 % [95, 95]",
        "-0.0010 [-0.0010, -0.0010]",
    ]  # fmt: skip


def test_both_directions_count_where_both_were_trained(left_out, monkeypatch, tmp_path):
    module, arguments = left_out
    boards = played(monkeypatch, module, (0.02, 0.019))
    (tmp_path / "B" / "swapped" / "seed-0").mkdir(parents=True)

    assert module.row("B", arguments).split(" | ")[1] == "8"
    assert [halves for _, halves in boards] == ["given", "swapped"]


def test_a_scenario_without_a_policy_is_refused(left_out):
    module, arguments = left_out

    with pytest.raises(ConfigError, match="must hold a policy of seed 0; got none; run benchmark"):
        module.row("C", arguments)


def test_without_a_gain_there_is_no_share(left_out, monkeypatch):
    module, arguments = left_out
    played(monkeypatch, module, (0.0, 0.0))

    assert "| no gain to speak of |" in module.row("B", arguments)
