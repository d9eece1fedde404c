"""Emulated links of every kind keep the rate, the delay and the outages of their trace."""

import socket
import time

import numpy as np
import pytest

from adaptive_split.errors import ConfigError, LinkError
from adaptive_split.runtime.emulation.namespace_link import LINKS, open_link
from tests.played_links import Sink, connect, link_or_skip, round_trip_s, trace_of

WINDOW_S = 0.25


@pytest.fixture
def sink():
    sink = Sink()
    yield sink
    sink.close()


@pytest.fixture(params=LINKS)
def kind(request):
    return request.param


@pytest.fixture
def link(kind, sink):
    with link_or_skip(kind, sink.address) as link:
        yield link


def rates_mbps(arrivals, warm_up_bytes):
    """Rate in each window after the first bytes."""
    time_s, sizes = np.array(arrivals).T
    came = sizes.cumsum()
    begin_s = time_s[np.searchsorted(came, warm_up_bytes)]
    edges_s = np.arange(begin_s, time_s[-1], WINDOW_S)
    return np.diff(np.interp(edges_s, time_s, came)) * 8e-6 / WINDOW_S


@pytest.mark.slow
@pytest.mark.parametrize("mbps", [1.0, 5.0, 20.0])
def test_the_rate_is_kept_within_five_percent(link, sink, mbps):
    link.start(trace_of([mbps, mbps], [0.01, 0.01]))
    warm_up_bytes, num_bytes = 60_000, int(mbps * 1e6 / 8 * 3.0)
    with connect(link) as peer:
        peer.sendall(bytes(warm_up_bytes + num_bytes))
        sink.wait_for(warm_up_bytes + num_bytes)

    # A moment that the machine takes from link or sink makes one window low and perhaps the next
    # one high; the rate is what most of them have.
    measured = np.median(rates_mbps(sink.arrivals, warm_up_bytes))
    assert measured == pytest.approx(mbps, rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("rtt_s", [0.010, 0.080])
def test_the_delay_is_kept_within_two_milliseconds(link, rtt_s):
    link.start(trace_of([20.0, 20.0], [rtt_s, rtt_s]))
    with connect(link) as peer:
        # The least of some: a busy machine adds to many, and takes from none.
        measured = min(round_trip_s(peer) for _ in range(20))

    assert measured == pytest.approx(rtt_s, abs=0.002)


@pytest.mark.slow
def test_nothing_crosses_during_an_outage(link, sink):
    outage = (1.0, 3.0)
    with connect(link) as peer:
        begin_s = link.start(trace_of([8.0, 0.0, 0.0, 8.0, 8.0, 8.0], [0.02] * 6))
        peer.sendall(bytes(2_000_000))
        sink.wait_for(2_000_000)

    late_s = 0.3  # for what had left before, and for a server that is slow to note it
    arrivals_s = [arrival_s - begin_s for arrival_s, _ in sink.arrivals]
    assert not [s for s in arrivals_s if outage[0] + late_s < s < outage[1]]
    assert [s for s in arrivals_s if s < outage[0]]


@pytest.mark.slow
def test_a_lost_reply_is_a_round_trip_of_a_second_and_a_half(link):
    with connect(link) as peer:
        round_trip_s(peer)
        link.start(trace_of([20.0, 20.0], [np.nan, np.nan]))

        assert round_trip_s(peer) == pytest.approx(1.5, abs=0.05)


@pytest.mark.slow
def test_a_trace_can_start_in_its_middle_and_be_stopped(link):
    with connect(link) as peer:
        begin_s = link.start(trace_of([20.0, 20.0], [0.3, 0.010], period_s=30.0), offset_s=30.0)
        in_the_middle_s = min(round_trip_s(peer) for _ in range(20))
        link.stop()
        stopped_s = min(round_trip_s(peer) for _ in range(20))

    assert begin_s == pytest.approx(time.monotonic(), abs=20.0)
    assert in_the_middle_s == pytest.approx(0.010, abs=0.005)
    assert stopped_s < 0.005


@pytest.mark.slow
def test_what_is_under_way_crosses_at_once_when_the_trace_stops(link, sink):
    with connect(link) as peer:
        link.start(trace_of([0.0, 0.0], [0.5, 0.5]))
        peer.sendall(bytes(5000))
        link.stop()
        sink.wait_for(5000)


@pytest.mark.slow
def test_a_server_that_hangs_up_is_passed_on(kind):
    listener = socket.create_server(("127.0.0.1", 0))
    with link_or_skip(kind, f"127.0.0.1:{listener.getsockname()[1]}") as link:
        with connect(link) as peer:
            server, _ = listener.accept()
            server.close()
            assert peer.recv(1) == b""
        listener.close()
        with connect(link) as peer:
            assert peer.recv(1) == b""


@pytest.mark.slow
def test_a_link_that_has_ended_says_so(link):
    link.close()

    with pytest.raises(LinkError, match="the emulated link must be running"):
        link.stop()


def test_a_link_of_another_kind_is_refused():
    with pytest.raises(ConfigError, match="link must be one of proxy, namespaces; got 'string'"):
        open_link("string", "127.0.0.1:1")
