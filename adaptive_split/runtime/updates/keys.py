"""Ed25519 keys: the private one that signs releases, the public ones that a device trusts.

Ed25519 is RFC 8032. A trusted file has a line per key, the public half in base64, after which
anything may stand; empty lines and those that begin with `#` say nothing.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)

from adaptive_split.errors import ConfigError

KEY_ID_DIGITS = 16


def new_key(file: Path) -> Ed25519PrivateKey:
    """Make a private key, not encrypted, in a new file that nobody but its owner can read.

    Raises:
        ConfigError: If the file exists or cannot be written.
    """
    key = Ed25519PrivateKey.generate()
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise ConfigError(f"a key must go into a new file; got {file}: {error}") from error
    with open(descriptor, "wb") as opened:
        opened.write(secret)
    return key


def load_key(file: Path) -> Ed25519PrivateKey:
    """Read a private key.

    Raises:
        ConfigError: If there is none, it is of another kind, or others can read it.
    """
    try:
        key = serialization.load_pem_private_key(file.read_bytes(), None)
        mode = file.stat().st_mode
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"{file} must be a private key without a password: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(
            f"{file} must be an ed25519 key; got another kind; make one with "
            "'adaptive-split sign --new-key FILE'"
        )
    if mode & 0o077:
        raise ConfigError(
            f"{file} must be readable by its owner alone; got mode {mode & 0o777:o}; "
            f"say 'chmod 600 {file}'"
        )
    return key


def key_id(public: Ed25519PublicKey) -> str:
    """Name a key by the first digits of the SHA-256 of its 32 bytes."""
    return hashlib.sha256(public.public_bytes_raw()).hexdigest()[:KEY_ID_DIGITS]


def trusted_line(public: Ed25519PublicKey) -> str:
    """Write the line of a trusted file for a key: its public half, and its name for people."""
    return f"{base64.b64encode(public.public_bytes_raw()).decode()} {key_id(public)}"


def load_trusted(file: Path) -> Mapping[str, Ed25519PublicKey]:
    """Read a trusted file; give its keys by their names.

    Raises:
        ConfigError: If it cannot be read, holds no key, or a line is no key; names file and line.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"trusted keys must be readable; got {file}: {error}") from error
    keys = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            public = Ed25519PublicKey.from_public_bytes(
                base64.b64decode(line.split()[0], validate=True)
            )
        except (binascii.Error, ValueError) as error:
            raise ConfigError(
                f"{file}, line {number}: a trusted key must be 32 bytes in base64; got {line!r}"
            ) from error
        keys[key_id(public)] = public
    if not keys:
        raise ConfigError(f"a trusted file must hold a public key; got none in {file}")
    return keys
