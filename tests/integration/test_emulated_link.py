"""The emulated link keeps the rate and the delay of its trace."""

import contextlib
import socket
import threading
import time

import numpy as np
import pytest

from adaptive_split.errors import LinkError
from adaptive_split.runtime.emulated_link import EmulatedLink
from adaptive_split.runtime.link_proxy import Playback
from adaptive_split.trace import Trace


def trace_of(rates, rtts, period_s=1.0):
    time_s = np.arange(len(rates)) * period_s
    return Trace("test", "test", time_s, np.array(rates, float), np.array(rtts, float))


class Sink:
    """A server that notes when bytes come and echoes every `!`."""

    def __init__(self):
        self.arrivals = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._serve)]
        self._threads[0].start()

    def close(self):
        """Stop listening; connections end with their peer."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()

    def _serve(self):
        with contextlib.suppress(OSError):
            while True:
                peer, _ = self._listener.accept()
                self._threads.append(threading.Thread(target=self._read, args=(peer,)))
                self._threads[-1].start()

    def _read(self, peer):
        with peer, contextlib.suppress(OSError):
            while data := peer.recv(65_536):
                self.arrivals.append((time.monotonic(), len(data)))
                if data.endswith(b"!"):
                    peer.sendall(b"!")


@pytest.fixture
def sink():
    sink = Sink()
    yield sink
    sink.close()


@pytest.fixture
def link(sink):
    with EmulatedLink(sink.address) as link:
        yield link


def connect(link):
    peer = socket.create_connection(("127.0.0.1", link.port))
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return peer


def round_trip_s(peer):
    begin_s = time.monotonic()
    peer.sendall(b"!")
    assert peer.recv(1) == b"!"
    return time.monotonic() - begin_s


def play(rates, rtts, begin_s=100.0):
    return Playback(
        time_s=[0.0, 1.0], uplink_mbps=rates, rtt_s=rtts, duration_s=2.0, begin_s=begin_s
    )


def test_bits_cross_at_the_rate_of_the_moment():
    playback = play([8.0, 2.0], [0.0, 0.0])

    assert playback.sent_s(100.5, 2e6) == pytest.approx(100.75)
    assert playback.sent_s(100.5, 5e6) == pytest.approx(101.5)
    assert playback.sent_s(100.5, 4e6 + 2e6 + 8e6 + 1e6) == pytest.approx(103.5)


def test_an_outage_holds_bits_back_until_it_ends():
    assert play([0.0, 8.0], [0.0, 0.0]).sent_s(100.2, 8e5) == pytest.approx(101.1)


def test_a_link_that_never_carries_anything_never_ends():
    assert play([0.0, 0.0], [0.0, 0.0]).sent_s(100.2, 8.0) == float("inf")


def test_round_trips_follow_the_trace_and_repeat():
    playback = play([1.0, 1.0], [0.030, 0.080])

    assert [playback.rtt_at(moment) for moment in (100.5, 101.5, 102.5)] == [0.030, 0.080, 0.030]


@pytest.mark.slow
@pytest.mark.parametrize("mbps", [5.0, 20.0])
def test_the_rate_is_kept_within_five_percent(link, sink, mbps):
    link.start(trace_of([mbps, mbps], [0.01, 0.01]))
    num_bytes = int(mbps * 1e6 / 8 * 2.0)
    with connect(link) as peer:
        peer.sendall(bytes(num_bytes))
        while sum(size for _, size in sink.arrivals) < num_bytes:
            time.sleep(0.02)

    first, last = sink.arrivals[0], sink.arrivals[-1]
    measured = (num_bytes - first[1]) * 8e-6 / (last[0] - first[0])
    assert measured == pytest.approx(mbps, rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("rtt_s", [0.010, 0.080])
def test_the_delay_is_kept_within_three_milliseconds(link, rtt_s):
    with connect(link) as peer:
        round_trip_s(peer)
        link.start(trace_of([20.0, 20.0], [rtt_s, rtt_s]))
        # The least of some: a busy machine adds to many, and takes from none.
        measured = min(round_trip_s(peer) for _ in range(20))

    assert measured == pytest.approx(rtt_s, abs=0.003)


@pytest.mark.slow
def test_a_lost_reply_is_a_round_trip_of_a_second_and_a_half(link):
    with connect(link) as peer:
        round_trip_s(peer)
        link.start(trace_of([20.0, 20.0], [np.nan, np.nan]))

        assert round_trip_s(peer) == pytest.approx(1.5, abs=0.05)


@pytest.mark.slow
def test_a_trace_can_start_in_its_middle_and_be_stopped(link):
    with connect(link) as peer:
        begin_s = link.start(trace_of([20.0, 20.0], [0.3, 0.010]), offset_s=1.0)
        in_the_middle_s = min(round_trip_s(peer) for _ in range(5))
        link.stop()
        stopped_s = min(round_trip_s(peer) for _ in range(5))

    assert begin_s == pytest.approx(time.monotonic(), abs=5.0)
    assert in_the_middle_s == pytest.approx(0.010, abs=0.005)
    assert stopped_s < 0.005


@pytest.mark.slow
def test_a_server_that_hangs_up_is_passed_on():
    listener = socket.create_server(("127.0.0.1", 0))
    with EmulatedLink(f"127.0.0.1:{listener.getsockname()[1]}") as link:
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

    with pytest.raises((LinkError, ValueError)):
        link.stop()
