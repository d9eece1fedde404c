"""Who is let in, how much and how often; what is refused is counted and told sparingly."""

import logging
import os
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptive_split.errors import BundleError, ConfigError, LinkError, PayloadError
from adaptive_split.runtime.credentials import Caller
from adaptive_split.runtime.serving.allow_list import AllowList
from adaptive_split.runtime.serving.guard import (
    MAX_DEVICES,
    REASONS,
    Guard,
    Limits,
    NotAllowedError,
    OversizedError,
)
from adaptive_split.runtime.serving.refusals import LOG_EVERY_S, MAX_LINES, Refusals
from adaptive_split.runtime.serving.replay import MAX_RUNS, WINDOW, ReplayedError, Runs
from adaptive_split.runtime.wire import RefusedError
from adaptive_split.testing import ManualClock

CAM, OTHER = (Caller(name, frozenset({name})) for name in ("cam-1", "cam-2"))
EVERYONE = AllowList(frozenset())
NOTHING = dict.fromkeys(REASONS, 0)


def make_guard(clock=None, allow_list=EVERYONE, most_bytes=1000, **limits):
    return Guard(clock or ManualClock(), Limits(**limits), allow_list, most_bytes=most_bytes)


def ask(guard, caller=CAM, num_bytes=10, error=None):
    with guard.admit(caller):
        guard.weigh(caller, num_bytes)
        if error:
            raise error


def test_a_device_may_ask_so_often_and_no_more():
    clock = ManualClock()
    guard = make_guard(clock, requests_per_s=10, burst_s=2)
    for _ in range(21):
        ask(guard)
    with pytest.raises(RefusedError, match="at most 10 requests per second") as caught:
        ask(guard)

    assert caught.value.wait_s == pytest.approx(0.1)
    ask(guard, OTHER)
    clock.advance(0.15)
    ask(guard)
    assert guard.refused() == {**NOTHING, "rate": 1}


def test_the_wait_told_is_enough():
    clock = ManualClock()
    guard = make_guard(clock, bytes_per_s=1000, burst_s=1)
    ask(guard, num_bytes=900)
    ask(guard, num_bytes=900)

    with pytest.raises(RefusedError, match="at most 1000 bytes per second") as caught:
        ask(guard, num_bytes=1)

    clock.advance(caught.value.wait_s)
    ask(guard, num_bytes=1)
    assert guard.refused() == {**NOTHING, "bytes": 1}


def test_a_device_may_have_so_many_requests_open():
    guard = make_guard(max_concurrent=2)
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(guard.admit(CAM))
        with pytest.raises(RefusedError, match="at most 2 requests open"):
            ask(guard)
        ask(guard, OTHER)

    ask(guard)
    assert guard.refused() == {**NOTHING, "concurrent": 1}


def test_a_message_larger_than_any_of_use_is_refused():
    guard = make_guard(most_bytes=1000)

    with pytest.raises(OversizedError, match="1000 bytes at most; got 1001"):
        ask(guard, num_bytes=1001)
    assert guard.refused() == {**NOTHING, "size": 1}


@pytest.mark.parametrize("name", ["requests_per_s", "bytes_per_s", "burst_s", "max_concurrent"])
def test_a_limit_must_let_something_through(name):
    with pytest.raises(ConfigError, match=f"{name} must be positive; got 0"):
        Limits(**{name: 0})


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (PayloadError("damaged"), "malformed"),
        (BundleError("other"), "bundle"),
        (RefusedError("full", reason="queue-full"), "queue-full"),
        (LinkError("gone"), "failed"),
    ],
)
def test_what_fails_later_is_counted_by_its_reason(error, reason):
    guard = make_guard(max_concurrent=1)

    with pytest.raises(type(error)):
        ask(guard, error=error)
    ask(guard)
    assert guard.refused() == {**NOTHING, reason: 1}


def test_devices_beyond_the_memory_are_forgotten():
    guard = make_guard(requests_per_s=1, burst_s=1)
    ask(guard)
    ask(guard)
    with pytest.raises(RefusedError):
        ask(guard)

    for index in range(MAX_DEVICES):
        ask(guard, Caller(f"10.0.0.1:{index}", frozenset()))
    ask(guard)


def test_a_frame_is_answered_once_per_run():
    guard = make_guard()
    with guard.once(CAM, "a", 7):
        pass

    with guard.once(CAM, "b", 7), guard.once(OTHER, "a", 7), guard.once(CAM, "", 7):
        pass
    with pytest.raises(ReplayedError, match="got frame 7 of run 'a'"), guard.once(CAM, "a", 7):
        pass


def test_a_frame_under_way_is_not_taken_twice_and_one_that_failed_may_come_again():
    guard = make_guard()

    def answer(error=None):
        with guard.once(CAM, "a", 7):
            if error:
                raise error
            with pytest.raises(ReplayedError), guard.once(CAM, "a", 7):
                pass

    with pytest.raises(RefusedError):
        answer(RefusedError("full"))
    answer()


@given(st.lists(st.integers(-5, 2 * WINDOW), max_size=200))
def test_a_run_takes_what_is_new_and_not_too_old(indices):
    runs, seen, newest = Runs(), set(), -1
    for index in indices:
        is_new = index not in seen and index > newest - WINDOW
        try:
            runs.take("a", index)
            taken = True
        except ReplayedError:
            taken = False
        assert taken == is_new
        seen.add(index)
        newest = max(newest, index)


def test_giving_a_frame_back_changes_no_other():
    runs = Runs()
    for index in (0, 1, 2, 5 * WINDOW):
        runs.take("a", index)
    runs.give_back("a", 0)
    runs.give_back("nobody", 0)

    for index in (0, 2, 5 * WINDOW):
        with pytest.raises(ReplayedError):
            runs.take("a", index)


def test_a_huge_frame_index_costs_no_memory():
    runs = Runs()

    runs.take("a", 2**63 - 1)

    with pytest.raises(ReplayedError):
        runs.take("a", 1)


def test_only_the_last_runs_are_remembered():
    runs = Runs()
    for run in range(MAX_RUNS + 1):
        runs.take(str(run), 0)

    runs.take("0", 0)
    with pytest.raises(ReplayedError):
        runs.take(str(MAX_RUNS), 0)


@pytest.mark.parametrize("name", ["cam-2", "cam-11", "CAM-1", "cam-1.example", ""])
def test_a_name_is_compared_letter_by_letter(name):
    guard = make_guard(allow_list=AllowList(frozenset({"cam-1"})))

    ask(guard, CAM)
    with pytest.raises(NotAllowedError, match="must be on the server's list"):
        ask(guard, Caller(name, frozenset({name})))
    assert guard.refused() == {**NOTHING, "not-allowed": 1}


def replace_file(path, text):
    """As an editor does: a new file takes the old one's place."""
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    os.replace(fresh, path)


def test_the_list_follows_its_file(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    path = tmp_path / "allowed"
    path.write_text("# cameras\ncam-1  # the gate\n\n")
    allowed = AllowList(frozenset({"always"}), path)
    assert allowed.admits(CAM.names)
    assert not allowed.admits(OTHER.names)

    replace_file(path, "cam-2\n")

    assert allowed.admits(OTHER.names)
    assert not allowed.admits(CAM.names)
    assert allowed.admits(frozenset({"always"}))
    assert "read the allow-list" in caplog.text


def test_an_empty_file_lets_nobody_in(tmp_path):
    path = tmp_path / "allowed"
    path.write_text("")

    assert not AllowList(frozenset(), path).admits(CAM.names)


@pytest.mark.parametrize("damage", [os.unlink, lambda path: path.write_bytes(b"\xff")])
def test_a_list_that_cannot_be_read_changes_nothing(tmp_path, caplog, damage):
    path = tmp_path / "allowed"
    path.write_text("cam-1\n")
    allowed = AllowList(frozenset(), path)

    damage(path)

    for _ in range(3):
        assert allowed.admits(CAM.names)
        assert not allowed.admits(OTHER.names)
    assert caplog.text.count("keeping the allow-list of before") == 1


def test_a_missing_list_is_an_error_at_the_start(tmp_path):
    with pytest.raises(ConfigError, match="an allow-list must be a readable text file"):
        AllowList(frozenset(), tmp_path / "missing")


def test_refusals_are_told_once_in_a_while_and_all_counted(caplog):
    clock = ManualClock()
    refusals = Refusals(clock, REASONS)
    for _ in range(100):
        refusals.add("rate", "cam-1", "too fast")
    refusals.add("size", "cam-1", "too large")
    clock.advance(LOG_EVERY_S)
    refusals.add("rate", "cam-1", "too fast")

    assert refusals.counts() == {**NOTHING, "rate": 101, "size": 1}
    assert [record.getMessage() for record in caplog.records] == [
        "refused a request of cam-1 (rate, 1 since the last such line): too fast",
        "refused a request of cam-1 (size, 1 since the last such line): too large",
        "refused a request of cam-1 (rate, 100 since the last such line): too fast",
    ]


def test_inventing_devices_costs_no_memory(caplog):
    caplog.set_level(logging.CRITICAL)
    refusals = Refusals(ManualClock(), REASONS)

    for index in range(3 * MAX_LINES):
        refusals.add("rate", f"device {index}", "")

    assert len(refusals._lines) == MAX_LINES
