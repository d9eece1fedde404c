"""Every split point on constant links, and where a fixed rule is ahead, in words."""

import numpy as np
import pytest

from adaptive_split.agents.roster import make_policy
from adaptive_split.agents.static_sweep import RATES_MBPS, static_sweep, where_fixed_wins
from tests import support

COLUMNS = ("utility", "latency_s", "energy_j", "accuracy")


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    scenario = support.scenario(tmp_path_factory.mktemp("toy"))
    policies = {
        name: make_policy(name, scenario.table("policy"), None)
        for name in ("jpeg", "planner", "distribution-planner")
    }
    return static_sweep(scenario, policies, 0.04)


@pytest.mark.slow
def test_every_split_point_has_a_curve_over_all_links(sweep):
    assert list(sweep["curves"]) == ["0", "1", "2", "3"]
    assert sweep["adaptive"]["name"] == "planner"
    for curve in (*sweep["curves"].values(), sweep["adaptive"]):
        assert all(len(curve[name]) == len(RATES_MBPS) for name in COLUMNS)
    assert sweep["curves"]["3"]["words"].startswith("stay local")


@pytest.mark.slow
def test_a_faster_link_never_hurts_who_sends_and_is_nothing_to_who_stays_local(sweep):
    sends, stays = sweep["curves"]["0"], sweep["curves"]["3"]

    assert np.diff(sends["latency_s"]).max() < 1e-3
    assert np.ptp(stays["utility"]) == 0


@pytest.mark.slow
def test_the_best_fixed_decision_of_a_link_is_behind_no_split_point(sweep):
    best = np.array(sweep["best_fixed"]["utility"])

    assert all((best >= curve["utility"]).all() for curve in sweep["curves"].values())


def test_runs_of_links_where_a_fixed_decision_is_ahead_are_told():
    adaptive = {"name": "sac", "utility": [0.5] * 14}
    fixed = {
        "utility": [0.6, 0.55] + [0.5] * 10 + [0.3, 0.51],
        "split_point": [1, 1] + [2] * 11 + [0],
    }

    words = where_fixed_wins(fixed, adaptive, 3)

    assert words == [
        "from 0.25 to 0.396 Mbit/s: split 1 is ahead of sac by up to 0.1000",
        "at 100 Mbit/s: sending the picture is ahead of sac by up to 0.0100",
        "of 14 links sac is ahead of the best fixed decision on 1, level within 0.005 on 10 and "
        "behind on 3",
    ]
