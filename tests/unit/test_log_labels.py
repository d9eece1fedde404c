"""What was sent tells what else would have been on time: the simulator knows whether that is so."""

from dataclasses import replace

import numpy as np
import pytest

from adaptive_split.agents.log_frames import read_logs
from adaptive_split.agents.log_labels import payload_on_time
from adaptive_split.agents.sac import UNKNOWN
from adaptive_split.decision import NEVER, Decision
from adaptive_split.runtime.controller import DistributionPlanner, PlannerSettings
from tests import support
from tests.recorded import AtRandom, record

TABLE = support.table()


def recorded(folder, policy, count=10):
    """A log of short runs, and the truth about every payload."""
    streams = [support.stream(60, seed=seed) for seed in range(count)]
    truth = record(folder / "run.jsonl", TABLE, policy, streams)
    return read_logs([folder / "run.jsonl"], TABLE), truth


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """A log in which every payload was sent."""
    return recorded(tmp_path_factory.mktemp("records"), AtRandom(TABLE))[0]


@pytest.mark.parametrize("policy", [AtRandom(TABLE), DistributionPlanner(TABLE, PlannerSettings())])
def test_labels_agree_with_the_simulators_counterfactuals(tmp_path, policy):
    log, truth = recorded(tmp_path, policy)

    labels = payload_on_time(log, TABLE)

    known = labels != UNKNOWN
    assert known.sum() > 150
    assert (labels[known] == truth[known]).mean() >= 0.95
    assert abs(labels[known].mean() - truth[known].mean()) < 0.02


def test_a_frame_answered_by_the_device_says_nothing(log):
    silent = log.payload_bytes == 0

    assert silent.any()
    assert (payload_on_time(log, TABLE)[silent] == UNKNOWN).all()


def test_the_payload_sent_is_labelled_by_what_happened(log):
    rows, sent = np.arange(len(log)), TABLE.grid.payload_index[log.candidate]

    labels = payload_on_time(log, TABLE)

    assert (labels[rows, sent][log.by_server] == 1).all()
    assert (labels[rows, sent][log.tried] == 0).all()


def test_whether_a_label_is_known_does_not_depend_on_what_it_says(log):
    apart = replace(log, run=np.arange(len(log)))
    sent, nothing = log.by_server | log.tried, np.zeros(len(log), bool)

    known = [
        payload_on_time(replace(apart, by_server=answered, tried=late), TABLE) != UNKNOWN
        for answered, late in ((sent, nothing), (nothing, sent))
    ]

    np.testing.assert_array_equal(*known)
    assert known[0].sum() > sent.sum()


def one_sent(log, **changes):
    """A frame whose smallest feature was sent 30 ms after it began and took 20 ms to cross."""
    small = TABLE.grid.index(Decision(1, NEVER, 1))
    one = log.take(np.flatnonzero(log.by_server)[:1])
    changes = {
        "candidate": small, "start_s": 0.0, "deadline_s": 0.2, "ready_s": 0.03, "rtt_s": 0.01,
        "payload_bytes": TABLE.mean_bytes[TABLE.grid.payloads.index((1, 1))], "crossing_s": 0.02,
        "server_wait_s": 0.0, "tail_s": TABLE.tail_s[TABLE.grid.payloads.index((1, 1))],
        "by_server": True, "tried": False, "run": 0, **changes,
    }  # fmt: skip
    return replace(one, **{name: np.array([value]) for name, value in changes.items()})


@pytest.mark.parametrize(("crossing_s", "label"), [(0.02, 1), (0.10, 0)])
def test_a_larger_payload_is_played_at_the_rate_that_the_one_sent_has_met(log, crossing_s, label):
    larger = TABLE.grid.payloads.index((1, 8))
    share = TABLE.mean_bytes[larger] / TABLE.mean_bytes[TABLE.grid.payloads.index((1, 1))]
    assert 1.5 < share <= 4

    labels = payload_on_time(one_sent(log, crossing_s=crossing_s), TABLE)[0]

    assert labels[TABLE.grid.payloads.index((1, 1))] == 1
    assert labels[larger] == label


def test_what_is_sent_behind_a_payload_that_never_arrived_tells_of_itself_only(log):
    first, second = one_sent(log), one_sent(log, ready_s=0.13, start_s=0.1, deadline_s=0.3)

    def both(**changes):
        columns = {
            name: np.concatenate([getattr(first, name), getattr(second, name)])
            for name in first.__dataclass_fields__
        }
        return replace(first, **{**columns, **changes})

    answered = payload_on_time(both(), TABLE)
    behind = payload_on_time(
        both(by_server=np.array([False, True]), tried=np.array([True, False])), TABLE
    )

    assert (answered[1] != UNKNOWN).sum() == 2
    assert (behind[1] != UNKNOWN).sum() == 1
