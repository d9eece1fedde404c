"""The commands `train` and `tune` end to end, on a toy whose rivals need no tuning."""

import json

import numpy as np
import pytest

from adaptive_split import cli
from adaptive_split.agents import cluster
from adaptive_split.agents.continued import networks_of
from adaptive_split.decision import NEVER, Decision
from adaptive_split.runtime.controller_bundle import ControllerBundle
from tests import support
from tests.unit.test_cli import SCENARIO, failure

pytestmark = pytest.mark.slow

KNOBS = {"distribution-planner": {}, "two-window-planner": {}}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A toy bundle and its scenario; known knobs, and a toy of links."""
    support.write_toy_bundle(tmp_path / "bundle")
    text = SCENARIO.replace("frames_per_stream = 40", "frames_per_stream = 10")
    (tmp_path / "toy.toml").write_text(text)
    (tmp_path / "toy.yml").write_text("toy: {n_envs: 50, learning_rate: 0.01}\n")
    local = support.GRID.index(Decision(3, NEVER, 0))
    monkeypatch.setattr(
        "adaptive_split.agents.task.tune_rivals",
        lambda *_: KNOBS | {"best-static": {"candidate": local}},
    )
    monkeypatch.setattr(
        "adaptive_split.trace_sets.default_traces",
        lambda split, data: ([support.trace(seed) for seed in range(3)], f"toy links to {split}"),
    )
    return tmp_path


def command(place, name, *more):
    return [name, str(place / "toy.toml"), "--frames", "300", *map(str, more)]


def test_several_seeds_go_into_folders_of_their_own(place, capsys):
    arguments = ["--seed", 4, "--seeds", 2, "--config", place / "toy.yml", "--force-export",
                 "--tensorboard", place / "curves", "--out", place / "out"]  # fmt: skip

    assert cli.main(command(place, "train", *arguments)) == 0

    for seed in (4, 5):
        bundle = ControllerBundle.load(place / "out" / f"seed-{seed}")
        config = bundle.provenance["config"]
        assert (config["seed"], config["num_envs"], config["learning_rate"]) == (seed, 50, 0.01)
        assert list((place / "curves" / f"seed-{seed}").rglob("events.*"))
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("seed")] == [
        "seed 4", "seed 5",
    ]  # fmt: skip
    assert [path.name for path in place.glob("out*")] == ["out"]


def test_an_interrupted_training_is_taken_up_or_refused(place, capsys, monkeypatch):
    whole, out = place / "whole", place / "out"
    train = command(place, "train", "--force-export", "--config", place / "toy.yml", "--out")
    assert cli.main([*train, str(whole)]) == 0

    def interrupt(bars, done, total):
        if done > 200:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("adaptive_split.cli.train.show", interrupt)
        assert cli.main([*train, str(out)]) == cli.INTERRUPTED
    assert "say --resume, or remove it" in failure(capsys, *train, out)
    assert cli.main([*train, str(out), "--resume"]) == 0

    assert "going on from frame 200" in capsys.readouterr().err
    ours, theirs = ((one / "controller.npz").read_bytes() for one in (whole, out))
    assert ours == theirs
    assert not out.with_name("out.training").exists()


def test_a_forecast_is_taken_as_it_is_to_other_scenarios(place, capsys):
    first, other, third = place / "first", place / "other", place / "third"
    train = ["train", "--force-export", "--slo-factors", 1, 0.5, "--out"]
    assert cli.main([*command(place, *train, first), "--config", str(place / "toy.yml")]) == 0
    text = (place / "toy.toml").read_text()
    (place / "other.toml").write_text(text.replace("fps = 20.0", "fps = 16.0"))
    again = ["train", str(place / "other.toml"), "--force-export", "--networks"]
    capsys.readouterr()

    assert cli.main([*again, str(first), "--out", str(other)]) == 0
    printed = capsys.readouterr().out
    both = [str(place / "toy.toml"), *again[1:], str(other), "--out", str(third)]
    assert cli.main(["train", *both]) == 0

    trained, taken = ControllerBundle.load(first), ControllerBundle.load(other)
    for ours, theirs in zip(*(networks_of(one).forecast for one in (trained, taken)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    assert printed.startswith("other")
    assert "took" not in printed
    told = taken.provenance
    assert (told["scenario"], told["objective"]["fps"]) == ("other", 16.0)
    assert "config" not in told
    assert told["networks"]["scenario"] == "toy"
    assert told["networks"]["config"]["num_envs"] == 50
    assert told["networks"]["config"]["slo_factors"] == [1.0, 0.5]
    for name in ("toy", "other"):  # the origin is told, not who handed it on
        handed = ControllerBundle.load(third / name).provenance["networks"]
        assert handed == told["networks"]


def test_networks_that_cannot_be_taken_are_refused_before_anything_is_tuned(place, capsys):
    train = ["train", place / "toy.toml", "--out", place / "out"]

    line = failure(capsys, *train, "--networks", place / "none")
    assert "none" in line
    line = failure(capsys, *train, "--networks", "default", "--frames", 9, "--seeds", 2)
    assert "--networks must come without --seeds, --frames; leave them out" in line


def test_a_promise_that_no_scenario_may_make_is_refused_before_anything_is_tuned(place, capsys):
    text = (place / "toy.toml").read_text()
    (place / "slow.toml").write_text(text.replace("fps = 20.0", "slo_s = 2.0"))

    line = failure(
        capsys, "train", place / "slow.toml", "--slo-factors", 1, 9, "--out", place / "out"
    )

    assert "--slo-factors must suit every scenario; got (1.0, 9.0): slo_s must lie in" in line


def test_no_seeds_and_no_trials_are_refused(place, capsys):
    for name, flag in (("train", "--seeds"), ("tune", "--trials")):
        line = failure(capsys, *command(place, name, flag, 0, "--out", place / "out"))
        assert f"{flag} must be at least 1; got 0" in line


def test_the_best_settings_of_a_search_can_be_trained_with(place, capsys, monkeypatch):
    from adaptive_split.agents import search

    trials = [search.Trial({"learning_rate": 0.002, "batch_size": 64}, 0.1),
              search.Trial({"learning_rate": 0.001, "batch_size": 32}, -0.1)]  # fmt: skip
    monkeypatch.setattr(search, "search", lambda training, num_trials, folder: trials)
    monkeypatch.setattr(cluster, "RayCluster", Here)

    assert cli.main(command(place, "tune", "--trials", 2, "--out", place / "tuned")) == 0
    best = place / "tuned" / "best.yml"
    assert cli.main(command(place, "train", "--config", best, "--force-export",
                            "--out", place / "out")) == 0  # fmt: skip

    assert json.loads((place / "tuned" / "trials.json").read_text())[1]["batch_size"] == 32
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[0] == ["above", "the", "planner", "learning_rate", "batch_size"]
    assert rows[2:4] == [["+0.1000", "0.002", "64"], ["-0.1000", "0.001", "32"]]
    config = ControllerBundle.load(place / "out").provenance["config"]
    assert (config["learning_rate"], config["batch_size"]) == (0.002, 64)


class Here(cluster.InProcess):
    """Stands for a cluster: jobs run here."""

    def __init__(self, address, num_workers):
        """Take what a cluster takes."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        """Nothing is held."""
