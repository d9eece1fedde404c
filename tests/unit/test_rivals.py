"""The table of rivals: every one plays by the rules, is tuned alike and can be named."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from adaptive_split.agents import hindsight, link_training
from adaptive_split.agents.baselines import PairKnobs
from adaptive_split.agents.compare import CompareConfig, compare, pick_in_hindsight
from adaptive_split.agents.evaluate import mean_utility
from adaptive_split.agents.rivals import RIVALS, Ground, knobs_of, lacks_knobs, make_rival
from adaptive_split.agents.roster import HINDSIGHT, NAMES, SIMULATED_ONLY, about, make_policy
from adaptive_split.agents.trial import Team, Venue, search, utility_by_stream
from adaptive_split.agents.tune import tune_rivals
from adaptive_split.errors import ConfigError
from adaptive_split.planner import BacklogPrices
from adaptive_split.runtime.controller_bundle import ControllerBundle
from tests import support

TWO_ARM = RIVALS["two-arm"]
WITHOUT_DEFAULTS = ("two-arm", "best-pair", "busy-skip", "mulinucb", "learned-transfer-planner")


@pytest.fixture(scope="module")
def table():
    return support.table()


@pytest.fixture(scope="module")
def streams():
    return [support.stream(num_frames=30, seed=seed) for seed in range(4)]


@pytest.fixture(scope="module")
def ground(table, streams):
    static = hindsight.static_by_stream(table, streams, np.arange(len(table.grid)))
    network = link_training.train_transfer(table, streams, num_steps=2)
    return Ground(table, lambda: static, network.to_text())


@pytest.fixture(scope="module")
def venue(table, streams):
    return Venue(table, table, tuple(streams))


@pytest.mark.parametrize("rival", RIVALS.values(), ids=lambda rival: rival.name)
def test_a_rival_chooses_valid_candidates_and_each_lane_alone(rival, ground, table):
    knobs = rival.settings(ground)[0]

    for samples in (0, 1, 16):
        moment = support.moment(5, samples=samples)
        policy = rival.build(table, knobs)
        if hasattr(policy, "start"):
            policy.start(5)
        together = policy.choose(moment)
        assert together.shape == (5,)
        assert ((together >= 0) & (together < len(table.grid))).all()
        team = Team([rival.build(table, knobs) for _ in range(5)], [1] * 5)
        np.testing.assert_array_equal(team.choose(moment), together)


@pytest.mark.parametrize("name", sorted(set(RIVALS) - {"two-arm", "best-pair", "busy-skip"}))
def test_a_rival_that_predicts_stays_local_without_a_server(name, ground, table):
    rival = RIVALS[name]
    policy = rival.build(table, rival.settings(ground)[0])

    for seed in range(5):
        alone = support.moment(seed=seed, server_usable=False)
        assert table.grid.local[policy.choose(alone)].all()


@pytest.mark.slow
@pytest.mark.parametrize("rival", RIVALS.values(), ids=lambda rival: rival.name)
def test_settings_played_together_bring_what_each_brings_alone(rival, ground, venue, table):
    settings = rival.settings(ground)
    some = settings[:: max(len(settings) // 6, 1)][:6]

    together = utility_by_stream(rival, some, venue).mean(1)

    alone = [mean_utility(rival.build(table, knobs), table, venue.streams) for knobs in some]
    np.testing.assert_allclose(together, alone, atol=1e-12)


def test_a_search_finds_the_best_of_its_settings(ground, venue):
    settings = TWO_ARM.settings(ground)

    knobs, value = search(TWO_ARM, settings, venue)

    values = utility_by_stream(TWO_ARM, settings, venue).mean(1)
    assert value == pytest.approx(values.max())
    assert knobs is settings[int(values.argmax())]


def test_in_hindsight_the_knobs_of_the_training_traces_take_part(table, ground, venue, streams):
    settings = TWO_ARM.settings(ground)
    best, _ = search(TWO_ARM, settings, venue)
    values = utility_by_stream(TWO_ARM, settings, venue).mean(1)
    worst = settings[int(values.argmin())]

    assert search(TWO_ARM, [worst], venue, kept=[best])[0] is best
    tuned = {"dyno": {"safety": 0.9, "deadline_share": 0.9}}
    found = pick_in_hindsight(["dyno-hindsight"], table, streams, tuned=tuned)["dyno-hindsight"]
    trained = mean_utility(make_rival("dyno", table, tuned), table, streams)
    assert mean_utility(found, table, streams) >= trained


def test_the_pairs_tried_hold_what_complements_best(ground, table):
    values = ground.static_utility()
    best = max(
        np.maximum(values[one], values[other]).mean()
        for one in range(len(table.grid))
        for other in range(one)
    )

    knobs = RIVALS["best-pair"].settings(ground)[0]

    assert np.maximum(values[knobs.below], values[knobs.above]).mean() == pytest.approx(best)


@pytest.mark.slow
def test_what_is_tuned_is_plain_and_makes_every_rival(table):
    lines, streams = [], [support.stream(num_frames=10, seed=seed) for seed in range(2)]

    tuned = tune_rivals(table, streams, lines.append)

    assert json.loads(json.dumps(tuned)) == tuned
    assert len(lines) == len(RIVALS) + 1
    assert set(tuned) == {*RIVALS, "best-static", "scores"}
    for name in RIVALS:
        policy = make_rival(name, table, tuned)
        assert policy.name == name
        assert mean_utility(policy, table, streams) == pytest.approx(tuned["scores"][name])


def test_knobs_in_the_earlier_layout_are_read():
    tuned = {"distribution": {"device_price": 0.7}, "two_window": {"rtt_window": 3}}

    assert knobs_of("distribution-planner", tuned).device_price == 0.7
    assert knobs_of("two-window-planner", tuned).rtt_window == 3
    assert knobs_of("neurosurgeon", tuned).safety == 1.0


@pytest.mark.parametrize("name", WITHOUT_DEFAULTS)
def test_a_rival_without_defaults_must_be_tuned(name, table):
    assert lacks_knobs(name, {})
    with pytest.raises(ConfigError, match=f"{name} must be tuned; got .* its knobs") as refusal:
        make_rival(name, table, {})

    # What is trained cannot be picked in hindsight either.
    assert ("-hindsight" in str(refusal.value)) == (name != "learned-transfer-planner")


def test_a_rival_with_defaults_or_knobs_lacks_none():
    assert not lacks_knobs("spinn", {})
    assert not lacks_knobs("two-arm", {"two-arm": {"below": 0, "above": 1, "threshold_mbps": 2.0}})


def test_knobs_found_for_a_controller_do_not_replace_its_own(table):
    own = {"below": 1, "above": 2, "threshold_mbps": 4.0}
    other = {"below": 0, "above": 3, "threshold_mbps": 8.0}
    learned = ControllerBundle(
        weights=support.weights(), prices=BacklogPrices(), guard_candidate=0, guard_margin=None,
        model_hash=support.HASH, grid=support.GRID, tuned={"two-arm": own}, provenance={},
    )  # fmt: skip

    found = {"two-arm": other, "best-pair": other}

    made = [make_policy(name, table, learned, found) for name in found]

    assert [policy.knobs.threshold_mbps for policy in made] == [4.0, 8.0]


def test_every_rival_can_be_named_as_it_is_and_in_hindsight(table):
    for name in RIVALS:
        assert name in NAMES
        assert f"{name}-hindsight" in NAMES
        assert f"{name}-hindsight" in HINDSIGHT
    assert len(set(NAMES)) == len(NAMES)
    assert set(SIMULATED_ONLY) <= set(NAMES)
    with pytest.raises(ConfigError, match="spinn-hindsight is picked in hindsight"):
        make_policy("spinn-hindsight", table, None)
    assert make_policy("spinn", table, None).name == "spinn"


def test_every_controller_is_described_in_words_of_its_own():
    words = [about(name) for name in NAMES]

    assert len(set(words)) == len(words)
    assert about("static:1:0.7:8") == "one decision for every frame"


def test_the_learned_planner_in_hindsight_needs_its_network(table, streams):
    with pytest.raises(ConfigError, match="must have a trained network; got none"):
        pick_in_hindsight(["learned-transfer-planner-hindsight"], table, streams)


def test_in_hindsight_a_rival_decides_without_the_pictures_it_is_judged_on(streams):
    judging, deciding = support.table(seed=1), support.table(seed=0)

    picked = pick_in_hindsight(
        ["dyno-hindsight", "best-pair-hindsight"], judging, streams, deciding=deciding
    )

    assert picked["dyno-hindsight"].table is deciding
    assert isinstance(picked["best-pair-hindsight"].knobs, PairKnobs)


@pytest.mark.slow
def test_a_comparison_names_what_was_picked_in_hindsight(tmp_path, ground):
    names = ("neurosurgeon", "oracle", "oracle-pictures", *(f"{name}-hindsight" for name in RIVALS))
    tuned = {"learned-transfer-planner": {"network": ground.network}}
    learned = ControllerBundle(
        weights=support.weights(), prices=BacklogPrices(), guard_candidate=0, guard_margin=None,
        model_hash=support.HASH, grid=support.GRID, tuned=tuned, provenance={},
    )  # fmt: skip

    found = compare(
        support.scenario(tmp_path, num_frames=10), [support.trace()],
        CompareConfig(names=names, num_seeds=1, per_family=1), learned,
    )  # fmt: skip

    assert set(found.hindsight) == set(names) - {"neurosurgeon"}
    assert "Mbit/s on" in found.hindsight["busy-skip-hindsight"]
    assert "deadline share" in found.hindsight["spinn-hindsight"]
    assert "device price" in found.hindsight["learned-transfer-planner-hindsight"]


def test_knobs_are_plain_values(ground):
    for rival in RIVALS.values():
        assert all(np.isscalar(value) for value in asdict(rival.settings(ground)[0]).values())
