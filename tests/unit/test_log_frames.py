"""Records of live runs become columns, and records of anything else are refused."""

import json
from dataclasses import replace

import numpy as np
import pytest

from adaptive_split.agents.log_frames import read_logs
from adaptive_split.decision import NEVER, DecisionGrid
from adaptive_split.errors import ConfigError
from adaptive_split.measurement import SERVER
from adaptive_split.objective import Objective
from adaptive_split.observation import flat_size
from adaptive_split.runtime.live_controller import LiveController
from adaptive_split.runtime.records import RecordWriter, read_records
from adaptive_split.runtime.session import Recorder, play_recorded
from adaptive_split.runtime.simulated.backend import SimulatorBackend
from tests import support
from tests.recorded import AtRandom, record


@pytest.fixture(scope="module")
def lines(tmp_path_factory):
    """Records of two runs in one file, as lines."""
    path = tmp_path_factory.mktemp("records") / "run.jsonl"
    table = support.table()
    record(path, table, AtRandom(table), [support.stream(130, seed=seed) for seed in (1, 2)])
    return path.read_text().splitlines(keepends=True)


def write(tmp_path, lines):
    path = tmp_path / "run.jsonl"
    path.write_text("".join(lines))
    return path


def changed(lines, change):
    rows = [json.loads(line) for line in lines]
    return [json.dumps({**row, **change(row)}) + "\n" for row in rows]


def test_the_columns_are_those_of_the_records(lines, tmp_path):
    path, table = write(tmp_path, lines), support.table()

    log = read_logs([path], table)

    reports = [row.report for row in read_records(path)]
    assert len(log) == len(reports)
    assert log.observation.shape == (len(log), flat_size(table))
    assert [table.grid.candidates[index] for index in log.candidate] == [
        report.decision for report in reports
    ]
    assert log.by_server.tolist() == [report.answered_by == SERVER for report in reports]
    assert (log.tried & log.by_server).sum() == 0
    assert (log.tried | log.by_server).tolist() == [row.payload_bytes > 0 for row in reports]
    waited = [report.arrival_s + report.wait_s for report in reports]
    np.testing.assert_allclose(log.start_s, waited, atol=1e-5 + 0.07)


@pytest.mark.slow
def test_a_run_that_a_controller_records_can_be_read(tmp_path):
    table, stream = support.table(), support.stream(240, seed=3, outages=False)
    backend = SimulatorBackend(table, lambda seed: stream)
    controller = LiveController(table, AtRandom(table))
    with RecordWriter(tmp_path / "run.jsonl") as writer:
        recorder = Recorder(writer, controller)
        reports = list(play_recorded(backend, controller, recorder))
        recorder.close()

    log = read_logs([tmp_path / "run.jsonl"], table)

    assert len(log) == sum(report.decision is not None for report in reports)


def test_the_last_third_is_held_out_and_no_run_is_torn_apart_if_it_can_be_helped(lines, tmp_path):
    log = read_logs([write(tmp_path, lines)], support.table())

    learning, held_out = log.halves()

    assert set(learning.run) == {0}
    assert set(held_out.run) == {1}
    alone = replace(log, run=np.zeros_like(log.run)).halves()
    assert [len(half) for half in alone] == [round(len(log) * 2 / 3), round(len(log) / 3)]


def test_records_without_an_observation_are_refused(lines, tmp_path):
    path = write(tmp_path, changed(lines, lambda row: {"observation": None}))

    with pytest.raises(ConfigError, match=r"every record must hold the observation; .* has none"):
        read_logs([path], support.table())


def test_records_with_fewer_than_200_decided_frames_are_refused(lines, tmp_path):
    path = write(tmp_path, lines[:150])

    with pytest.raises(ConfigError, match=r"at least 200 decided frames; got 150; record a"):
        read_logs([path], support.table())


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (support.table(grid=DecisionGrid(3, (0.4, NEVER), (1, 8))), "must have .* columns; got"),
        (support.table(grid=DecisionGrid(3, (0.4, 0.8, NEVER), (1, 8))), "must lie on the grid"),
        (support.table(Objective(slo_s=0.2, fps=10.0, byte_price=0.5)), "scenario's objective"),
        (support.table(Objective(slo_s=0.3, fps=20.0, byte_price=0.5)), "scenario's objective"),
        (support.table(seed=3), "scenario's model bundle"),
        (support.table(device=support.profile(1.2)), "scenario's device profile"),
    ],
)
def test_records_of_another_scenario_are_refused(lines, tmp_path, table, message):
    with pytest.raises(ConfigError, match=message):
        read_logs([write(tmp_path, lines)], table)
