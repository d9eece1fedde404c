"""Whom an edge server and a device refuse, over real sockets; a good device is always served."""

import os
import shutil
import subprocess
import sys

import grpc
import pytest

from adaptive_split.cli import main
from adaptive_split.errors import ConfigError, LinkError
from adaptive_split.runtime.certificates import Authority
from adaptive_split.runtime.credentials import TlsFiles
from adaptive_split.runtime.serving.server import EdgeServer, ServerConfig
from adaptive_split.runtime.transport import GrpcTransport
from adaptive_split.testing import TinyStages
from tests.color_bundle import write_color_bundle
from tests.secure_world import (
    BUNDLE,
    LONG_S,
    NOW,
    channel_of,
    connect,
    frame,
    raw_call,
    refused,
    serve,
    serves,
)

CODE = grpc.StatusCode


@pytest.mark.parametrize("who", ["expired", "alien", "server"])
def test_a_certificate_that_is_not_a_good_devices_is_refused(world, who):
    with serve(world) as server:
        with (
            connect(server, getattr(world, who)) as transport,
            pytest.raises(LinkError, match="the server hung up on the greeting"),
        ):
            transport.ping(timeout_s=LONG_S).result()

        assert serves(server, world.good)


def test_a_device_without_a_certificate_is_refused(world):
    with serve(world) as server:
        only_ca = grpc.ssl_channel_credentials(world.good.ca.read_bytes())
        with (
            grpc.secure_channel(f"localhost:{server.port}", only_ca) as channel,
            pytest.raises(grpc.RpcError) as caught,
        ):
            raw_call(channel, b"", "ServerLive")

        assert caught.value.code() == CODE.UNAVAILABLE
        assert serves(server, world.good)


def test_a_device_trusts_no_server_of_another_ca_or_name(world, tmp_path):
    named_otherwise = Authority.create(tmp_path, NOW).issue("server", ["edge.example"], NOW, 30)
    for files, trusted, message in (
        (named_otherwise, world.good, "must be in date and of this side's CA"),
        (world.good, world.good, "must be in date and of this side's CA"),
        (
            named_otherwise,
            TlsFiles(ca=named_otherwise.ca, certificate=world.good.certificate, key=world.good.key),
            "must name the host that was asked for",
        ),
    ):
        config = ServerConfig(host="localhost", tls=files)
        with (
            EdgeServer(BUNDLE, TinyStages(), config) as server,
            connect(server, trusted) as transport,
            pytest.raises(LinkError, match=message),
        ):
            transport.ping(timeout_s=LONG_S).result()


def test_plain_text_and_tls_do_not_mix(world):
    plain = EdgeServer(BUNDLE, TinyStages(), ServerConfig(insecure=True))
    with plain, serve(world) as server:
        with (
            connect(server, None) as transport,
            pytest.raises(LinkError, match="both sides must speak TLS, or neither"),
        ):
            transport.ping(timeout_s=LONG_S).result()
        with (
            GrpcTransport(f"127.0.0.1:{plain.port}", BUNDLE, tls=world.good) as transport,
            pytest.raises(LinkError, match="the server speaks plain text"),
        ):
            transport.ping(timeout_s=LONG_S).result()

        assert serves(server, world.good)


def test_a_name_that_is_not_on_the_list_is_refused_for_every_service(world, caplog):
    with serve(world, allowed_names=frozenset({"cam-1"})) as server:
        with (
            connect(server, world.second) as transport,
            pytest.raises(LinkError, match="PERMISSION_DENIED: a device must be on"),
        ):
            transport.ping(timeout_s=LONG_S).result()
        with channel_of(server, world.second) as channel, pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=LONG_S)

        assert caught.value.code() == CODE.PERMISSION_DENIED
        assert refused(server) == {"not-allowed": 2}
        assert serves(server, world.good)
    assert caplog.text.count("refused a request of cam-2 (not-allowed") == 1


def test_the_list_may_change_while_devices_are_connected(world, tmp_path):
    path = tmp_path / "allowed.txt"
    path.write_text("cam-1\n")
    with (
        serve(world, allow_file=path) as server,
        connect(server, world.good) as first,
        connect(server, world.second) as second,
    ):
        first.ping(timeout_s=LONG_S).result()
        with pytest.raises(LinkError, match="PERMISSION_DENIED"):
            second.ping(timeout_s=LONG_S).result()

        replacement = tmp_path / "new"
        replacement.write_text("cam-2\n")
        os.replace(replacement, path)

        second.ping(timeout_s=LONG_S).result()
        with pytest.raises(LinkError, match="PERMISSION_DENIED"):
            first.ping(timeout_s=LONG_S).result()


def replace_files(files, new):
    """Put other content where a side's files are, as a certificate service would."""
    for old_path, new_path in (
        (files.ca, new.ca), (files.key, new.key), (files.certificate, new.certificate)
    ):  # fmt: skip
        shutil.copy(new_path, fresh := old_path.with_suffix(".new"))
        os.replace(fresh, old_path)


def copy_of(files, folder):
    folder.mkdir()
    paths = {name: folder / name for name in ("ca", "certificate", "key")}
    for name, path in paths.items():
        shutil.copy(getattr(files, name), path)
    return TlsFiles(**paths)


def test_both_sides_change_certificates_without_a_restart(world, tmp_path):
    server_files = copy_of(world.server, tmp_path / "server")
    device_files = copy_of(world.good, tmp_path / "device")
    new_server = world.others.issue("server", ["localhost"], NOW, 30)
    config = ServerConfig(host="localhost", tls=server_files)
    with (
        EdgeServer(BUNDLE, TinyStages(), config) as server,
        connect(server, device_files) as device,
    ):
        device.ping(timeout_s=LONG_S).result()

        replace_files(server_files, new_server)

        with connect(server, world.good) as late, pytest.raises(LinkError, match="UNAVAILABLE"):
            late.ping(timeout_s=LONG_S).result()
        assert serves(server, world.other_device)
        assert device.send(frame(), timeout_s=LONG_S).result().answer == 2, "an open connection"

        with pytest.raises(LinkError):
            device.knock(timeout_s=LONG_S).result()
        replace_files(device_files, world.other_device)
        assert device.knock(timeout_s=LONG_S).result() == BUNDLE.hash


def test_damaged_replacements_change_nothing(world, tmp_path, caplog):
    files = copy_of(world.server, tmp_path / "server")
    config = ServerConfig(host="localhost", tls=files)
    with EdgeServer(BUNDLE, TinyStages(), config) as server:
        for path, content in (
            (files.key, world.good.key.read_bytes()), (files.ca, b"junk"), (files.certificate, b"")
        ):  # fmt: skip
            path.write_bytes(content)
            assert serves(server, world.good)
            assert serves(server, world.second)

    assert caplog.text.count("keeping the TLS files of before") == 3


def test_files_that_do_not_belong_together_are_an_error_at_the_start(world):
    mixed = TlsFiles(ca=world.good.ca, certificate=world.good.certificate, key=world.server.key)

    with pytest.raises(ConfigError, match="the key that of the certificate"):
        EdgeServer(BUNDLE, TinyStages(), ServerConfig(tls=mixed))
    with pytest.raises(ConfigError, match="the key that of the certificate"):
        GrpcTransport("localhost:1", BUNDLE, tls=mixed)


def test_an_allow_list_needs_tls(tmp_path):
    with pytest.raises(ConfigError, match="an allow-list must come with TLS"):
        ServerConfig(insecure=True, allowed_names=frozenset({"cam-1"}))
    with pytest.raises(ConfigError, match="an allow-list must come with TLS"):
        ServerConfig(insecure=True, allow_file=tmp_path)


@pytest.mark.slow
def test_the_commands_make_certificates_and_serve_with_them(tmp_path):
    folder, place = tmp_path / "certs", tmp_path / "bundle"
    place.mkdir()
    bundle = write_color_bundle(place)

    def files(name):
        return TlsFiles(
            ca=folder / "ca.pem", certificate=folder / f"{name}.pem", key=folder / f"{name}.key"
        )

    def ask(address, name):
        with GrpcTransport(address, bundle, tls=files(name)) as transport:
            return transport.peer_hash(timeout_s=LONG_S).exception()

    assert main(["certs", str(folder), "--server-name", "edge", "--device", "cam-1"]) == 0
    server = files("edge")
    command = [
        sys.executable, "-m", "adaptive_split", "serve", "--bundle", str(place),
        "--host", "localhost", "--ca", str(server.ca), "--certificate", str(server.certificate),
        "--key", str(server.key), "--allow-file", str(folder / "allowed.txt"),
    ]  # fmt: skip
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        address = process.stdout.readline().strip()
        first = ask(address, "cam-1")
        main(["certs", str(folder), "--device", "cam-2"])
        later = ask(address, "cam-2")
        (folder / "allowed.txt").write_text("cam-2\n")
        taken_off = ask(address, "cam-1")
        process.terminate()
        _, told = process.communicate(timeout=LONG_S)

    assert (first, later) == (None, None)
    assert "PERMISSION_DENIED" in str(taken_off)
    assert "refused a request of cam-1 (not-allowed" in told
    assert process.returncode == 0
