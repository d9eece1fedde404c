"""Serves the page of `adaptive-split dash`: three files and one JSON text, to be read only."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from adaptive_split.errors import ConfigError

_log = logging.getLogger(__name__)

PAGE = Path(__file__).parents[2] / "data" / "dash"
FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/dash.css": ("dash.css", "text/css; charset=utf-8"),
    "/dash.js": ("dash.js", "text/javascript; charset=utf-8"),
}
STATE = "/state.json"
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
LONGEST_REQUEST_S, LONGEST_CLOSE_S = 10.0, 0.2


class DashPage:
    """Listens on threads of its own once constructed, until closed."""

    def __init__(self, state: Callable[[], bytes], *, host: str, port: int) -> None:
        """Listen.

        Args:
            state: Gives the JSON text; called on any thread.
            host: Interface to bind; on a loopback one, requests under another name are refused, so
                that no foreign page can read this one by pointing its own name here.
            port: 0 = one that is free.

        Raises:
            ConfigError: If the address cannot be bound.
        """
        files = {path: ((PAGE / name).read_bytes(), kind) for path, (name, kind) in FILES.items()}
        handler = _handler(files, state, guarded=_is_loopback(host))
        try:
            self._server = _Server((host, port), handler)
        except (OSError, OverflowError) as error:
            raise ConfigError(
                f"the page must be able to bind {host}:{port}; got {error}; give another --port"
            ) from error
        self.address = f"{host}:{self._server.server_port}"
        """`host:port`."""
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(LONGEST_CLOSE_S,), name="dash", daemon=True
        )
        self._thread.start()

    def __enter__(self) -> DashPage:
        """Return the page itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Pass over a reader who went away in the middle."""
        _log.debug("a reader was lost", exc_info=True)


def _handler(
    files: dict[str, tuple[bytes, str]], state: Callable[[], bytes], *, guarded: bool
) -> type[BaseHTTPRequestHandler]:
    """A handler that knows what to answer; the library makes one object per connection."""

    class Handler(BaseHTTPRequestHandler):
        timeout = LONGEST_REQUEST_S
        server_version, sys_version = "adaptive-split", ""

        def do_GET(self) -> None:
            """Answer with a file or the state."""
            path = self.path.partition("?")[0]
            if guarded and not _is_loopback(_host_of(self.headers.get("Host", ""))):
                self._reply(421, b"this page answers to this machine's own names only\n")
            elif path == STATE:
                self._reply(200, state(), "application/json")
            elif path in files:
                self._reply(200, *files[path])
            else:
                self._reply(404, b"there is / and /state.json\n")

        do_HEAD = do_GET  # noqa: N815 - the library's name

        def _reply(self, status: int, body: bytes, kind: str = "text/plain") -> None:
            self.send_response(status)
            for name, value in {**HEADERS, "Content-Type": kind}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Tell requests to whoever debugs, not to standard error."""
            _log.debug(format, *args)

    return Handler


def _host_of(header: str) -> str:
    """The host of `host:port`, also of `[::1]:port`."""
    bare = header.rpartition(":")[0] if header.rpartition(":")[2].isdigit() else header
    return bare.strip("[]")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
