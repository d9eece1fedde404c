"""Certificates of a private authority, and the command that makes them."""

import ssl
from datetime import datetime, timedelta, timezone

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID as Usage

from adaptive_split.cli import main
from adaptive_split.errors import ConfigError
from adaptive_split.runtime.certificates import Authority

NOW = datetime(2030, 5, 1, tzinfo=timezone.utc)


def load(path):
    return x509.load_pem_x509_certificate(path.read_bytes())


def extension(certificate, kind):
    return certificate.extensions.get_extension_for_class(kind).value


def test_a_certificate_is_signed_by_the_authority_and_good_for_one_role(tmp_path):
    authority = Authority.create(tmp_path, NOW)
    server = load(authority.issue("server", ["edge", "10.0.0.1"], NOW, 30).certificate)
    device = load(authority.issue("device", ["cam-1"], NOW, 30).certificate)

    for certificate, usage in ((server, Usage.SERVER_AUTH), (device, Usage.CLIENT_AUTH)):
        certificate.verify_directly_issued_by(load(tmp_path / "ca.pem"))
        assert list(extension(certificate, x509.ExtendedKeyUsage)) == [usage]
        assert not extension(certificate, x509.BasicConstraints).ca
    names = extension(server, x509.SubjectAlternativeName)
    assert names.get_values_for_type(x509.DNSName) == ["edge"]
    assert [str(a) for a in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.1"]
    assert device.not_valid_after_utc == NOW + timedelta(days=30)
    assert device.not_valid_before_utc < NOW


def test_an_authority_signs_no_other_authority(tmp_path):
    Authority.create(tmp_path, NOW)
    constraints = extension(load(tmp_path / "ca.pem"), x509.BasicConstraints)

    assert (constraints.ca, constraints.path_length) == (True, 0)


def test_keys_are_readable_by_their_owner_alone(tmp_path):
    Authority.create(tmp_path, NOW).issue("device", ["cam-1"], NOW, 1)

    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.glob("*.key")}

    assert modes == {"ca.key": 0o600, "cam-1.key": 0o600}


@pytest.mark.parametrize("name", ["", "ca", "../cam", "cam 1", "-cam", "x" * 64])
def test_a_name_that_is_no_file_or_host_is_refused(tmp_path, name):
    authority = Authority.create(tmp_path, NOW)

    with pytest.raises(ConfigError, match="a name must be"):
        authority.issue("device", [name], NOW, 1)


def test_a_folder_without_an_authority_is_refused(tmp_path):
    (tmp_path / "ca.pem").write_text("no certificate")

    with pytest.raises(ConfigError, match=r"must hold ca\.pem and ca\.key of a private CA"):
        Authority.load(tmp_path)


def test_the_command_makes_certificates_and_tells_how_to_use_them(tmp_path, capsys):
    folder = tmp_path / "certs"

    status = main(["certs", str(folder), "--server-name", "edge.example", "--device", "cam-1"])

    serve, run = capsys.readouterr().out.splitlines()
    assert status == 0
    assert serve.startswith("adaptive-split serve ")
    assert f"--key {folder}/edge.example.key --allow-file {folder}/allowed.txt" in serve
    assert run.startswith("adaptive-split run --server edge.example:50051 ")
    assert f"--certificate {folder}/cam-1.pem" in run
    assert (folder / "allowed.txt").read_text() == "cam-1\n"
    context = ssl.create_default_context(cafile=folder / "ca.pem")
    context.load_cert_chain(folder / "cam-1.pem", folder / "cam-1.key")


def test_a_device_can_be_added_later(tmp_path):
    folder = tmp_path / "certs"
    main(["certs", str(folder), "--server-name", "edge", "--device", "cam-1"])
    before = {path.name: path.read_bytes() for path in folder.glob("*.*")}

    status = main(["certs", str(folder), "--device", "cam-2", "--days", "7"])

    assert status == 0
    assert (folder / "allowed.txt").read_text() == "cam-1\ncam-2\n"
    load(folder / "cam-2.pem").verify_directly_issued_by(load(folder / "ca.pem"))
    del before["allowed.txt"]
    assert all((folder / name).read_bytes() == content for name, content in before.items())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--server-name or --device must be given"),
        (["--device", "cam-1"], "cam-1.pem must not exist yet"),
        (["--device", "cam-2", "--device", "cam-2"], "names must differ"),
        (["--device", "cam-2", "--days", "0"], "--days must lie in"),
        (["--server-name", "ünï"], "a name must be"),
    ],
)
def test_what_cannot_be_made_changes_nothing(tmp_path, capsys, arguments, message):
    main(["certs", str(tmp_path), "--server-name", "edge", "--device", "cam-1"])
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    capsys.readouterr()

    status = main(["certs", str(tmp_path), *arguments])

    assert status == 2
    assert message in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
