"""Live runs played again: kept whole, replayed exactly, judged by plain arithmetic, fitted."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from adaptive_split.agents.fidelity import (
    Block,
    LiveRun,
    Script,
    load_run,
    played_path,
    save_run,
)
from adaptive_split.agents.fidelity_errors import errors_of, ranking_of, residuals_of
from adaptive_split.agents.fidelity_fit import fit
from adaptive_split.agents.fidelity_replay import Pair, Replay
from adaptive_split.calibration import Calibration, Overheads
from adaptive_split.decision import NEVER, Decision
from adaptive_split.errors import ConfigError
from adaptive_split.measurement import DEVICE, SERVER, FrameReport
from adaptive_split.objective import Objective
from adaptive_split.trace import Trace
from tests import support

FRAMES = 50
TRUTH = Calibration(
    bundle_hash=support.HASH, fitted_on="", device_slowdown=1.03, server_slowdown=1.2,
    overheads=Overheads(start_s=0.0012, message_s=0.004, queue_s=0.0007),
)  # fmt: skip
DECISIONS = (Decision(3, NEVER, 0), Decision(1, NEVER, 1), Decision(2, NEVER, 1))


def report(index=0, **changes):
    """A frame that split point 1 sent and the server answered after 80 ms."""
    values = {
        "frame_index": index, "sample_index": index % 60, "arrival_s": index / 10,
        "decision": Decision(1, NEVER, 1), "answer": 1, "answered_by": SERVER, "exit_index": 3,
        "confidence": 0.5, "correct": True, "on_time": True, "fallback_reason": "",
        "latency_s": 0.080, "wait_s": 0.001, "head_s": 0.022, "encode_s": 0.003,
        "uplink_s": 0.030, "server_wait_s": 0.002, "tail_s": 0.012, "downlink_s": 0.010,
        "utility": 0.9,
    }  # fmt: skip
    return FrameReport(**{**values, **changes})


def block(window=0, controller="one", take=0, reports=(), **changes):
    values = {"probes": True, "lag_s": 0.1, "load_s": 2.0, **changes}
    return Block(
        window=window, controller=controller, take=take, reports=tuple(reports), **values
    )  # fmt: skip


def link(seed):
    """A link that changes every second, without outages."""
    generator, rows = np.random.default_rng(seed), np.arange(12.0)
    rate, rtt = generator.uniform(3, 20, len(rows)), generator.uniform(0.02, 0.05, len(rows))
    return Trace(f"toy-{seed}", "toy", rows, rate, rtt, "synthetic", "synthetic")


def run_of(blocks, num_windows=2, utilization=0.0):
    windows = tuple(link(seed) for seed in range(num_windows))
    return LiveRun(
        scenario="toy", bundle_hash=support.HASH, machine="toy", link="proxy",
        utilization=utilization, seed=3, windows=windows, blocks=tuple(blocks),
    )  # fmt: skip


class Turns:
    """Decisions one after the other."""

    name = "turns"

    def decide(self, situation):
        """Whose turn it is."""
        return DECISIONS[situation.frame_index % len(DECISIONS)]

    def reset(self):
        """Nothing is remembered."""


@pytest.fixture(scope="module", params=[0.0, 0.4])
def world(request, tmp_path_factory):
    """A scenario, and a run that was `live` in a simulator as `TRUTH` says, with other load."""
    objective = Objective(slo_s=0.3, fps=10.0)
    scenario = support.scenario(tmp_path_factory.mktemp("toy"), objective)
    shown = [report(index) for index in range(FRAMES)]
    planned = run_of([block(window, reports=shown) for window in range(4)], 4, request.param)
    replay = Replay(scenario, planned, TRUTH)
    blocks = [replace(one, reports=replay.play(one, Turns())) for one in planned.blocks]
    return scenario, replace(planned, blocks=tuple(blocks))


@pytest.fixture(scope="module")
def fitted(world):
    """What is found on half of the run's windows."""
    scenario, run = world
    return fit(scenario, run, run.only([0, 2]))


def test_a_run_is_kept_whole(tmp_path, world):
    _, run = world
    save_run(run, tmp_path / "live.jsonl")

    found = load_run(tmp_path / "live.jsonl")

    assert [one.reports for one in found.blocks] == [one.reports for one in run.blocks]
    assert found.blocks[1].window == 1
    assert found.windows[2].uplink_mbps.tolist() == run.windows[2].uplink_mbps.tolist()
    assert (found.link, found.seed, found.utilization) == (run.link, run.seed, run.utilization)


def test_a_lost_reply_stays_lost(tmp_path):
    run = run_of([block(reports=[report()])])
    run.windows[0].rtt_s[3] = float("nan")
    save_run(run, tmp_path / "live.jsonl")

    rtt_s = load_run(tmp_path / "live.jsonl").windows[0].rtt_s

    assert str(rtt_s[3]) == "nan"
    assert rtt_s[4] == run.windows[0].rtt_s[4]


def test_a_run_is_not_written_over(tmp_path):
    run = run_of([block(reports=[report()])])
    save_run(run, tmp_path / "live.jsonl")

    with pytest.raises(ConfigError, match=r"a file to write must be new; got .*live"):
        save_run(run, tmp_path / "live.jsonl")


def test_records_without_what_was_played_tell_the_way_out(tmp_path):
    save_run(run_of([block(reports=[report()])]), tmp_path / "live.jsonl")
    played_path(tmp_path / "live.jsonl").unlink()

    with pytest.raises(ConfigError, match="make both with 'adaptive-split calibrate --live'"):
        load_run(tmp_path / "live.jsonl")


def test_records_of_another_run_are_refused(tmp_path):
    save_run(run_of([block(reports=[report()])]), tmp_path / "live.jsonl")
    with (tmp_path / "live.jsonl").open("a") as file:
        file.write((tmp_path / "live.jsonl").read_text())

    with pytest.raises(ConfigError, match=r"must be as .* knows it; got other records"):
        load_run(tmp_path / "live.jsonl")


@pytest.mark.parametrize("fields", [[], {}, {"version": 1}, {"version": 9}])
def test_a_damaged_run_is_refused(tmp_path, fields):
    save_run(run_of([block(reports=[report()])]), tmp_path / "live.jsonl")
    played_path(tmp_path / "live.jsonl").write_text(json.dumps(fields))

    with pytest.raises(ConfigError, match=r"played.json must be"):
        load_run(tmp_path / "live.jsonl")


def test_a_script_repeats_and_where_it_says_nothing_goes_on_as_before():
    script = Script({0: DECISIONS[0], 2: DECISIONS[1]})

    decided = [script.decide(SimpleNamespace(frame_index=index)) for index in range(4)]

    assert decided == [DECISIONS[0], DECISIONS[0], DECISIONS[1], DECISIONS[1]]


def test_a_script_needs_a_decision():
    with pytest.raises(ConfigError, match="the decision of a frame or more"):
        Script({})


def test_decisions_played_again_under_the_same_conditions_give_the_same_frames(world):
    scenario, run = world
    replay = Replay(scenario, run, TRUTH)

    for one in run.blocks:
        assert replay.play(one) == one.reports


def test_a_run_of_another_bundle_or_scenario_is_refused(world):
    scenario, run = world

    with pytest.raises(ConfigError, match="a run must be of scenario 'toy'; got one of 'other'"):
        Replay(scenario, replace(run, scenario="other"))
    with pytest.raises(ConfigError, match="a run must have been made with bundle aaaa"):
        Replay(scenario, replace(run, bundle_hash="b" * 64))


def test_the_constants_of_a_run_are_found_again(fitted):
    assert fitted.device_slowdown == pytest.approx(1.03, abs=1e-6)
    assert fitted.server_slowdown == pytest.approx(1.2, abs=1e-6)
    assert fitted.overheads.start_s == pytest.approx(0.0012, abs=1e-5)
    assert fitted.overheads.message_s == pytest.approx(0.004, abs=4e-4)
    assert fitted.overheads.queue_s == pytest.approx(0.0007, abs=3e-4)
    assert fitted.others_start_s is None


def test_a_calibration_lowers_the_error_in_windows_that_it_was_not_fitted_on(world, fitted):
    scenario, run = world
    blocks = run.only([1])

    before, after = (errors_of(Replay(scenario, run, one).pairs(blocks)) for one in (None, fitted))

    assert after.latency < 0.25 * before.latency
    assert after.utility <= before.utility


def test_too_few_frames_are_not_fitted(world):
    scenario, run = world
    few = replace(run.blocks[0], reports=run.blocks[0].reports[:12])

    with pytest.raises(ConfigError, match=r"must hold 20 frames or more .*; got"):
        fit(scenario, run, [few])


def test_windows_to_fit_and_to_judge_on_do_not_overlap():
    assert run_of([], 5).halves == ((0, 2, 4), (1, 3))
    assert run_of([], 1).halves == ((0,), (0,))


def pair(again, controller="one", window=0, **live):
    return Pair(block(window, controller), report(**live), again)


def test_errors_are_shares_of_the_live_latency_and_means_over_blocks():
    pairs = [
        pair(report(latency_s=0.084)), pair(report(latency_s=0.072, answer=2)),
        pair(report(latency_s=0.120, utility=0.5), window=1),
        pair(report(latency_s=None), window=1),
    ]  # fmt: skip

    errors = errors_of(pairs)

    assert errors.num_frames == 4
    assert errors.latency == pytest.approx(0.10)
    assert errors.utility == pytest.approx((0.0 + 0.2) / 2)
    assert errors.utility_bias == pytest.approx(-0.1)
    assert errors.same == {"answer": 0.75, "exit": 1.0, "fallback": 1.0, "on time": 1.0}


def test_residuals_are_of_frames_that_went_the_same_way():
    pairs = [
        pair(report(tail_s=0.013, uplink_s=0.032, downlink_s=0.007)),
        pair(report(tail_s=0.010)),
        pair(report(tail_s=0.5, answered_by=DEVICE)),
        pair(report(tail_s=0.5, exit_index=2)),
    ]

    found = residuals_of(pairs)

    assert found["tail"].num_frames == 2
    assert found["tail"].bias_s == pytest.approx(-0.0005)
    assert found["network"].low_s == pytest.approx(-0.00075)
    assert found["network"].high_s == pytest.approx(-0.00025)
    assert "fallback" not in found


def test_a_ranking_names_what_changes_places_and_by_how_much():
    pairs = [
        pair(report(utility=0.7), "good", utility=0.80),
        pair(report(utility=0.9), "middling", utility=0.79),
        pair(report(utility=0.1), "bad", utility=0.20),
    ]

    ranking = ranking_of(pairs)

    assert ranking.live == ("good", "middling", "bad")
    assert ranking.again == ("middling", "good", "bad")
    ((first, second, gap),) = ranking.swapped
    assert (first, second) == ("good", "middling")
    assert gap == pytest.approx(0.01)
