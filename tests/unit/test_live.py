"""The watchdog, on the real clock: frames are settled while nobody else looks."""

import threading

import pytest

from adaptive_split.clock import MonotonicClock
from adaptive_split.decision import NEVER, Decision
from adaptive_split.objective import Objective
from adaptive_split.runtime.ledger import EnergyModel, Ledger, OpenFrame
from adaptive_split.runtime.live import Watchdog
from adaptive_split.runtime.source import Picture
from adaptive_split.runtime.stages import ExitAnswer
from adaptive_split.testing import TinyStages, tiny_picture

FAR_S = 60.0


class Watched:
    """A ledger under watch; `settled` is set with the first answer."""

    def __init__(self):
        self.settled, self.reports = threading.Event(), []
        energy = EnergyModel(compute_w=1.0, send_w=1.0, joules_per_mbit=0.0, provenance="modelled")
        self.ledger = Ledger(MonotonicClock(), Objective(slo_s=0.1), energy, self.answer)
        self.watchdog = Watchdog(self.ledger)

    def answer(self, report):
        """Note a report."""
        self.reports.append(report)
        self.settled.set()

    def offer(self, index, within_s):
        """Give a frame, due so soon, its first answer."""
        now_s = self.ledger.clock.now_s()
        frame = OpenFrame(
            index=index, picture=Picture(0, tiny_picture(0, 0.0), 0),
            decision=Decision(1, NEVER, 4), arrival_s=now_s, deadline_s=now_s + within_s,
            give_up_s=now_s + within_s,
        )  # fmt: skip
        self.ledger.open(frame)
        self.ledger.offer(frame, 1, ExitAnswer(0, 0.5, TinyStages().exit(1, FEATURE).logits))


FEATURE = TinyStages().stage(1, TinyStages().prepare(tiny_picture(0, 0.0)))


@pytest.fixture
def watched():
    watched = Watched()
    yield watched
    watched.watchdog.close()


def test_a_frame_that_gets_its_first_answer_while_the_watchdog_sleeps_is_settled(watched):
    watched.offer(0, 0.05)

    assert watched.settled.wait(FAR_S / 2)
    assert [report.fallback_reason for report in watched.reports] == ["late"]


def test_a_frame_due_before_the_one_the_watchdog_waits_for_is_settled_first(watched):
    watched.offer(0, FAR_S)
    watched.offer(1, 0.05)

    assert watched.settled.wait(FAR_S / 2)
    assert [report.frame_index for report in watched.reports] == [1]


def test_a_frame_due_after_the_one_the_watchdog_waits_for_is_not_forgotten(watched):
    watched.offer(0, 0.05)
    watched.offer(1, 0.06)

    while len(watched.reports) < 2:
        assert watched.settled.wait(FAR_S / 2)
        watched.settled.clear()
    assert [report.frame_index for report in watched.reports] == [0, 1]
