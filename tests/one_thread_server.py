"""A server on a port of its own that serves its connections one after the other."""

import socket
import threading
from contextlib import suppress


class OneThreadServer:
    """Listens once constructed; `serve(peer)` is called for every connection, then it hangs up.

    After `num_connections` nobody is heard any more.
    """

    def __init__(self, serve, num_connections):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._serve, self._num_connections = serve, num_connections
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._listener.close()
        self._thread.join()

    def _accept(self):
        with suppress(OSError), self._listener:
            for _ in range(self._num_connections):
                peer, _ = self._listener.accept()
                with peer:
                    self._serve(peer)
