"""A replica of a server on a cluster and its front door's accounts, without any cluster."""

import asyncio

import pytest

from adaptive_split.bundle import ModelBundle
from adaptive_split.clock import MonotonicClock
from adaptive_split.cluster.accounts import HOP_FADES_S, HOPS_REMEMBERED, Accounts
from adaptive_split.cluster.replica import ReplicaConfig, TailReplica, files_of
from adaptive_split.codec import encode_picture
from adaptive_split.errors import BundleError, ConfigError, PayloadError
from adaptive_split.runtime.wire import RefusedError, TailRequest
from adaptive_split.testing import ManualClock
from tests.color_bundle import color_pictures, write_color_bundle
from tests.unit.test_cli import failure


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    path = tmp_path_factory.mktemp("colors")
    write_color_bundle(path)
    return ModelBundle.load(path)


def ask(bundle, payload, slack_s=60.0, files=None):
    """What a replica tells to one request."""
    replica = TailReplica(lambda: files or files_of(bundle), bundle.hash, ReplicaConfig())
    request = TailRequest(frame_index=0, split_point=0, bits=8, payload=payload, slack_s=slack_s)
    told = asyncio.run(replica.answer(request, bundle.num_stages, slack_s))
    replica.close()
    return told


@pytest.mark.parametrize("label", [0, 1, 2])
def test_a_replica_answers_and_tells_what_it_took(bundle, label):
    _, _, pixels = color_pictures()[label]

    told = ask(bundle, encode_picture(pixels, 90))

    assert told.outcome.answer.answer == label
    assert 0 < told.outcome.compute_s <= told.spent_s
    assert 0 <= told.load <= 1


def test_failures_of_a_replica_are_values(bundle):
    _, _, pixels = color_pictures()[0]

    assert isinstance(ask(bundle, b"no picture").outcome, PayloadError)
    assert isinstance(ask(bundle, encode_picture(pixels, 90), slack_s=0.0).outcome, RefusedError)


def test_files_of_another_bundle_are_refused_at_the_start(bundle):
    files = {**files_of(bundle), "exit-1.onnx": b"altered"}

    with pytest.raises(BundleError, match="must have SHA-256"):
        ask(bundle, b"", files=files)
    with pytest.raises(BundleError, match="a replica's bundle must be f00"):
        TailReplica(lambda: files_of(bundle), "f00", ReplicaConfig())


@pytest.mark.parametrize("name", ["num_replicas", "num_threads", "max_queue"])
def test_what_could_not_be_started_is_refused(name):
    with pytest.raises(ConfigError, match=f"{name} must be at least 1; got 0"):
        ReplicaConfig(**{name: 0})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--replicas", "2"], "--replicas must come with --ray"),
        (["--ray", "--replicas", "0"], "num_replicas must be at least 1"),
        (["--ray", "--background", "0.5"], "--background must be of a server that computes"),
    ],
)
def test_options_that_do_not_go_together_are_refused(bundle, capsys, options, message):
    line = failure(capsys, "serve", "--bundle", str(bundle.path), "--insecure", *options)

    assert message in line


def test_the_way_to_a_replica_is_taken_off_the_slack_until_it_is_forgotten():
    clock = ManualClock()
    accounts = Accounts(clock, 1, most_open=9)
    for index in range(HOPS_REMEMBERED):
        accounts.hear("a", 0.5, 9.0 if index % 10 == 0 else 0.004)

    assert accounts.open(1, 0.1) == pytest.approx(0.096)
    with pytest.raises(RefusedError, match=r"slack must be more than 0.0040 s"):
        accounts.open(1, 0.003)
    clock.advance(HOP_FADES_S + 0.1)
    assert accounts.open(1, 0.003) == 0.003
    assert accounts.counts.refused == {"no-time": 1}


def test_no_more_than_may_be_are_open():
    accounts = Accounts(MonotonicClock(), 2, most_open=2)
    accounts.open(1, 1.0)
    accounts.open(2, 1.0)

    with pytest.raises(RefusedError, match="shorter than 2 requests"):
        accounts.open(1, 1.0)

    accounts.shut(1, "early")
    accounts.open(1, 1.0)
    counts = accounts.counts
    assert (counts.answered, counts.answered_early) == (1, 1)
    assert counts.waiting == {1: 1, 2: 1}


def test_the_load_is_the_mean_of_all_replicas_and_old_news_count_as_idle():
    clock = ManualClock()
    accounts = Accounts(clock, 2, most_open=9)
    accounts.hear("a", 0.8, 0.0)
    accounts.hear("b", 0.4, 0.0)

    assert accounts.load == pytest.approx(0.6)
    clock.advance(2.0)
    assert accounts.load == 0
