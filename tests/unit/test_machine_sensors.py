"""Power mode and energy counters, on trees of files like those of real machines."""

import pytest

from adaptive_split.runtime.sensors.energy import RaplMeter, find_energy_meter
from adaptive_split.runtime.sensors.power_mode import power_mode


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
