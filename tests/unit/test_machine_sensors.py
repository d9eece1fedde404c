"""Power, heat, load and mode of a machine, on trees of files like those of real machines."""

import sys
from types import ModuleType, SimpleNamespace

import pytest

from adaptive_split.errors import ConfigError
from adaptive_split.runtime.sensors.boards import board_name, linux_release
from adaptive_split.runtime.sensors.energy import RaplMeter, find_energy_meter
from adaptive_split.runtime.sensors.gpu import gpu_load
from adaptive_split.runtime.sensors.power import STALE_S, SampledMeter, Trapezoid, find_power
from adaptive_split.runtime.sensors.power_mode import power_mode
from adaptive_split.runtime.sensors.rails import RailPower, find_rails
from adaptive_split.runtime.sensors.reading import Reading
from adaptive_split.runtime.sensors.thermal import hottest, temperatures
from adaptive_split.testing import ManualClock
from tests.fake_boards import BOARDS, FakeBoard, Monitor, write_board


@pytest.mark.parametrize("name", BOARDS)
def test_a_board_tells_what_it_draws_once_and_whether_its_carrier_is_in_it(tmp_path, name):
    board = BOARDS[name]

    power = find_power(write_board(tmp_path, board))

    assert power.power_w() == pytest.approx(board.power_w, abs=0.01)
    assert power.with_carrier == (board.input_w is not None)
    assert ("without carrier" in power.source) != power.with_carrier


@pytest.mark.parametrize("name", BOARDS)
def test_a_board_tells_its_name_release_load_and_heat(tmp_path, name):
    board = BOARDS[name]

    root = write_board(tmp_path, board)

    assert board_name(root) == board.model
    assert linux_release(root).startswith("R3")
    assert gpu_load(root).value == 0.437
    assert 41 <= hottest(root).value <= 51.5


def test_channels_without_a_line_are_no_rails(tmp_path):
    rails = find_rails(write_board(tmp_path, BOARDS["agx-orin"]))

    assert set(rails) == {"VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0", "VDDQ_VDD2_1V8AO"}


def test_zones_that_are_off_or_tell_a_constant_are_left_out(tmp_path):
    nano, orin = tmp_path / "nano", tmp_path / "orin"

    assert "PMIC-Die" not in temperatures(write_board(nano, BOARDS["nano"]))
    assert set(temperatures(write_board(orin, BOARDS["orin-nano"]))) == {
        "cpu-thermal", "tj-thermal",
    }  # fmt: skip


def test_rails_that_nobody_knows_are_not_added_up(tmp_path):
    rails = (("VDD_A", 5.0, 1.0), ("VDD_B", 5.0, 1.0))
    strange = FakeBoard("Jetson Next", "", (Monitor("hwmon", "1-0040", rails),), 10.0)
    root = write_board(tmp_path, strange)

    assert find_power(root) is None
    with pytest.raises(ValueError, match="rails must be those of a known board; got VDD_A, VDD_B"):
        RailPower(find_rails(root))


@pytest.mark.parametrize("told", ["", "12 mA", "999999999"])
def test_a_monitor_that_tells_nonsense_is_an_error_not_a_power(tmp_path, told):
    root = write_board(tmp_path, BOARDS["orin-nano"])
    power = find_power(root)
    (file,) = root.glob("sys/bus/i2c/**/curr1_input")
    file.write_text(told)

    with pytest.raises(OSError, match=r"must (tell a number|be below)"):
        power.power_w()


def test_a_machine_without_any_of_it_says_why(tmp_path):
    assert find_power(tmp_path) is None
    assert board_name(tmp_path) == linux_release(tmp_path) == ""
    assert (hottest(tmp_path).value, gpu_load(tmp_path).value) == (None, None)
    assert "no thermal zone" in hottest(tmp_path).source


@pytest.mark.parametrize(
    ("value", "provenance", "message"),
    [
        (None, "measured", "a reading must have a value"),
        (0.0, "unavailable", "a reading must have a value"),
        (1.0, "guessed", "provenance must be measured, modelled or unavailable; got 'guessed'"),
    ],
)
def test_a_reading_without_a_number_is_unavailable_and_no_other_is(value, provenance, message):
    with pytest.raises(ConfigError, match=message):
        Reading(value=value, unit="W", source="", provenance=provenance)


def test_energy_is_the_integral_of_power_by_trapezoids():
    integral = Trapezoid()

    for time_s, power_w in ((10.0, 2.0), (11.0, 4.0), (13.0, 4.0)):
        integral.add(time_s, power_w)

    assert integral.energy_j(13.0) == 3.0 + 8.0
    assert integral.energy_j(13.5) == 13.0


class FakePower:
    """A power that may fail."""

    source, with_carrier = "a fake", False
    watts = 3.0

    def power_w(self):
        """Power, or a failure."""
        if self.watts is None:
            raise OSError("gone")
        return self.watts


def test_a_meter_counts_while_its_power_can_be_read_and_says_when_it_cannot():
    power, clock = FakePower(), ManualClock()
    meter = SampledMeter(power, clock=clock)
    meter.close()

    clock.advance(1.5)
    assert meter.energy_j() == pytest.approx(4.5)

    clock.advance(STALE_S)
    with pytest.raises(OSError, match=r"must be sampled every 2\.0 s; got nothing for 3\.5"):
        meter.energy_j()


def test_a_jetson_is_metered_by_its_rails(tmp_path):
    meter = find_energy_meter(write_board(tmp_path, BOARDS["orin-nano"]))

    try:
        assert meter.source == "VDD_IN (module without carrier board)"
        assert 0 <= meter.energy_j() < 100
    finally:
        meter.close()


def install(monkeypatch, name, **members):
    """Put a stand-in where a package would be imported from."""
    module = ModuleType(name)
    vars(module).update(members)
    monkeypatch.setitem(sys.modules, name, module)


class FakeService:
    """Answers as jetson-stats does: the rail that is the total stands apart."""

    power = None

    def start(self):
        """Connect."""
        self.power = {
            "rail": {"VDD_CPU_GPU_CV": {"power": 1500}, "VDD_SOC": {"power": 1100}},
            "tot": {"name": "VDD_IN", "power": 6200},
        }

    def ok(self):
        """Wait for data."""
        return True


def test_jetson_stats_stands_in_where_the_files_are_missing(monkeypatch):
    from adaptive_split.runtime.sensors.jtop_rails import jtop_rails

    service = FakeService()
    install(monkeypatch, "jtop", jtop=lambda: service)
    power = RailPower(jtop_rails())

    assert power.power_w() == 6.2
    service.power = {}
    with pytest.raises(OSError, match="jetson-stats must tell VDD_IN"):
        power.power_w()


def test_jetson_stats_without_its_service_or_at_all_is_no_source(monkeypatch):
    from adaptive_split.runtime.sensors.jtop_rails import jtop_rails

    def refuse():
        raise RuntimeError("the service is not running")

    monkeypatch.setitem(sys.modules, "jtop", None)
    assert jtop_rails() == {}
    install(monkeypatch, "jtop", jtop=refuse)
    assert jtop_rails() == {}


def test_zeus_counts_from_when_it_is_asked_and_has_to_have_a_total(monkeypatch):
    from adaptive_split.runtime.sensors.zeus_meter import find_zeus

    chip = SimpleNamespace(total_energy_mj=5000.0)
    chip.get_total_energy_consumption = lambda: chip
    install(monkeypatch, "zeus.device.soc", get_soc=lambda: chip)
    meter = find_zeus()

    chip.total_energy_mj = 7500.0
    assert meter.energy_j() == 2.5
    chip.total_energy_mj = None
    with pytest.raises(OSError, match="Zeus must tell a total"):
        meter.energy_j()
    assert find_zeus() is None


def write_nvpmodel(root, script):
    """A program in the place of Jetson's."""
    program = root / "usr" / "sbin" / "nvpmodel"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def write_governor(root, text="schedutil\n"):
    file = root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"
    file.parent.mkdir(parents=True)
    file.write_text(text)


def write_package(root, name, energy_uj, range_uj=1000_000_000):
    zone = root / "sys/class/powercap" / name
    zone.mkdir(parents=True, exist_ok=True)
    (zone / "energy_uj").write_text(f"{energy_uj}\n")
    (zone / "max_energy_range_uj").write_text(f"{range_uj}\n")


def test_a_jetson_tells_its_power_mode(tmp_path):
    write_nvpmodel(tmp_path, '[ "$1" = -q ] && printf "NV Fan Mode:quiet\\nNV Power Mode: 5W\\n1"')
    write_governor(tmp_path)

    assert power_mode(tmp_path) == "5W"


@pytest.mark.parametrize("script", ["exit 1", "echo nothing of the kind"])
def test_another_machine_or_a_broken_tool_gives_the_governor(tmp_path, script):
    write_nvpmodel(tmp_path, script)
    write_governor(tmp_path)

    assert power_mode(tmp_path) == "governor schedutil"


def test_nobody_knows_the_mode_of_a_machine_without_either(tmp_path):
    assert power_mode(tmp_path) == "unknown"


def test_packages_are_added_up_and_their_parts_left_out(tmp_path):
    write_package(tmp_path, "intel-rapl:0", 5_000_000)
    write_package(tmp_path, "intel-rapl:1", 7_000_000)
    write_package(tmp_path, "intel-rapl:0:0", 1)
    meter = find_energy_meter(tmp_path)

    write_package(tmp_path, "intel-rapl:0", 6_500_000)
    write_package(tmp_path, "intel-rapl:1", 7_250_000)
    write_package(tmp_path, "intel-rapl:0:0", 999_999_999)

    assert isinstance(meter, RaplMeter)
    assert meter.energy_j() == pytest.approx(1.75)
    assert "2 processor package(s)" in meter.source


def test_a_counter_that_starts_again_goes_on(tmp_path):
    write_package(tmp_path, "intel-rapl:0", 9_000_000, range_uj=10_000_000)
    meter = find_energy_meter(tmp_path)

    readings = []
    for energy_uj in (2_000_000, 8_000_000, 1_000_000):
        write_package(tmp_path, "intel-rapl:0", energy_uj, range_uj=10_000_000)
        readings.append(meter.energy_j())

    assert readings == pytest.approx([3.0, 9.0, 12.0])


def test_a_machine_that_counts_nothing_or_keeps_it_to_itself_has_no_meter(tmp_path):
    assert find_energy_meter(tmp_path) is None

    write_package(tmp_path, "intel-rapl:0", "not for you")
    assert find_energy_meter(tmp_path) is None
