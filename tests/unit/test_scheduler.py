"""The server's scheduler on a manual clock: steps take exactly what the costs say."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptive_split.codec import encode_feature, encode_picture
from adaptive_split.errors import PayloadError
from adaptive_split.runtime.serving.batch_cost import BatchCosts, Line
from adaptive_split.runtime.serving.scheduler import Scheduler
from adaptive_split.runtime.serving.tail_steps import TailSteps
from adaptive_split.runtime.wire import RefusedError, TailRequest
from adaptive_split.testing import ManualClock, TinyStages, tiny_bundle, tiny_picture

BUNDLE = tiny_bundle()
STAGES = TinyStages()


LONG, SHORT = Line(0.010, 0.010), Line(0.002, 0.002)


def costs(stage=LONG, small=SHORT):
    """Stages of 10 ms, exits and decoders of 2 ms; one more costs as much unless told otherwise."""
    return BatchCosts(stage=(stage,) * 3, exit=(small,) * 3, decoder=(small,) * 3)


def payload(split_point, label=2, ease=0.0):
    picture = tiny_picture(label, ease)
    if split_point == 0:
        return encode_picture(picture, 90)
    feature = STAGES.prepare(picture)
    for index in range(1, split_point + 1):
        feature = STAGES.stage(index, feature)
    return encode_feature(STAGES.encode(split_point, feature), 8)


PAYLOADS = {split: payload(split) for split in range(3)}


class Server:
    """A scheduler and whoever sends to it."""

    def __init__(self, expected=None, real=None, **settings):
        self.clock, expected = ManualClock(), expected or costs()
        steps = TailSteps(BUNDLE, TinyStages(), self.clock, real or expected, paced=True)
        self.scheduler = Scheduler(steps, expected, self.clock, **settings)
        self.done_s = {}
        self.order = []

    def send(self, name, split_point=0, slack_s=1.0, last=3, **changes):
        """Submit a request; its end is noted under a name."""
        request = TailRequest(
            frame_index=0, split_point=split_point, bits=8, payload=PAYLOADS[split_point],
            slack_s=slack_s,
        )  # fmt: skip
        future = self.scheduler.submit(replace(request, **changes), last, slack_s=slack_s)
        future.add_done_callback(lambda _: self.note(name))
        return future

    def note(self, name):
        """Note that one has ended."""
        self.order.append(name)
        self.done_s[name] = self.clock.now_s()

    def work(self):
        """Run until nothing waits."""
        while self.scheduler.counts.waiting:
            self.scheduler.step()


def test_a_request_is_answered_after_what_its_stages_take():
    server = Server()
    future = server.send("a", split_point=1, payload=payload(1, label=3))
    server.work()

    done = future.result()
    assert (done.answer.answer, done.exit_index) == (3, 3)
    assert done.queue_s == pytest.approx(0.0, abs=1e-9)
    assert done.compute_s == pytest.approx(0.024)


def test_the_least_slack_is_served_first():
    server = Server()
    for name, slack_s in (("loose", 0.9), ("tight", 0.1), ("middle", 0.5)):
        server.send(name, slack_s=slack_s)
    server.work()

    assert server.order == ["tight", "middle", "loose"]


def test_slack_counts_the_work_that_is_left():
    server = Server()
    short = server.send("short", split_point=2, slack_s=0.50)
    long = server.send("long", split_point=0, slack_s=0.51)
    server.work()

    assert short.result().queue_s == pytest.approx(0.012)
    assert long.result().queue_s == pytest.approx(0.014)


def test_an_urgent_newcomer_is_served_from_the_next_boundary_on():
    server = Server()
    server.clock.call_at(0.005, lambda: server.send("urgent", split_point=2, slack_s=0.1))
    waiting = server.send("first")
    server.work()

    assert server.order == ["urgent", "first"]
    assert server.done_s["urgent"] == pytest.approx(0.012 + 0.014)
    assert waiting.result().queue_s == pytest.approx(0.014)


def test_a_newcomer_joins_a_batch_at_the_next_boundary():
    server = Server(costs(stage=Line(0.010, 0.001)))
    server.clock.call_at(0.005, lambda: server.send("second", split_point=1))
    server.send("first")
    server.work()

    assert server.scheduler.counts.batches == {1: 1, 2: 2}


@pytest.mark.parametrize(("slack_s", "sizes"), [(9.0, {1: 12}), (0.15, {4: 3})])
def test_where_a_batch_saves_little_only_pressure_makes_one(slack_s, sizes):
    server = Server(costs(stage=Line(0.010, 0.009)))
    for index in range(4):
        server.send(index, slack_s=slack_s)
    server.work()

    assert server.scheduler.counts.batches == sizes


def test_a_batch_that_saves_nothing_is_not_made():
    server = Server()
    for index in range(4):
        server.send(index, split_point=1, slack_s=0.12)
    server.work()

    assert set(server.scheduler.counts.batches) == {1}


def test_no_one_is_late_because_of_who_joins():
    server = Server(costs(stage=Line(0.010, 0.004)), exit_threshold=1.0)
    tight = server.send("tight", slack_s=0.035)
    for index in range(3):
        server.send(index, slack_s=0.9)
    server.work()

    assert tight.result().exit_index == 3
    assert server.done_s["tight"] <= 0.035


def test_a_batch_has_a_largest_size():
    server = Server(costs(stage=Line(0.010, 0.001)), max_batch=2)
    for index in range(5):
        server.send(index)
    server.work()

    assert max(server.scheduler.counts.batches) == 2


def test_what_cannot_be_done_in_time_is_refused_at_arrival():
    server = Server()
    for index in range(5):
        server.send(index, split_point=2, slack_s=0.075)

    with pytest.raises(RefusedError, match="slack must be at least") as caught:
        server.send("late", split_point=2, slack_s=0.075)

    assert caught.value.reason == "no-time"
    assert caught.value.wait_s == pytest.approx(5 * 0.014)
    assert server.scheduler.counts.refused == {"no-time": 1}


def test_what_would_make_another_late_is_refused():
    server = Server()
    server.send("first", split_point=1, slack_s=0.030)

    with pytest.raises(RefusedError, match="leave room for 1 others") as caught:
        server.send("tight", split_point=1, slack_s=0.025)
    server.work()

    assert caught.value.reason == "no-room"
    assert server.done_s["first"] <= 0.030


def test_a_full_queue_refuses():
    server = Server(max_queue=2)
    server.send("a")
    server.send("b")

    with pytest.raises(RefusedError, match="queue must be shorter than 2") as caught:
        server.send("c")

    assert caught.value.reason == "queue-full"


@pytest.mark.parametrize(("slack_s", "exit_index"), [(0.0341, 3), (0.0339, 2), (0.025, 2)])
def test_short_of_time_an_earlier_exit_answers(slack_s, exit_index):
    server = Server()
    future = server.send("a", slack_s=slack_s)
    server.work()

    assert future.result().exit_index == exit_index
    assert server.scheduler.counts.answered_early == (exit_index < 3)


@pytest.mark.parametrize(("split_point", "slack_s"), [(0, 0.023), (1, 0.013)])
def test_an_exit_that_the_device_has_itself_is_no_answer(split_point, slack_s):
    with pytest.raises(RefusedError):
        Server().send("a", split_point=split_point, slack_s=slack_s)


def test_a_range_that_ends_at_the_first_exit_is_served():
    server = Server()
    future = server.send("a", last=1, slack_s=0.015)
    server.work()

    assert future.result().exit_index == 1


def test_what_has_become_late_is_refused_at_a_boundary():
    server = Server()
    future = server.send("a", slack_s=0.05)
    server.clock.advance(0.04)
    server.work()

    error = future.exception()
    assert isinstance(error, RefusedError)
    assert (error.reason, error.wait_s) == ("late", pytest.approx(0.04))
    assert server.scheduler.counts.refused == {"late": 1}


def test_under_pressure_an_exit_that_is_sure_answers():
    server = Server()
    futures = [server.send(i, slack_s=0.2, payload=payload(0, ease=0.9)) for i in range(5)]
    server.work()

    assert futures[0].result().exit_index == 2


def test_without_pressure_the_last_exit_answers():
    server = Server()
    future = server.send("a", payload=payload(0, ease=0.9))
    server.work()

    assert future.result().exit_index == 3


def test_an_unsure_exit_still_answers_when_time_runs_out():
    server = Server()
    future = server.send("a", slack_s=0.1)
    server.clock.call_at(0.023, lambda: server.clock.sleep_until(0.095))
    server.work()

    assert future.result().exit_index == 2
    assert server.done_s["a"] <= 0.1


def test_a_damaged_payload_fails_alone():
    server = Server(costs(stage=Line(0.010, 0.001), small=Line(0.002, 0.0)))
    good, bad, other = (
        server.send(name, split_point=1, payload=bytes_) if bytes_ else server.send(name, 1)
        for name, bytes_ in (("good", b""), ("bad", b"damaged"), ("other", b""))
    )
    server.work()

    assert isinstance(bad.exception(), PayloadError)
    assert (good.result().answer.answer, other.result().answer.answer) == (2, 2)
    assert server.scheduler.counts.failed == 1


def test_a_step_that_breaks_is_told_to_who_waits_and_the_server_goes_on():
    server = Server()
    broken = server.send("broken", split_point=1, payload=PAYLOADS[2])
    after = server.send("after")
    server.work()

    assert broken.exception() is not None
    assert after.result().exit_index == 3


def test_who_waits_no_more_is_not_worked_for():
    server = Server()
    gone, stays = server.send("gone"), server.send("stays")
    gone.cancel()
    server.work()

    assert server.done_s["stays"] == pytest.approx(0.034)
    assert stays.result().exit_index == 3
    assert server.scheduler.counts.cancelled == 1


def test_a_server_that_runs_slow_learns_it_and_forgets_it_when_idle():
    server = Server(real=costs(stage=Line(0.030, 0.030)))
    for index in range(10):
        server.send(index, slack_s=9.0)
    server.work()

    with pytest.raises(RefusedError):
        server.send("tight", split_point=2, slack_s=0.020)
    server.clock.advance(1.5)
    assert not server.send("tight", split_point=2, slack_s=0.020).done()


def test_other_users_work_takes_its_turn():
    server = Server()
    server.scheduler.occupy(0.040)
    server.send("urgent", split_point=2, slack_s=0.05)
    server.send("patient", slack_s=0.5)
    server.work()

    assert server.done_s["urgent"] == pytest.approx(0.014)
    assert server.done_s["patient"] == pytest.approx(0.014 + 0.040 + 0.034)


def test_other_users_are_turned_away_by_a_full_queue():
    server = Server(max_queue=2)
    for _ in range(5):
        server.scheduler.occupy(0.040)

    assert server.scheduler.counts.waiting == {0: 2}


def test_the_load_is_the_busy_share_of_the_last_second():
    server = Server()
    server.send("a", slack_s=5.0)
    server.work()
    server.clock.advance(0.066)

    assert server.scheduler.load == pytest.approx(0.034)
    server.clock.advance(2.0)
    assert server.scheduler.load == 0.0


def test_draining_serves_who_waits_and_refuses_who_comes():
    server = Server()
    future = server.send("a")
    server.scheduler.close()

    with pytest.raises(RefusedError, match="while it drains"):
        server.send("b")
    server.work()
    assert future.result().exit_index == 3
    assert not server.scheduler.wait()


arrivals = st.lists(
    st.tuples(st.floats(0, 0.2), st.integers(0, 2), st.floats(0.0, 0.25)), min_size=1, max_size=15
)


@settings(max_examples=20, deadline=None)
@given(
    arrivals=arrivals,
    stage=st.sampled_from([Line(0.01, 0.01), Line(0.01, 0.008), Line(0.01, 0.002)]),
)
def test_every_request_ends_once_and_an_answer_is_never_late(arrivals, stage):
    server = Server(costs(stage=stage))
    futures, refused = {}, []

    def arrive(index, split_point, slack_s):
        try:
            futures[index] = server.send(index, split_point, slack_s)
        except RefusedError:
            refused.append(index)

    for index, (time_s, split_point, slack_s) in enumerate(arrivals):
        server.clock.call_at(time_s, lambda args=(index, split_point, slack_s): arrive(*args))
    for _ in range(40):
        server.clock.advance(0.01)
        server.work()

    assert len(futures) + len(refused) == len(arrivals)
    assert sorted(server.order) == sorted(futures)
    for index, future in futures.items():
        if future.exception() is None:
            assert server.done_s[index] <= arrivals[index][0] + arrivals[index][2] + 1e-9
    counts = server.scheduler.counts
    assert counts.answered + sum(counts.refused.values()) == len(arrivals)
