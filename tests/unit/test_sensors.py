"""Sensors tell the truth or that they do not know."""

from types import SimpleNamespace

import psutil
import pytest

from adaptive_split.errors import ConfigError
from adaptive_split.runtime.sensors.battery import ModelledBattery, SystemBattery
from adaptive_split.runtime.sensors.load import LoadSensor
from adaptive_split.testing import ManualClock


def test_a_machine_is_busy_by_shares():
    load = LoadSensor().read()

    assert 0 <= load.cpu <= 1
    assert 0 < load.memory < 1


@pytest.mark.parametrize(
    ("reading", "soc"), [(None, None), (SimpleNamespace(percent=40), 0.4)], ids=["none", "some"]
)
def test_a_system_battery_may_be_unknown(monkeypatch, reading, soc):
    monkeypatch.setattr(psutil, "sensors_battery", lambda: reading, raising=False)

    assert SystemBattery().soc() == soc


def test_a_platform_without_batteries_is_unknown(monkeypatch):
    monkeypatch.delattr(psutil, "sensors_battery", raising=False)

    assert SystemBattery().soc() is None


@pytest.mark.parametrize(
    "failure", [OSError("gone"), ValueError("''"), None], ids=["unreadable", "garbled", "gone"]
)
def test_a_system_battery_that_vanishes_is_unknown_told_once_and_known_when_back(
    monkeypatch, caplog, failure
):
    def broken():
        if failure is not None:
            raise failure

    battery, levels = SystemBattery(), []
    for read in (lambda: SimpleNamespace(percent=40), broken, broken):
        monkeypatch.setattr(psutil, "sensors_battery", read, raising=False)
        levels.append(battery.soc())
    monkeypatch.setattr(
        psutil, "sensors_battery", lambda: SimpleNamespace(percent=39), raising=False
    )

    assert [*levels, battery.soc()] == [0.4, None, None, 0.39]
    assert caplog.text.count("the battery must tell its charge") == 1


def test_a_charge_that_is_no_number_is_unknown(monkeypatch):
    nan = SimpleNamespace(percent=float("nan"))
    monkeypatch.setattr(psutil, "sensors_battery", lambda: nan, raising=False)

    assert SystemBattery().soc() is None


def test_a_modelled_battery_counts_joules_down_to_empty():
    battery = ModelledBattery(200.0, soc=0.5)

    levels = []
    for _ in range(3):
        levels.append(battery.soc())
        battery.drain(60.0)

    assert levels == [0.5, 0.2, 0.0]


def test_a_modelled_battery_gives_its_idle_power_all_the_time():
    clock = ManualClock(5.0)
    battery = ModelledBattery(100.0, idle_w=0.5, clock=clock)

    clock.advance(60.0)
    battery.drain(20.0)

    assert battery.soc() == 0.5
    clock.advance(200.0)
    assert battery.soc() == 0.0


@pytest.mark.parametrize(
    ("capacity_j", "soc", "message"),
    [(0.0, 1.0, "capacity_j must be positive"), (1.0, 1.5, r"soc must lie in \[0, 1\]; got 1.5")],
)
def test_a_battery_that_cannot_be_is_refused(capacity_j, soc, message):
    with pytest.raises(ConfigError, match=message):
        ModelledBattery(capacity_j, soc)
