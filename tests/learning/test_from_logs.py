"""Frames recorded on a link unlike the training traces improve a controller there; or it stays."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from adaptive_split import cli
from adaptive_split.agents.continued import ContinuedConfig
from adaptive_split.agents.evaluate import mean_utility
from adaptive_split.agents.from_logs import learn_from_logs, weigh
from adaptive_split.agents.log_frames import read_logs
from adaptive_split.agents.networks import Forecast, Residual, export_weights
from adaptive_split.objective import Objective
from adaptive_split.planner import BacklogPrices
from adaptive_split.runtime.controller_bundle import ControllerBundle
from adaptive_split.runtime.simulated.streams import StreamSource
from adaptive_split.scenario import load_scenario
from tests import support
from tests.learning.test_learning import two_states
from tests.recorded import record
from tests.unit.test_cli import SCENARIO

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

TRAIN = [support.trace(seed) for seed in range(8)]
CHECK = [support.trace(seed) for seed in range(50, 58)]
PRICES = BacklogPrices()


def on_site(first_seed):
    """Round trips 60 ms longer than in training, and a cue there that training does not know."""
    traces = [two_states(seed) for seed in range(first_seed, first_seed + 8)]
    return [replace(trace, rtt_s=trace.rtt_s + 0.06) for trace in traces]


def deploy(scenario, traces, count, path):
    """Let the planner record runs; give it as a controller whose networks are yet to learn."""
    table = scenario.table("policy")
    streams = StreamSource(scenario, table.outcomes, traces).draw_evenly(count, 3)
    planner = ControllerBundle(
        weights=support.weights(), prices=PRICES, guard_candidate=0, guard_margin=None,
        model_hash=scenario.bundle.hash, grid=scenario.grid, tuned={},
        provenance={"scenario": scenario.name, "trust": 0.5},
    )  # fmt: skip
    record(path, table, planner.controller(table), streams, PRICES)
    log, forecast = read_logs([path], table), Forecast(48)
    context, payloads, _ = (torch.tensor(part).float() for part in log.parts(table))
    forecast.normalize_on(context, payloads)
    return replace(planner, weights=export_weights(forecast, Residual())), log


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A scenario, the deployed controller, what it recorded on site, and validation streams."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("site")
    scenario = support.scenario(folder, Objective(slo_s=0.2, fps=20.0), num_frames=100)
    table = scenario.table("policy")
    deployed, log = deploy(scenario, on_site(200), 24, folder / "run.jsonl")
    checking = StreamSource(scenario, table.outcomes, CHECK).draw_evenly(24, 1)
    yield scenario, table, deployed, log, checking
    torch.set_num_threads(before)


def test_what_was_recorded_on_site_improves_the_controller_there_and_passes(site):
    scenario, table, deployed, log, checking = site
    config = ContinuedConfig(num_frames=12_000, num_envs=8, learning_rate=1e-3)
    later = StreamSource(scenario, table.outcomes, on_site(300)).draw_evenly(32, 0)

    learned = learn_from_logs(deployed, scenario, log, TRAIN, checking, config)

    assert learned.verdict.passes, learned.verdict
    old, new = (bundle.controller(table) for bundle in (deployed, learned.bundle))
    assert mean_utility(new, table, later) > mean_utility(old, table, later) + 0.005
    assert learned.bundle.provenance["from_logs"]["frames"] + learned.num_held_out == len(log)


@pytest.mark.parametrize("broken", ["random", "flipped"])
def test_broken_weights_are_refused_by_the_records_and_by_the_simulator(site, broken):
    _, table, deployed, log, checking = site
    generator = np.random.default_rng(0)
    layers = list(deployed.weights.forecast)
    if broken == "random":
        layers = [generator.normal(0, 0.3, layer.shape).astype(np.float32) for layer in layers]
    else:
        # The planner's log odds enter the network as they are: minus twice them turns its opinion.
        layers = [np.zeros_like(layer) for layer in layers]
        layers[4][-support.NUM_PAYLOAD_COLUMNS, :2] = 1, -1
        layers[6][0, 0] = layers[6][1, 1] = 1
        spread = float(deployed.weights.payload_scale[0])
        layers[8][:2, 0] = -2 * spread, 2 * spread

    verdict = weigh(deployed, replace(deployed.weights, forecast=tuple(layers)), table,
                    log.halves()[1], checking)  # fmt: skip

    assert len(verdict.reasons) == 2


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A scenario, a controller and its records as files; the shipped traces."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ADAPTIVE_SPLIT_DATA", raising=False)
    support.write_toy_bundle(tmp_path / "bundle")
    (tmp_path / "toy.toml").write_text(SCENARIO)
    scenario = load_scenario("toy.toml")
    deployed, _ = deploy(scenario, on_site(200), 24, tmp_path / "run.jsonl")
    deployed.save(tmp_path / "old")
    return tmp_path


def train(place, num_frames):
    arguments = ["--controller-bundle", "old", "--out", "new", "--frames", str(num_frames)]
    return cli.main(["train", "toy.toml", "--from-logs", "run.jsonl", *arguments])


def test_the_command_writes_a_controller_that_tells_what_it_learnt_from(place, capsys):
    assert train(place, 16_000) == 0

    assert "verdict: passes" in capsys.readouterr().out
    old, new = (ControllerBundle.load(place / name) for name in ("old", "new"))
    assert new.provenance["scenario"] == "toy"
    assert new.provenance["from_logs"]["config"]["num_frames"] == 16_000
    assert new.provenance["trust"] == 1.0
    assert not np.array_equal(new.weights.forecast[0], old.weights.forecast[0])


def test_the_command_writes_nothing_after_learning_from_false_records(place, capsys):
    rows = [json.loads(line) for line in (place / "run.jsonl").read_text().splitlines()]
    for row in rows:
        if row["payload_bytes"] > 0:
            row |= {"answered_by": "device", "exit_index": 1, "fallback_reason": "late"}
    (place / "run.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    assert train(place, 12_000) == cli.FAILED

    told = capsys.readouterr()
    assert "verdict: refused" in told.out
    assert "the validation utility must not fall" in told.err
    assert "nothing was written, keep the old controller" in told.err
    assert not (place / "new").exists()
