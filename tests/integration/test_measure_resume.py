"""A measurement that was killed goes on where it stopped, to the same outcomes."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from adaptive_split import cli
from adaptive_split.bundle import write_bundle
from adaptive_split.decision import DecisionGrid
from adaptive_split.errors import ConfigError
from adaptive_split.outcomes import Outcomes
from adaptive_split.runtime.answer_log import AnswerLog
from adaptive_split.runtime.measure import identity, measure_exits
from tests.color_bundle import COLORS, SIDE, color_pictures, write_color_bundle
from tests.secure_world import until

GRID = DecisionGrid(2)


@pytest.fixture
def bundle(tmp_path):
    (tmp_path / "bundle").mkdir()
    return write_color_bundle(tmp_path / "bundle")


@pytest.fixture
def log_path(tmp_path):
    return tmp_path / "answers.part"


def write_noisy_pictures(folder, count):
    """So many pictures of every color, in its folder."""
    generator = np.random.default_rng(0)
    for name, color in COLORS.items():
        (folder / name).mkdir(parents=True)
        for index in range(count):
            pixels = np.array(color) + generator.normal(0, 60, (SIDE, SIDE, 3))
            picture = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
            picture.save(folder / name / f"{index:04}.png")
    return folder


def assert_equal(ours, theirs):
    for field in dataclasses.fields(Outcomes):
        np.testing.assert_array_equal(getattr(ours, field.name), getattr(theirs, field.name))


@pytest.mark.slow
def test_a_killed_measurement_goes_on_to_the_outcomes_of_one_that_was_not(bundle, tmp_path, capsys):
    folder = write_noisy_pictures(tmp_path / "pictures", 300)
    command = ["measure", str(bundle.path), "--data", str(folder), "--subset", "judge", "--out"]
    part, out = tmp_path / "killed.npz.part", tmp_path / "killed.npz"
    process = subprocess.Popen(
        [sys.executable, "-m", "adaptive_split", *command, str(out)], stderr=subprocess.DEVNULL
    )
    until(lambda: part.exists() and part.read_bytes().count(b"\n") >= 20)
    process.kill()
    process.wait()
    answered = part.read_bytes().count(b"\n") - 1

    assert not out.exists()
    assert 19 <= answered < 900
    assert cli.main([*command, str(out)]) == 0
    assert f"going on where {part} ends" in capsys.readouterr().err
    assert not part.exists()
    assert cli.main([*command, str(tmp_path / "whole.npz")]) == 0
    assert_equal(Outcomes.load(out), Outcomes.load(tmp_path / "whole.npz"))


def test_only_what_is_missing_is_answered(bundle, log_path):
    pictures, counts = color_pictures(), []
    with AnswerLog(log_path, identity(bundle, GRID, pictures)) as log:
        whole = measure_exits(bundle, pictures, GRID, subset="policy", log=log)
    lines = log_path.read_bytes().splitlines(keepends=True)
    log_path.write_bytes(b"".join(lines[:3]) + lines[3][:40])  # the last one is cut short

    with AnswerLog(log_path, identity(bundle, GRID, pictures)) as log:
        again = measure_exits(
            bundle, pictures, GRID, subset="policy", log=log, progress=counts.append
        )

    assert counts == [3]
    assert_equal(whole.outcomes, again.outcomes)
    np.testing.assert_array_equal(whole.plain_probability, again.plain_probability)
    assert log_path.read_bytes() == b"".join(lines)


@pytest.mark.parametrize("change", ["picture", "grid", "order"])
def test_answers_to_something_else_are_refused(bundle, log_path, change):
    pictures, grid = color_pictures(), GRID
    AnswerLog(log_path, identity(bundle, grid, pictures)).close()
    if change == "picture":
        pictures[1][2][3, 4] += 1
    elif change == "grid":
        grid = DecisionGrid(2, bits=(1, 8))
    else:
        pictures.reverse()

    with pytest.raises(ConfigError, match=r"answers\.part must hold answers of this bundle"):
        AnswerLog(log_path, identity(bundle, grid, pictures))


@pytest.mark.parametrize("line", [b"nonsense", b"[1]", b'{"exit_answer": [1]}'])
def test_a_damaged_log_is_refused(log_path, line):
    AnswerLog(log_path, "mine").close()
    log_path.write_bytes(log_path.read_bytes() + line + b"\n")

    with pytest.raises(ConfigError, match=r"a picture's answers a line; got .*; remove it"):
        AnswerLog(log_path, "mine")


@pytest.mark.parametrize("notes", [b"my notes\n", b"my notes"])
def test_a_file_that_is_no_log_is_left_alone(log_path, notes):
    log_path.write_bytes(notes)

    with pytest.raises(ConfigError, match="got b'my notes"):
        AnswerLog(log_path, "mine")
    assert log_path.read_bytes() == notes


@pytest.mark.parametrize("begun", [b"", b'{"answers_'])
def test_a_log_that_never_got_its_first_line_is_begun_again(log_path, begun):
    log_path.write_bytes(begun)

    AnswerLog(log_path, "mine").close()

    assert log_path.read_bytes() == b'{"answers_of": "mine"}\n'


def test_a_probability_without_temperature_is_that_of_the_plain_logits(tmp_path):
    hot = write_color_bundle(tmp_path)
    fields = ("name", "classes", "input_shape", "feature_shapes", "code_shapes")
    hot = write_bundle(
        tmp_path, **{name: getattr(hot, name) for name in fields}, temperatures=(1.0, 2.0),
        picture_qualities=hot.picture_qualities, provenance={},
    )  # fmt: skip
    measured = measure_exits(hot, color_pictures(), GRID, subset="judge")

    np.testing.assert_array_equal(measured.exit_probability[:, 0], measured.plain_probability[:, 0])
    first, second = measured.exit_probability[:, 1], measured.plain_probability[:, 1]
    assert (second > first).all()
    assert ((first > 1 / 3) & (second < 1)).all()
