"""A charge comes from whoever knows it, blocks no frame, and survives a restart where we count."""

import json
import socket
import threading

import psutil
import pytest

from adaptive_split.errors import ConfigError
from adaptive_split.runtime.sensors.background import Background
from adaptive_split.runtime.sensors.batteries import STALE_S, PolledBattery, open_battery
from adaptive_split.runtime.sensors.battery import SystemBattery
from adaptive_split.runtime.sensors.counted import CountedBattery
from adaptive_split.runtime.sensors.nut import NutBattery
from adaptive_split.runtime.sensors.power_supply import supply_soc
from adaptive_split.testing import ManualClock
from tests.fake_boards import BOARDS, write_board

LONG_S = 30.0


def write_supply(root, name, **files):
    folder = root / "sys/class/power_supply" / name
    folder.mkdir(parents=True)
    for key, value in files.items():
        (folder / key).write_text(f"{value}\n")


class FakeMeter:
    """Counts what a test says."""

    source, with_carrier = "a fake", False
    joules = 7.0
    closed = False

    def energy_j(self):
        """Joules so far."""
        if self.joules is None:
            raise OSError("gone")
        return self.joules

    def close(self):
        """Note it."""
        self.closed = True


@pytest.mark.parametrize(
    ("files", "soc"),
    [
        ({"type": "Battery", "capacity": 63}, 0.63),
        ({"type": "Battery", "energy_now": 30, "energy_full": 40}, 0.75),
        ({"type": "Battery", "charge_now": 10, "charge_full": 40}, 0.25),
        ({"type": "Battery", "capacity": 80, "scope": "Device"}, None),
        ({"type": "USB", "capacity": 80}, None),
        ({"type": "Battery", "charge_now": 10, "charge_full": 0}, None),
    ],
    ids=["percent", "energy", "charge", "mouse", "usb-c", "broken"],
)
def test_power_supplies_tell_the_charge_of_what_runs_the_machine(tmp_path, files, soc):
    write_supply(tmp_path, "bq40z50", **files)

    assert supply_soc(tmp_path) == soc


def test_a_gauge_that_psutil_does_not_know_by_name_is_read_all_the_same(monkeypatch, tmp_path):
    monkeypatch.setattr(psutil, "sensors_battery", lambda: None, raising=False)
    write_supply(tmp_path, "bq40z50", type="Battery", capacity=63)

    assert SystemBattery(tmp_path).soc() == 0.63


class Upsd:
    """A `upsd` on a free port that answers every connection with one text."""

    def __init__(self, answer):
        self._answer, self.asked = answer, []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                self.asked.append(connection.recv(1000).decode())
                connection.sendall(self._answer.encode())

    def close(self):
        """Listen no more."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


@pytest.fixture
def upsd(request):
    daemon = Upsd(request.param)
    yield daemon
    daemon.close()


@pytest.mark.parametrize(
    ("upsd", "soc"),
    [
        ('VAR ups battery.charge "87.5"\nOK Goodbye\n', 0.875),
        ("ERR VAR-NOT-SUPPORTED\n", None),
        ('VAR ups battery.charge "8.7.5"\n', None),
        ("", None),
    ],
    indirect=["upsd"],
    ids=["known", "unsupported", "garbled", "silent"],
)
def test_network_ups_tools_tell_the_charge_if_they_know_it(upsd, soc):
    battery = open_battery(f"nut:ups@127.0.0.1:{upsd.port}")

    assert battery.soc() == soc
    assert upsd.asked[0].startswith("GET VAR ups battery.charge\n")


def test_a_daemon_that_is_not_there_is_a_failure_that_polling_survives():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    battery = PolledBattery(NutBattery("ups", "127.0.0.1", port))

    assert battery.soc() is None
    battery.close()


def test_a_count_goes_on_after_a_restart(tmp_path):
    file, meter = tmp_path / "charge.json", FakeMeter()
    battery = CountedBattery(1000.0, file, meter)
    assert battery.soc() == 1.0

    meter.joules += 250.0
    assert battery.soc() == 0.75
    again = CountedBattery(1000.0, file, later := FakeMeter())
    later.joules += 50.0

    assert again.soc() == 0.7
    again.close()
    assert later.closed
    assert json.loads(file.read_text())["left_j"] == 700.0


def test_a_count_that_was_not_saved_loses_a_thousandth_at_most(tmp_path):
    file, meter = tmp_path / "charge.json", FakeMeter()
    battery = CountedBattery(1000.0, file, meter)

    for _ in range(100):
        meter.joules += 0.7
        battery.soc()

    assert json.loads(file.read_text())["left_j"] - 1000.0 * battery.soc() <= 1.0


def test_a_count_misses_nothing_while_its_meter_or_its_file_fails(tmp_path, caplog):
    folder, meter = tmp_path / "state", FakeMeter()
    folder.mkdir()
    battery = CountedBattery(1000.0, folder / "charge.json", meter)
    meter.joules = None
    with pytest.raises(OSError, match="gone"):
        battery.soc()

    (folder / "charge.json").unlink()
    folder.rmdir()
    meter.joules = 107.0

    assert battery.soc() == 0.9
    assert "the count of a battery must be writable" in caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "must be whole; got a damaged"),
        ('{"version": 1, "capacity_j": 1000.0}', "must be whole; got a damaged"),
        ('{"version": 1, "capacity_j": 5.0, "left_j": 1.0}', "must be the count of a battery of"),
        ('{"version": 1, "capacity_j": 1000.0, "left_j": NaN}', "must be the count of a battery"),
    ],
)
def test_a_count_that_is_not_this_batterys_is_refused_with_the_way_out(tmp_path, text, message):
    file = tmp_path / "charge.json"
    file.write_text(text)

    with pytest.raises(ConfigError, match=rf"{message}.*remove it to begin with a full battery"):
        CountedBattery(1000.0, file, FakeMeter())


def test_a_battery_is_counted_where_the_machine_has_a_meter(tmp_path):
    root = write_board(tmp_path / "board", BOARDS["orin-nano"])
    battery = open_battery(f"counted:50Wh:{tmp_path / 'charge.json'}", root)

    assert battery.soc() == pytest.approx(1.0, abs=0.01)
    assert battery.source == "counted from VDD_IN (module without carrier board)"
    battery.close()
    with pytest.raises(ConfigError, match="a counted battery must have a power meter; got none"):
        open_battery("counted:50:charge.json", tmp_path)


@pytest.mark.parametrize("spec", ["", "upsd", "nut:", "counted:fifty:x", "counted:5"])
def test_a_battery_that_nobody_knows_is_refused(spec):
    with pytest.raises(ConfigError, match="a battery must be system, nut:NAME"):
        open_battery(spec)


def test_a_sensor_that_hangs_blocks_nobody_and_its_last_value_ages():
    clock, release, hung = ManualClock(), threading.Event(), threading.Event()
    charges = iter([0.6])

    def read():
        for charge in charges:
            return charge
        hung.set()
        release.wait(LONG_S)
        raise OSError("gone")

    reading = Background(read, 0.001, clock=clock)
    assert hung.wait(LONG_S)
    clock.advance(5.0)

    assert reading.last() == (0.6, 5.0)
    release.set()
    reading.close()


class SlowBattery:
    """Answers once, then never in time."""

    source = "a slow gauge"

    def __init__(self):
        self.closed = False

    def soc(self):
        """The charge."""
        return 0.4

    def drain(self, energy_j):
        """Count nothing."""

    def close(self):
        """Note it."""
        self.closed = True


def test_a_charge_that_nobody_could_read_for_long_is_unknown():
    clock, inner = ManualClock(), SlowBattery()
    battery = PolledBattery(inner, clock=clock)
    assert battery.soc() == 0.4

    clock.advance(STALE_S)
    assert battery.soc() is None
    battery.close()
    assert inner.closed
