"""Packets on an emulated uplink wait, are dropped, lost and delayed as the trace says."""

import pytest

from adaptive_split.runtime.emulation.packet_queue import HEADER_BYTES, DelayLine, PacketUplink
from adaptive_split.runtime.emulation.playback import Playback

PACKET = bytes(HEADER_BYTES + 1000)
"""8 ms at 1 Mbit/s."""


def steady(mbps=1.0, rtt_s=0.020):
    return Playback(
        time_s=[0.0, 50.0], uplink_mbps=[mbps] * 2, rtt_s=[rtt_s] * 2, duration_s=100.0, begin_s=0.0
    )


def uplink_of(playback, *, loss=0.0, limit_bytes=1_000_000):
    uplink = PacketUplink(limit_bytes)
    uplink.play(playback, loss, 0.0)
    return uplink


def arrivals(uplink):
    """When the packets under way arrive, in milliseconds."""
    moments = []
    while (now_s := uplink.next_s()) < float("inf"):
        moments += [round(now_s * 1e3, 3) for _ in uplink.take(now_s + 1e-9)]
    return moments


def test_packets_cross_one_after_the_other_and_arrive_half_a_round_trip_later():
    uplink = uplink_of(steady())
    for _ in range(3):
        uplink.put(PACKET, 1.0)

    assert arrivals(uplink) == [1018.0, 1026.0, 1034.0]


def test_a_packet_does_not_begin_before_it_came_however_late_one_looks():
    uplink = uplink_of(steady())
    uplink.put(PACKET, 1.0)
    uplink.put(PACKET, 1.1)
    uplink.put(PACKET, 1.104)

    assert arrivals(uplink) == [1018.0, 1118.0, 1126.0]


def test_a_packet_without_payload_costs_a_byte():
    uplink = uplink_of(steady())
    uplink.put(bytes(HEADER_BYTES), 1.0)
    uplink.put(bytes(HEADER_BYTES - 12), 1.0)

    assert arrivals(uplink) == [1010.008, 1010.016]


def test_a_packet_that_finds_the_queue_full_is_dropped():
    uplink = uplink_of(steady(), limit_bytes=2 * len(PACKET))
    for _ in range(3):
        uplink.put(PACKET, 1.0)
    uplink.put(PACKET, 1.009)  # by then the first has left

    assert arrivals(uplink) == [1018.0, 1026.0, 1034.0]


def test_lost_packets_have_used_their_time():
    uplink = uplink_of(steady(), loss=0.25)
    for _ in range(800):
        uplink.put(PACKET, 1.0)

    came = arrivals(uplink)

    assert 550 < len(came) < 650
    assert came[-1] == pytest.approx(1000 + 800 * 8 + 10, abs=100)


def test_a_trace_that_stops_lets_all_arrive_at_once_and_in_order():
    uplink = uplink_of(steady(mbps=0.0))
    packets = [bytes([number]) * 100 for number in range(3)]
    for packet in packets:
        uplink.put(packet, 1.0)

    uplink.play(None, 0.0, 2.0)

    assert list(uplink.take(2.0)) == packets


def test_another_trace_takes_over_what_waits():
    uplink = uplink_of(steady(mbps=0.0))
    uplink.put(PACKET, 1.0)

    uplink.play(steady(mbps=8.0, rtt_s=0.0), 0.0, 2.0)

    assert arrivals(uplink) == [2001.0]


def test_without_a_trace_packets_arrive_at_once():
    uplink = PacketUplink()
    uplink.put(PACKET, 1.0)

    assert list(uplink.take(1.0)) == [PACKET]
    assert uplink.next_s() == float("inf")


def test_packets_on_a_line_do_not_overtake():
    line = DelayLine()
    line.put(2.0, b"first")
    line.put(1.0, b"second")

    assert list(line.take(1.5)) == []
    assert list(line.take(2.0)) == [b"first", b"second"]
