"""A policy on a device whose charge must last a mission, on a manual clock."""

from dataclasses import replace

import numpy as np
import pytest

from adaptive_split.candidates import CandidateTable, Radio
from adaptive_split.cli import hardware
from adaptive_split.decision import NEVER, Decision
from adaptive_split.errors import ConfigError
from adaptive_split.objective import Objective
from adaptive_split.observation import CONTEXT
from adaptive_split.runtime.backend import Situation
from adaptive_split.runtime.live_controller import LiveController
from adaptive_split.runtime.price_loop import PriceLoop
from adaptive_split.runtime.sensors.battery import SystemBattery
from adaptive_split.scenario import Battery
from adaptive_split.testing import tiny_profile
from tests import support
from tests.unit.test_device import Bench

MISSION_S = 30.0


class Thrifty:
    """Computes everything while a joule is cheap, else sends the picture."""

    name = "thrifty"
    probes = False

    def choose(self, moment):
        """Ask for the price."""
        cheap = support.GRID.index(Decision(3, NEVER, 0))
        dear = support.GRID.index(Decision(0, NEVER, 8))
        return np.where(moment.energy_price < 0.5, cheap, dear)


def controller(mission_s=MISSION_S):
    table = CandidateTable(
        support.GRID, tiny_profile(), tiny_profile(0.1), support.outcomes(),
        Objective(slo_s=0.1, fps=10.0), Radio(),
    )  # fmt: skip
    loop = None if mission_s is None else PriceLoop(mission_s, table.objective.energy_price)
    return LiveController(table, Thrifty(), price_loop=loop)


def situation(now_s=0.0, soc=1.0):
    return Situation(
        now_s=now_s, arrival_s=now_s, frame_index=0, uplink_free_s=0.0, oldest_unanswered_s=None,
        oldest_unanswered_bytes=0, samples=(), timeouts=0, recent_confidences=(),
        device_slowdown=1.0, soc=soc, server_usable=True,
    )  # fmt: skip


def test_a_modelled_battery_lasts_the_mission_and_little_is_left():
    bench, deciding = Bench(), controller()
    bench.battery.drain(70.0)

    reports, seen = bench.play(deciding.decide, num_frames=300)

    # All local takes 54 J of the 30 that are left, all sent less than 10.
    kinds = [report.decision.split_point for report in reports]
    assert 0.0 < bench.battery.soc() < 0.02
    assert len(seen) == 300
    assert 100 < kinds.count(3) < 200


def test_without_a_mission_the_objective_sets_the_price():
    alone = controller(mission_s=None)

    moment = alone.moment(situation(now_s=27.0, soc=0.05))

    assert moment.energy_price == pytest.approx(0.05)
    assert moment.mission_ratio == pytest.approx(1.0)


def test_an_unknown_charge_leaves_price_and_mission_ratio_as_they_are():
    deciding = controller()
    deciding.decide(situation(soc=None))

    moment = deciding.moment(situation(now_s=15.0, soc=None))

    assert moment.energy_price == pytest.approx(0.05)
    assert moment.mission_ratio == moment.soc == 1.0


def test_the_observation_holds_the_price_and_the_mission_ratio_of_its_frame():
    deciding, late = controller(), situation(now_s=15.0, soc=0.49)
    deciding.decide(situation())
    deciding.decide(late)
    deciding.decide(situation(now_s=18.0, soc=0.1))

    seen = dict(zip((column.name for column in CONTEXT), deciding.observation(late), strict=False))

    assert seen["energy_price"] == pytest.approx(deciding.moment(late).energy_price[0])
    assert 0.05 < seen["energy_price"] < 2
    assert seen["mission_ratio"] == pytest.approx(np.log(0.98))


def test_a_new_run_begins_a_new_mission():
    deciding, half_full = controller(), situation(soc=0.5)
    deciding.decide(situation())
    deciding.reset()

    deciding.decide(half_full)

    assert deciding.moment(half_full).energy_price == pytest.approx(0.05)


def test_a_run_models_the_battery_of_its_scenario(tmp_path):
    plain = support.scenario(tmp_path)
    powered = replace(plain, battery=Battery(capacity_j=50.0, idle_w=0.0, start_soc=0.8))

    battery = hardware.battery_of(powered)
    battery.drain(10.0)

    assert battery.soc() == pytest.approx(0.6)
    assert hardware.battery_of(plain).source == SystemBattery.source


def test_a_mission_needs_a_battery_whose_charge_is_known(tmp_path, monkeypatch):
    scenario, battery = support.scenario(tmp_path), SystemBattery()
    monkeypatch.setattr(battery, "soc", lambda: None)

    assert hardware.price_loop(None, scenario, battery) is None
    with pytest.raises(ConfigError, match="battery whose charge is known; got none; give a"):
        hardware.price_loop(2.0, scenario, battery)


def test_a_mission_is_told_in_hours(tmp_path):
    scenario = replace(support.scenario(tmp_path), battery=Battery(capacity_j=50.0, idle_w=0.0))

    loop = hardware.price_loop(2.0, scenario, hardware.battery_of(scenario))

    assert (loop.mission_s, loop.energy_price) == (7200.0, 0.05)
