"""What the benchmark's tables say: means over seeds, paired differences, shares of the room."""

import argparse
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from adaptive_split.agents.baselines import Static
from adaptive_split.agents.evaluate import lane_utility
from adaptive_split.errors import ConfigError
from adaptive_split.scenario import load_scenario
from tests import support

PATH = Path(__file__).parents[2] / "experiments" / "benchmark.py"
SPEC = importlib.util.spec_from_file_location("benchmark", PATH)
benchmark = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(benchmark)

FAMILY, FILE = ["a", "a", "b", "b"], ["a1", "a2", "b1", "b2"]


def test_the_quarter_of_the_seeds_at_either_end_does_not_count():
    values = np.array([[9.0, 9.0], [1.0, 2.0], [2.0, 4.0], [-7.0, 0.0]])

    np.testing.assert_allclose(benchmark.interquartile_mean(values), [1.5, 3.0])


@pytest.mark.parametrize("num_seeds", [1, 2, 3])
def test_with_few_seeds_all_count(num_seeds):
    values = np.arange(2.0 * num_seeds).reshape(num_seeds, 2)

    np.testing.assert_allclose(benchmark.interquartile_mean(values), values.mean(0))


@pytest.fixture
def played():
    """Two seeds around 0.60; rules at 0.5, but one that is ahead in family b."""
    rules = {name: [0.5] * 4 for name in benchmark.SIMPLE}
    rules["spinn"] = [0.4, 0.4, 0.63, 0.63]
    utility = {
        "sac-0": [0.59] * 4, "sac-1": [0.61] * 4, "distribution-planner": [0.56] * 4, **rules,
        "best-static": [0.3, 0.3, 0.7, 0.7], "busy-skip-hindsight": [0.62, 0.62, 0.1, 0.1],
        "oracle": [0.66] * 4, "oracle-pictures": [0.56] * 4,
    }  # fmt: skip
    return {"family": FAMILY, "file": FILE, "utility": utility}


def test_the_seeds_are_one_row_and_everybody_is_ranked(played):
    found = benchmark.summarize([played])

    assert list(found["rows"])[:2] == ["oracle", "sac (2 seeds)"]
    assert found["families"] == ["a", "b"]
    row = found["rows"]["sac (2 seeds)"]
    assert row["utility"] == pytest.approx(0.6)
    assert row["difference"] == ""
    assert row["families"] == pytest.approx([0.6, 0.6])


def test_differences_are_paired_with_their_intervals(played):
    rows = benchmark.summarize([played])["rows"]

    assert rows["two-arm"]["difference"] == "+0.1000 [+0.1000, +0.1000]"
    assert rows["best-static"]["utility"] == pytest.approx(0.5)
    assert rows["best-static"]["difference"] == "+0.1000 [+0.1000, +0.1000]"
    assert rows["best-static"]["families"] == pytest.approx([0.3, 0.7])


def test_the_share_of_the_room_is_told_where_there_is_room(played):
    lines = benchmark.summarize([played])["lines"]

    room = [line for line in lines if line.startswith("share of the room")]
    assert room == ["share of the room from the distribution planner to the oracle: 40 % [40, 40]"]


def test_the_best_simple_rule_is_held_against_the_policy_in_every_family(played):
    lines = benchmark.summarize([played])["lines"]

    assert "best simple rule tuned on training traces minus sac: a -0.1000, b +0.0300" in lines
    assert "best simple rule picked in hindsight minus sac: a +0.0200, b +0.1000" in lines


def test_both_directions_weigh_the_same_and_share_their_trace_files(played):
    swapped = {name: [value + 0.1 for value in row] for name, row in played["utility"].items()}
    swapped["two-arm"] = [0.5] * 4
    boards = [played, {**played, "utility": {**swapped, "sac-2": swapped["sac-0"]}}]

    rows = benchmark.summarize(boards)["rows"]

    ours = rows["sac (2 + 3 seeds)"]
    assert ours["utility"] == pytest.approx((0.6 + (0.69 + 0.71 + 0.69) / 3) / 2)
    assert ours["families"] == pytest.approx([ours["utility"]] * 2)
    gap = (0.1 + (0.69 + 0.71 + 0.69) / 3 - 0.5) / 2
    assert rows["two-arm"]["difference"] == f"{gap:+.4f} [{gap:+.4f}, {gap:+.4f}]"


def test_what_only_one_direction_played_is_left_out(played):
    fewer = {name: row for name, row in played["utility"].items() if name != "best-static"}

    rows = benchmark.summarize([played, {**played, "utility": fewer}])["rows"]

    assert "oracle" in rows
    assert "best-static" not in rows


@pytest.mark.parametrize(("halves", "deciding"), [("given", "policy"), ("swapped", "judge")])
def test_the_halves_of_the_pictures_can_change_roles(halves, deciding):
    given = load_scenario("default")

    scenario = benchmark.scenario_of("F", argparse.Namespace(halves=halves))

    for role, half in (("policy", deciding), ("judge", benchmark.OTHER_HALF[deciding])):
        found, wanted = scenario.outcomes(role), given.outcomes(half)
        np.testing.assert_array_equal(found.label, wanted.label)
        np.testing.assert_array_equal(found.payload_bytes, wanted.payload_bytes)
    assert (scenario.name, scenario.objective) == (given.name, given.objective)


def run(monkeypatch, tmp_path, *arguments):
    """What a step is called with."""
    asked = []
    monkeypatch.setitem(benchmark.STEPS, arguments[0], asked.append)
    monkeypatch.setattr("sys.argv", ["benchmark.py", *map(str, arguments), "--out", str(tmp_path)])
    benchmark.main()
    return asked[0]


def test_swapped_halves_never_take_networks_that_learned_with_the_others(monkeypatch, tmp_path):
    own = run(monkeypatch, tmp_path, "transfer", "--halves", "swapped")
    others = ("--networks", tmp_path / "old", "--halves", "swapped")
    named = run(monkeypatch, tmp_path, "transfer", *others)

    assert (own.out, own.networks) == (tmp_path / "swapped", tmp_path / "swapped")
    assert (named.out, named.networks) == (tmp_path / "swapped", tmp_path / "old" / "swapped")


def test_a_transfer_of_nothing_is_refused(tmp_path):
    arguments = argparse.Namespace(networks=tmp_path / "swapped", seeds=[0, 1], only=["F"])

    with pytest.raises(ConfigError, match=r"left of one of the seeds \[0, 1\]; got none"):
        benchmark.transfer(arguments)


@pytest.fixture
def streams():
    return [support.stream(10, seed) for seed in range(2)]


@pytest.fixture
def board(tmp_path, streams):
    return benchmark.Board(tmp_path / "played.json", support.table(), streams)


def test_a_controller_is_played_on_every_stream(board, streams):
    board.play("local", lambda: Static(16))

    found = json.loads(board.file.read_text())
    assert found["utility"]["local"] == lane_utility(Static(16), board.table, streams).tolist()
    assert (found["family"], found["file"]) == (["toy", "toy"], ["toy", "toy"])


def test_what_was_played_is_not_played_again(board, streams):
    board.play("local", lambda: Static(16))
    asked = []
    resumed = benchmark.Board(board.file, board.table, streams)

    for name in ("local", "picture"):
        resumed.play(name, lambda name=name: asked.append(name) or Static(0))

    assert asked == ["picture"]
    found = json.loads(board.file.read_text())["utility"]
    assert list(found) == ["local", "picture"]
    assert found["local"] == board.found["utility"]["local"]


def test_a_board_of_other_streams_is_refused(board, streams):
    board.play("local", lambda: Static(16))

    with pytest.raises(ConfigError, match="must hold what was played on these 3 streams; got 2"):
        benchmark.Board(board.file, board.table, [*streams, streams[0]])
