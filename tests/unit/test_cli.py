"""The command line: helpful, lazy, and brief when something is wrong."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from adaptive_split import cli
from adaptive_split.agents.roster import DEFAULT_NAMES, NAMES, SIMULATED_ONLY
from adaptive_split.agents.task import Settled
from adaptive_split.cli import policies
from adaptive_split.cli.controllers import find_knobs, names_of, shipped_training
from adaptive_split.cli.demo import free_name
from adaptive_split.cli.tables import table
from adaptive_split.decision import NEVER, Decision
from adaptive_split.errors import ConfigError
from adaptive_split.planner import BacklogPrices
from adaptive_split.runtime.controller_bundle import ControllerBundle
from adaptive_split.scenario import load_scenario
from adaptive_split.trace import read_trace, write_trace
from tests import support
from tests.unit.test_compare import learned

SCENARIO = """
bundle = "bundle"
[objective]
fps = 20.0
[grid]
thresholds = [0.4, 0.7, 1.0]
bits = [1, 8]
[camera]
frames_per_stream = 40
"""
FORBIDDEN = """
import sys
from adaptive_split import cli
try:
    cli.main(sys.argv[1:])
except SystemExit:
    pass
forbidden = {"torch", "ray", "stable_baselines3", "gymnasium"}
print("loaded:", *sorted(forbidden & set(sys.modules)), file=sys.stderr)
"""
README = Path(__file__).parents[2] / "README.md"


def commands_of(text):
    """The lines of a page's shell blocks that run our command."""
    blocks = text.split("```sh\n")[1:]
    whole = [block.split("```")[0].replace("\\\n", " ") for block in blocks]
    lines = [line for block in whole for line in block.splitlines()]
    return [line for line in lines if line.startswith("adaptive-split ")]


@pytest.fixture
def place(tmp_path):
    """A toy bundle, its scenario and a trace."""
    support.write_toy_bundle(tmp_path / "bundle")
    (tmp_path / "toy.toml").write_text(SCENARIO)
    (tmp_path / "traces" / "toy").mkdir(parents=True)
    write_trace(support.trace(), tmp_path / "traces" / "toy" / "toy-0.csv")
    return tmp_path


def failure(capsys, *arguments):
    """Run a command that must fail; give its one line."""
    assert cli.main([str(argument) for argument in arguments]) == cli.FAILED
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("adaptive-split: error: ")
    return lines[-1]


@pytest.mark.parametrize("name", [*cli.COMMANDS, "traces fetch", "traces list"])
def test_the_help_of_a_command_ends_with_an_example(name, capsys):
    with pytest.raises(SystemExit, match="0"):
        cli.main([*name.split(), "--help"])

    assert f"example:\n  adaptive-split {name}" in capsys.readouterr().out


@pytest.mark.parametrize("line", commands_of(README.read_text(encoding="utf-8")))
def test_a_command_of_the_readme_is_understood(line):
    arguments = cli.build_parser().parse_args(shlex.split(line, comments=True)[1:])

    assert callable(arguments.run)


def test_the_help_lists_every_command(capsys):
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--help"])

    out = capsys.readouterr().out
    assert all(f"\n    {name} " in out for name in cli.COMMANDS)
    assert "example: adaptive-split demo" in out


def test_a_module_of_an_extra_is_asked_for_by_the_extra(monkeypatch, capsys):
    def run(arguments):
        raise ModuleNotFoundError("No module named 'yaml'", name="yaml")

    monkeypatch.setattr("adaptive_split.cli.headroom.run", run)

    assert cli.main(["headroom", "default"]) == 2
    assert "pip install 'adaptive-split[train]'" in capsys.readouterr().err


def test_the_help_of_compare_describes_every_controller(capsys):
    with pytest.raises(SystemExit, match="0"):
        cli.main(["compare", "--help"])

    out = capsys.readouterr().out
    for name in NAMES:
        star = " *" if name in DEFAULT_NAMES else ""
        assert f"\n  {name}{star}  " in out or name.endswith("-hindsight")
    assert "{" not in out.replace("{proxy,namespaces}", "")


@pytest.mark.parametrize(
    ("text", "names"),
    [(None, DEFAULT_NAMES), ("all", NAMES), ("sac, static:0:1:8", ("sac", "static:0:1:8"))],
)
def test_controllers_are_named_one_by_one_or_all_at_once(text, names):
    assert names_of(text) == names


@pytest.mark.parametrize("name", SIMULATED_ONLY)
def test_what_only_a_simulator_can_serve_is_not_run_on_a_device(name, tmp_path):
    scenario = support.scenario(tmp_path)

    with pytest.raises(ConfigError, match=f"{name} must be simulated"):
        policies.choose_policy(name, scenario, scenario.table("policy"))


@pytest.mark.slow
def test_a_device_searches_knobs_that_the_controller_lacks_and_says_so(tmp_path, capsys):
    scenario = support.scenario(tmp_path, num_frames=10)

    policy = policies.choose_policy("two-arm", scenario, scenario.table("policy"))

    assert policy.name == "two-arm"
    said = capsys.readouterr().err
    assert "no knobs for two-arm in the controller bundle: searching them. Using the" in said
    knows = learned(tuned={"two-arm": {"below": 0, "above": 4, "threshold_mbps": 4.0}})
    assert find_knobs(["two-arm", "planner", "oracle"], scenario, knows, shipped_training) == {}
    assert not capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["serve", "--bundle", "nowhere", "--insecure"],
        ["run", "--server", "localhost:1", "--pictures", ".", "--records", "x", "--insecure",
         "--scenario", "nowhere"],
    ],
)  # fmt: skip
def test_device_and_server_load_no_learning_library(arguments):
    done = subprocess.run(
        [sys.executable, "-c", FORBIDDEN, *arguments], capture_output=True, text=True
    )

    assert done.stderr.splitlines()[-1].split() == ["loaded:"]


def test_an_unknown_key_of_a_scenario_is_named(place, capsys):
    (place / "toy.toml").write_text(SCENARIO + "\n[radio]\npower = 3\n")

    line = failure(capsys, "compare", place / "toy.toml", "--out", place / "out")

    assert "[radio] has an unknown key 'power'" in line
    assert not (place / "out").exists()


def test_an_unknown_controller_is_refused_before_anything_is_written(place, capsys):
    line = failure(
        capsys, "compare", place / "toy.toml", "--controllers", "planner,best",
        "--out", place / "out",
    )  # fmt: skip

    assert "got 'best'" in line
    assert not (place / "out").exists()


def test_a_folder_without_traces_is_refused(place, capsys):
    (place / "empty").mkdir()

    line = failure(
        capsys, "compare", place / "toy.toml", "--controllers", "planner",
        "--traces", place / "empty", "--out", place / "out",
    )  # fmt: skip

    assert "folder must hold traces" in line


def test_a_folder_that_exists_is_not_written_to(place, capsys):
    (place / "out").mkdir()

    line = failure(
        capsys, "compare", place / "toy.toml", "--controllers", "planner",
        "--traces", place / "traces", "--out", place / "out",
    )  # fmt: skip

    assert "--out must not exist yet" in line
    assert not list((place / "out").iterdir())


def test_serving_without_tls_must_be_said(capsys):
    line = failure(capsys, "serve", "--bundle", "garments")

    assert "--ca, --certificate and --key must be given; or say --insecure" in line


def test_a_limit_below_zero_is_refused(capsys):
    line = failure(capsys, "serve", "--bundle", "garments", "--insecure", "--device-mbps", "-1")

    assert "--device-mbps and --device-open must be 0 or more" in line


def test_training_does_not_overwrite(place, capsys):
    line = failure(capsys, "train", "default", "--out", place)

    assert "--out must not exist yet" in line


def test_a_scenario_is_trained_for_once(place, capsys):
    line = failure(capsys, "train", "default", "nano-30fps", "default", "--out", place / "out")

    assert "scenarios must be named once each; got ['default', 'nano-30fps', 'default']" in line
    assert not (place / "out").exists()


def test_no_frames_are_nothing_to_learn_from(place, capsys):
    line = failure(capsys, "train", "default", "--frames", "0", "--out", place / "out")

    assert "--frames must be at least 1; got 0" in line


@pytest.fixture
def quick(place, monkeypatch):
    """A second scenario, where sending never pays; known knobs, and a toy of links."""
    calm = SCENARIO.replace("fps = 20.0", "fps = 5.0\nbyte_price = 1000.0")
    for name, text in (("toy", SCENARIO), ("calm", calm)):
        text = text.replace("frames_per_stream = 40", "frames_per_stream = 10")
        (place / f"{name}.toml").write_text(text)
    local = support.GRID.index(Decision(3, NEVER, 0))
    knobs = {"best-static": {"candidate": local}, "distribution-planner": {}}
    monkeypatch.setattr(
        "adaptive_split.agents.task.tune_rivals",
        lambda table, streams, say: knobs | {"two-window-planner": {}},
    )
    monkeypatch.setattr(
        "adaptive_split.trace_sets.default_traces",
        lambda split, data: ([support.trace(seed) for seed in range(3)], f"toy links to {split}"),
    )
    return ["train", str(place / "toy.toml"), str(place / "calm.toml"), "--frames", "300"]


@pytest.mark.slow
def test_one_policy_is_trained_for_several_scenarios(place, quick, capsys):
    status = cli.main([*quick, "--seed", "3", "--out", str(place / "out")])

    out = capsys.readouterr().out
    bundles = {name: ControllerBundle.load(place / "out" / name) for name in ("toy", "calm")}
    assert status == 0
    assert out.splitlines()[0].split() == ["frames", "above", "the", "planner"]
    assert out.count("adapting is pointless here: the best fixed decision is kept") == 1
    assert f"controller: {place / 'out' / 'calm'}" in out
    assert [bundle.adapts for bundle in bundles.values()] == [True, False]
    np.testing.assert_array_equal(
        bundles["toy"].weights.context_mean, bundles["calm"].weights.context_mean
    )
    for name, bundle in bundles.items():
        assert bundle.provenance["scenario"] == name
        assert bundle.provenance["config"]["seed"] == 3
        assert bundle.provenance["config"]["num_frames"] == 300


@pytest.mark.slow
def test_a_controller_that_need_not_adapt_runs_as_the_fixed_decision(place, quick):
    cli.main([*quick[:1], *quick[2:], "--out", str(place / "calm")])
    scenario = load_scenario(str(place / "calm.toml"))

    policy = policies.choose_policy(str(place / "calm"), scenario, scenario.table("judge"))

    kept = scenario.grid.index(Decision(3, NEVER, 0))
    assert not policy.probes
    assert set(policy.choose(support.moment(lanes=20))) == {kept}


@pytest.mark.slow
def test_a_controller_that_loses_on_validation_is_written_only_on_demand(
    place, quick, capsys, monkeypatch
):
    behind = {"sac": 0.5, "best-static": 0.5, "distribution-planner": 0.6, "two-window-planner": 0}

    def settle(task, weights, *_):
        return Settled(weights, 1.0, 0.0, BacklogPrices(), None, True, behind)

    monkeypatch.setattr("adaptive_split.agents.task.settle", settle)
    line = failure(capsys, *quick, "--out", place / "out")
    refused = (place / "out").exists()
    status = cli.main([*quick, "--force-export", "--out", str(place / "out")])

    assert "it does not in toy; train longer, or say --force-export" in line
    assert not refused
    assert status == 0
    assert ControllerBundle.load(place / "out" / "toy").adapts


def test_an_interrupt_ends_with_130(monkeypatch, capsys, place):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("adaptive_split.cli.compare.load_traces", interrupt)

    status = cli.main(
        ["compare", str(place / "toy.toml"), "--controllers", "planner",
         "--traces", str(place / "traces"), "--out", str(place / "out")]
    )  # fmt: skip

    assert status == cli.INTERRUPTED
    assert capsys.readouterr().err.endswith("interrupted\n")


@pytest.mark.parametrize("damage", [None, "missing", "damaged", "another model"])
def test_the_distribution_planner_takes_over_from_an_unusable_controller(tmp_path, damage, caplog):
    scenario, folder = support.scenario(tmp_path), tmp_path / "controller"
    if damage != "missing":
        hash_digit = "b" if damage == "another model" else "a"
        learned(model_hash=hash_digit * 64).save(folder)
    if damage == "damaged":
        (folder / "controller.npz").write_bytes(b"")

    policy = policies.choose_policy(str(folder), scenario, scenario.table("policy"))

    assert policy.name == ("distribution-planner" if damage else "sac")
    assert ("decides instead" in caplog.text) == bool(damage)


@pytest.mark.parametrize("what", ["decision", "simulator", "codec"])
def test_a_bench_prints_one_json_object(place, capsys, monkeypatch, what):
    monkeypatch.setattr("adaptive_split.cli.bench.load_controller", lambda *_: (None, None))

    status = cli.main(
        ["bench", what, "--json", "--repeats", "3", "--scenario", str(place / "toy.toml")]
    )

    numbers = json.loads(capsys.readouterr().out)
    assert status == 0
    key = "frames_per_s" if what == "simulator" else "p99_s"
    assert numbers[key] > 0


def test_generated_traces_are_listed_as_synthetic(tmp_path, capsys):
    made = ["traces", "generate", "maine-starlink", "--count", "2", "--seconds", "20"]
    assert cli.main([*made, "--out", str(tmp_path / "made")]) == 0
    assert cli.main(["traces", "list", str(tmp_path / "made")]) == 0

    out = capsys.readouterr().out
    assert sum(line.endswith("synthetic   synthetic") for line in out.splitlines()) == 2
    files = list((tmp_path / "made" / "maine-starlink").iterdir())
    assert read_trace(files[0]).source == "synthetic"


def test_a_demo_never_overwrites_an_older_one(tmp_path):
    assert free_name(tmp_path / "demo").name == "demo"
    (tmp_path / "demo").mkdir()
    assert free_name(tmp_path / "demo").name == "demo-2"
    (tmp_path / "demo-2").mkdir()
    assert free_name(tmp_path / "demo").name == "demo-3"


def test_columns_are_aligned():
    assert table([["name", "n"], ["a", "10"], ["bcdef", "5"]]).splitlines() == [
        "name    n", "---------", "a      10", "bcdef   5",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "flag",
    [
        ["--ray"],
        ["--seeds", "2"],
        ["--simulators", "2"],
        ["--resume"],
        ["--config", "a.yml"],
        ["--slo-factors", "1", "0.5"],
        ["--networks", "another"],
    ],
)
def test_learning_from_logs_refuses_what_it_would_ignore(capsys, tmp_path, flag):
    line = failure(capsys, "train", "default", "--from-logs", tmp_path / "run.jsonl",
                   "--controller-bundle", tmp_path, "--out", tmp_path / "out", *flag)  # fmt: skip

    assert f"--from-logs must come without {flag[0]}" in line
