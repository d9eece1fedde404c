"""The learned transfer times: their arithmetic, their file form, their training."""

import numpy as np
import pytest

from adaptive_split.agents.learned_link import (
    BIN_EDGES_S,
    NUM_BINS,
    NUM_CONTEXT,
    NUM_READINGS,
    LearnedTransferPlanner,
    TransferKnobs,
    TransferNetwork,
    believed_begin_s,
    transfer_context,
    transfer_quantiles_s,
)
from adaptive_split.agents.link_training import collect, train_transfer, true_transfer_s
from adaptive_split.errors import ConfigError
from adaptive_split.runtime.simulated.simulator import Simulator
from tests import support


@pytest.fixture(scope="module")
def table():
    return support.table()


def network(chances, width=4):
    """A network that forecasts the same distribution whatever it sees."""
    shapes = ((NUM_CONTEXT + 1, width), (width,), (width, width), (width,), (width, NUM_BINS))
    zeros = [np.zeros(shape, np.float32) for shape in shapes]
    logits = np.log(np.maximum(chances, 1e-9)).astype(np.float32)
    ones = np.ones(NUM_CONTEXT + 1, np.float32)
    return TransferNetwork(0 * ones, ones, (*zeros, logits))


def certain(seconds):
    chances = np.zeros(NUM_BINS)
    chances[np.searchsorted(BIN_EDGES_S, seconds) - 1] = 1
    return chances


def test_readings_are_equally_likely_times_of_the_distribution():
    chances = np.zeros((1, 1, NUM_BINS))
    chances[0, 0, [4, 9]] = 0.25, 0.75

    times = transfer_quantiles_s(chances)[0, :, 0]

    assert times.shape == (NUM_READINGS,)
    assert (np.diff(times) > 0).all()
    inside = np.searchsorted(BIN_EDGES_S, times) - 1
    np.testing.assert_array_equal(inside, [4] * 4 + [9] * 12)
    middle = np.sqrt(BIN_EDGES_S[4] * BIN_EDGES_S[5])
    assert np.sqrt(times[1] * times[2]) == pytest.approx(middle)


def test_readings_follow_any_distribution():
    generator = np.random.default_rng(0)
    chances = generator.dirichlet(np.full(NUM_BINS, 0.1), (5, 3))

    times = transfer_quantiles_s(chances)

    share = (times[..., None] <= BIN_EDGES_S[1:]).mean(1)
    np.testing.assert_allclose(share, np.cumsum(chances, -1), atol=0.5 / NUM_READINGS + 1e-9)


@pytest.mark.parametrize(("seconds", "sends"), [(0.01, True), (1.0, False)])
def test_the_planner_sends_when_the_network_expects_short_transfers(table, seconds, sends):
    knobs = TransferKnobs(network=network(certain(seconds)).to_text())
    moment = support.moment(slack_s=0.2, gap_s=0.05)

    choice = LearnedTransferPlanner(table, knobs).choose(moment)[0]

    assert bool(table.send_share[choice] > 0.5 and not table.grid.local[choice]) == sends


def test_the_chance_to_be_on_time_is_the_learned_one(table):
    moment = support.moment(slack_s=0.2, gap_s=0.05, uplink_busy_s=0.0)
    chances = np.full(NUM_BINS, 1 / NUM_BINS)
    planner = LearnedTransferPlanner(table, TransferKnobs(network=network(chances).to_text()))

    share = planner.read(moment).share()[0]

    left = 0.2 - table.keep_back_s - table.tail_s - believed_begin_s(table, moment)[0]
    by_hand = np.log(left / BIN_EDGES_S[0]) / np.log(BIN_EDGES_S[-1] / BIN_EDGES_S[0])
    np.testing.assert_allclose(share, by_hand, atol=0.51 / NUM_READINGS)


def test_a_network_survives_its_text(table):
    generator = np.random.default_rng(0)
    shapes = ((NUM_CONTEXT + 1, 8), (8,), (8, 8), (8,), (8, NUM_BINS), (NUM_BINS,))
    layers = tuple(generator.normal(size=shape).astype(np.float32) for shape in shapes)
    ones = np.ones(NUM_CONTEXT + 1, np.float32)
    before = TransferNetwork(0 * ones, ones, layers)

    after = TransferNetwork.from_text(before.to_text())

    context = transfer_context(support.moment(3))
    chances = after.chances(context, table.mean_bytes)
    np.testing.assert_array_equal(chances, before.chances(context, table.mean_bytes))
    assert chances.shape == (3, len(table.mean_bytes), NUM_BINS)
    np.testing.assert_allclose(chances.sum(-1), 1, atol=1e-6)


@pytest.mark.parametrize("text", ["", "!", "AAAA", "UEsDBA=="])
def test_a_damaged_network_is_refused(text):
    with pytest.raises(ConfigError, match="a transfer network must be readable"):
        TransferNetwork.from_text(text)


def test_a_network_of_another_layout_is_refused():
    ones = np.ones(5, np.float32)
    other = TransferNetwork(ones, ones, network(certain(0.1)).layers)

    with pytest.raises(ConfigError, match=r"must have \d+ inputs and \d+ bins; got 5"):
        TransferNetwork.from_text(other.to_text())


def test_the_context_is_finite_without_any_sample():
    context = transfer_context(support.moment(2, samples=0))

    assert context.shape == (2, NUM_CONTEXT)
    assert np.isfinite(context).all()


def test_the_true_transfer_time_tells_what_arrives_in_time(table):
    simulator = Simulator(table, [support.stream(seed=seed) for seed in range(6)])
    for _ in range(20):
        moment = simulator.moment()
        transfer = true_transfer_s(simulator, moment)
        on_time, _ = simulator.payload_on_time()
        # Fallbacks that come in between delay the device further than a controller believes.
        calm = ~np.isfinite(simulator.redo_s).any(1) & ~simulator.done
        arrival = transfer + believed_begin_s(table, moment) + table.tail_s
        in_time = arrival <= moment.slack_s[:, None] - table.keep_back_s
        # The reply passes the server's queue before the tail, the toy's queue hardly moves in it.
        np.testing.assert_array_equal(in_time[calm], on_time[calm])
        simulator.step(np.full(6, 2))


def test_every_started_frame_is_collected(table):
    streams = [support.stream(seed=seed) for seed in range(2)]

    contexts, transfers = collect(table, streams)

    assert len(contexts) == len(transfers) <= 120
    assert contexts.shape[1] == NUM_CONTEXT
    assert transfers.shape[1] == len(table.mean_bytes)
    assert (transfers > 0).mean() > 0.9


@pytest.mark.slow
def test_training_tells_a_fast_link_from_a_slow_one(table):
    streams = [support.stream(seed=seed) for seed in range(8)]

    learned = train_transfer(table, streams, num_steps=100)

    moment = support.moment(2, sample_rtt_s=0.02, sample_wait_s=0.005,
                            sample_mbps=np.array([[30.0], [0.1]]))  # fmt: skip
    times = transfer_quantiles_s(learned.chances(transfer_context(moment), table.mean_bytes))
    median = np.median(times, 1)
    assert (median[0] < median[1]).all()
    again = train_transfer(table, streams, num_steps=100)
    assert again.to_text() == learned.to_text()
