"""A regression finds what every kind of work draws, and prices frames by it when it holds."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from adaptive_split.cli import hardware
from adaptive_split.errors import ConfigError
from adaptive_split.profile import MEASURED, MODELLED
from adaptive_split.runtime.ledger import EnergyModel
from adaptive_split.runtime.measured_energy import FIRST_FIT, WINDOW_S, MeasuredEnergy
from adaptive_split.runtime.profiler import machine_name
from adaptive_split.runtime.sensors import energy as energy_sensors
from adaptive_split.runtime.sensors.attribution import EnergyWindow, fit_power
from adaptive_split.testing import ManualClock, tiny_profile, tiny_setup

MODEL = EnergyModel(compute_w=9.0, send_w=1.0, joules_per_mbit=0.5, provenance=MODELLED)
SLO_S = 0.2


def windows_of(busy_s, watts, rest_w=2.0, noise_w=0.0):
    """Windows of four seconds with so much of each work, and one at rest before them."""
    generator = np.random.default_rng(0)
    return [
        EnergyWindow(2.0, 2.0 * rest_w, (0.0,) * len(watts)),
        *(
            EnergyWindow(
                4.0, 4.0 * (rest_w + generator.normal(0, noise_w)) + float(np.dot(watts, row)),
                tuple(row),
            )
            for row in busy_s
        ),
    ]  # fmt: skip


def test_a_regression_finds_the_watts_of_every_kind_of_work():
    busy_s = np.random.default_rng(1).uniform(0, 2, (60, 3))

    exact = fit_power(windows_of(busy_s, (3.0, 4.0, 1.5)))
    noisy = fit_power(windows_of(busy_s, (3.0, 4.0, 1.5), noise_w=0.1))

    assert exact.watts == pytest.approx((3.0, 4.0, 1.5))
    assert (exact.rest_w, exact.residual_w) == pytest.approx((2.0, 0.0), abs=1e-9)
    assert noisy.watts == pytest.approx((3.0, 4.0, 1.5), abs=0.2)
    assert noisy.residual_w == pytest.approx(0.1, rel=0.3)


def test_steady_work_is_told_from_rest_by_the_window_at_rest():
    fit = fit_power(windows_of(np.full((20, 1), 2.0), (3.0,)))

    assert (fit.rest_w, *fit.watts) == pytest.approx((2.0, 3.0))


def test_no_work_draws_less_than_nothing():
    busy_s = np.random.default_rng(2).uniform(0, 2, (40, 2))

    fit = fit_power(windows_of(busy_s, (3.0, -0.5)))

    assert fit.watts[1] == 0.0
    assert fit.watts[0] == pytest.approx(3.0, abs=0.5)


@pytest.mark.parametrize(
    "windows", [[], [EnergyWindow(4.0, 1.0, (1.0,))] * 2, [EnergyWindow(0.5, 1.0, (1.0,))] * 9]
)
def test_too_little_to_tell_is_refused(windows):
    with pytest.raises(ConfigError, match=r"a fit must have at least \d windows of 1.0 s"):
        fit_power(windows)


class Machine:
    """A clock and a meter of a machine that works as a test tells it."""

    source = "a fake rail"

    def __init__(self, with_carrier):
        self.clock, self.with_carrier = ManualClock(), with_carrier
        self.extra_j, self.broken = 0.0, False

    def energy_j(self):
        """Two watts at rest, and what was added."""
        if self.broken:
            raise OSError("gone")
        return 2.0 * self.clock.now_s() + self.extra_j

    def close(self):
        """Nothing."""

    def play(self, energy, count):
        """Windows of different frames, computing at 3 W, encoding at 4 W, sending at 1.5 W."""
        generator = np.random.default_rng(3)
        for _ in range(count):
            for _ in range(30):
                head_s, encode_s, upload_s = generator.uniform(0.0, 0.05, 3)
                self.extra_j += 3.0 * head_s + 4.0 * encode_s
                self.extra_j += 1.5 * upload_s if self.with_carrier else 0.0
                energy.price(frame(head_s, encode_s, upload_s), SLO_S)
            self.clock.advance(WINDOW_S)
            energy.end_window()


def frame(head_s=0.1, encode_s=0.01, upload_s=0.0, wire_bytes=0):
    return SimpleNamespace(
        head_s=head_s, redo_s=0.0, encode_s=encode_s, upload_s=upload_s, wire_bytes=wire_bytes
    )


@pytest.fixture(params=[True, False], ids=["with carrier", "module only"])
def machine(request):
    return Machine(request.param)


@pytest.fixture
def energy(machine):
    measured = MeasuredEnergy(machine, MODEL, clock=machine.clock)
    yield measured
    measured.close()


def test_frames_are_modelled_until_enough_windows_and_measured_then(machine, energy):
    machine.play(energy, FIRST_FIT - 1)
    assert energy.price(frame(0.001, 0.0), SLO_S) == (pytest.approx(0.009), MODELLED)
    assert energy.provenance == MODELLED

    machine.play(energy, 3)
    joules, provenance = energy.price(frame(), SLO_S)

    assert joules == pytest.approx(0.34, rel=0.05)
    assert provenance == energy.provenance == MEASURED
    assert "rest 2.0" in energy.text()


def test_sending_is_measured_only_where_the_meter_sees_the_modem(machine, energy):
    machine.play(energy, FIRST_FIT + 2)

    joules, provenance = energy.price(frame(upload_s=0.1, wire_bytes=12_500), SLO_S)

    sending_j, mark = (0.15, MEASURED) if machine.with_carrier else (0.15, MODELLED)
    assert joules == pytest.approx(0.34 + sending_j, rel=0.05)
    assert provenance == mark


def test_a_meter_that_fails_or_explains_nothing_leaves_frames_modelled(machine, energy):
    machine.play(energy, FIRST_FIT + 1)
    machine.broken = True
    machine.clock.advance(WINDOW_S)
    with pytest.raises(OSError, match="gone"):
        energy.end_window()
    assert energy.provenance == MODELLED

    machine.broken = False
    for index in range(40):
        machine.extra_j += 60.0 * (index % 2)
        machine.clock.advance(WINDOW_S)
        energy.end_window()

    assert energy.provenance == MODELLED
    assert "energy is modelled: too little or too noisy" in energy.text()


@pytest.mark.slow  # it rests first
def test_a_run_is_metered_on_the_machine_that_its_profile_tells_of(monkeypatch):
    meter = Machine(with_carrier=False)
    monkeypatch.setattr(energy_sensors, "find_energy_meter", lambda: meter)
    here = replace(tiny_setup(), device_profile=tiny_profile(machine=machine_name()))

    with hardware.measured_energy(tiny_setup(), slowdown=1.0) as played:
        assert played is None
    with hardware.measured_energy(here, slowdown=1.0) as own:
        assert own.provenance == MODELLED
        assert isinstance(own, MeasuredEnergy)


def test_a_meter_that_cannot_be_read_stops_no_run(monkeypatch, caplog):
    meter = Machine(with_carrier=False)
    meter.broken = True
    monkeypatch.setattr(energy_sensors, "find_energy_meter", lambda: meter)

    with hardware.measured_energy(tiny_setup(), slowdown=0.0) as energy:
        assert energy is None
    assert "energy is modelled: gone" in caplog.text


def test_energy_stays_modelled_without_a_meter_and_a_full_speed_run_says_so(monkeypatch, caplog):
    monkeypatch.setattr(energy_sensors, "find_energy_meter", lambda: None)

    with hardware.measured_energy(tiny_setup(), slowdown=0.0) as energy:
        assert energy is None
    assert "energy is modelled for tiny, not for this machine" in caplog.text
