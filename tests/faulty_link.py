"""A TCP proxy on this machine that breaks as links break, on command; a thread of its own."""

import contextlib
import select
import socket
import struct
import threading
import time

RESET = struct.pack("ii", 1, 0)
"""With this linger a closed socket sends a reset instead of an end."""
NAP_S = 0.02


class FaultyLink:
    """Passes bytes between devices and a server until told otherwise.

    Attributes:
        num_connections: Connections that devices tried to open, the refused ones included.
    """

    def __init__(self, port):
        self.num_connections = 0
        self._server_port = port
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._peers = {}
        self._dead = []
        self._cut = self._held = self._closed = False
        self._bytes_per_s = None
        self._free_s = {}
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._relay, daemon=True)
        self._thread.start()

    def __enter__(self):
        """Return the link itself."""
        return self

    def __exit__(self, *_):
        """Take it down."""
        self._closed = True
        self._thread.join()
        for end in (*self._peers, *self._dead, self._listener):
            end.close()

    def cut(self):
        """Reset every connection, and every new one, until healed."""
        with self._lock:
            self._cut = True
            for end in list(self._peers):
                self._reset(end)

    def hold(self):
        """Swallow everything while connections stay up; as TCP repeats, it comes when healed."""
        with self._lock:
            self._held = True

    def forget(self):
        """Lose every connection without telling its ends; new ones work."""
        with self._lock:
            self._dead += list(self._peers)
            self._peers.clear()

    def limit(self, bytes_per_s):
        """Pass no more than so much per connection and direction, from the next byte on."""
        with self._lock:
            self._bytes_per_s = bytes_per_s

    def heal(self):
        """Pass all bytes at once again."""
        with self._lock:
            self._cut = self._held = False
            self._bytes_per_s = None
            self._free_s.clear()

    def lead_to(self, port):
        """Lead new connections to another server; what is open stays."""
        with self._lock:
            self._server_port = port

    def _relay(self):
        while not self._closed:
            with self._lock:
                now_s = time.monotonic()
                free = [end for end in self._peers if self._free_s.get(end, 0.0) <= now_s]
                ends = [] if self._held else [self._listener, *free]
            ready = []
            with contextlib.suppress(OSError, ValueError):  # closed by a cut meanwhile
                ready, _, _ = select.select(ends, [], [], NAP_S / 4 if self._bytes_per_s else NAP_S)
            with self._lock:
                for end in () if self._held else ready:
                    if end is self._listener:
                        self._accept()
                    elif end in self._peers:
                        self._pass(end)

    def _accept(self):
        device, _ = self._listener.accept()
        self.num_connections += 1
        try:
            if self._cut:
                raise ConnectionRefusedError
            server = socket.create_connection(("127.0.0.1", self._server_port), timeout=1.0)
        except OSError:
            device.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            device.close()
            return
        for end in (device, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._peers |= {device: server, server: device}

    def _pass(self, end):
        try:
            rate = self._bytes_per_s
            data = end.recv(max(1, int(NAP_S * rate)) if rate else 65_536)
            if rate:
                self._free_s[end] = time.monotonic() + len(data) / rate
            if data:
                self._peers[end].sendall(data)
                return
        except OSError:
            pass
        self._reset(end)

    def _reset(self, end):
        other = self._peers.pop(end, None)
        if other is None:
            return
        del self._peers[other]
        for side in (end, other):
            side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            side.close()
