"""A doctor tells what works, what does not, and what to do about it."""

import json
import os
from datetime import datetime, timedelta, timezone

import onnxruntime
import pytest

from adaptive_split import cli
from adaptive_split.bundle import ModelBundle, bundle_path
from adaptive_split.cli.hardware import chosen_provider
from adaptive_split.errors import ConfigError
from adaptive_split.runtime.certificates import Authority
from adaptive_split.runtime.credentials import TlsFiles
from adaptive_split.runtime.doctor.certificates import examine_certificates
from adaptive_split.runtime.doctor.engines import examine_providers
from adaptive_split.runtime.doctor.finding import GREEN, RED, YELLOW, Finding, examine, green, worst
from adaptive_split.runtime.doctor.link import examine_link
from adaptive_split.runtime.doctor.machine import (
    clock_is_synchronized,
    examine_clock,
    examine_disk,
    examine_memory,
)
from adaptive_split.runtime.doctor.senses import examine_senses
from adaptive_split.runtime.providers import CUDA, TENSORRT, engine_folder, with_options
from adaptive_split.testing import tiny_bundle
from tests.fake_boards import BOARDS, FakeBoard, Monitor, write_board
from tests.secure_world import BUNDLE, NOW, World, serve

SLO_S = 30.0


def by_subject(findings):
    return {one.subject: one for one in findings}


def levels(findings):
    return {one.subject: one.level for one in findings}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("doctor"))


@pytest.fixture(scope="module")
def garments():
    return ModelBundle.load(bundle_path("garments"))


@pytest.mark.parametrize("name", BOARDS)
def test_a_jetson_can_measure_its_power_heat_and_gpu(tmp_path, name):
    found = by_subject(examine_senses(write_board(tmp_path, BOARDS[name]), "system"))

    assert {found[one].level for one in ("board", "power", "temperature", "GPU load")} == {GREEN}
    assert "carrier board" in found["power"].found
    assert BOARDS[name].model in found["board"].found


def test_a_bare_machine_works_with_less_and_is_told_how_to_get_more(tmp_path):
    found = examine_senses(tmp_path, "system")

    assert levels(found) == {
        "board": GREEN, "power": YELLOW, "power mode": YELLOW, "temperature": YELLOW,
        "battery": YELLOW,
    }  # fmt: skip


def test_heat_strange_rails_and_a_hidden_gpu_are_told(tmp_path):
    rails = (Monitor("hwmon", "1-0040", (("VDD_A", 5.0, 1.0),)),)
    strange = FakeBoard("Next", "# R99 (release), REVISION: 1.0", rails, 5.0, zones={"a": "95000"})
    root = write_board(tmp_path, strange)
    (root / strange.gpu).unlink()
    found = by_subject(examine_senses(root, "nut:ups@127.0.0.1:1"))

    assert "nobody knows how VDD_A add up" in found["power"].found
    assert "95.0 C" in found["temperature"].found
    assert found["GPU load"].level == found["temperature"].level == found["power"].level == YELLOW
    assert found["battery"].level == RED


def test_counters_of_the_superuser_are_told_from_none(tmp_path):
    zone = tmp_path / "sys/class/powercap/intel-rapl:0"
    zone.mkdir(parents=True)
    (zone / "energy_uj").write_text("not for you")

    power = by_subject(examine_senses(tmp_path, "system"))["power"]

    assert "for the superuser only" in power.found


@pytest.mark.parametrize(
    ("synchronized", "level"), [(True, GREEN), (False, YELLOW), (None, YELLOW)]
)
def test_frames_need_a_fine_clock_and_certificates_a_right_one(synchronized, level):
    assert levels(examine_clock(synchronized)) == {"monotonic clock": GREEN, "wall clock": level}


def test_the_kernel_says_whether_its_clock_is_kept_right():
    assert clock_is_synchronized() in (True, False, None)


@pytest.mark.parametrize(
    ("megabytes", "level"), [(1000, GREEN), (200, YELLOW), (100, RED)], ids=str
)
def test_memory_must_hold_runtime_and_model(megabytes, level):
    [found] = examine_memory(megabytes * 1_000_000, 10_000_000)

    assert found.level == level
    assert "about 150 MB needed" in found.found


def test_records_need_a_folder_that_can_be_written(tmp_path):
    assert levels(examine_disk(tmp_path, 30.0))[f"disk {tmp_path}"] == GREEN

    [found] = examine_disk(tmp_path / "none", 30.0)
    assert (found.level, found.found) == (RED, "cannot be written: No such file or directory")


def test_the_cpu_really_computes_and_a_jetson_without_its_gpu_is_told(garments):
    assert levels(examine_providers(garments, is_jetson=False)) == {"provider cpu": GREEN}
    assert levels(examine_providers(garments, is_jetson=True))["provider cuda"] == YELLOW


def test_a_provider_that_is_offered_and_does_not_start_is_told(monkeypatch, tmp_path, garments):
    monkeypatch.setenv("CACHE_DIRECTORY", str(tmp_path))
    offered = [TENSORRT, CUDA, "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: offered)
    with pytest.warns(UserWarning, match="not in available provider names"):
        found = by_subject(examine_providers(garments, is_jetson=True))

    assert {one: found[one].level for one in ("provider cuda", "provider tensorrt")} == {
        "provider cuda": YELLOW, "provider tensorrt": YELLOW,
    }  # fmt: skip
    assert found["engine cache"].found == (
        f"none yet in {engine_folder(garments.hash, TENSORRT, 'unknown')}"
    )


def test_a_run_refuses_a_provider_that_onnx_runtime_would_leave_out(garments):
    assert chosen_provider("cpu", garments) == "CPUExecutionProvider"

    with pytest.raises(ConfigError, match=r"must be one that starts here, of .*got CUDA"):
        chosen_provider("cuda", garments)


def test_engines_are_kept_by_bundle_provider_and_power_mode(monkeypatch, tmp_path):
    monkeypatch.setenv("CACHE_DIRECTORY", str(tmp_path))

    folders = {
        engine_folder(bundle_hash, provider, mode)
        for bundle_hash in ("a" * 64, "b" * 64)
        for provider in (TENSORRT, CUDA)
        for mode in ("15W", "MAXN")
    }
    [(name, options), fallback] = with_options([TENSORRT], "a" * 64)

    assert len(folders) == 8
    assert (name, fallback) == (TENSORRT, CUDA)
    assert options["trt_engine_cache_enable"] == "1"
    assert os.path.isdir(options["trt_engine_cache_path"])


def test_a_cache_is_where_the_service_or_the_user_has_one(monkeypatch, tmp_path):
    monkeypatch.delenv("CACHE_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    folder = engine_folder("a" * 64, TENSORRT, "NV Power: 15W")

    assert folder.parent == tmp_path / "adaptive-split" / "engines"
    assert folder.name == f"{'a' * 16}-tensorrtexecutionprovider-nv-power-15w"


def test_a_server_is_healthy_near_and_holds_the_same_model(world):
    with serve(world) as server:
        found = levels(examine_link(f"localhost:{server.port}", BUNDLE, world.good, SLO_S))
        slow = levels(examine_link(f"localhost:{server.port}", BUNDLE, world.good, 0.0))
        other = examine_link(f"localhost:{server.port}", tiny_bundle("1"), world.good, SLO_S)
        foreign = by_subject(other)[f"server localhost:{server.port}, model"]

    subject = f"server localhost:{server.port}"
    assert found == {f"{subject}, {one}": GREEN for one in ("model", "round trip", "health")}
    assert slow[f"{subject}, round trip"] == YELLOW
    assert foreign.level == RED
    assert "111111111111" in foreign.found


def test_a_server_that_does_not_let_us_in_or_is_not_there_is_red(world):
    with serve(world) as server:
        address = f"localhost:{server.port}"
        alien = levels(examine_link(address, BUNDLE, world.alien, SLO_S))
    gone = levels(examine_link(address, BUNDLE, None, SLO_S))

    assert alien == {f"server {address}": RED}
    assert gone == {f"server {address}": RED, f"server {address}, TLS": YELLOW}


def test_good_certificates_are_green(world):
    found = examine_certificates(world.good, NOW)

    assert set(levels(found).values()) == {GREEN}


@pytest.mark.parametrize(
    ("files", "subject", "level", "told"),
    [
        ("expired", "certificate", RED, "expired on"),
        ("server", "certificate purpose", RED, "not a device's"),
        ("crossed", "certificate chain", RED, "the CA did not sign"),
        ("missing", "certificate files", RED, "must be readable PEM files"),
    ],
)
def test_certificates_that_cannot_work_are_red(world, tmp_path, files, subject, level, told):
    crossed = TlsFiles(
        ca=world.other_device.ca, certificate=world.good.certificate, key=world.good.key
    )
    missing = TlsFiles(ca=tmp_path / "ca", certificate=tmp_path / "a", key=tmp_path / "b")
    tls = {"crossed": crossed, "missing": missing}.get(files) or getattr(world, files)
    found = by_subject(examine_certificates(tls, NOW))[subject]

    assert found.level == level
    assert told in found.found


def test_a_certificate_about_to_expire_and_a_key_for_all_to_read_are_yellow(tmp_path):
    authority = Authority.create(tmp_path, NOW)
    tls = authority.issue("device", ["cam"], NOW, 30)
    tls.key.chmod(0o644)
    found = by_subject(examine_certificates(tls, NOW + timedelta(days=20)))
    early = by_subject(examine_certificates(tls, datetime(2020, 1, 1, tzinfo=timezone.utc)))

    assert found["certificate"].level == found["private key"].level == YELLOW
    assert found["private key"].advice == f"chmod 600 {tls.key}"
    assert "set the clock right" in early["certificate"].advice


def test_a_check_that_breaks_is_a_finding_and_the_worst_level_counts():
    def broken():
        yield green("one", "well")
        raise RuntimeError("unforeseen")

    [found] = examine("this", broken)

    assert found.level == RED
    assert "unforeseen" in found.found
    assert worst([green("one", "well"), found]) == RED
    assert worst([]) == GREEN


@pytest.mark.parametrize(("level", "advice"), [(RED, ""), (GREEN, "rest"), ("blue", "rest")])
def test_trouble_needs_advice_and_health_none(level, advice):
    with pytest.raises(ConfigError, match="a finding must be green, or yellow or red with advice"):
        Finding(subject="it", level=level, found="so", advice=advice)


def test_the_command_prints_a_table_or_json_and_fails_when_red(tmp_path, capsys):
    here = ["doctor", "--records", str(tmp_path)]

    assert cli.main(here) == 0
    shown = capsys.readouterr().out
    assert "provider cpu" in shown
    assert "0 red: it works, with less" in shown or "all is well" in shown

    assert cli.main(["doctor", "--records", str(tmp_path / "none"), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["worst"] == RED
    assert {"subject", "level", "found", "advice"} == set(told["findings"][0])


def test_a_server_is_examined_only_with_certificates_or_in_plain_text(capsys):
    assert cli.main(["doctor", "--server", "localhost:1"]) == 2
    assert "or say --insecure" in capsys.readouterr().err
