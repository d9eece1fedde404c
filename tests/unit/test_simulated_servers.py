"""What a request waits at a simulated server, and what overheads do, in exact arithmetic."""

from dataclasses import replace

import numpy as np
import pytest

from adaptive_split.calibration import Overheads
from adaptive_split.decision import NEVER, Decision
from adaptive_split.runtime.simulated.backend import SimulatorBackend
from adaptive_split.runtime.simulated.servers import UNINTERRUPTED, Servers
from tests import support

PERIOD_S = 0.001
TAIL_S = 0.010 / (1 - UNINTERRUPTED)
"""Of which 10 ms may be interrupted."""


def backlog(*jobs, seconds=1.0):
    """Unfinished work over time on a grid of 1 ms, of jobs `(moment in ms, work in ms)`."""
    left_ms, rows = 0, []
    for moment_ms in range(round(seconds * 1000)):
        left_ms += sum(work for at, work in jobs if at == moment_ms)
        rows.append(left_ms / 1000)
        left_ms = max(left_ms - 1, 0)
    return np.array(rows)


def waits(jobs, at_ms, latest_ms, others_start_s=0.0):
    """Waits of requests that arrive at some moments, others going first until another."""
    stream = replace(
        support.stream(), server_wait_s=backlog(*jobs), wait_period_s=PERIOD_S,
        others_start_s=others_start_s,
    )  # fmt: skip
    at = np.array(at_ms) / 1000
    lane, tail = np.zeros(len(at), int), np.full(len(at), TAIL_S)
    return Servers([stream]).wait_s(lane, at, tail, np.array(latest_ms) / 1000) * 1000


def test_first_in_first_out_is_the_unfinished_work():
    jobs = [(100, 20), (110, 5)]

    np.testing.assert_allclose(waits(jobs, [50, 100, 112], [0, 0, 0], None), [0, 20, 13])


def test_an_idle_server_serves_at_once():
    np.testing.assert_allclose(waits([(100, 20)], [50, 150], [400, 400]), [0, 0], atol=1e-6)


def test_others_that_come_later_with_less_slack_go_first():
    # The server is busy from 100 to 120 ms, and again from 115 ms on with work of 30 ms.
    jobs = [(100, 20), (115, 30)]

    by_slack = waits(jobs, [110, 110], [400, 112])

    np.testing.assert_allclose(by_slack, [40, 10], atol=1e-6)


def test_others_may_come_between_the_stages_of_a_tail():
    # 4 of 10 ms are done when others come with 25 ms.
    np.testing.assert_allclose(waits([(104, 25)], [100], [400]), [25], atol=1e-6)


def test_a_request_with_little_slack_passes_who_came_before():
    # What came at 100 ms is done at 130, that is 28 ms after 102.5; what came at 105 goes after it.
    jobs = [(100, 30), (105, 20)]

    np.testing.assert_allclose(waits(jobs, [110], [102.5]), [20.5], atol=1e-6)


def test_a_request_never_begins_before_it_comes():
    assert (waits([(0, 5)], [300], [0]) >= 0).all()


def test_a_request_that_never_comes_waits_whatever():
    assert waits([(0, 5)], [np.inf], [400]).shape == (1,)


def report(overheads, decision):
    """The first frame of a run on a free, constant link, with a decision."""
    base = support.stream()
    stream = replace(
        base, uplink_mbps=np.full_like(base.uplink_mbps, 40.0), overheads=overheads,
        rtt_s=np.full_like(base.rtt_s, 0.01), server_wait_s=np.zeros_like(base.server_wait_s),
    )  # fmt: skip
    backend = SimulatorBackend(support.table(), lambda seed: stream, probes=False)
    backend.reset(0)
    backend.step(decision)
    return backend.decided


OVERHEADS = Overheads(start_s=0.001, message_s=0.003, queue_s=0.0005)


def test_overheads_go_to_the_parts_that_they_are_of():
    before, after = (report(one, Decision(1, NEVER, 8)) for one in (Overheads(), OVERHEADS))

    assert after.wait_s - before.wait_s == pytest.approx(0.001)
    crossing = [one.uplink_s + one.downlink_s for one in (before, after)]
    assert crossing[1] - crossing[0] == pytest.approx(0.003)
    assert after.server_wait_s - before.server_wait_s == pytest.approx(0.0005)
    assert after.latency_s - before.latency_s == pytest.approx(0.0045)


def test_a_frame_that_stays_on_the_device_only_starts_later():
    before, after = (report(one, Decision(3, NEVER, 0)) for one in (Overheads(), OVERHEADS))

    assert after.latency_s - before.latency_s == pytest.approx(0.001)
