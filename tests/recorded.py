"""Record files of simulated runs, as a device would have written them."""

import numpy as np

from adaptive_split.observation import observe
from adaptive_split.planner import BacklogPrices
from adaptive_split.runtime.records import RecordWriter
from adaptive_split.runtime.session import DECIMALS
from adaptive_split.runtime.simulated.backend import report_of
from adaptive_split.runtime.simulated.simulator import Simulator

USUAL = BacklogPrices()


class AtRandom:
    """Decides at random, so that every payload is sent."""

    name, probes = "random", True

    def __init__(self, table, seed=0):
        self._count, self._generator = len(table.grid), np.random.default_rng(seed)

    def choose(self, moment):
        """Draw a candidate per lane."""
        return self._generator.integers(0, self._count, len(moment.slack_s))


def record(path, table, policy, streams, prices=USUAL):
    """Play all streams at once and write the records, one run after the other.

    Returns:
        Which payloads would have been on time in every decided frame, in the order of the records.
    """
    simulator = Simulator(table, streams)
    rows = [[] for _ in streams]
    while not simulator.done.all():
        moment = simulator.moment()
        seen = observe(table, moment, prices).flat().round(DECIMALS)
        on_time, _ = simulator.payload_on_time()
        step = simulator.step(policy.choose(moment))
        for lane in np.flatnonzero(step.active):
            rows[lane].append((report_of(table, step, lane), seen[lane], on_time[lane]))
    with RecordWriter(path) as writer:
        for report, seen, _ in (row for run in rows for row in run):
            writer.write(report, seen)
    return np.array([on_time for run in rows for _, _, on_time in run])
