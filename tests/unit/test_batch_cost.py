"""What a batch costs: measured on the spot, or taken from a profile."""

import pytest

from adaptive_split.runtime.serving.batch_cost import (
    MEASURED_BATCH,
    Line,
    free_costs,
    measured_costs,
    profiled_costs,
)
from adaptive_split.testing import ManualClock, TinyStages, tiny_bundle, tiny_profile


class TimedStages(TinyStages):
    """Stages take 10 ms, one more 4 ms; exits 2 ms each; decoders 3 ms, one more 5 ms."""

    def __init__(self, clock):
        super().__init__()
        self._clock = clock

    def stage(self, index, tensor):
        """Take time."""
        self._clock.advance(0.010 + 0.004 * (len(tensor) - 1))
        return super().stage(index, tensor)

    def exit_all(self, index, features):
        """Take time."""
        self._clock.advance(0.002 * len(features))
        return super().exit_all(index, features)

    def decode_all(self, split_point, codes):
        """Take time."""
        self._clock.advance(0.003 + 0.005 * (len(codes) - 1))
        return super().decode_all(split_point, codes)


def test_a_line_tells_the_time_of_a_batch():
    line = Line(0.010, 0.004)

    assert [line.batch_s(count) for count in (0, 1, 3)] == pytest.approx([0.0, 0.010, 0.018])


def test_every_part_is_measured_alone_and_in_a_batch():
    clock = ManualClock()

    costs = measured_costs(tiny_bundle(), TimedStages(clock), clock)

    assert MEASURED_BATCH > 1
    for line in costs.stage:
        assert (line.one_s, line.more_s) == pytest.approx((0.010, 0.004))
    for line in costs.exit:
        assert (line.one_s, line.more_s) == pytest.approx((0.002, 0.002))
    # One more never costs more than one alone: a batch may be run one by one.
    for line in costs.decoder[1:]:
        assert (line.one_s, line.more_s) == pytest.approx((0.003, 0.003))


def test_the_rest_of_a_tail_is_what_its_parts_take():
    costs = profiled_costs(tiny_profile(), 2.0)

    assert costs.rest_s(2, 3, entering=True) == pytest.approx(2 * (0.002 + 0.020 + 0.002))
    assert costs.rest_s(2, 3, entering=False) == pytest.approx(2 * (0.020 + 0.002))
    assert costs.step_s(2, 3, 2, 1) == pytest.approx(2 * (0.004 + 0.030 + 0.002))


def test_what_nobody_measured_takes_no_time():
    assert free_costs(tiny_bundle()).rest_s(1, 3, entering=True) == 0.0
