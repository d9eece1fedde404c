"""Progress without a terminal: plain lines, seldom, with the time left."""

import pytest

from adaptive_split.cli.common import Bars


class Clock:
    """Shows what it is set to."""

    now_s = 0.0

    def __call__(self):
        """Tell the time."""
        return self.now_s


def test_without_a_terminal_a_line_comes_now_and_then(capsys):
    clock = Clock()
    with Bars(now_s=clock) as bars:
        for moment, phase, done in ((0, "a", 0), (5, "a", 1), (12, "a", 3), (15, "b", 0),
                                    (21, "b", 1), (40, "b", 2)):  # fmt: skip
            clock.now_s = float(moment)
            bars(phase, done, 10)

    assert capsys.readouterr().err.splitlines() == [
        "a: 30 %, 00:28 left",
        "b: 20 %, 01:40 left",
    ]


@pytest.mark.parametrize("total", [0, 4])
def test_who_has_not_begun_cannot_say_how_long_it_takes(capsys, total):
    clock = Clock()
    bars = Bars(now_s=clock)
    clock.now_s = 11.0

    bars("search", 0, total)

    assert capsys.readouterr().err == "search: 0 %, ? left\n"


def test_hidden_progress_says_nothing(capsys):
    clock = Clock()
    bars = Bars(hidden=True, now_s=clock)
    clock.now_s = 60.0

    bars("search", 1, 2)

    assert capsys.readouterr().err == ""
