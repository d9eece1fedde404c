"""Rate and round trip of an emulated link follow its trace."""

import pytest

from adaptive_split.runtime.emulation.playback import Playback


def play(rates, rtts, begin_s=100.0):
    return Playback(
        time_s=[0.0, 1.0], uplink_mbps=rates, rtt_s=rtts, duration_s=2.0, begin_s=begin_s
    )


def test_bits_cross_at_the_rate_of_the_moment():
    playback = play([8.0, 2.0], [0.0, 0.0])

    assert playback.sent_s(100.5, 2e6) == pytest.approx(100.75)
    assert playback.sent_s(100.5, 5e6) == pytest.approx(101.5)
    assert playback.sent_s(100.5, 4e6 + 2e6 + 8e6 + 1e6) == pytest.approx(103.5)


def test_no_bits_take_no_time():
    assert play([8.0, 2.0], [0.0, 0.0]).sent_s(100.5, 0.0) == pytest.approx(100.5)


def test_an_outage_holds_bits_back_until_it_ends():
    assert play([0.0, 8.0], [0.0, 0.0]).sent_s(100.2, 8e5) == pytest.approx(101.1)


def test_the_last_bits_before_an_outage_do_not_wait_for_its_end():
    assert play([8.0, 0.0], [0.0, 0.0]).sent_s(100.5, 4e6) == pytest.approx(101.0)


def test_a_link_that_never_carries_anything_never_ends():
    assert play([0.0, 0.0], [0.0, 0.0]).sent_s(100.2, 8.0) == float("inf")


def test_rates_and_round_trips_follow_the_trace_and_repeat():
    playback = play([1.0, 2.0], [0.030, 0.080])

    assert [playback.rtt_at(moment) for moment in (100.5, 101.5, 102.5)] == [0.030, 0.080, 0.030]
    assert [playback.bits_per_s_at(moment) for moment in (100.5, 101.5, 102.5)] == [1e6, 2e6, 1e6]
