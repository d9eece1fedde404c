"""Signed releases: what a trusted key signed and nothing else, and keys that others cannot read."""

import json
import os
import shutil

import pytest

from adaptive_split.cli import main
from adaptive_split.errors import BundleError, ConfigError
from adaptive_split.runtime.updates.keys import (
    key_id,
    load_key,
    load_trusted,
    new_key,
    trusted_line,
)
from adaptive_split.runtime.updates.signature import SIGNATURE, sign, verify
from tests.color_bundle import write_color_bundle
from tests.releases import KEY, TRUSTED, write_controller


@pytest.fixture
def controller(tmp_path):
    folder = write_controller(tmp_path / "controller")
    sign(folder, KEY, 7)
    return folder


def test_a_signed_controller_is_verified(controller):
    statement = verify(controller, TRUSTED)

    assert (statement.kind, statement.version) == ("controller", 7)
    assert set(statement.files) == {"controller.json", "controller.npz"}
    assert statement.name.startswith("7-")


def test_a_signed_model_is_verified(tmp_path):
    write_color_bundle(tmp_path)
    (tmp_path / "profile_device.json").write_text("{}")
    sign(tmp_path, KEY, 1)

    statement = verify(tmp_path, TRUSTED)

    assert statement.kind == "model"
    assert {"manifest.json", "stage-1.onnx", "profile_device.json"} <= set(statement.files)


def test_a_model_and_its_controller_are_signed_as_a_pair(tmp_path):
    (tmp_path / "model").mkdir()
    model = write_color_bundle(tmp_path / "model")
    write_controller(tmp_path / "controller", model_hash=model.hash)
    sign(tmp_path, KEY, 1)

    assert verify(tmp_path, TRUSTED).kind == "pair"


def test_a_controller_of_another_model_makes_no_pair(tmp_path):
    (tmp_path / "model").mkdir()
    write_color_bundle(tmp_path / "model")
    write_controller(tmp_path / "controller")

    with pytest.raises(BundleError, match="was trained with model bundle"):
        sign(tmp_path, KEY, 1)


def test_the_same_content_has_the_same_name_and_another_version_another(controller):
    first = verify(controller, TRUSTED).name
    sign(controller, KEY, 7)
    again = verify(controller, TRUSTED).name
    sign(controller, KEY, 8)

    assert again == first
    assert verify(controller, TRUSTED).name.split("-")[0] == "8"


def spoil(file):
    blob = bytearray(file.read_bytes())
    blob[-1] ^= 1
    file.write_bytes(blob)


def restate(folder, **changes):
    data = json.loads((folder / SIGNATURE).read_text())
    (folder / SIGNATURE).write_text(json.dumps(data | changes))


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda f: spoil(f / "controller.npz"), r"got changed controller\.npz"),
        (lambda f: (f / "controller.npz").unlink(), r"got no controller\.npz"),
        (lambda f: (f / "extra.py").write_text(""), r"hold nothing unsigned; got extra\.py"),
        (lambda f: (f / ".hidden").write_text(""), r"plain files of plain names; got '\.hidden'"),
        (lambda f: (f / "sub").mkdir(), "plain files of plain names; got 'sub'"),
        (lambda f: (f / "link").symlink_to("/etc/passwd"), "plain names; got 'link'"),
        (lambda f: restate(f, version=8), "somebody changed what was signed"),
        (lambda f: restate(f, files={"controller.npz": "0" * 64}), "somebody changed"),
        (lambda f: restate(f, files={"../x": "0" * 64}), "a signature of format 1"),
        (lambda f: restate(f, files=["x"]), "got a damaged one"),
        (lambda f: restate(f, version=True), "a signature of format 1"),
        (lambda f: restate(f, extra=1), "got a damaged one"),
        (lambda f: restate(f, key_id="0" * 16), "signed by a trusted key.* got 0000"),
        (lambda f: restate(f, signature="QUJD"), "must be that of key"),
        (lambda f: (f / SIGNATURE).unlink(), "must be signed; got no"),
        (lambda f: (f / SIGNATURE).write_text("[" * 100_000), "got a damaged one"),
        (lambda f: (f / SIGNATURE).write_text(" " * 1_000_001), "at most 1000000 bytes"),
    ],
)  # fmt: skip
def test_what_is_not_as_it_was_signed_is_refused(controller, harm, message):
    harm(controller)

    with pytest.raises(BundleError, match=message):
        verify(controller, TRUSTED)


def test_another_key_is_not_trusted_however_it_calls_itself(controller, tmp_path):
    other = new_key(tmp_path / "other.key")
    sign(controller, other, 7)
    restate(controller, key_id=key_id(KEY.public_key()))

    with pytest.raises(BundleError, match="must be that of key"):
        verify(controller, TRUSTED)


def test_a_folder_that_is_no_bundle_is_not_signed(tmp_path):
    with pytest.raises(BundleError, match="a release must be a folder with"):
        sign(tmp_path, KEY, 1)
    shutil.copy(__file__, tmp_path / "manifest.json")
    with pytest.raises(BundleError, match="a manifest must be readable"):
        sign(tmp_path, KEY, 1)
    assert not (tmp_path / SIGNATURE).exists()


def test_a_key_is_readable_by_its_owner_alone_and_refused_otherwise(tmp_path):
    file = tmp_path / "release.key"
    key = new_key(file)

    assert file.stat().st_mode & 0o777 == 0o600
    assert load_key(file).private_bytes_raw() == key.private_bytes_raw()
    with pytest.raises(ConfigError, match="a key must go into a new file"):
        new_key(file)
    os.chmod(file, 0o640)
    with pytest.raises(ConfigError, match="readable by its owner alone; got mode 640; say 'chmod"):
        load_key(file)


def test_a_file_of_trusted_keys_may_hold_several_and_remarks(tmp_path):
    file, keys = tmp_path / "trusted.txt", [new_key(tmp_path / name).public_key() for name in "ab"]
    lines = ["# who signs", "", *map(trusted_line, keys)]
    file.write_text("\n".join(lines))

    assert set(load_trusted(file)) == set(map(key_id, keys))


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "must hold a public key"), ("# x\nQUJD me", "line 2: a trusted key"), ("é", "line 1")],
)
def test_a_file_without_keys_is_refused(tmp_path, text, message):
    (tmp_path / "trusted.txt").write_text(text)

    with pytest.raises(ConfigError, match=message):
        load_trusted(tmp_path / "trusted.txt")


def test_the_commands_make_a_key_sign_and_verify(tmp_path, capsys):
    bundle, key, trusted = write_controller(tmp_path / "c"), tmp_path / "k", tmp_path / "t"

    assert main(["sign", "--new-key", str(key)]) == 0
    trusted.write_text(capsys.readouterr().out)
    assert main(["sign", str(bundle), "--key", str(key), "--release", "3"]) == 0
    assert "release 3-" in capsys.readouterr().out
    assert main(["verify", str(bundle), "--trusted", str(trusted)]) == 0
    assert "all 2 files are as signed" in capsys.readouterr().out
    spoil(bundle / "controller.npz")
    assert main(["verify", str(bundle), "--trusted", str(trusted)]) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["x"], "BUNDLE, --key and --release must be given"),
        (["x", "--new-key", "k"], "--new-key must be given alone"),
        (["x", "--key", "/nowhere", "--release", "1"], "must be a private key"),
    ],
)
def test_a_call_of_sign_that_cannot_be_is_refused(capsys, arguments, message):
    assert main(["sign", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_version_below_one_is_refused(controller):
    with pytest.raises(ConfigError, match="must be 1 or more; got 0"):
        sign(controller, KEY, 0)
