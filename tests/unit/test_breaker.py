"""The breaker stops sending to a server that is gone, and finds it again."""

from adaptive_split.runtime.breaker import FAILURES, Breaker
from adaptive_split.testing import ManualClock


def opened(clock):
    breaker = Breaker(clock)
    for _ in range(FAILURES):
        breaker.fail()
    return breaker


def test_four_failures_do_not_open_it():
    breaker = Breaker(ManualClock())

    for _ in range(FAILURES - 1):
        breaker.fail()

    assert breaker.reason == ""


def test_the_fifth_failure_in_a_row_opens_it():
    assert opened(ManualClock()).reason == "breaker"


def test_a_reply_between_failures_starts_the_count_anew():
    breaker = Breaker(ManualClock())

    for _ in range(3):
        for _ in range(FAILURES - 1):
            breaker.fail()
        breaker.succeed()

    assert breaker.reason == ""


def test_a_closed_breaker_asks_for_no_probe():
    assert not Breaker(ManualClock()).take_probe()


def test_one_probe_goes_out_after_a_quarter_of_a_second():
    clock = ManualClock()
    breaker = opened(clock)

    early = breaker.take_probe()
    clock.advance(0.25)

    assert [early, breaker.take_probe(), breaker.take_probe()] == [False, True, False]


def test_waits_between_probes_double_up_to_two_seconds():
    clock = ManualClock()
    breaker = opened(clock)

    waits = []
    for _ in range(6):
        begin_s = clock.now_s()
        while not breaker.take_probe():
            clock.advance(0.125)
        waits.append(clock.now_s() - begin_s)
        breaker.fail()

    assert waits == [0.25, 0.5, 1.0, 2.0, 2.0, 2.0]


def test_a_probe_that_succeeds_closes_it():
    clock = ManualClock()
    breaker = opened(clock)
    clock.advance(0.25)
    breaker.take_probe()

    breaker.succeed()

    assert breaker.reason == ""


def test_another_bundle_opens_it_at_once():
    breaker = Breaker(ManualClock())

    breaker.refuse("bundle")

    assert breaker.reason == "bundle"


def test_failures_of_requests_under_way_do_not_put_the_probe_off():
    clock = ManualClock()
    breaker = opened(clock)

    breaker.fail()
    clock.advance(0.25)

    assert breaker.take_probe()
