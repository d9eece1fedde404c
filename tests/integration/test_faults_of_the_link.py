"""A link or a server that fails costs no answers, and is used again once it works."""

import signal

import pytest

from tests.fault_bench import RECOVERY_S, Script, run_device, tiny_server
from tests.faulty_link import FaultyLink

pytestmark = pytest.mark.slow
BREAK_S = 1.0


@pytest.fixture
def server():
    with tiny_server() as server:
        yield server


@pytest.fixture
def link(server):
    with FaultyLink(server.port) as link:
        yield link


def check_outage(run, begin_s, end_s):
    """All frames answered, by the device alone while nothing works, with the server afterwards."""
    run.check()
    dark = run.between(begin_s + 0.2, end_s - 0.2)
    assert {report.answered_by for report in dark} <= {"device", ""}
    assert "breaker" in {report.fallback_reason for report in dark}
    assert run.back_after_s(end_s) < RECOVERY_S


def play_outage(link, fail, heal, outage_s):
    end_s = BREAK_S + outage_s
    controller = Script((BREAK_S, fail), (end_s, heal))
    return run_device(link.address, controller, end_s + RECOVERY_S)


def test_a_killed_and_restarted_server_costs_no_answers(server, link):
    # The next process is there already: how long one takes to start is not in question.
    with tiny_server() as again:
        run = play_outage(link, server.kill, lambda: link.lead_to(again.port), 4.0)

    check_outage(run, BREAK_S, BREAK_S + 4.0)


def test_a_stalled_server_costs_no_answers(server, link):
    run = play_outage(
        link,
        lambda: server.signal(signal.SIGSTOP),
        lambda: server.signal(signal.SIGCONT),
        5.0,
    )

    check_outage(run, BREAK_S, BREAK_S + 5.0)


def test_a_link_cut_for_ten_seconds_costs_no_answers_and_causes_no_storm(link):
    counts = []

    def note(then):
        counts.append(link.num_connections)
        then()

    run = play_outage(link, lambda: note(link.cut), lambda: note(link.heal), 10.0)

    check_outage(run, BREAK_S, BREAK_S + 10.0)
    # Probes after 1/4, 1/2, 1 and every 1.5 s, and gRPC's own tries, which thin out.
    assert 4 <= counts[1] - counts[0] <= 20


def test_a_black_hole_costs_no_answers(link):
    run = play_outage(link, link.hold, link.heal, 6.0)

    check_outage(run, BREAK_S, BREAK_S + 6.0)


def test_a_black_hole_that_swallows_the_old_connections_for_good_costs_no_answers(link):
    def fail():
        link.forget()
        link.hold()

    run = play_outage(link, fail, link.heal, 6.0)

    check_outage(run, BREAK_S, BREAK_S + 6.0)


def test_a_connection_whose_far_end_vanished_is_replaced(link):
    run = run_device(link.address, Script((BREAK_S, link.forget)), BREAK_S + RECOVERY_S)

    run.check()
    assert run.back_after_s(BREAK_S + 0.5) < RECOVERY_S
    assert link.num_connections == 2


def test_a_link_slower_by_90_percent_within_a_transfer_costs_no_answers(link):
    # A payload of 0.3 to 1 KB takes several of the link's pieces; some is always under way.
    link.limit(12_000)
    end_s = BREAK_S + 4.0
    controller = Script((BREAK_S, lambda: link.limit(1_200)), (end_s, lambda: link.limit(12_000)))

    run = run_device(link.address, controller, end_s + RECOVERY_S)

    run.check()
    before, slow = run.between(0.0, BREAK_S - 0.2), run.between(BREAK_S + 0.2, end_s - 0.2)
    by_server = [
        sum(report.answered_by == "server" for report in reports) / len(reports)
        for reports in (before, slow)
    ]
    assert by_server[1] < by_server[0] / 2
    assert {"late", "unsent"} & {report.fallback_reason for report in slow}
    assert run.back_after_s(end_s) < RECOVERY_S
