"""What a release on trial is judged by, on frames made up to be better, worse or the same."""

import numpy as np
import pytest

from adaptive_split.errors import ConfigError
from adaptive_split.runtime.updates.blocks import block_means, difference, student
from adaptive_split.runtime.updates.health import HealthLimits, HealthWindow, judge
from tests.releases import dropped, report

LIMITS = HealthLimits(window_frames=400)


def window(*reports, obstacle="", frames=400, seed=0):
    """A full window that draws from some reports; more of one = more often."""
    filled, generator = HealthWindow(frames), np.random.default_rng(seed)
    for index in generator.integers(0, len(reports), frames):
        filled.add(reports[index], obstacle)
    return filled


def spread(**changes):
    """Frames of 50 to 69 ms."""
    return [report(latency_s=0.05 + 0.001 * step, **changes) for step in range(20)]


def failing(now, before):
    return [finding.name for finding in judge(now, before, LIMITS) if finding.fails]


@pytest.mark.parametrize(
    ("now", "found"),
    [
        (spread(), []),
        ([*spread() * 5, dropped()], []),
        ([*spread(), *[dropped()] * 5], ["missed", "slower than 76 ms"]),
        ([*spread(), *[report(reason="late", by="device")] * 10], ["fell back"]),
        ([report(latency_s=one.latency_s * 1.5) for one in spread()], ["slower than 76 ms"]),
        (spread(confidence=0.4), ["confidence"]),
        (spread(confidence=1.0), ["confidence"]),
        (spread(confidence=0.7), []),
        ([report(latency_s=0.03)], []),
    ],
)  # fmt: skip
def test_what_got_worse_than_allowed_is_found_and_named(now, found):
    assert failing(window(*now, seed=1), window(*spread())) == found


def test_frames_without_a_server_in_reach_say_nothing_of_a_release():
    away = window(report(by="device"), report(by="device", reason="breaker"), obstacle="breaker")

    assert len(away) == 0


def test_frames_that_a_server_in_reach_did_not_answer_count():
    assert len(window(report(by="device", reason="late"), obstacle="breaker")) == 400


def test_a_server_that_holds_another_bundle_counts_against_the_release():
    lonely = window(*spread(by="device"), obstacle="bundle", seed=1)

    assert failing(lonely, window(*spread())) == ["fell back"]


def test_nothing_is_found_where_there_was_nothing_before():
    assert failing(window(dropped()), HealthWindow(400)) == []


def test_a_window_keeps_the_newest_frames_and_survives_a_restart(tmp_path):
    kept = window(*spread(), dropped(), frames=40)
    kept.save(tmp_path / "health.json")

    loaded = HealthWindow.load(tmp_path / "health.json", 30)

    np.testing.assert_array_equal(loaded.columns(), kept.columns()[:, 10:])


@pytest.mark.parametrize("text", ["", "[1]", "[[1,2]]", '[["a",0,0,0]]', "{"])
def test_a_window_that_cannot_be_read_is_empty(tmp_path, text):
    (tmp_path / "health.json").write_text(text)

    assert len(HealthWindow.load(tmp_path / "health.json", 30)) == 0


def test_a_trial_too_short_to_say_anything_is_refused():
    with pytest.raises(ConfigError, match="must judge at least 100 frames; got 99"):
        HealthLimits(window_frames=99)


def test_block_means_leave_out_the_unknown_and_the_rest():
    values = np.array([1, 3, np.nan, 5, np.nan, np.nan, 9.0])

    np.testing.assert_array_equal(block_means(values, 2), [2, 5])


@pytest.mark.parametrize(
    ("share", "degrees", "expected"),
    # From any table of Student's t.
    [
        (0.95, 3, 2.353),
        (0.975, 3, 3.182),
        (0.95, 10, 1.812),
        (0.975, 30, 2.042),
        (0.975, 1e6, 1.960),
    ],
)
def test_quantiles_of_student_agree_with_the_tables(share, degrees, expected):
    assert student(share, degrees) == pytest.approx(expected, rel=0.02)


def test_an_interval_holds_the_true_difference_as_often_as_it_says():
    generator, held = np.random.default_rng(0), 0
    for _ in range(1000):
        found = difference(generator.normal(1, 2, 8), generator.normal(0, 1, 12))
        held += found.low <= 1 <= found.high

    assert 930 <= held <= 970


def test_too_few_blocks_have_no_interval():
    assert difference(np.ones(3), np.ones(9)) is None
