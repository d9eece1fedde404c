"""The files that run us as a service, and the words we exchange with the service manager."""

import configparser
import contextlib
import json
import re
import shlex
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from adaptive_split import cli
from adaptive_split.runtime.notify import BEATS_PER_LIMIT, Notifier
from adaptive_split.testing import ManualClock

ROOT = Path(__file__).parents[2]
UNITS = sorted((ROOT / "deploy" / "systemd").glob("*.service"))
RECIPES = sorted((ROOT / "deploy" / "containers").glob("*.Dockerfile"))
COMMAND = "/opt/adaptive-split/bin/adaptive-split"
BY_SYSTEMD = {"STATE_DIRECTORY": "/var/lib/adaptive-split", "INVOCATION_ID": "0123"}
MOST_EXPOSED = 2.5
"""Of ten, as `systemd-analyze security` counts; a service that says nothing has 9.6."""
HARDENED = {
    "NoNewPrivileges": "yes", "ProtectSystem": "strict", "ProtectHome": "yes",
    "CapabilityBoundingSet": "", "SystemCallFilter": "@system-service",
}  # fmt: skip


def read_unit(path):
    """A unit's sections; a name given twice or a line that is none is an error."""
    parser = configparser.ConfigParser(interpolation=None, delimiters="=", strict=True)
    parser.optionxform = str
    parser.read_string(path.read_text(encoding="utf-8").replace("\\\n", " "))
    return parser


def read_environment(unit):
    """The example of the environment file that a unit names."""
    name = Path(unit["Service"]["EnvironmentFile"]).name
    lines = (ROOT / "deploy" / "systemd" / name).read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def words_of(unit):
    """Our command in a unit, filled in as systemd does."""
    values = read_environment(unit) | BY_SYSTEMD
    words = shlex.split(unit["Service"]["ExecStart"])
    filled = [re.sub(r"\$\{(\w+)\}", lambda found: values[found[1]], word) for word in words]
    return [word for word in filled if word != "$MORE"]


def instructions(path):
    """The instructions of a recipe: name and rest."""
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [tuple(line.split(None, 1)) for line in lines]


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_the_command_of_a_unit_is_understood(path):
    program, *words = words_of(read_unit(path))
    arguments = cli.build_parser().parse_args(words)

    assert program == COMMAND
    assert arguments.log_format == "json"


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_a_unit_is_watched_restarted_and_kept_in(path):
    service = read_unit(path)["Service"]

    assert (service["Type"], service["NotifyAccess"]) == ("notify", "main")
    assert service["Restart"] == "on-failure"
    assert int(service["WatchdogSec"]) >= 30
    assert int(service["TimeoutStopSec"]) >= 10
    assert service["StandardError"] == "journal"
    assert {name: service[name] for name in HARDENED} == HARDENED


def test_every_example_setting_is_read_by_a_unit():
    for file in sorted((ROOT / "deploy" / "systemd").glob("*.env")):
        units = [unit for path in UNITS if file.name in (unit := path.read_text())]
        names = re.findall(r"^(\w+)=", file.read_text(encoding="utf-8"), re.M)

        unread = [n for n in names if not any(re.search(rf"\${{?{n}\b", text) for text in units)]
        assert unread == []


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
def test_systemd_understands_the_units_and_finds_them_little_exposed(tmp_path):
    for path in UNITS:
        (tmp_path / path.name).write_text(path.read_text().replace(COMMAND, "/bin/true"))
    files = [str(tmp_path / path.name) for path in UNITS]
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *files], capture_output=True, text=True
    )
    judged = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", *files], capture_output=True, text=True
    )
    exposures = [float(number) for number in re.findall(r"level for \S+: ([\d.]+)", judged.stdout)]

    assert (verified.returncode, verified.stderr.strip()) == (0, "")
    if judged.returncode == 0:  # older systemd judges running services only
        assert len(exposures) == len(UNITS)
        assert max(exposures) <= MOST_EXPOSED


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_copies_what_there_is_and_starts_a_command(path):
    found = instructions(path)
    copied = [name for key, rest in found if key == "COPY" and "--from" not in rest
              for name in rest.split()[:-1]]  # fmt: skip
    words = [word for key, rest in found if key in ("ENTRYPOINT", "CMD")
             for word in json.loads(rest)]  # fmt: skip
    users = [rest for key, rest in found if key == "USER"]

    assert [name for name in copied if not (ROOT / name).exists()] == []
    assert words[0] == "adaptive-split"
    assert users[-1:] == ["adaptive-split"]
    assert ("STOPSIGNAL", "SIGTERM") in found
    assert "has not been built" in path.read_text(encoding="utf-8")


def test_the_whole_command_of_the_server_recipe_is_understood():
    found = dict(instructions(ROOT / "deploy" / "containers" / "server.Dockerfile"))
    words = json.loads(found["ENTRYPOINT"]) + json.loads(found["CMD"])

    assert cli.build_parser().parse_args(words[1:]).bundle == "garments"


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path):
    """A service manager's socket, and its name as the environment tells it."""
    path = str(tmp_path / "notify")
    name = path if request.param == "path" else "@" + path
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(path if request.param == "path" else "\0" + path)
        receiver.setblocking(False)
        yield receiver, name


def heard(receiver):
    words = []
    with contextlib.suppress(BlockingIOError):
        while True:
            words.append(receiver.recv(100).decode())
    return words


def test_a_manager_hears_of_ready_alive_and_stopping(manager):
    receiver, name = manager
    notifier = Notifier(ManualClock(), {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "8000000"})
    notifier.ready()
    notifier.alive()
    notifier.stopping()

    assert heard(receiver) == ["READY=1", "WATCHDOG=1", "STOPPING=1"]


def test_signs_of_life_come_often_enough_and_not_at_every_frame(manager):
    receiver, name = manager
    clock = ManualClock()
    notifier = Notifier(clock, {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "8000000"})
    for _ in range(800):
        notifier.alive()
        clock.advance(0.02)

    assert len(heard(receiver)) == pytest.approx(2 * BEATS_PER_LIMIT, abs=1)


@pytest.mark.parametrize(
    "watchdog", [{}, {"WATCHDOG_USEC": "8000000", "WATCHDOG_PID": "1"}], ids=["none", "another's"]
)
def test_without_a_watchdog_of_ours_no_sign_of_life_is_sent(manager, watchdog):
    receiver, name = manager
    Notifier(ManualClock(), {"NOTIFY_SOCKET": name, **watchdog}).alive()

    assert heard(receiver) == []


def test_a_manager_that_does_not_read_holds_nothing_up(manager):
    receiver, name = manager
    notifier = Notifier(ManualClock(), {"NOTIFY_SOCKET": name})
    for _ in range(200):
        notifier.ready()

    assert set(heard(receiver)) == {"READY=1"}


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": "/nowhere/at/all"}])
def test_nobody_to_tell_is_no_failure(environment):
    Notifier(ManualClock(), environment).ready()
