"""Generated traces look like the recordings they were fitted to."""

from statistics import NormalDist

import numpy as np
import pytest

from adaptive_split.errors import ConfigError
from adaptive_split.link_model import (
    FAMILIES,
    OUTAGE_MBPS,
    guess_family,
    link_process,
    load_processes,
    sample_rtt_s,
    trace_levels,
    two_state,
)
from adaptive_split.trace_generator import generate

# Of the recordings of the split `train`: mean in Mbps, share in outage.
RECORDED = {
    "maine-cellular": (8.95, 0.195),
    "maine-starlink": (16.6, 0.0137),
    "5g-2022": (41.7, 0.0101),
}


@pytest.mark.parametrize("family", RECORDED)
def test_equal_seeds_give_equal_traces_and_others_differ(family):
    first, second, other = (generate(family, seed, 20) for seed in (4, 4, 5))

    np.testing.assert_array_equal(first.uplink_mbps, second.uplink_mbps)
    np.testing.assert_array_equal(first.rtt_s, second.rtt_s)
    assert not np.array_equal(first.uplink_mbps, other.uplink_mbps)


@pytest.mark.parametrize("family", RECORDED)
def test_a_generated_trace_says_that_it_is_synthetic(family):
    trace = generate(family, 0, 20)

    assert (trace.family, trace.source, trace.rtt_source) == (family, "synthetic", "synthetic")
    assert trace.duration_s == pytest.approx(20)


@pytest.mark.parametrize("period_s", [0.1, 0.25, 1.0])
def test_another_period_keeps_the_megabits(period_s):
    trace, other = (generate("maine-starlink", 3, 30, each) for each in (None, period_s))

    assert other.duration_s == pytest.approx(30)
    assert other.uplink_mbps.mean() == pytest.approx(trace.uplink_mbps.mean())


@pytest.mark.slow
@pytest.mark.parametrize(("family", "recorded"), RECORDED.items())
def test_many_paths_have_the_mean_and_the_outages_of_the_recordings(family, recorded):
    process = link_process("rate", family)
    # Outages are rare and come in bad places: fewer paths than these miss their share by a fifth.
    levels = np.array([NormalDist().inv_cdf((i + 0.5) / 2000) for i in range(2000)])

    rate = process.sample(np.random.default_rng(1), levels, round(120 / process.period_s))

    assert rate.mean() == pytest.approx(recorded[0], rel=0.1)
    assert (rate < OUTAGE_MBPS).mean() == pytest.approx(recorded[1], rel=0.1)


@pytest.mark.parametrize(
    ("family", "seed", "duration_s", "period_s", "message"),
    [
        ("lte", 0, 10, None, "family must be one of .*; got 'lte'"),
        ("5g-2022", -1, 10, None, "seed must be at least 0; got -1"),
        ("5g-2022", 0, 0.1, None, "duration_s must be at least two periods"),
        ("5g-2022", 0, 10, 0, "duration_s must be at least two periods"),
        ("5g-2022", 0, float("inf"), 1, "duration_s must be at least two periods"),
    ],
)
def test_arguments_out_of_range_are_refused(family, seed, duration_s, period_s, message):
    with pytest.raises(ConfigError, match=message):
        generate(family, seed, duration_s, period_s)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_rtt_is_positive_or_lost_and_held_between_draws(family):
    rtt_s = sample_rtt_s(family, 1, np.arange(400) * 0.01)

    received = rtt_s[~np.isnan(rtt_s)]
    assert (received > 0).all()
    assert 0.005 < np.median(received) < 0.3
    assert (np.diff(received) == 0).mean() > 0.5


def test_every_process_adds_up_and_rises():
    for kind in ("rate", "rtt"):
        for process in load_processes(kind).values():
            assert process.level_share + sum(process.shares) == pytest.approx(1, abs=1e-3)
            assert (np.diff(process.latent) > 0).all()
            assert (np.diff(process.value) >= 0).all()


def test_a_chain_has_the_share_and_the_length_asked_for():
    state = two_state(np.random.default_rng(0), 200, 2000, 0.2, 4.0)

    starts = np.diff(state.astype(int), axis=1) == 1
    assert state.mean() == pytest.approx(0.2, rel=0.05)
    assert state.sum() / starts.sum() == pytest.approx(4.0, rel=0.05)


def test_one_path_has_the_distribution_of_many():
    process = link_process("rtt", "maine-cellular")
    one = process.sample(np.random.default_rng(0), np.zeros(1), 20_000)
    many = process.sample(np.random.default_rng(1), np.zeros(40), 500)

    assert np.nanmedian(one) == pytest.approx(np.nanmedian(many), rel=0.05)


def test_consecutive_seeds_spread_evenly():
    levels = np.array([trace_levels(seed) for seed in range(24, 32)])

    assert (np.abs(levels.mean(0)) < 0.35).all()
    assert (levels.std(0) > 0.7).all()


@pytest.mark.parametrize(
    ("folder", "name", "family"),
    [
        ("nuwins_maine2024", "starlink_udp_20240528_1", "maine-starlink"),
        ("nuwins_maine2024", "verizon_tcp_20240528_1", "maine-cellular"),
        ("nuwins_5gmemu2022", "driving_lte_throughput_run01", "5g-2022"),
        ("mahimahi", "Verizon-EVDO-driving", "lte"),
        ("walks", "office_5g", "5g-2022"),
        ("walks", "office", "lte"),
        ("5g-2022", "anything", "5g-2022"),
    ],
)
def test_the_family_is_guessed_from_the_names(folder, name, family):
    assert guess_family(folder, name) == family
