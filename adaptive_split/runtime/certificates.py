"""A private certificate authority in a folder, for tests and small fleets."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from adaptive_split.errors import ConfigError
from adaptive_split.runtime.credentials import TlsFiles

Role = Literal["server", "device"]
CA_DAYS = 3650
BACKDATED = timedelta(hours=1)
"""Clocks of devices that have just booted are slow."""
_USAGES = {
    "server": ExtendedKeyUsageOID.SERVER_AUTH,
    "device": ExtendedKeyUsageOID.CLIENT_AUTH,
}


@dataclass(frozen=True, slots=True)
class Authority:
    """Signs certificates of servers and devices; keys are on the curve P-256.

    A certificate is good for its role only: a device's cannot pose as a server.
    """

    folder: Path
    _certificate: x509.Certificate
    _key: ec.EllipticCurvePrivateKey

    @classmethod
    def create(cls, folder: Path, now: datetime) -> Authority:
        """Make `ca.pem` and `ca.key`, good for ten years.

        Raises:
            ConfigError: If one of them exists or the folder cannot be written.
        """
        key, name = ec.generate_private_key(ec.SECP256R1()), _name("adaptive-split private CA")
        own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        certificate = (
            _builder(name, name, key.public_key(), now, CA_DAYS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(signs_certificates=True), critical=True)
            .add_extension(own, critical=False)
            .sign(key, hashes.SHA256())
        )
        _write_pair(folder, "ca", certificate, key)
        return cls(folder, certificate, key)

    @classmethod
    def load(cls, folder: Path) -> Authority:
        """Read what `create` made.

        Raises:
            ConfigError: If the files are missing or damaged.
        """
        try:
            certificate = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
            key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), None)
        except (OSError, ValueError, TypeError) as error:
            raise ConfigError(
                f"{folder} must hold ca.pem and ca.key of a private CA; got {error}"
            ) from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ConfigError(f"{folder / 'ca.key'} must be a key on a curve; got another kind")
        return cls(folder, certificate, key)

    def issue(self, role: Role, names: Sequence[str], now: datetime, days: int) -> TlsFiles:
        """Make `NAME.pem` and `NAME.key`, after the first of the names.

        Args:
            role: Who may use it.
            names: Host names and addresses of a server, the name of a device.
            now: When it begins to be good, less an hour.
            days: How long it is good, at most as long as the CA's own.

        Raises:
            ConfigError: If a name cannot be used or a file exists.
        """
        check_free(self.folder, names[0])
        key = ec.generate_private_key(ec.SECP256R1())
        issuer = self._certificate.subject
        signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        certificate = (
            _builder(_name(names[0]), issuer, key.public_key(), now, days)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([_USAGES[role]]), critical=False)
            .add_extension(x509.SubjectAlternativeName([_san(n) for n in names]), critical=False)
            .add_extension(signer, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return _write_pair(self.folder, names[0], certificate, key)


def check_free(folder: Path, name: str) -> None:
    """Refuse a name that cannot be used or whose files exist, before anything is written.

    Raises:
        ConfigError: If so.
    """
    if not re.fullmatch(r"[A-Za-z0-9:][A-Za-z0-9._:-]{0,62}", name) or name == "ca":
        raise ConfigError(
            "a name must be 1 to 63 letters, digits, dots, colons, hyphens and underscores, and "
            f"not 'ca'; got {name!r}"
        )
    for path in (folder / f"{name}.pem", folder / f"{name}.key"):
        if path.exists():
            raise ConfigError(f"{path} must not exist yet; name another or remove it")


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + timedelta(days=days))
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates, key_cert_sign=signs_certificates,
        crl_sign=signs_certificates, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _san(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass
    try:
        return x509.DNSName(name)
    except ValueError as error:
        raise ConfigError(f"a name must be a host or device in ASCII; got {name!r}") from error


def _write_pair(
    folder: Path, name: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey
) -> TlsFiles:
    """Write a certificate and its key, which nobody but its owner can read."""
    files = TlsFiles(
        ca=folder / "ca.pem", certificate=folder / f"{name}.pem", key=folder / f"{name}.key"
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_new(files.key, secret, 0o600)
        _write_new(files.certificate, certificate.public_bytes(serialization.Encoding.PEM), 0o644)
    except OSError as error:
        raise ConfigError(f"{folder} must be a folder that can be written; got {error}") from error
    return files


def _write_new(path: Path, content: bytes, mode: int) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
