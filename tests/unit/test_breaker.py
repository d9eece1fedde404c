"""The breaker stops sending to a server that is gone, and finds it again."""

from itertools import pairwise
from random import Random

import pytest

from adaptive_split.runtime.breaker import FAILURES, LEAST_SHARE, LONGEST_WAIT_S, Breaker
from adaptive_split.testing import ManualClock


def fail(breaker, times=1):
    for _ in range(times):
        breaker.fail(breaker.epoch, "a reply must come")


def opened(clock, seed=0):
    breaker = Breaker(clock, Random(seed))
    fail(breaker, FAILURES)
    return breaker


def probes(clock, breaker, duration_s, probe_s=0.0):
    """Moments of the probes within some seconds; each fails `probe_s` after it went out."""
    moments, end_s = [], clock.now_s() + duration_s
    while clock.now_s() < end_s:
        if breaker.take_probe():
            moments.append(clock.now_s())
            clock.advance(probe_s)
            breaker.end_probe("breaker", "nobody there")
        clock.advance(0.001)
    return moments


def test_four_failures_do_not_open_it():
    breaker = Breaker(ManualClock())

    fail(breaker, FAILURES - 1)

    assert breaker.reason == ""


def test_the_fifth_failure_in_a_row_opens_it():
    assert opened(ManualClock()).reason == "breaker"


def test_a_reply_between_failures_starts_the_count_anew():
    breaker = Breaker(ManualClock())

    for _ in range(3):
        fail(breaker, FAILURES - 1)
        breaker.succeed()

    assert breaker.reason == ""


def test_a_closed_breaker_asks_for_no_probe():
    assert not Breaker(ManualClock()).take_probe()


def test_only_one_probe_is_under_way_at_a_time():
    clock = ManualClock()
    breaker = opened(clock)

    early = breaker.take_probe()
    clock.advance(0.25)

    assert [early, breaker.take_probe(), breaker.take_probe()] == [False, True, False]


@pytest.mark.parametrize("probe_s", [0.0, 2.0], ids=["refused at once", "black hole"])
def test_waits_between_probes_double_up_to_the_longest_and_are_random(probe_s):
    clock = ManualClock()
    breaker = opened(clock)

    moments = [0.0, *probes(clock, breaker, 20.0, probe_s)]

    waits = [after - before for before, after in pairwise(moments)]
    longest = [0.25, 0.5, 1.0, *[LONGEST_WAIT_S] * (len(waits) - 3)]
    for wait_s, most_s in zip(waits[1:], longest[1:], strict=True):
        assert max(LEAST_SHARE * most_s, probe_s) <= wait_s <= max(most_s, probe_s) + 0.002
    assert 10 <= len(waits) <= 19


def test_devices_that_lost_their_server_together_do_not_come_back_together():
    moments = []
    for seed in range(20):
        clock = ManualClock()
        moments.append(probes(clock, opened(clock, seed), 1.0)[0])

    assert len(set(moments)) > 10


def test_a_probe_that_succeeds_closes_it_on_trial():
    clock = ManualClock()
    breaker = opened(clock)
    clock.advance(0.25)
    breaker.take_probe()

    breaker.end_probe()
    reasons = [breaker.reason]
    fail(breaker)

    assert [*reasons, breaker.reason] == ["", "breaker"]


def test_waits_go_on_growing_until_a_payload_was_judged():
    clock = ManualClock()
    breaker = opened(clock)

    waits = []
    for _ in range(6):
        begin_s = clock.now_s()
        while not breaker.take_probe():
            clock.advance(0.001)
        waits.append(clock.now_s() - begin_s)
        breaker.end_probe()
        fail(breaker)

    assert sum(waits) > LEAST_SHARE * (0.25 + 0.5 + 1.0 + 3 * LONGEST_WAIT_S)


def test_a_judged_payload_ends_the_trial():
    clock = ManualClock()
    breaker = opened(clock)
    clock.advance(0.25)
    breaker.take_probe()
    breaker.end_probe()

    breaker.succeed()
    fail(breaker, FAILURES - 1)

    assert breaker.reason == ""


def test_a_refusal_closes_it_on_trial_but_judges_no_payload(caplog):
    breaker = opened(ManualClock())

    breaker.hear()
    reasons = [breaker.reason]
    breaker.hear()
    fail(breaker)

    assert [*reasons, breaker.reason] == ["", "breaker"]
    assert "the server answers again" not in caplog.text


def test_requests_of_before_the_closing_prove_nothing_by_failing():
    clock = ManualClock()
    breaker = opened(clock)
    old = breaker.epoch
    clock.advance(0.25)
    breaker.take_probe()
    breaker.end_probe()

    for _ in range(FAILURES):
        breaker.fail(old, "closed meanwhile")

    assert breaker.reason == ""


def test_a_late_reply_closes_it_and_the_probe_under_way_does_not_open_it_again():
    clock = ManualClock()
    breaker = opened(clock)
    clock.advance(0.25)
    breaker.take_probe()

    breaker.succeed()
    breaker.end_probe("breaker", "no reply to the probe")

    assert breaker.reason == ""


def test_another_bundle_opens_it_at_once_and_no_reply_closes_it():
    breaker = Breaker(ManualClock())

    breaker.open("bundle", "both sides must hold one bundle")
    breaker.succeed()
    breaker.hear()

    assert breaker.reason == "bundle"


def test_a_probe_that_meets_another_bundle_changes_the_reason():
    clock = ManualClock()
    breaker = opened(clock)
    clock.advance(0.25)
    breaker.take_probe()

    breaker.end_probe("bundle", "both sides must hold one bundle")

    assert breaker.reason == "bundle"


def test_failures_of_requests_under_way_do_not_put_the_probe_off():
    clock = ManualClock()
    breaker = opened(clock)

    fail(breaker)
    clock.advance(0.25)

    assert breaker.take_probe()


def test_an_outage_is_logged_once_and_so_is_its_end(caplog):
    clock = ManualClock()
    breaker = opened(clock)

    probes(clock, breaker, 10.0)
    breaker.end_probe()
    breaker.succeed()
    breaker.succeed()

    assert caplog.text.count("staying local: a reply must come") == 1
    assert caplog.text.count("the server answers again") == 1
