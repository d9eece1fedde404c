"""Domain randomization: what is varied, how far, and what stays as it was recorded."""

import numpy as np
import pytest

from adaptive_split.agents.variation import Variation
from adaptive_split.objective import Objective
from adaptive_split.runtime.simulated.streams import StreamSource
from tests import support

NAMES = ("rate", "rtt", "device", "server", "energy_price")


@pytest.fixture
def source(tmp_path):
    objective = Objective(slo_s=0.2, fps=20.0, energy_price=0.1)
    scenario = support.scenario(tmp_path, objective, num_frames=10)
    return StreamSource(scenario, support.outcomes(), [support.trace(0), support.trace(1)])


def factors(recorded, varied):
    """Factor on what was recorded or measured, by name."""
    link = recorded.uplink_mbps > 0
    return {
        "rate": varied.uplink_mbps[link] / recorded.uplink_mbps[link],
        "rtt": varied.rtt_s / recorded.rtt_s,
        "device": np.array([varied.device_slowdown]),
        "server": np.array([varied.server_slowdown]),
        "energy_price": np.array([varied.energy_price / 0.1]),
    }


def pair(source, seed, variation):
    """The same window as recorded and varied."""
    recorded = source.draw(np.random.default_rng(seed))
    return recorded, variation(source, np.random.default_rng(seed))


@pytest.mark.parametrize("seed", range(5))
def test_every_factor_is_one_for_the_whole_stream_and_in_its_range(source, seed):
    variation = Variation(share=1.0)

    recorded, varied = pair(source, seed, variation)

    for name, found in factors(recorded, varied).items():
        low, high = getattr(variation, name)
        np.testing.assert_allclose(found, found[0])
        assert low <= found[0] <= high
    np.testing.assert_array_equal(varied.samples, recorded.samples)
    np.testing.assert_array_equal(varied.server_wait_s, recorded.server_wait_s)


def test_factors_are_drawn_log_uniformly_and_each_alone(source):
    ranges = dict.fromkeys(NAMES, (0.25, 4.0))
    variation = Variation(share=1.0, **ranges)

    found = [factors(*pair(source, seed, variation)) for seed in range(60)]

    logs = np.log2([[one[name][0] for name in NAMES] for one in found])
    # Uniform on [-2, 2]: mean 0, standard deviation 4 / sqrt(12) = 1.155.
    np.testing.assert_allclose(logs.mean(0), 0.0, atol=0.4)
    np.testing.assert_allclose(logs.std(0), 1.155, atol=0.2)
    correlation = np.corrcoef(logs.T)[np.triu_indices(len(NAMES), 1)]
    assert np.abs(correlation).max() < 0.45


def test_a_share_of_the_streams_is_varied_and_the_others_are_as_recorded(source):
    variation, generator = Variation(share=0.3), np.random.default_rng(0)

    drawn = [variation(source, generator) for _ in range(100)]

    plain = [stream for stream in drawn if stream.energy_price is None]
    assert 1 - len(plain) / 100 == pytest.approx(0.3, abs=0.12)
    assert {(one.device_slowdown, one.server_slowdown) for one in plain} == {(1.0, 1.0)}


def test_a_stream_that_is_not_varied_is_that_of_the_source(source):
    recorded, same = pair(source, 3, Variation(share=0.0))

    for name in ("uplink_mbps", "rtt_s", "server_wait_s", "samples"):
        np.testing.assert_array_equal(getattr(same, name), getattr(recorded, name))


def test_equal_generators_vary_alike(source):
    variation = Variation(share=1.0)

    first, second = (variation(source, np.random.default_rng(5)) for _ in range(2))

    assert first.device_slowdown == second.device_slowdown
    np.testing.assert_array_equal(first.uplink_mbps, second.uplink_mbps)
