"""The link estimator finds out known links."""

import numpy as np
import pytest

from adaptive_split.errors import ConfigError
from adaptive_split.runtime.breaker import Breaker
from adaptive_split.runtime.link import LinkEstimator
from adaptive_split.runtime.probes import ProbeBudget, Prober
from adaptive_split.runtime.serving.service import TailService
from adaptive_split.runtime.traffic import Traffic
from adaptive_split.testing import ManualClock, MemoryTransport, TinyStages, tiny_bundle

LINKS = [(mbps, rtt_s) for mbps in (5.0, 20.0, 100.0) for rtt_s in (0.005, 0.030, 0.080)]


def play(link, *, mbps, rtt_s, sizes, gap_s, jitter_s=0.0, begin_s=0.0, server_s=0.003):
    """Send payloads over a FIFO link; return the last reading."""
    generator = np.random.default_rng(7)
    free_s, sent, reading = begin_s, [], None
    for index, size in enumerate(sizes):
        sent_s = begin_s + index * gap_s
        free_s = max(free_s, sent_s) + size * 8e-6 / mbps
        reply_s = free_s + rtt_s + server_s + abs(generator.normal(0, jitter_s))
        sent.append((reply_s, sent_s, size))
    for reply_s, sent_s, size in sorted(sent):
        reading = link.add(sent_s=sent_s, reply_s=reply_s, server_s=server_s, wire_bytes=size)
    return reading


@pytest.mark.parametrize(("mbps", "rtt_s"), LINKS)
def test_rate_and_round_trip_of_a_steady_link_are_found(mbps, rtt_s):
    link = LinkEstimator()
    sizes = np.random.default_rng(1).integers(500, 20_000, 40)

    reading = play(link, mbps=mbps, rtt_s=rtt_s, sizes=sizes, gap_s=0.1)

    assert link.uplink_mbps == pytest.approx(mbps, rel=0.05)
    assert link.rtt_s == pytest.approx(rtt_s, rel=0.05, abs=0.0005)
    assert reading.uplink_mbps == pytest.approx(mbps, rel=0.1)
    assert reading.rtt_s == pytest.approx(rtt_s, rel=0.1, abs=0.001)


@pytest.mark.parametrize(("mbps", "rtt_s"), LINKS)
def test_a_few_probes_are_enough_to_foresee_a_large_payload(mbps, rtt_s):
    link = LinkEstimator()
    for moment_s in (0.0, 0.1):
        link.add_ping(now_s=moment_s, rtt_s=rtt_s)

    play(link, mbps=mbps, rtt_s=rtt_s, sizes=[8000, 4000, 8000, 4000], gap_s=0.3)

    assert 8e-2 / link.uplink_mbps == pytest.approx(8e-2 / mbps, rel=0.1, abs=0.0005)


@pytest.mark.parametrize(("mbps", "rtt_s"), [(5.0, 0.030), (20.0, 0.030), (20.0, 0.080)])
def test_jitter_of_half_a_millisecond_is_not_taken_for_rate(mbps, rtt_s):
    link = LinkEstimator()
    sizes = np.random.default_rng(2).integers(500, 20_000, 40)

    play(link, mbps=mbps, rtt_s=rtt_s, sizes=sizes, gap_s=0.1, jitter_s=0.0005)

    assert link.uplink_mbps == pytest.approx(mbps, rel=0.25)
    assert link.rtt_s == pytest.approx(rtt_s, rel=0.1)


def test_waiting_behind_other_payloads_is_not_taken_for_a_slow_link():
    link = LinkEstimator()
    link.add_ping(now_s=0.0, rtt_s=0.030)

    play(link, mbps=5.0, rtt_s=0.030, sizes=[10_000] * 12, gap_s=0.008)

    assert link.uplink_mbps == pytest.approx(5.0, rel=0.1)


@pytest.mark.parametrize(("before", "after"), [(20.0, 2.0), (2.0, 20.0)])
def test_a_new_rate_is_believed_after_a_few_requests(before, after):
    link = LinkEstimator()
    link.add_ping(now_s=0.0, rtt_s=0.030)
    play(link, mbps=before, rtt_s=0.030, sizes=[8000] * 16, gap_s=0.1)

    link.add_ping(now_s=2.0, rtt_s=0.030)
    reading = play(link, mbps=after, rtt_s=0.030, sizes=[8000] * 5, gap_s=0.1, begin_s=2.0)

    assert link.uplink_mbps == pytest.approx(after, rel=0.3)
    assert reading.uplink_mbps == pytest.approx(after, rel=0.3)


def test_a_longer_round_trip_is_not_taken_for_a_slower_link():
    link = LinkEstimator()
    link.add_ping(now_s=0.0, rtt_s=0.030)
    play(link, mbps=20.0, rtt_s=0.030, sizes=[8000] * 16, gap_s=0.1)

    link.add_ping(now_s=1.8, rtt_s=0.200)
    link.add_ping(now_s=2.0, rtt_s=0.200)
    reading = play(link, mbps=20.0, rtt_s=0.200, sizes=[8000] * 3, gap_s=0.1, begin_s=2.0)

    assert reading.uplink_mbps == pytest.approx(20.0, rel=0.1)
    assert reading.rtt_s == pytest.approx(0.200, rel=0.05)


def test_noise_of_small_payloads_does_not_carry_the_rate_away():
    link = LinkEstimator()
    generator = np.random.default_rng(5)
    link.add_ping(now_s=0.0, rtt_s=0.030)
    play(link, mbps=10.0, rtt_s=0.030, sizes=[4416], gap_s=1.0)

    for index in range(100):
        now_s = 1 + 0.1 * index
        noise_s = generator.exponential(0.0005, 2)
        link.add_ping(now_s=now_s, rtt_s=0.0305 + noise_s[0])
        play(link, mbps=10.0, rtt_s=0.0305 + noise_s[1], sizes=[600], gap_s=1.0, begin_s=now_s)

    assert 4 < link.uplink_mbps < 25


def test_a_reading_explains_its_request():
    link = LinkEstimator()
    play(link, mbps=8.0, rtt_s=0.040, sizes=[2000, 9000, 4000], gap_s=0.2)

    reading = link.add(sent_s=5.0, reply_s=5.110, server_s=0.010, wire_bytes=5000)

    assert reading.rtt_s + 5000 * 8e-6 / reading.uplink_mbps == pytest.approx(0.100)


def test_rates_stay_within_what_a_link_can_be():
    link = LinkEstimator()

    reading = link.add(sent_s=0.0, reply_s=1e-6, server_s=0.0, wire_bytes=1_000_000)

    assert 0 < reading.uplink_mbps <= 2000
    assert reading.rtt_s >= 0


def add(link, *, sent_s, net_s, wire_bytes, computed=True, server_s=0.01):
    """Note one request."""
    return link.add(
        sent_s=sent_s, reply_s=sent_s + net_s + server_s, server_s=server_s,
        wire_bytes=wire_bytes, computed=computed,
    )  # fmt: skip


def test_what_computing_costs_beside_the_server_is_not_taken_for_a_slow_link():
    link = LinkEstimator()

    for second in range(20):
        now_s, size = float(second), 8000 if second % 2 else 4000
        link.add_ping(now_s=now_s, rtt_s=0.030)
        add(link, sent_s=now_s, net_s=0.030 + size * 4e-7, wire_bytes=size, computed=False)
        for tenth in range(2, 10, 2):
            add(link, sent_s=now_s + tenth / 10, net_s=0.0325, wire_bytes=2500)

    assert link.uplink_mbps == pytest.approx(20.0, rel=0.15)


def test_a_payload_too_small_to_tell_the_rate_says_so_and_shows_the_expected_one():
    link = LinkEstimator()
    for moment_s in (0.0, 0.1):
        link.add_ping(now_s=moment_s, rtt_s=0.030)
    large = play(link, mbps=5.0, rtt_s=0.030, sizes=[8000] * 8, gap_s=0.1)

    small = add(link, sent_s=0.9, net_s=0.0308, wire_bytes=100)

    assert (large.app_limited, small.app_limited) == (False, True)
    assert small.uplink_mbps == pytest.approx(link.uplink_mbps)


def test_one_late_reply_is_not_taken_for_a_slow_link():
    link = LinkEstimator()
    link.add_ping(now_s=0.0, rtt_s=0.030)
    play(link, mbps=10.0, rtt_s=0.030, sizes=[8000] * 16, gap_s=0.1)

    add(link, sent_s=1.7, net_s=0.030 + 0.0064 + 0.100, wire_bytes=8000)

    assert link.uplink_mbps > 4.0


def test_time_that_the_server_tells_counts_neither_as_rate_nor_as_round_trip():
    quick, slow = LinkEstimator(), LinkEstimator()
    sizes = np.random.default_rng(3).integers(500, 20_000, 40)

    for link, server_s in ((quick, 0.003), (slow, 0.203)):
        play(link, mbps=5.0, rtt_s=0.030, sizes=sizes, gap_s=0.3, server_s=server_s)

    assert slow.uplink_mbps == pytest.approx(quick.uplink_mbps, rel=0.01)
    assert slow.rtt_s == pytest.approx(quick.rtt_s, rel=0.01)


@pytest.mark.parametrize("most_bytes_per_s", [700.0, 3000.0, 8000.0])
def test_an_idle_link_is_measured_within_the_budget_given(most_bytes_per_s):
    clock, bundle, traffic = ManualClock(0.0), tiny_bundle(), Traffic()
    service = TailService(bundle, TinyStages(), clock)
    prober = Prober(
        MemoryTransport(bundle, service, clock, delay_s=0.01), traffic, Breaker(clock), clock,
        bundle=bundle, measures=True, budget=ProbeBudget(most_bytes_per_s=most_bytes_per_s),
    )  # fmt: skip

    for _ in range(200):
        prober.tend()
        clock.advance(0.1)

    assert 0.5 * most_bytes_per_s < prober.bytes / 20 <= most_bytes_per_s
    assert len(traffic.samples) == 16


@pytest.mark.parametrize(
    ("uplink_mbps", "bytes_per_s"), [(0.1, 600.0), (2.0, 2500.0), (100.0, 8000.0)]
)
def test_the_budget_is_a_share_of_the_rate_between_two_bounds(uplink_mbps, bytes_per_s):
    assert ProbeBudget().bytes_per_s(uplink_mbps) == pytest.approx(bytes_per_s)


@pytest.mark.parametrize(
    "wrong", [{"share": 0.0}, {"least_bytes_per_s": 100.0}, {"most_bytes_per_s": 500.0}]
)
def test_a_budget_too_small_to_probe_with_is_refused(wrong):
    with pytest.raises(ConfigError, match="a probe budget"):
        ProbeBudget(**wrong)
