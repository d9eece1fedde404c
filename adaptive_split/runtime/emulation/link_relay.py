"""The far end of a link of namespaces: passes connections on to the server, bytes as they come.

`python -m adaptive_split.runtime.emulation.link_relay FD HOST:PORT` accepts from the listening
socket with that descriptor, which may belong to another namespace, and ends with its standard
input.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading

from adaptive_split.runtime.emulation.priority import run_first

CHUNK_BYTES = 65_536
CONNECT_S = 5.0


def pump(source: socket.socket, sink: socket.socket) -> None:
    """Pass on what comes until it ends; pass the end on as well, and a reset as the end of all."""
    try:
        while data := source.recv(CHUNK_BYTES):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def join_ends(device: socket.socket, target: tuple[str, int]) -> None:
    """Carry one connection until both of its ends have hung up."""
    with device:
        try:
            server = socket.create_connection(target, timeout=CONNECT_S)
        except OSError:
            return
        with server:
            server.settimeout(None)
            for end in (device, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            way_back = threading.Thread(target=pump, args=(server, device), daemon=True)
            way_back.start()
            pump(device, server)
            way_back.join()


def accept(listener: socket.socket, target: tuple[str, int]) -> None:
    """Carry every connection that comes, each to a server asked anew."""
    while True:
        device, _ = listener.accept()
        threading.Thread(target=join_ends, args=(device, target), daemon=True).start()


def main() -> None:
    """Run the relay; see the module's docstring."""
    run_first()
    host, port = sys.argv[2].rsplit(":", 1)
    listener = socket.socket(fileno=int(sys.argv[1]))
    threading.Thread(target=accept, args=(listener, (host, int(port))), daemon=True).start()
    sys.stdin.read()
    os._exit(0)  # connections end as those of a killed process do


if __name__ == "__main__":
    main()
