"""Whether the certificate files of this side are in date, belong together, and are kept to us."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import ExtendedKeyUsageOID

from adaptive_split.errors import ConfigError
from adaptive_split.runtime.credentials import TlsFiles
from adaptive_split.runtime.doctor.finding import Finding, green, red, yellow

SOON = timedelta(days=14)
_RENEW = "issue a new one, as with 'adaptive-split certs'; it may be replaced while running"


def examine_certificates(tls: TlsFiles, now: datetime) -> Iterator[Finding]:
    """Dates, key, chain and purpose of the files of a device.

    Args:
        tls: The files.
        now: The moment they must be good at, with its time zone.
    """
    try:
        tls.for_device()
        chain = x509.load_pem_x509_certificates(tls.certificate.read_bytes())
        roots = x509.load_pem_x509_certificates(tls.ca.read_bytes())
    except (ConfigError, OSError, ValueError) as error:
        yield red("certificate files", str(error), "name PEM files that this user may read")
        return
    yield _dates("certificate", chain[0], now)
    for root in roots:
        yield _dates("CA certificate", root, now)
    yield _chain(chain, roots)
    yield _purpose(chain[0])
    yield _key(tls.key)


def _dates(subject: str, certificate: x509.Certificate, now: datetime) -> Finding:
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now < begin:
        return red(subject, f"good from {begin:%Y-%m-%d %H:%M} UTC only", "set the clock right")
    if now > end:
        return red(subject, f"expired on {end:%Y-%m-%d}", _RENEW)
    found = f"good for {(end - now).days} days, until {end:%Y-%m-%d}"
    return green(subject, found) if end - now > SOON else yellow(subject, found, _RENEW)


def _chain(chain: list[x509.Certificate], roots: list[x509.Certificate]) -> Finding:
    """Follow issuers from the device's certificate, through those beside it, to the CA."""
    current, above = chain[0], chain[1:]
    while not any(_issued(current, root) for root in roots):
        issuer = next((one for one in above if _issued(current, one)), None)
        if issuer is None:
            return red(
                "certificate chain", "the CA did not sign the certificate",
                "name the CA of this certificate with --ca, or add those between to --certificate",
            )  # fmt: skip
        above.remove(issuer)
        current = issuer
    return green("certificate chain", "leads to the CA")


def _issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _purpose(certificate: x509.Certificate) -> Finding:
    try:
        usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return green("certificate purpose", "any")
    if ExtendedKeyUsageOID.CLIENT_AUTH in usages:
        return green("certificate purpose", "a device's")
    return red(
        "certificate purpose", "not a device's: a server will refuse it",
        "issue it with 'adaptive-split certs DIR --device NAME'",
    )  # fmt: skip


def _key(key: Path) -> Finding:
    mode = key.stat().st_mode & 0o777
    found = f"{key}, mode {mode:o}"
    if mode & 0o077:
        return yellow("private key", f"{found}: others may read it", f"chmod 600 {key}")
    return green("private key", found)
