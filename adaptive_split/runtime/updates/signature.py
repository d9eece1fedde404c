"""Signed releases: `signature.json` names every file of a folder with its SHA-256.

What is signed are the bytes of the statement in canonical form (keys sorted, no spaces) after a
prefix that no other use of the key shares. A folder that holds anything else is refused.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)

from adaptive_split.bundle import MANIFEST as MODEL_MANIFEST
from adaptive_split.bundle import ModelBundle
from adaptive_split.errors import BundleError, ConfigError
from adaptive_split.runtime.controller_bundle import MANIFEST as CONTROLLER_MANIFEST
from adaptive_split.runtime.controller_bundle import ControllerBundle
from adaptive_split.runtime.updates.keys import key_id

FORMAT = 1
SIGNATURE = "signature.json"
MODEL, CONTROLLER, PAIR = "model", "controller", "pair"
KINDS = (MODEL, CONTROLLER, PAIR)
"""A model bundle, a controller bundle, or a folder with one of each in folders of those names."""
MOST_BYTES = 1_000_000
"""Of a signature file; it is parsed before anybody knows who wrote it."""

_PREFIX = b"adaptive-split release\n"
_FILE = re.compile(r"((model|controller)/)?[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Statement:
    """What a signature states of a release."""

    kind: str
    """One of `KINDS`."""
    version: int
    """1 or more; a device goes up only."""
    files: Mapping[str, str]
    """SHA-256 of every file by its path in the folder, `/` between parts."""
    key_id: str
    format: int = FORMAT

    def canonical(self) -> bytes:
        """The bytes that are signed."""
        text = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))
        return _PREFIX + text.encode()

    @property
    def name(self) -> str:
        """What a device calls the release: its version and the beginning of a hash of all this."""
        return f"{self.version}-{hashlib.sha256(self.canonical()).hexdigest()[:12]}"


def sign(folder: Path, key: Ed25519PrivateKey, version: int) -> Statement:
    """Write `signature.json` into a bundle, in the place of one that is there.

    Raises:
        ConfigError: If the version is below 1 or the folder cannot be written.
        BundleError: If the folder is no whole bundle, or holds what a release must not.
    """
    if version < 1:
        raise ConfigError(f"the version of a release must be 1 or more; got {version}")
    kind = _kind_of(folder)
    statement = Statement(
        kind=kind, version=version, files=_digests(folder, kind), key_id=key_id(key.public_key())
    )
    _load(folder, kind)
    signature = base64.b64encode(key.sign(statement.canonical())).decode()
    text = json.dumps({**asdict(statement), "signature": signature}, indent=1) + "\n"
    try:
        (folder / SIGNATURE).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"a bundle to sign must be writable; got {folder}: {error}") from error
    return statement


def verify(folder: Path, trusted: Mapping[str, Ed25519PublicKey]) -> Statement:
    """Check that a trusted key signed a folder, that every file is as signed, and that it loads.

    Raises:
        BundleError: If not; the message says what differs.
    """
    statement, signature = _read(folder)
    if statement.key_id not in trusted:
        raise BundleError(
            f"{folder} must be signed by a trusted key, one of {', '.join(sorted(trusted))}; "
            f"got {statement.key_id}"
        )
    try:
        trusted[statement.key_id].verify(signature, statement.canonical())
    except InvalidSignature:
        raise BundleError(
            f"the signature of {folder} must be that of key {statement.key_id}; it is not: "
            "somebody changed what was signed"
        ) from None
    _check_whole(folder, statement)
    return statement


def check(folder: Path) -> Statement:
    """Check that a folder holds what its statement says, whoever signed it, and that it loads.

    Raises:
        BundleError: If not.
    """
    statement = read_statement(folder)
    _check_whole(folder, statement)
    return statement


def read_statement(folder: Path) -> Statement:
    """Read what a folder states of itself, whoever signed it.

    Raises:
        BundleError: If there is nothing, or it is damaged.
    """
    return _read(folder)[0]


def _check_whole(folder: Path, statement: Statement) -> None:
    _compare(folder, statement.files, _digests(folder, statement.kind))
    _load(folder, statement.kind)


def _load(folder: Path, kind: str) -> None:
    """Load the bundles of a release as a run would; refuse a pair that does not belong together."""
    place = {part: folder / part if kind == PAIR else folder for part in (MODEL, CONTROLLER)}
    model = None if kind == CONTROLLER else ModelBundle.load(place[MODEL])
    controller = None if kind == MODEL else ControllerBundle.load(place[CONTROLLER])
    if model is not None and controller is not None:
        controller.check_model(model)


def _kind_of(folder: Path) -> str:
    found = [
        kind
        for kind, is_there in (
            (MODEL, (folder / MODEL_MANIFEST).is_file()),
            (CONTROLLER, (folder / CONTROLLER_MANIFEST).is_file()),
            (PAIR, (folder / MODEL).is_dir() and (folder / CONTROLLER).is_dir()),
        )
        if is_there
    ]
    if len(found) != 1:
        raise BundleError(
            f"a release must be a folder with {MODEL_MANIFEST} or {CONTROLLER_MANIFEST}, or with "
            f"folders {MODEL} and {CONTROLLER}; got {folder}"
        )
    return found[0]


def _digests(folder: Path, kind: str) -> dict[str, str]:
    """SHA-256 of every file, the signature's aside; refuses links, devices and odd names."""
    parts = (MODEL, CONTROLLER) if kind == PAIR else ()
    digests = {}
    for part in ("", *parts):
        try:
            entries = sorted(os.scandir(folder / part), key=lambda entry: entry.name)
        except OSError as error:
            raise BundleError(f"a {kind} release must hold its folders; got {error}") from error
        for entry in entries:
            name = f"{part}/{entry.name}" if part else entry.name
            if name in parts and entry.is_dir(follow_symlinks=False):
                continue
            if not entry.is_file(follow_symlinks=False) or not _FILE.fullmatch(name):
                raise BundleError(
                    f"a {kind} release must hold plain files of plain names; got {name!r} in "
                    f"{folder}"
                )
            digests[name] = _sha256(folder / name)
    digests.pop(SIGNATURE, None)
    return digests


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while block := opened.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _compare(folder: Path, signed: Mapping[str, str], found: Mapping[str, str]) -> None:
    changed = {name for name in signed.keys() & found.keys() if signed[name] != found[name]}
    for what, names in (
        ("hold every signed file; got no", signed.keys() - found.keys()),
        ("hold nothing unsigned; got", found.keys() - signed.keys()),
        ("hold its files as they were signed; got changed", changed),
    ):
        if names:
            raise BundleError(f"{folder} must {what} {', '.join(sorted(names))}")


def _read(folder: Path) -> tuple[Statement, bytes]:
    file = folder / SIGNATURE
    try:
        if not file.is_file():
            raise BundleError(
                f"a release must be signed; got no {file}; sign it with 'adaptive-split sign'"
            )
        if file.stat().st_size > MOST_BYTES:
            raise BundleError(f"{file} must have at most {MOST_BYTES} bytes")
        data: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        signature = base64.b64decode(data.pop("signature"), validate=True)
        statement = Statement(**data)
        sound = _is_sound(statement)
    except BundleError:
        raise
    except (OSError, ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        raise BundleError(f"{file} must be a signature; got a damaged one: {error!r}") from error
    if not sound:
        raise BundleError(f"{file} must be a signature of format {FORMAT}; got another or damaged")
    return statement, signature


def _is_sound(statement: Statement) -> bool:
    """Whether every field is of its kind, before anything relies on it."""
    return (
        statement.format == FORMAT
        and statement.kind in KINDS
        and type(statement.version) is int
        and statement.version >= 1
        and type(statement.key_id) is str
        and bool(statement.files)
        and all(
            _FILE.fullmatch(name) and _DIGEST.fullmatch(digest)
            for name, digest in statement.files.items()
        )
    )
