"""The model bundle: one ONNX graph for each stage, exit, encoder and decoder, and a manifest."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adaptive_split.errors import BundleError, ConfigError

VERSION = 1
MANIFEST = "manifest.json"
PARTS = ("stage", "exit", "encoder", "decoder")
GRAPH_INPUT, GRAPH_OUTPUT = "input", "output"
"""Name of the one input and of the one output of every graph."""
JPEG, WEBP = "jpeg", "webp"
"""Formats that pictures are sent in at split point 0."""

_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_SHIPPED = Path(__file__).parent / "data" / "bundles"


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelBundle:
    """A model cut into S stages, as a directory that device and server both load.

    Every graph maps float32 to float32 with a free batch dimension. Stage 1 takes pictures
    `(N, *input_shape)` in [0, 1] and normalizes them itself; an exit gives logits `(N, classes)`
    already divided by its temperature, so a runner applies a plain softmax.
    """

    path: Path
    name: str
    hash: str
    """SHA-256 over everything but the provenance; two sides with one hash hold one model."""
    classes: tuple[str, ...]
    input_shape: tuple[int, int, int]
    feature_shapes: tuple[tuple[int, int, int], ...]
    """`(C, H, W)` after every stage."""
    code_shapes: Mapping[int, tuple[int, int, int]]
    """Shape of the codes sent at each split point 1..S-1."""
    picture_qualities: Mapping[int, int]
    """Quality, 1..95, of each rung (bits) at split point 0."""
    temperatures: tuple[float, ...]
    """What each exit graph divides its logits by; baked into the graph, here for the record."""
    files: Mapping[str, str]
    """SHA-256 of every graph, by file name."""
    provenance: Mapping[str, Any]
    """Training data and its license, seed, versions, accuracy; not part of the hash."""
    picture_format: str = JPEG
    """How pictures are compressed at split point 0."""

    @property
    def num_stages(self) -> int:
        """Number of stages, S."""
        return len(self.feature_shapes)

    @property
    def parts(self) -> tuple[tuple[str, int], ...]:
        """Every `(part, index)` of the bundle, in the order of `PARTS`, indices from 1."""
        return _parts(self.num_stages)

    def file(self, part: str, index: int) -> Path:
        """Locate the graph of one part, e.g. `("stage", 1)`."""
        if (part, index) not in self.parts:
            raise ConfigError(
                f"a part must be one of {PARTS} with an index of this bundle; got {(part, index)!r}"
            )
        return self.path / file_name(part, index)

    @classmethod
    def load(cls, path: Path, verify: bool = True) -> ModelBundle:
        """Read a bundle.

        Args:
            path: The directory that holds `manifest.json`.
            verify: Compare every file with its checksum.

        Raises:
            BundleError: If the manifest is missing, damaged or of an unknown version, or a file
                is missing or altered.
        """
        bundle, stated = _read_manifest(path)
        for part, index in bundle.parts:
            if file_name(part, index) not in bundle.files:
                raise BundleError(
                    f"a manifest must list {file_name(part, index)}; got none in {path}"
                )
        for name, expected in sorted(bundle.files.items()):
            file = path / name
            if not file.is_file():
                raise BundleError(f"a bundle must hold every file of its manifest; got no {file}")
            if verify and (got := _sha256(file)) != expected:
                raise BundleError(f"{file} must have SHA-256 {expected}; got {got}")
        if stated != bundle.hash:
            raise BundleError(
                f"the manifest of {path} must have hash {bundle.hash}; got {stated!r}"
            )
        return bundle


def write_bundle(
    path: Path,
    *,
    name: str,
    classes: tuple[str, ...],
    input_shape: tuple[int, int, int],
    feature_shapes: tuple[tuple[int, int, int], ...],
    code_shapes: Mapping[int, tuple[int, int, int]],
    picture_qualities: Mapping[int, int],
    temperatures: tuple[float, ...],
    provenance: Mapping[str, Any],
    picture_format: str = JPEG,
) -> ModelBundle:
    """Write the manifest of the graphs that already lie in `path`, and load the bundle."""
    parts = _parts(len(feature_shapes))
    names = sorted(file_name(part, index) for part, index in parts)
    fields: dict[str, Any] = {
        "version": VERSION,
        "name": name,
        "classes": classes,
        "input_shape": input_shape,
        "feature_shapes": feature_shapes,
        "code_shapes": {str(split): shape for split, shape in sorted(code_shapes.items())},
        "picture_qualities": {str(bits): rung for bits, rung in sorted(picture_qualities.items())},
        "temperatures": temperatures,
        "files": {file: _sha256(path / file) for file in names},
    }
    if picture_format != JPEG:  # left out where it is, so that older hashes hold
        fields["picture_format"] = picture_format
    _write(path / MANIFEST, {**fields, "hash": _hash(fields), "provenance": provenance})
    return ModelBundle.load(path)


def add_provenance(bundle: ModelBundle, more: Mapping[str, Any]) -> ModelBundle:
    """Add to what a manifest tells of its origin, e.g. measured accuracy; the hash stays."""
    file = bundle.path / MANIFEST
    manifest = json.loads(file.read_text(encoding="utf-8"))
    _write(file, {**manifest, "provenance": {**bundle.provenance, **more}})
    return ModelBundle.load(bundle.path)


def file_name(part: str, index: int) -> str:
    """Name the graph of one part, e.g. `stage-1.onnx`."""
    return f"{part}-{index}.onnx"


def bundle_path(name_or_path: str) -> Path:
    """Find a bundle: a name shipped with the package first, else a directory.

    Raises:
        BundleError: If it is neither; the message lists the shipped names.
    """
    shipped = {path.parent.name: path.parent for path in _SHIPPED.glob(f"*/{MANIFEST}")}
    if name_or_path in shipped:
        return shipped[name_or_path]
    if (Path(name_or_path) / MANIFEST).is_file():
        return Path(name_or_path)
    raise BundleError(
        f"a bundle must be one of {sorted(shipped)} or a directory with {MANIFEST}; "
        f"got {name_or_path!r}"
    )


def _parts(num_stages: int) -> tuple[tuple[str, int], ...]:
    counts = (num_stages, num_stages, num_stages - 1, num_stages - 1)
    return tuple(
        (part, index)
        for part, count in zip(PARTS, counts, strict=True)
        for index in range(1, count + 1)
    )


def _read_manifest(path: Path) -> tuple[ModelBundle, str]:
    """Parse a manifest; return the bundle with the hash recomputed, and the hash stated."""
    file = path / MANIFEST
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        if data["version"] != VERSION:
            raise BundleError(
                f"a bundle must be of version {VERSION}; got {data['version']!r} in {file}"
            )
        provenance, stated = data.pop("provenance"), data.pop("hash")
        bundle = ModelBundle(
            path=path,
            name=str(data["name"]),
            hash=_hash(data),
            classes=tuple(str(name) for name in data["classes"]),
            input_shape=_shape(data["input_shape"]),
            feature_shapes=tuple(_shape(shape) for shape in data["feature_shapes"]),
            code_shapes={int(split): _shape(shape) for split, shape in data["code_shapes"].items()},
            picture_qualities={int(bits): int(q) for bits, q in data["picture_qualities"].items()},
            temperatures=tuple(float(value) for value in data["temperatures"]),
            files={str(name): str(digest) for name, digest in data["files"].items()},
            provenance=dict(provenance),
            picture_format=str(data.get("picture_format", JPEG)),
        )
    except FileNotFoundError:
        raise BundleError(f"a bundle must hold {MANIFEST}; got none in {path}") from None
    except BundleError:
        raise
    except (OSError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise BundleError(
            f"a manifest must be readable; got a damaged {file}: {error!r}"
        ) from error
    _check(bundle, file)
    return bundle, str(stated)


def _check(bundle: ModelBundle, file: Path) -> None:
    """Refuse names that leave the bundle and counts that do not agree."""
    for name in bundle.files:
        if not _FILE_NAME.fullmatch(name):
            raise BundleError(f"{file} must list plain file names; got {name!r}")
    stages = bundle.num_stages
    if stages < 2 or len(bundle.temperatures) != stages:
        raise BundleError(
            f"{file} must give at least 2 stages and a temperature for each; "
            f"got {stages} stages and {len(bundle.temperatures)} temperatures"
        )
    if set(bundle.code_shapes) != set(range(1, stages)):
        raise BundleError(
            f"{file} must give a code shape for split points 1..{stages - 1}; "
            f"got {sorted(bundle.code_shapes)}"
        )
    if len(bundle.classes) < 2:
        raise BundleError(f"{file} must name at least 2 classes; got {bundle.classes!r}")
    if not all(1 <= quality <= 95 for quality in bundle.picture_qualities.values()):
        raise BundleError(
            f"{file} must give picture qualities in 1..95; got {dict(bundle.picture_qualities)}"
        )
    if bundle.picture_format not in (JPEG, WEBP):
        raise BundleError(
            f"{file} must give pictures as {JPEG} or {WEBP}; got {bundle.picture_format!r}"
        )


def _write(file: Path, manifest: Mapping[str, Any]) -> None:
    text = json.dumps(manifest, indent=2, ensure_ascii=False)
    file.write_text(text + "\n", encoding="utf-8")


def _shape(values: Any) -> tuple[int, int, int]:
    channels, height, width = (int(value) for value in values)
    if not all(0 < value < 65536 for value in (channels, height, width)):
        raise ValueError(f"a shape must be three numbers in 1..65535; got {values!r}")
    return channels, height, width


def _hash(fields: Mapping[str, Any]) -> str:
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
