"""Other users' requests at the server, replayed from a recorded arrival process."""

import numpy as np
import pytest

from adaptive_split.errors import ConfigError
from adaptive_split.server_load import arrivals, server_wait

WHOLE_RECORD_S = 2400 / 8


def test_over_the_whole_record_the_load_is_the_utilization():
    time_s, work_s = arrivals(3, WHOLE_RECORD_S, 0.6)

    assert work_s.sum() / WHOLE_RECORD_S == pytest.approx(0.6, rel=0.01)
    assert (np.diff(time_s) >= 0).all()
    assert time_s[0] >= 0
    assert time_s[-1] < WHOLE_RECORD_S


@pytest.mark.parametrize("service", ["conv", "code"])
def test_equal_seeds_give_equal_waits_and_others_differ(service):
    first, second, other = (server_wait(seed, 20, 0.7, service=service) for seed in (1, 1, 2))

    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)


def test_the_wait_is_what_a_queue_played_arrival_by_arrival_gives():
    duration_s, period_s = 5.0, 0.01
    time_s, work_s = arrivals(7, duration_s, 0.9)
    grid_s = np.arange(500) * period_s
    expected = []
    for moment_s in grid_s:
        free_s = 0.0
        for start_s, work in zip(time_s[time_s <= moment_s], work_s, strict=False):
            free_s = max(free_s, start_s) + work
        expected.append(max(free_s - moment_s, 0.0))

    wait_s = server_wait(7, duration_s, 0.9, period_s=period_s)

    np.testing.assert_allclose(wait_s, expected, atol=1e-9)


def test_more_load_never_shortens_a_wait():
    light, heavy = (server_wait(5, 30, utilization) for utilization in (0.3, 0.8))

    assert (heavy >= light - 1e-12).all()
    assert heavy.mean() > 2 * light.mean()


def test_an_idle_server_makes_no_one_wait():
    wait_s = server_wait(0, 2, 0.0)

    assert wait_s.shape == (200,)
    assert not wait_s.any()


def test_a_long_run_repeats_the_record():
    time_s, _ = arrivals(0, 2.5 * WHOLE_RECORD_S, 0.5)

    assert time_s[-1] > 2.49 * WHOLE_RECORD_S


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"utilization": 1.0}, "utilization must be a share"),
        ({"duration_s": 0}, "duration_s must be positive"),
        ({"speedup": float("nan")}, "speedup must be positive"),
        ({"service": "mail"}, "service must be one of"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        arrivals(**{"seed": 0, "duration_s": 10, "utilization": 0.5, **arguments})


def test_a_grid_coarser_than_the_run_is_refused():
    with pytest.raises(ConfigError, match="period_s must be in"):
        server_wait(0, 1, 0.5, period_s=2)
