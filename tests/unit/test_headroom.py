"""Whether adapting can pay, and why not, in words that numbers stand behind."""

import pytest

from adaptive_split.agents.compare import CompareConfig, compare
from adaptive_split.agents.headroom import (
    NAMES,
    Headroom,
    Reasons,
    headroom_of,
    reasons_of,
    verdict,
)
from adaptive_split.agents.intervals import Estimate
from adaptive_split.agents.roster import BEST_STATIC, ORACLE_PICTURES
from adaptive_split.cli.headroom import by_family, who_brings_what
from tests import support

LIVELY = Reasons(shares={0: 0.6, 3: 0.4}, near_share=0.3, mean_loss=0.04)
LOCAL = Reasons(shares={3: 0.97, 0: 0.03}, near_share=0.98, mean_loss=0.001)


def place(name, relative, floor=0.5):
    """A family where everybody but the best static decision gains the same share."""

    def around(value):
        return Estimate(value, value - 0.01, value + 0.01)

    gain = {key: around(0.0 if key == BEST_STATIC else relative * floor) for key in NAMES}
    share = {key: around(one.value / floor) if floor > 0 else None for key, one in gain.items()}
    utility = {key: around(floor + one.value) for key, one in gain.items()}
    return Headroom(place=name, utility=utility, gain=gain, relative=share)


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    scenario = support.scenario(tmp_path_factory.mktemp("toy"))
    traces = [support.trace(seed, family) for seed, family in enumerate("aabb")]
    config = CompareConfig(names=tuple(NAMES), num_seeds=1, per_family=2)
    return compare(scenario, traces, config, None)


@pytest.mark.slow
def test_the_headroom_is_what_the_oracle_gains_on_the_same_streams(comparison):
    whole, *families = headroom_of(comparison)

    assert [one.place for one in families] == ["a", "b"]
    utility = {name: comparison.frames[name].utility.mean() for name in NAMES}
    gain = utility[ORACLE_PICTURES] - utility[BEST_STATIC]
    assert whole.gain[ORACLE_PICTURES].value == pytest.approx(gain)
    assert whole.relative[ORACLE_PICTURES].value == pytest.approx(gain / utility[BEST_STATIC])
    assert whole.gain[BEST_STATIC] == Estimate(0.0, 0.0, 0.0)


@pytest.mark.slow
def test_the_reasons_count_the_frames_of_the_oracle(comparison):
    reasons = reasons_of(comparison)

    played = comparison.frames[ORACLE_PICTURES]
    for split, share in reasons.shares.items():
        assert share == pytest.approx((played.split_point[played.started] == split).mean())
    assert sum(reasons.shares.values()) == pytest.approx(1)
    assert reasons.mean_loss > 0
    assert 0 <= reasons.near_share < 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("places", "reasons", "lines"),
    [
        ([place("all", 0.049)], LOCAL, [
            "adaptation is pointless here: the oracle gains 4.9% over the best fixed decision "
            "(3.9% to 5.9%), less than 5%",
            "because staying local is best in 97% of the frames",
        ]),
        ([place("all", 0.01)], LIVELY, [
            "adaptation is pointless here",
            "because the best fixed decision (", "best in a frame is sending the picture 60%, "
            "staying local 40%",
        ]),
        ([place("all", 0.051), place("lte", 0.2), place("5g", 0.01)], LIVELY, [
            "there is something to win: the oracle gains 5.1%", "the best fixed decision (",
            "best in a frame is", "by itself, 5g would be pointless",
        ]),
        ([place("all", 0.02, floor=-0.5)], LIVELY, [
            "adaptation is pointless here: the oracle gains -0.0100 over a best fixed decision "
            "that may bring nothing",
        ]),
    ],
)  # fmt: skip
def test_the_verdict_is_told_with_its_reason(comparison, places, reasons, lines):
    told = verdict(places, reasons, comparison)

    for line, begin in zip(told, lines, strict=False):
        assert line.startswith(begin)


def test_the_tables_show_everybody_and_every_family():
    found = [place("all", 0.1), place("lte", 0.2, floor=-0.1)]

    assert [line.split("  ")[0] for line in who_brings_what(found[0]).splitlines()[2:]] == list(
        NAMES.values()
    )
    rows = by_family(found).splitlines()[2:]
    assert rows[0].split()[-4:] == ["10.0%", "9.0%", "-", "11.0%"]
    assert rows[1].split()[-2:] == ["-", "-"]
