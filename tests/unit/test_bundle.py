"""Bundle: what is written is what is loaded, and nothing else is."""

import json

import pytest

from adaptive_split.bundle import (
    MANIFEST,
    ModelBundle,
    add_provenance,
    bundle_path,
    file_name,
    write_bundle,
)
from adaptive_split.errors import BundleError, ConfigError

FIELDS = {
    "name": "toy",
    "classes": ("hat", "shoe"),
    "input_shape": (3, 8, 8),
    "feature_shapes": ((4, 4, 4), (8, 2, 2), (8, 1, 1)),
    "code_shapes": {1: (2, 2, 2), 2: (1, 2, 2)},
    "picture_qualities": {1: 8, 2: 20, 4: 45, 8: 80},
    "temperatures": (1.0, 0.9, 1.2),
    "provenance": {"data_license": "CC0-1.0"},
}
NAMES = [file_name(part, k) for part in ("stage", "exit") for k in (1, 2, 3)]
NAMES += [file_name(part, k) for part in ("encoder", "decoder") for k in (1, 2)]


@pytest.fixture
def bundle(tmp_path):
    for name in NAMES:
        (tmp_path / name).write_bytes(name.encode())
    return write_bundle(tmp_path, **FIELDS)


def edit(bundle: ModelBundle, **changes: object) -> None:
    """Change fields of a manifest on disk."""
    file = bundle.path / MANIFEST
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_a_bundle_loads_as_it_was_written(bundle):
    loaded = ModelBundle.load(bundle.path)

    assert loaded == bundle
    assert {name: getattr(loaded, name) for name in FIELDS} == FIELDS
    assert loaded.num_stages == 3
    assert sorted(loaded.files) == sorted(NAMES)
    assert [loaded.file(*part).name for part in loaded.parts] == NAMES


def test_the_hash_says_what_two_sides_must_share(bundle):
    (bundle.path / "stage-1.onnx").write_bytes(b"other weights")
    other_weights = write_bundle(bundle.path, **FIELDS)
    other_rungs = write_bundle(bundle.path, **{**FIELDS, "picture_qualities": {8: 90}})

    assert len({bundle.hash, other_weights.hash, other_rungs.hash}) == 3


def test_pictures_are_jpegs_unless_the_manifest_says_otherwise(bundle):
    other = write_bundle(bundle.path, **FIELDS, picture_format="webp")
    assert "picture_format" in (bundle.path / MANIFEST).read_text()
    assert ModelBundle.load(bundle.path).picture_format == "webp"
    assert (bundle.picture_format, other.hash == bundle.hash) == ("jpeg", False)

    again = write_bundle(bundle.path, **FIELDS, picture_format="jpeg")
    assert "picture_format" not in (bundle.path / MANIFEST).read_text()
    assert again.hash == bundle.hash


def test_provenance_is_added_without_changing_the_hash(bundle):
    told = add_provenance(bundle, {"seed": 7})

    assert told.provenance == {"data_license": "CC0-1.0", "seed": 7}
    assert told.hash == bundle.hash


def test_other_files_beside_the_manifest_do_not_matter(bundle):
    (bundle.path / "outcomes_policy.npz").write_bytes(b"")

    assert ModelBundle.load(bundle.path) == bundle


def test_an_altered_file_is_named_with_both_checksums(bundle):
    (bundle.path / "exit-2.onnx").write_bytes(b"altered")

    with pytest.raises(BundleError, match=r"exit-2\.onnx must have SHA-256 \w{64}; got \w{64}$"):
        ModelBundle.load(bundle.path)
    assert ModelBundle.load(bundle.path, verify=False) == bundle


def test_a_missing_file_is_named(bundle):
    (bundle.path / "decoder-1.onnx").unlink()

    with pytest.raises(BundleError, match=r"got no .*decoder-1\.onnx"):
        ModelBundle.load(bundle.path, verify=False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 99}, "version 1; got 99"),
        (
            {"files": {"../../etc/passwd": "0" * 64}},
            r"plain file names; got '\.\./\.\./etc/passwd'",
        ),
        ({"files": {"/etc/passwd": "0" * 64}}, "plain file names"),
        ({"files": {"..": "0" * 64}}, "plain file names"),
        ({"files": {}}, r"must list stage-1\.onnx"),
        ({"files": None}, "damaged"),
        ({"classes": ["hat"]}, "at least 2 classes"),
        ({"temperatures": [1.0]}, "3 stages and 1 temperatures"),
        ({"code_shapes": {"1": [2, 2, 2]}}, r"split points 1\.\.2; got \[1\]"),
        ({"code_shapes": {"1": [2, 2], "2": [1, 2, 2]}}, "damaged"),
        ({"feature_shapes": [[4, 4, -4]] * 3}, "damaged"),
        ({"picture_qualities": {"1": 100}}, r"qualities in 1\.\.95; got \{1: 100\}"),
        ({"picture_format": "gif"}, "pictures as jpeg or webp; got 'gif'"),
        ({"name": "other"}, r"must have hash \w{64}; got"),
        ({"hash": "0"}, r"must have hash \w{64}; got '0'"),
    ],
)
def test_a_manifest_that_cannot_be_trusted_is_refused(bundle, changes, message):
    edit(bundle, **changes)

    with pytest.raises(BundleError, match=message):
        ModelBundle.load(bundle.path)


@pytest.mark.parametrize("text", ["", "[]", "{}", "\x00"])
def test_a_damaged_manifest_is_refused(bundle, text):
    (bundle.path / MANIFEST).write_text(text)

    with pytest.raises(BundleError, match=r"damaged .*manifest\.json"):
        ModelBundle.load(bundle.path)


def test_a_directory_without_manifest_is_refused(tmp_path):
    with pytest.raises(BundleError, match=r"must hold manifest\.json"):
        ModelBundle.load(tmp_path)


@pytest.mark.parametrize("part", [("encoder", 3), ("stage", 0), ("tail", 1)])
def test_a_part_the_bundle_does_not_have_is_refused(bundle, part):
    with pytest.raises(ConfigError, match="a part must be one of"):
        bundle.file(*part)


def test_a_bundle_is_found_by_its_directory(bundle):
    assert bundle_path(str(bundle.path)) == bundle.path


def test_an_unknown_bundle_is_refused():
    with pytest.raises(BundleError, match="got 'no-such-bundle'"):
        bundle_path("no-such-bundle")
