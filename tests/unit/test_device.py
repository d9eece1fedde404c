"""What happens to a frame, on a manual clock: every number below is exact."""

import pytest

from adaptive_split.candidates import MARGIN_S
from adaptive_split.decision import NEVER, Decision
from adaptive_split.objective import Objective
from adaptive_split.runtime.device import Device
from adaptive_split.runtime.sensors.battery import ModelledBattery
from adaptive_split.runtime.serving.service import TailService
from adaptive_split.runtime.source import PictureSequence
from adaptive_split.testing import (
    ManualClock,
    MemoryTransport,
    TinyStages,
    tiny_bundle,
    tiny_picture,
    tiny_profile,
    tiny_setup,
)

PICTURE, EARLY, LATE, LOCAL = (
    Decision(0, NEVER, 4),
    Decision(1, NEVER, 4),
    Decision(2, 0.5, 4),
    Decision(3, NEVER, 0),
)
HEAD_S, CODEC_S = 0.012, 0.002


class Bench:
    """A tiny device with a server in memory."""

    def __init__(self, *, slo_s=0.1, fps=10.0, delay_s=0.03, server_bundle="0", ease=0.0):
        self.clock, stages = ManualClock(7.0), TinyStages()
        setup, profile = tiny_setup(Objective(slo_s=slo_s, fps=fps)), tiny_profile(0.1)
        service = TailService(tiny_bundle(server_bundle), stages, self.clock, profile=profile)
        self.transport = MemoryTransport(setup.bundle, service, self.clock, delay_s=0.01)
        self.battery = ModelledBattery(100.0)
        self.device = Device(setup, stages, self.transport, self.clock, self.battery)
        pictures = [tiny_picture(label, ease) for label in range(4)]
        self.source = PictureSequence(pictures, [0, 1, 2, 3], [3, 1, 2, 0])
        self.delay_s, self.slo_s = delay_s, slo_s

    def play(self, decide, num_frames=4):
        """Run; `decide` maps a situation to a decision; give reports by frame, and situations."""
        self.device.start(self.source, num_frames)
        self.transport.delay_s = self.delay_s
        reports, seen = [], []
        while (situation := self.device.next_frame()) is not None:
            seen.append(situation)
            # The watchdog's thread, on a manual clock.
            rest_s = situation.arrival_s + self.slo_s - MARGIN_S - situation.now_s
            self.clock.call_at(self.clock.now_s() + rest_s + 1e-8, self.device.ledger.expire)
            self.device.run_frame(decide(situation))
            reports += self.device.ledger.take()
        reports += self.device.ledger.take()
        return sorted(reports, key=lambda report: report.frame_index), seen


def always(decision):
    return lambda situation: decision


def parts_of(report):
    return (
        report.wait_s + report.head_s + report.encode_s + report.uplink_s + report.server_wait_s
        + report.tail_s + report.downlink_s + report.fallback_s
    )  # fmt: skip


@pytest.mark.parametrize("decision", [PICTURE, EARLY, LATE, LOCAL])
@pytest.mark.parametrize("delay_s", [0.03, 0.09, 5.0])
@pytest.mark.parametrize("fps", [10.0, 40.0, 120.0])
def test_every_frame_has_one_report_and_every_started_one_an_answer_in_time(decision, delay_s, fps):
    reports, seen = Bench(fps=fps, delay_s=delay_s).play(always(decision), num_frames=40)

    assert [report.frame_index for report in reports] == list(range(40))
    started = [report for report in reports if report.decision is not None]
    assert len(started) == len(seen)
    assert all(report.on_time and report.correct for report in started)
    assert all(parts_of(report) == pytest.approx(report.latency_s) for report in started)
    assert all(report.wait_s > -1e-9 for report in started)


def test_a_frame_decided_to_stay_local_takes_every_stage():
    (report, *_), _ = Bench().play(always(LOCAL))

    assert (report.answered_by, report.exit_index) == ("device", 3)
    assert report.latency_s == pytest.approx(3 * HEAD_S)
    assert report.payload_bytes == 0
    assert report.energy_j == pytest.approx(5.0 * 3 * HEAD_S)


def test_a_sure_exit_answers_and_nothing_is_sent():
    (report, *_), _ = Bench(ease=0.8).play(always(LATE))

    assert (report.answered_by, report.exit_index) == ("device", 1)
    assert report.confidence == pytest.approx(0.81, abs=0.01)
    assert report.payload_bytes == 0


def test_a_threshold_of_one_lets_no_exit_answer():
    (report, *_), _ = Bench(ease=1.0).play(always(EARLY))

    assert report.answered_by == "server"


def test_a_feature_is_answered_by_the_server():
    (report, *_), _ = Bench().play(always(EARLY))

    assert (report.answered_by, report.exit_index, report.fallback_reason) == ("server", 3, "")
    assert report.latency_s == pytest.approx(HEAD_S + CODEC_S + 0.03)
    assert report.payload_bytes > 320


def test_the_next_frame_computes_while_the_last_is_on_the_uplink():
    reports, _ = Bench(fps=40.0, delay_s=0.06).play(always(EARLY), num_frames=12)

    assert {report.answered_by for report in reports} == {"server"}
    assert all(
        report.latency_s == pytest.approx(HEAD_S + CODEC_S + 0.06) and report.latency_s > 2 / 40.0
        for report in reports
    )


def test_the_server_is_told_what_the_round_trip_leaves_of_the_slack():
    bench, told_s = Bench(), []
    send = bench.transport.send

    def note(request, *, timeout_s):
        told_s.append(request.slack_s)
        return send(request, timeout_s=timeout_s)

    bench.transport.send = note
    bench.play(always(EARLY), num_frames=1)

    assert told_s == [pytest.approx(0.1 - MARGIN_S - HEAD_S - CODEC_S - 0.01)]


def test_a_late_feature_is_answered_by_the_deepest_exit_just_before_the_deadline():
    (report, *_), _ = Bench(delay_s=5.0).play(always(LATE))

    assert (report.answered_by, report.exit_index) == ("device", 2)
    assert report.fallback_reason == "late"
    assert report.latency_s == pytest.approx(0.1 - MARGIN_S)


def test_a_late_picture_is_answered_by_the_first_exit_computed_at_the_last_moment():
    (report, *_), _ = Bench(delay_s=5.0).play(always(PICTURE))

    assert (report.answered_by, report.exit_index) == ("device", 1)
    assert report.fallback_reason == "late"
    assert report.latency_s == pytest.approx(0.1 - MARGIN_S)
    assert report.fallback_s == pytest.approx(0.1 - MARGIN_S - CODEC_S)


def test_a_late_reply_becomes_a_sample():
    _, seen = Bench(delay_s=0.15).play(always(EARLY), num_frames=8)

    assert seen[-1].samples[-1].rtt_s == pytest.approx(0.15, rel=0.1)
    assert seen[-1].timeouts > 0


def test_a_fallback_of_a_picture_goes_before_a_part_that_would_end_too_late():
    bench = Bench(fps=40.0, delay_s=5.0)

    def decide(situation):
        return PICTURE if situation.frame_index == 0 else LOCAL

    reports, _ = bench.play(decide, num_frames=12)

    assert reports[0].fallback_reason == "late"
    assert reports[0].on_time


def test_a_reply_before_the_give_up_moment_wins_over_a_fallback_computed_early():
    bench = Bench(fps=16.0, delay_s=0.078)

    def decide(situation):
        return PICTURE if situation.frame_index == 0 else LOCAL

    reports, _ = bench.play(decide, num_frames=3)

    assert reports[0].answered_by == "server"
    assert reports[0].latency_s == pytest.approx(CODEC_S + 0.078)
    assert reports[0].energy_j > 5.0 * HEAD_S


def test_the_newest_frame_goes_first_and_old_ones_are_dropped():
    bench = Bench(fps=100.0, slo_s=0.06)

    reports, seen = bench.play(always(LOCAL), num_frames=12)

    order = [situation.frame_index for situation in seen]
    assert order[:3] == [0, 3, 7]
    dropped = [report for report in reports if report.fallback_reason == "dropped"]
    assert dropped
    assert all(report.latency_s is None and report.utility == 0 for report in dropped)


def test_a_server_that_is_gone_leaves_the_device_on_its_own():
    bench = Bench()
    bench.transport.reachable = False

    reports, seen = bench.play(always(EARLY))

    assert not any(situation.server_usable for situation in seen)
    assert {report.fallback_reason for report in reports} == {"breaker"}
    assert {report.exit_index for report in reports} == {3}


def test_a_server_that_comes_back_is_used_again():
    bench = Bench()
    bench.transport.reachable = False

    def decide(situation):
        bench.transport.reachable = situation.frame_index >= 5
        return EARLY

    reports, _ = bench.play(decide, num_frames=40)

    assert reports[4].fallback_reason == "breaker"
    assert reports[-1].answered_by == "server"


def test_failures_in_a_row_open_the_breaker():
    bench = Bench()

    def decide(situation):
        bench.transport.reachable = False
        return EARLY

    reports, _ = bench.play(decide, num_frames=8)

    assert [report.fallback_reason for report in reports] == ["link"] * 5 + ["breaker"] * 3


@pytest.mark.parametrize("decision", [PICTURE, LATE])
def test_another_bundle_at_the_server_keeps_everything_local(decision, caplog):
    reports, seen = Bench(server_bundle="1").play(always(decision))

    assert {report.fallback_reason for report in reports} == {"bundle"}
    assert {report.exit_index for report in reports} == {3}
    assert not seen[0].server_usable
    assert caplog.text.count("staying local") == 1


def test_an_idle_link_is_probed_once_a_second():
    bench = Bench()

    _, seen = bench.play(always(LOCAL), num_frames=45)

    # One reply from the greeting, then one a second, seen at 10 fps.
    assert len(seen[-1].samples) == 5
    assert bench.device.sender.probe_bytes > 0


def test_the_uplink_is_believed_busy_until_what_was_sent_has_left():
    _, seen = Bench(fps=50.0, delay_s=0.05).play(always(PICTURE), num_frames=4)

    assert seen[1].oldest_unanswered_s == pytest.approx(CODEC_S)
    assert seen[1].oldest_unanswered_bytes > 320
    assert seen[1].uplink_free_s > CODEC_S


def test_energy_is_taken_from_the_battery():
    bench = Bench()

    reports, _ = bench.play(always(EARLY))

    spent_j = sum(report.energy_j for report in reports)
    assert bench.battery.soc() == pytest.approx(1 - spent_j / 100)


def test_equal_runs_are_equal():
    assert Bench(fps=40.0).play(always(LATE)) == Bench(fps=40.0).play(always(LATE))


def test_silence_opens_the_breaker_and_a_reply_closes_it():
    bench = Bench(delay_s=0.03)

    def decide(situation):
        bench.transport.delay_s = 60.0 if 10 <= situation.frame_index < 60 else 0.03
        return EARLY

    reports, _ = bench.play(decide, num_frames=110)

    dark = [report.fallback_reason for report in reports if 28 <= report.frame_index < 60]
    assert dark == ["breaker"] * 32
    assert reports[-1].answered_by == "server"


@pytest.mark.slow
def test_a_clock_that_stood_still_for_an_hour_leaves_dropped_frames_and_then_answers():
    bench = Bench()

    def decide(situation):
        if situation.frame_index == 5:
            bench.clock.advance(3600.0)
        return EARLY

    reports, _ = bench.play(decide, num_frames=36_030)

    assert [report.frame_index for report in reports] == list(range(36_030))
    assert {report.fallback_reason for report in reports[10:36_000]} == {"dropped"}
    assert not any(report.on_time for report in reports[5:36_000])
    assert all(report.answered_by == "server" for report in reports[36_010:])


def test_a_stage_that_was_held_up_for_a_minute_does_not_stop_the_device_for_good():
    bench = Bench()

    def decide(situation):
        if situation.frame_index == 5:
            now_s = bench.clock.now_s()
            bench.clock.call_at(now_s + 0.005, lambda: bench.clock.advance(60.0))
        return EARLY

    reports, _ = bench.play(decide, num_frames=640)

    assert not reports[5].on_time
    assert all(report.answered_by == "server" for report in reports[-20:])


def test_being_held_up_once_hardly_changes_what_a_device_believes_of_its_speed():
    bench = Bench()

    def decide(situation):
        if situation.frame_index == 5:
            now_s = bench.clock.now_s()
            bench.clock.call_at(now_s + 0.005, lambda: bench.clock.advance(0.3))
        return EARLY

    _, seen = bench.play(decide, num_frames=10)

    assert max(situation.device_slowdown for situation in seen) < 1.5


def test_a_device_that_was_slow_for_long_tries_again():
    bench = Bench(slo_s=0.05)
    held_up = range(5, 30)

    def decide(situation):
        if situation.frame_index in held_up:
            now_s = bench.clock.now_s()
            bench.clock.call_at(now_s + 0.005, lambda: bench.clock.advance(0.2))
        return LOCAL

    reports, _ = bench.play(decide, num_frames=100)

    assert all(report.on_time for report in reports[-20:])
