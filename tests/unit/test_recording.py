"""Recording a link whose rate is known, on a manual clock."""

from concurrent.futures import Future

import pytest

from adaptive_split.errors import ConfigError, LinkError
from adaptive_split.runtime.recording.burst import MOST_MBPS, Burst
from adaptive_split.runtime.recording.link_recorder import LinkRecorder
from adaptive_split.runtime.recording.plan import LEAST_BYTES_PER_PERIOD, RecordPlan
from adaptive_split.runtime.wire import RefusedError
from adaptive_split.testing import ManualClock
from tests.fifo_link import FifoLink

REFUSED = LinkError("UNAVAILABLE: failed to connect: Connection refused")


def recorder_of(rate_mbps, *, rtt_s=0.03, seconds=12.0, budget_mb=100.0, period_s=1.0):
    clock = ManualClock()
    link = FifoLink(clock, rate_mbps, rtt_s)
    plan = RecordPlan(budget_bytes=1e6 * budget_mb, duration_s=seconds, period_s=period_s)
    return LinkRecorder(link.connect, clock, plan), link


def dark_between(start_s, end_s, rate_mbps):
    return lambda moment_s: 0.0 if start_s <= moment_s < end_s else rate_mbps


# A request may end anywhere in a packet, which a small burst feels.
@pytest.mark.parametrize(
    ("rate_mbps", "error"), [(0.2, 0.2), (1.0, 0.1), (20.0, 0.01), (300.0, 0.01)]
)
@pytest.mark.parametrize("rtt_s", [0.005, 0.6])
def test_a_steady_link_is_read_as_it_is(rate_mbps, error, rtt_s):
    recorder, _ = recorder_of(lambda moment_s: rate_mbps, rtt_s=rtt_s)

    rows = list(recorder.rows())

    assert len(rows) >= 4
    assert [row.uplink_mbps for row in rows] == pytest.approx([rate_mbps] * len(rows), rel=error)
    assert [row.rtt_s for row in rows] == pytest.approx([rtt_s] * len(rows), abs=0.002)
    assert {row.loss for row in rows} == {0.0}
    assert recorder.ended == "time is up"


class Bunched:
    """A transport whose replies come all at once, though the requests had crossed one by one."""

    def __init__(self, clock, gap_s):
        self._clock, self._gap_s, self._futures = clock, gap_s, []

    def probe(self, payload, *, timeout_s):
        """Send bytes."""
        self._futures.append(Future())
        return self._futures[-1]

    def reply(self, *, tells):
        """Let all replies come now; the server's clock shows something else than ours."""
        for index, future in enumerate(self._futures):
            future.set_result(5e6 + index * self._gap_s if tells else None)


@pytest.mark.parametrize("tells", [True, False])
def test_replies_that_come_in_a_bunch_mislead_only_where_the_server_tells_no_moments(tells):
    clock = ManualClock()
    transport = Bunched(clock, 0.016)
    burst = Burst(transport, clock, 20_000, lambda now_s: None)
    clock.advance(0.4)
    transport.reply(tells=tells)

    rate_mbps = burst.uplink_mbps(0.0, 1.0, 0.03)

    assert rate_mbps == pytest.approx(10.0 if tells else MOST_MBPS, rel=0.01)


def test_an_outage_is_rows_without_rate_and_without_a_break():
    recorder, link = recorder_of(dark_between(10.4, 17.4, 5.0), seconds=30.0)

    rows = list(recorder.rows())

    dark = [row for row in rows if row.start_s >= 11 and row.end_s <= 17]
    assert len(dark) >= 5
    assert {(row.uplink_mbps, row.rtt_s, row.loss) for row in dark} == {(0.0, None, 1.0)}
    after = [row.uplink_mbps for row in rows if row.start_s >= 20]
    assert after == pytest.approx([5.0] * len(after), rel=0.05)
    assert [row.start_s for row in rows[1:]] == pytest.approx([row.end_s for row in rows[:-1]])
    assert link.num_connections > 1


def test_a_link_that_slows_to_a_crawl_is_read_from_the_burst_that_it_stretches():
    recorder, _ = recorder_of(lambda moment_s: 20.0 if moment_s < 10.2 else 1.0, seconds=20.0)

    rows = list(recorder.rows())

    slow = [row for row in rows if row.start_s >= 10.9]
    assert [row.uplink_mbps for row in slow] == pytest.approx([1.0] * len(slow), rel=0.1)
    held = [row for row in slow if row.rtt_held]
    assert held
    assert {row.loss for row in held} == {0.0}
    assert {row.rtt_s for row in held} <= {row.rtt_s for row in rows if not row.rtt_held}


@pytest.mark.parametrize("error", [REFUSED, RefusedError("at most 120 requests per second")])
def test_time_without_a_server_makes_no_rows(error):
    recorder, link = recorder_of(lambda moment_s: 5.0, seconds=30.0)
    link.clock.call_at(10.0, lambda: setattr(link, "error", error))
    link.clock.call_at(20.0, lambda: setattr(link, "error", None))

    rows = list(recorder.rows())

    assert not [row for row in rows if row.start_s >= 10 and row.end_s <= 20]
    assert [row for row in rows if row.start_s >= 20]
    assert 0 not in {row.uplink_mbps for row in rows}


def test_a_process_that_was_stopped_goes_on_from_now():
    recorder, link = recorder_of(lambda moment_s: 5.0, seconds=5000.0)
    link.clock.call_at(10.3, lambda: link.clock.advance(3600.0))
    rows, stream = [], recorder.rows()

    while not rows or rows[-1].start_s < 3615:
        rows.append(next(stream))

    assert not [row for row in rows if 11 < row.start_s < 3600]
    assert [row.uplink_mbps for row in rows[-4:]] == pytest.approx([5.0] * 4, rel=0.05)


@pytest.mark.parametrize("seconds", [100.0, float("inf")])
def test_the_budget_is_kept(seconds):
    recorder, link = recorder_of(lambda moment_s: 50.0, seconds=seconds, budget_mb=2.0)

    rows = list(recorder.rows())

    assert link.sent_bytes <= recorder.spent_bytes <= 2e6
    if seconds == 100.0:
        assert recorder.ended == "time is up"
        assert len(rows) >= 95
    else:
        assert recorder.ended == "the budget is used up"


def test_a_recording_that_is_stopped_ends_with_its_last_whole_row():
    recorder, link = recorder_of(lambda moment_s: 5.0, seconds=30.0)
    link.clock.call_at(7.5, recorder.stop)

    rows = list(recorder.rows())

    assert recorder.ended == "stopped"
    assert rows[-1].end_s <= 7.5


def test_a_recording_does_not_begin_without_a_server():
    recorder, link = recorder_of(lambda moment_s: 5.0)
    link.error = REFUSED

    with pytest.raises(LinkError, match=r"a server must answer before a recording; got .*refused"):
        next(recorder.rows())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"period_s": 0.1}, "a period must lie in"),
        ({"duration_s": 1.0}, "must last two periods"),
        ({"budget_bytes": 100.0}, "a budget must hold 1"),
        ({"budget_bytes": float("nan")}, "a budget must hold 1"),
    ],
)
def test_a_plan_that_measures_nothing_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        RecordPlan(**{"budget_bytes": 1e6, **settings})


def test_a_budget_that_cannot_last_is_refused():
    plan = RecordPlan(budget_bytes=1e6, duration_s=3600.0)

    with pytest.raises(ConfigError, match=r"60 minutes must have 47.8 MB .*; got 0.9 MB left"):
        plan.check_spread(1e5)
    assert pytest.approx(47.8e6, rel=0.01) == LEAST_BYTES_PER_PERIOD * 3600
