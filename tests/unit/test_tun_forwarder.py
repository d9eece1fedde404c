"""The forwarder carries packets between any two devices; here sockets stand for them."""

import json
import socket
import threading

import pytest

from adaptive_split.runtime.emulation.tun_forwarder import Forwarder

FIRST, SECOND, OF_IPV6 = b"\x45first", b"\x45second", b"\x60neighbors"


class Ends:
    """A running forwarder and what its two devices and its orders hang on."""

    def __init__(self):
        self.near, near = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.far, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.orders, orders = socket.socketpair()
        self._sockets = [self.near, self.far, self.orders, near, far, orders]
        for device in (near, far):
            device.setblocking(False)
        for end in (self.near, self.far):
            end.settimeout(60.0)
        forwarder = Forwarder(near.fileno(), far.fileno(), orders.fileno())
        self._thread = threading.Thread(target=forwarder.run)
        self._thread.start()

    def end(self):
        """Hang up on the orders, which ends the forwarder."""
        self.orders.shutdown(socket.SHUT_WR)
        self._thread.join(60.0)
        assert not self._thread.is_alive()

    def close(self):
        """End it and close everything."""
        self.end()
        for one in self._sockets:
            one.close()


@pytest.fixture
def ends():
    ends = Ends()
    yield ends
    ends.close()


def test_packets_cross_both_ways_in_order_and_those_of_ipv6_do_not(ends):
    for packet in (OF_IPV6, FIRST, SECOND):
        ends.near.send(packet)
        ends.far.send(packet)

    assert [ends.far.recv(100), ends.far.recv(100)] == [FIRST, SECOND]
    assert [ends.near.recv(100), ends.near.recv(100)] == [FIRST, SECOND]


def test_a_device_that_is_gone_costs_its_packets_only(ends):
    ends.far.close()
    ends.near.send(FIRST)
    ends.orders.send(b"{}\n")

    ends.end()


def test_orders_may_come_in_pieces_and_each_is_answered(ends, capsys):
    for piece in (b"{", b"}\n{}", b"\n"):
        ends.orders.send(piece)
    ends.end()

    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [list(answer) for answer in answers] == [["begin_s"], ["begin_s"]]
    assert answers[0]["begin_s"] <= answers[1]["begin_s"]
