"""What tests of emulated links share: traces, a server that notes arrivals, a device's side."""

import contextlib
import socket
import threading
import time

import numpy as np
import pytest

from adaptive_split.runtime.emulation.namespace_link import open_link
from adaptive_split.runtime.emulation.tun_device import find_obstacle
from adaptive_split.trace import Trace

WAIT_S = 60.0
"""For what must come, on a machine that others use as well."""


def trace_of(rates, rtts, period_s=1.0):
    time_s = np.arange(len(rates)) * period_s
    return Trace("test", "test", time_s, np.array(rates, float), np.array(rtts, float))


class Sink:
    """A server that notes when bytes come and echoes every `!`."""

    def __init__(self):
        self.arrivals = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._change = threading.Condition()
        self._threads = [threading.Thread(target=self._serve)]
        self._threads[0].start()

    def close(self):
        """Stop listening; connections end with their peer."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()

    def num_bytes(self):
        """How many have come."""
        return sum(size for _, size in self.arrivals)

    def wait_for(self, num_bytes):
        """Wait until so many bytes have come in all."""
        with self._change:
            assert self._change.wait_for(lambda: self.num_bytes() >= num_bytes, WAIT_S)

    def _serve(self):
        with contextlib.suppress(OSError):
            while True:
                peer, _ = self._listener.accept()
                peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._threads.append(threading.Thread(target=self._read, args=(peer,)))
                self._threads[-1].start()

    def _read(self, peer):
        with peer, contextlib.suppress(OSError):
            while data := peer.recv(65_536):
                with self._change:
                    self.arrivals.append((time.monotonic(), len(data)))
                    self._change.notify_all()
                if data.endswith(b"!"):
                    peer.sendall(b"!")


@contextlib.contextmanager
def link_or_skip(kind, server):
    """A link of a kind; skips the test where this machine cannot have it."""
    if kind == "namespaces" and (obstacle := find_obstacle()):
        pytest.skip(f"no TUN devices and namespaces here: {obstacle}")
    with open_link(kind, server) as link:
        yield link


def connect(link):
    """Open a connection through a link, with the congestion control that most devices have."""
    host, port = link.address.rsplit(":", 1)
    peer = socket.create_connection((host, int(port)), timeout=WAIT_S)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"cubic")
    return peer


def round_trip_s(peer):
    """Time from an empty message to its answer."""
    begin_s = time.monotonic()
    peer.sendall(b"!")
    assert peer.recv(1) == b"!"
    return time.monotonic() - begin_s
