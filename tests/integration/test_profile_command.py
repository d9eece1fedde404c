"""`profile` and `measure` as a user runs them, on the bundle that names colors."""

import json

import pytest
from PIL import Image

from adaptive_split import cli
from adaptive_split.outcomes import Outcomes
from adaptive_split.profile import MODELLED, Profile
from tests.color_bundle import color_pictures, write_color_bundle


@pytest.fixture
def bundle(tmp_path):
    (tmp_path / "bundle").mkdir()
    return write_color_bundle(tmp_path / "bundle")


@pytest.fixture
def out(tmp_path):
    return tmp_path / "profile.json"


def profile(bundle, out, *options):
    return cli.main(["profile", str(bundle.path), "--repeats", "3", "--out", str(out), *options])


def test_every_part_is_shown_with_its_spread(bundle, out, capsys):
    assert profile(bundle, out) == 0

    shown = capsys.readouterr().out
    for part in ("stage 2", "exit 1", "encoder of the picture", "decoder at split 1"):
        assert part in shown
    assert "CPUExecutionProvider, 1 thread(s), power mode" in shown
    assert Profile.load(out).bundle_hash == bundle.hash


@pytest.mark.slow
def test_a_prediction_says_that_it_is_one_and_how_wrong_it_is_here(bundle, out, capsys):
    assert profile(bundle, out, "--roofline", "472", "25.6") == 0

    shown, saved = capsys.readouterr().out, Profile.load(out)
    assert "median error" in shown
    assert "472 GFLOP/s and 25.6 GB/s, predicted" in saved.machine
    assert (saved.provider, saved.num_threads) == ("roofline", 0)
    assert min(saved.stage_s + saved.exit_s + saved.encoder_s + saved.decoder_s) > 0


def test_watts_come_with_their_source(bundle, out):
    options = ["--watts", "4.5", "--watts-source", "data sheet of the board"]

    assert profile(bundle, out, *options) == 0
    saved = Profile.load(out)
    assert (saved.compute_w, saved.energy_provenance) == (4.5, MODELLED)
    assert saved.energy_source == "data sheet of the board"


@pytest.mark.parametrize(
    "options", [["--watts", "4.5"], ["--watts-source", "me"], ["--nano", "--watts", "4.5"]]
)
def test_watts_without_a_source_are_refused(bundle, out, options, caplog):
    assert profile(bundle, out, *options) == 2
    assert "--watts must come with --watts-source, and without --nano" in caplog.text
    assert not out.exists()


def test_a_provider_that_is_not_here_is_refused(bundle, out, caplog):
    assert profile(bundle, out, "--provider", "tensorrt") == 2
    assert "must be one that starts here" in caplog.text


def test_a_measurement_tells_calibration_and_useful_thresholds(bundle, tmp_path, capsys):
    for file, _, pixels in color_pictures():
        (tmp_path / "pictures" / file.removesuffix(".png")).mkdir(parents=True)
        Image.fromarray(pixels).save(tmp_path / "pictures" / file.removesuffix(".png") / file)
    out = tmp_path / "outcomes.npz"
    where = ["--data", str(tmp_path / "pictures"), "--subset", "policy", "--out", str(out)]

    assert cli.main(["measure", str(bundle.path), *where, "--views", "2"]) == 0
    shown = capsys.readouterr().out
    assert "3 pictures in 2 views, 0 without a known label" in shown
    assert "calibration error without it" in shown
    assert "jpeg, quality 45" in shown
    line = shown[shown.index("evenly: ") + len("evenly: ") :].splitlines()[0]
    assert json.loads(line)[-1] == 1
    assert Outcomes.load(out).subset == "policy"
    assert len(Outcomes.load(out).plain().files) == 3
    assert not list(tmp_path.glob("*.part"))
