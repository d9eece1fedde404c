"""Releases under `run`: real processes, tried, killed, rolled back."""

import json
import re
import signal
import subprocess
from dataclasses import replace

import pytest

from adaptive_split.bundle import bundle_path
from adaptive_split.cli import main
from adaptive_split.cli.common import SHIPPED_CONTROLLER, SHIPPED_PICTURES
from adaptive_split.decision import NEVER, Decision
from adaptive_split.runtime.controller_bundle import ControllerBundle
from adaptive_split.runtime.records import read_records
from adaptive_split.runtime.updates.health import HealthWindow
from adaptive_split.runtime.updates.signature import sign
from adaptive_split.runtime.updates.store import Store
from tests.integration.test_telemetry_run import Command
from tests.releases import KEY, TRUSTED, report

FRAMES = 100


@pytest.fixture(scope="module")
def address():
    server = Command("serve", "--bundle", "garments", "--port", 0, "--insecure")
    yield server.process.stdout.readline().strip()
    server.close()


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """Two controllers: one sends every picture, one computes everything on the device."""
    place, shipped = tmp_path_factory.mktemp("bundles"), ControllerBundle.load(SHIPPED_CONTROLLER)
    kept = {"sends": Decision(0, NEVER, 8), "local": Decision(5, NEVER, 0)}
    for name, decision in kept.items():
        candidate = shipped.grid.index(decision)
        replace(shipped, adapts=False, guard_candidate=candidate).save(place / name)
        sign(place / name, KEY, list(kept).index(name) + 1)
    return {name: place / name for name in kept}


@pytest.fixture
def store(tmp_path, bundles):
    """A store in which the controller that sends is accepted, and frames fared well."""
    made = Store(tmp_path / "store")
    made.install(bundles["sends"], TRUSTED)
    made.accept("by hand")
    window = HealthWindow(FRAMES)
    for index in range(FRAMES):
        window.add(report(index, latency_s=0.08 + 0.001 * (index % 20)), "")
    window.save(made.health_file(made.standing().current))
    return made


@pytest.fixture
def run(address, tmp_path):
    """Start a device."""
    commands = []

    def start(*arguments):
        commands.append(
            Command(
                "run", "--server", address, "--pictures", SHIPPED_PICTURES, "--insecure",
                "--fps", 60, "--records", tmp_path / f"{len(commands)}.jsonl",
                "--log-format", "json", *arguments,
            )
        )  # fmt: skip
        return commands[-1]

    yield start
    for command in commands:
        command.close()


def in_store(store):
    return ("--store", store.folder, "--trial-frames", FRAMES)


@pytest.mark.slow
def test_a_controller_that_harms_is_rolled_back_while_frames_are_played(
    run, store, bundles, tmp_path
):
    store.install(bundles["local"], TRUSTED)

    device = run(*in_store(store), "--num-frames", FRAMES + 60)

    assert device.end() == 0, device.seen
    standing = store.standing()
    assert (standing.state, standing.current[:2]) == ("rolled back", "1-")
    told = [json.loads(line) for line in device.seen]
    assert any(standing.reason in row["message"] for row in told)
    rows = [row.report for row in read_records(tmp_path / "0.jsonl")]
    splits = [row.decision.split_point for row in sorted(rows, key=lambda row: row.frame_index)
              if row.decision]  # fmt: skip
    assert (splits[0], splits[-1]) == (5, 0)
    assert len(rows) == FRAMES + 60


@pytest.mark.slow
def test_a_device_that_is_killed_during_a_trial_goes_back(run, store, bundles):
    new = store.install(bundles["local"], TRUSTED).current

    device = run(*in_store(store), "--num-frames", 10_000)
    while "is on trial" not in device.lines.get(timeout=60):
        pass
    device.close()

    assert store.standing().deaths == 1
    assert store.begin_run(3).name == store.begin_run(3).name == new
    assert store.begin_run(3).name.startswith("1-")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_device_that_is_told_to_stop_while_it_loads_has_not_died(
    run, store, bundles, tmp_path, number
):
    store.install(bundles["local"], TRUSTED)

    device = run(*in_store(store), "--num-frames", 10_000)
    while not store.standing().deaths:
        with pytest.raises(subprocess.TimeoutExpired):
            device.process.wait(0.02)
    device.process.send_signal(number)

    assert device.end() == 0, device.seen
    assert "told to stop before" in device.seen[-1]
    standing = store.standing()
    assert (standing.state, standing.deaths, standing.reason) == ("on trial", 0, "run ended")
    assert not (tmp_path / "0.jsonl").exists()


@pytest.mark.slow
def test_a_model_that_the_server_does_not_hold_is_rolled_back_and_asks_for_a_new_start(
    run, tmp_path
):
    light, store = tmp_path / "light", Store(tmp_path / "store")
    subprocess.run(["cp", "-r", bundle_path("garments-light"), light], check=True)
    sign(light, KEY, 1)
    window = HealthWindow(FRAMES)
    for index in range(FRAMES):
        window.add(report(index, latency_s=0.1), "")
    store.begin_run(3)
    window.save(store.health_file(None))
    store.install(light, TRUSTED)

    device = run(*in_store(store), "--num-frames", 10_000)

    assert device.end() == 75, device.seen
    assert store.standing().current is None
    assert "fell back +" in store.standing().reason


@pytest.mark.slow
def test_two_controllers_share_a_run_and_are_compared(run, bundles, tmp_path):
    device = run("--canary", 0.5, "--canary-controller", bundles["local"], "--controller",
                 bundles["sends"], "--num-frames", 120, "--fps", 40)  # fmt: skip

    assert device.end() == 0, device.seen
    rows = [row.report for row in read_records(tmp_path / "0.jsonl")]
    splits = {"current": 0, "canary": 5}
    assert {row.arm for row in rows} == set(splits)
    assert all(row.decision.split_point == splits[row.arm] for row in rows if row.decision)
    text = device.process.stdout.read()
    assert re.search(r"^canary +\d+ +\d+ +0\.\d{4}", text, re.MULTILINE)
    assert "utility, canary minus current: " in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--server", "x"], "--server must be HOST:PORT, .*; got 'x'"),
        (["--slowdown", "inf"], "--slowdown 0 or more; got None and inf"),
        (["--canary", "0.5"], "--canary must come with"),
        (["--canary-controller", "x"], "must come with --canary"),
        (["--trial-frames", "200"], "must come with --store"),
        (["--store", "s", "--trial-frames", "20"], "at least 100 frames"),
        (["--canary", "2", "--canary-controller", "x"], r"share must lie in \(0, 1\)"),
        (["--canary", "0.5", "--canary-controller", "x"], "a controller bundle must hold"),
    ],
)
def test_what_cannot_be_asked_of_a_run_is_refused(tmp_path, capsys, arguments, message):
    status = main(["run", "--server", "x:1", "--insecure", "--pictures", str(SHIPPED_PICTURES),
                   "--records", str(tmp_path / "r"), *arguments])  # fmt: skip

    assert status == 2
    assert re.search(message, capsys.readouterr().err)
