"""Mutual TLS between device and server: the files, and whom the server lets in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from adaptive_split.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """PEM files of one side."""

    ca: Path
    """Who signed the peer's certificate."""
    certificate: Path
    key: Path

    def _read(self) -> tuple[bytes, bytes, bytes]:
        try:
            return self.ca.read_bytes(), self.certificate.read_bytes(), self.key.read_bytes()
        except OSError as error:
            raise ConfigError(f"TLS files must be readable; got {error}") from error

    def for_device(self) -> grpc.ChannelCredentials:
        """Credentials of a device."""
        ca, certificate, key = self._read()
        return grpc.ssl_channel_credentials(ca, key, certificate)

    def for_server(self) -> grpc.ServerCredentials:
        """Credentials of a server that demands a certificate of every device."""
        ca, certificate, key = self._read()
        return grpc.ssl_server_credentials([(key, certificate)], ca, require_client_auth=True)


def peer_names(auth_context: Mapping[str, Any]) -> frozenset[str]:
    """Names that the peer's certificate carries: common name and alternative names."""
    keys = ("x509_common_name", "x509_subject_alternative_name")
    return frozenset(name.decode() for key in keys for name in auth_context.get(key, ()))
