"""Addresses as a person writes them."""

from __future__ import annotations

from adaptive_split.errors import ConfigError


def host_and_port(address: str, subject: str) -> tuple[str, int]:
    """Take `HOST:PORT` apart; of `[::1]:80`, the host is `::1`.

    Args:
        address: What a person wrote.
        subject: What it is the address of, for the message.

    Raises:
        ConfigError: If it is something else.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65_536:
        raise ConfigError(f"{subject} must be HOST:PORT, with a port to 65535; got {address!r}")
    return host.strip("[]"), int(port)
