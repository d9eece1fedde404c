"""Trees of files like those of real Jetsons, from a table; written from documentation, not boards.

Layouts: NVIDIA's developer guides for JetPack 4 (iio devices), Linux' `hwmon/ina3221.rst` and
`ina238.rst` (hwmon), rails as tegrastats names them. No board was at hand.
"""

from dataclasses import dataclass, field
from pathlib import Path

IIO, HWMON = "iio", "hwmon"


@dataclass(frozen=True)
class Monitor:
    """One INA3221: `rails` as (name, volts, amperes), in the order of its channels."""

    layout: str
    address: str
    rails: tuple[tuple[str, float, float], ...]


@dataclass(frozen=True)
class FakeBoard:
    """One Jetson with one JetPack."""

    model: str
    release: str
    monitors: tuple[Monitor, ...]
    power_w: float
    """What the whole draws, by hand."""
    input_w: float | None = None
    """What an INA238 at the carrier's input tells."""
    gpu: str = "sys/class/devfreq/17000000.gpu/device/load"
    zones: dict[str, str] = field(
        default_factory=lambda: {"cpu-thermal": "51500", "gpu-thermal": "49000"}
    )


def _iio(address, *rails):
    return Monitor(IIO, address, rails)


def _hwmon(address, *rails):
    return Monitor(HWMON, address, rails)


BOARDS = {
    "nano": FakeBoard(
        "NVIDIA Jetson Nano Developer Kit",
        "# R32 (release), REVISION: 7.6, GCID: 38171779, BOARD: t210ref, EABI: aarch64",
        (_iio("6-0040", ("POM_5V_IN", 5, 0.8), ("POM_5V_GPU", 5, 0.1), ("POM_5V_CPU", 5, 0.3)),),
        4.0,
        gpu="sys/devices/gpu.0/load",
        zones={"AO-therm": "39500", "CPU-therm": "41000", "PMIC-Die": "100000"},
    ),
    "xavier-nx-jp4": FakeBoard(
        "NVIDIA Jetson Xavier NX Developer Kit",
        "# R32 (release), REVISION: 7.1, GCID: 29818004, BOARD: t186ref, EABI: aarch64",
        (_iio("7-0040", ("VDD_IN", 5, 1.2), ("VDD_CPU_GPU_CV", 5, 0.5), ("VDD_SOC", 5, 0.3)),),
        6.0,
        gpu="sys/devices/gpu.0/load",
    ),
    "xavier-nx-jp5": FakeBoard(
        "NVIDIA Jetson Xavier NX Developer Kit",
        "# R35 (release), REVISION: 6.4, GCID: 40524270, BOARD: t186ref, EABI: aarch64",
        (_hwmon("7-0040", ("VDD_IN", 5, 1.2), ("VDD_CPU_GPU_CV", 5, 0.5), ("VDD_SOC", 5, 0.3)),),
        6.0,
        gpu="sys/class/devfreq/17000000.gv11b/device/load",
    ),
    "agx-xavier-jp4": FakeBoard(
        "Jetson-AGX",
        "# R32 (release), REVISION: 7.6, GCID: 38171779, BOARD: t186ref, EABI: aarch64",
        (
            _iio("1-0040", ("GPU", 19, 0.2), ("CPU", 19, 0.1), ("SOC", 19, 0.1)),
            _iio("1-0041", ("CV", 19, 0.0), ("VDDRQ", 19, 0.05), ("SYS5V", 19, 0.15)),
        ),
        11.4,
        gpu="sys/devices/gpu.0/load",
    ),
    "agx-xavier-jp5": FakeBoard(
        "NVIDIA Jetson AGX Xavier Developer Kit",
        "# R35 (release), REVISION: 4.1, GCID: 33958178, BOARD: t186ref, EABI: aarch64",
        (
            _hwmon("1-0040", ("GPU", 19, 0.2), ("CPU", 19, 0.1), ("SOC", 19, 0.1)),
            _hwmon("1-0041", ("CV", 19, 0.0), ("VDDRQ", 19, 0.05), ("SYS5V", 19, 0.15)),
        ),
        11.4,
        gpu="sys/class/devfreq/17000000.gv11b/device/load",
    ),
    "orin-nano": FakeBoard(
        "NVIDIA Jetson Orin Nano Developer Kit",
        "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64",
        (_hwmon("1-0040", ("VDD_IN", 5, 0.9), ("VDD_CPU_GPU_CV", 5, 0.2), ("VDD_SOC", 5, 0.3)),),
        4.5,
        zones={"cpu-thermal": "48000", "cv0-thermal": "", "tj-thermal": "50500"},
    ),
    "orin-nx": FakeBoard(
        "NVIDIA Jetson Orin NX Engineering Reference Developer Kit",
        "# R36 (release), REVISION: 5.0, GCID: 43688277, BOARD: generic, EABI: aarch64",
        (_hwmon("1-0040", ("VDD_IN", 5, 1.5), ("VDD_CPU_GPU_CV", 5, 0.5), ("VDD_SOC", 5, 0.4)),),
        7.5,
    ),
    "agx-orin": FakeBoard(
        "NVIDIA Jetson AGX Orin Developer Kit",
        "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64",
        (
            _hwmon("1-0040", ("VDD_GPU_SOC", 12, 0.3), ("VDD_CPU_CV", 12, 0.1),
                   ("VIN_SYS_5V0", 5, 0.6)),
            _hwmon("1-0041", ("NC", 0, 0), ("VDDQ_VDD2_1V8AO", 5, 0.2), ("NC", 0, 0)),
        ),
        7.8,
    ),
    "orin-nano-jp7": FakeBoard(
        "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",
        "# R39 (release), REVISION: 2.0, GCID: 45000000, BOARD: generic, EABI: aarch64",
        (_hwmon("1-0040", ("VDD_IN", 5, 0.9), ("VDD_CPU_GPU_CV", 5, 0.2), ("VDD_SOC", 5, 0.3)),),
        4.5,
    ),
    "thor": FakeBoard(
        "NVIDIA Jetson AGX Thor Developer Kit",
        "# R38 (release), REVISION: 2.0, GCID: 41844464, BOARD: generic, EABI: aarch64",
        (_hwmon("2-0040", ("VDD_GPU", 12, -0.03), ("VDD_CPU_SOC_MSS", 12, 0.5),
                ("VIN_SYS_5V0", 5, 1.3)),),
        23.0,
        input_w=23.0,
    ),
    "thor-on-another-carrier": FakeBoard(
        "A maker's carrier with T5000",
        "# R38 (release), REVISION: 4.0, GCID: 43443517, BOARD: generic, EABI: aarch64",
        (_hwmon("2-0040", ("VDD_GPU", 12, 0.0), ("VDD_CPU_SOC_MSS", 12, 0.5),
                ("VIN_SYS_5V0", 5, 1.3)),),
        12.5,
    ),
}  # fmt: skip


def write_board(root: Path, board: FakeBoard) -> Path:
    """Write a board's tree; return `root`."""
    _write(root, "proc/device-tree/model", board.model + "\0")
    _write(root, "etc/nv_tegra_release", board.release + "\n")
    for index, monitor in enumerate(board.monitors):
        (_write_iio if monitor.layout == IIO else _write_hwmon)(root, index, monitor)
    if board.input_w is not None:
        folder = "sys/bus/i2c/drivers/ina238/2-0044/hwmon/hwmon5"
        _write(root, f"{folder}/name", "ina238")
        _write(root, f"{folder}/power1_input", round(1e6 * board.input_w))
    for index, (name, temp) in enumerate(board.zones.items()):
        _write(root, f"sys/class/thermal/thermal_zone{index}/type", name)
        _write(root, f"sys/class/thermal/thermal_zone{index}/temp", temp)
    _write(root, board.gpu, 437)
    return root


def _write_iio(root, index, monitor):
    folder = f"sys/bus/i2c/drivers/ina3221x/{monitor.address}/iio:device{index}"
    _write(root, f"{folder}/name", "ina3221x")
    for channel, (name, volts, amperes) in enumerate(monitor.rails):
        _write(root, f"{folder}/rail_name_{channel}", name)
        _write(root, f"{folder}/in_voltage{channel}_input", round(1e3 * volts))
        _write(root, f"{folder}/in_current{channel}_input", round(1e3 * amperes))
        _write(root, f"{folder}/in_power{channel}_input", round(1e3 * volts * amperes))


def _write_hwmon(root, index, monitor):
    folder = f"sys/bus/i2c/drivers/ina3221/{monitor.address}/hwmon/hwmon{index + 2}"
    _write(root, f"{folder}/name", "ina3221")
    for channel, (name, volts, amperes) in enumerate(monitor.rails, start=1):
        _write(root, f"{folder}/in{channel}_label", name)
        _write(root, f"{folder}/in{channel}_input", round(1e3 * volts))
        _write(root, f"{folder}/curr{channel}_input", round(1e3 * amperes))
    _write(root, f"{folder}/in7_label", "sum of shunt voltages")
    _write(root, f"{folder}/in7_input", 12345)
    # The kernel shows every monitor in its class too.
    (root / "sys/class/hwmon").mkdir(parents=True, exist_ok=True)
    (root / f"sys/class/hwmon/hwmon{index + 2}").symlink_to(root / folder)


def _write(root, name, content):
    file = root / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{content}" if isinstance(content, str) else f"{content}\n")
