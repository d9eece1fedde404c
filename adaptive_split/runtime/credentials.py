"""Mutual TLS between device and server: the files, read again when they change, and who calls."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from adaptive_split.errors import ConfigError

_log = logging.getLogger(__name__)

Stamp = tuple[object, ...]
"""Changes when a file changes; to be compared only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """PEM files of one side."""

    ca: Path
    """Who signed the peer's certificate."""
    certificate: Path
    key: Path

    @property
    def stamp(self) -> Stamp:
        """What tells that one of the files was replaced."""
        return tuple(file_stamp(path) for path in (self.ca, self.certificate, self.key))

    def for_device(self) -> grpc.ChannelCredentials:
        """Credentials of a device.

        Raises:
            ConfigError: If the files cannot be read or do not belong together.
        """
        ca, certificate, key = self._read()
        return grpc.ssl_channel_credentials(ca, key, certificate)

    def for_server(self) -> grpc.ServerCredentials:
        """Credentials of a server that demands a certificate of every device.

        Whenever a device connects, files that were replaced are read again.

        Raises:
            ConfigError: If the files cannot be read or do not belong together.
        """
        return grpc.dynamic_ssl_server_credentials(
            self._configuration(),
            _Replaced(self),  # type: ignore[arg-type] # the stubs miss that None changes nothing
            require_client_authentication=True,
        )

    def _configuration(self) -> grpc.ServerCertificateConfiguration:
        ca, certificate, key = self._read()
        return grpc.ssl_server_certificate_configuration([(key, certificate)], ca)

    def _read(self) -> tuple[bytes, bytes, bytes]:
        try:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            # An empty password, as otherwise an encrypted key would make OpenSSL ask for one.
            context.load_cert_chain(self.certificate, self.key, password="")
            context.load_verify_locations(self.ca)
            return self.ca.read_bytes(), self.certificate.read_bytes(), self.key.read_bytes()
        except OSError as error:  # of which what OpenSSL says is one
            raise ConfigError(
                "TLS files must be readable PEM files, the key that of the certificate; got "
                f"{error} from {self.ca}, {self.certificate}, {self.key}"
            ) from error


class _Replaced:
    """Tells gRPC of new files, once each time; damaged ones change nothing."""

    def __init__(self, files: TlsFiles) -> None:
        self._files, self._stamp = files, files.stamp

    def __call__(self) -> grpc.ServerCertificateConfiguration | None:
        stamp = self._files.stamp
        if stamp == self._stamp:
            return None
        self._stamp = stamp
        try:
            configuration = self._files._configuration()
        except ConfigError as error:
            _log.error("keeping the TLS files of before: %s", error)
            return None
        _log.info("read the TLS files again: %s was replaced", self._files.certificate.parent)
        return configuration


def file_stamp(path: Path) -> Stamp:
    """Tell one content of a file from the next; empty while there is none."""
    try:
        stat = path.stat()
    except OSError:
        return ()
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sends a request."""

    device: str
    """A name of its certificate: its URI, else its common name; of a connection in plain text, its
    address, which is all that is known."""
    names: frozenset[str]
    """Common name, DNS names and URIs of its certificate."""


def caller_of(context: grpc.ServicerContext) -> Caller:
    """Ask gRPC who calls."""
    given: Mapping[str, Any] = context.auth_context()
    keys = ("peer_uri", "x509_common_name", "peer_dns")
    names = [name.decode() for key in keys for name in given.get(key, ())]
    return Caller(names[0] if names else context.peer(), frozenset(names))


_HINTS = (
    ("WRONG_VERSION_NUMBER", "the server speaks plain text; give both sides TLS files, or neither"),
    ("Hostname Verification", "the server's certificate must name the host that was asked for"),
    ("CERTIFICATE_VERIFY_FAILED", "the server's certificate must be in date and of this side's CA"),
    (
        "Socket closed",
        "the server hung up on the greeting: if it is up, this side's certificate must be in date "
        "and of the server's CA, and both sides must speak TLS, or neither",
    ),
)


def handshake_hint(text: str) -> str:
    """What to look at where gRPC could not connect; empty unless it says something of TLS."""
    if "failed to connect" not in text:
        return ""
    return next((f"; {hint}" for part, hint in _HINTS if part in text), "")
