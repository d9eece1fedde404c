"""Views of a picture."""

import numpy as np
import pytest

from adaptive_split.errors import ConfigError
from adaptive_split.runtime.views import MOST_VIEWS, in_views

HEIGHT, WIDTH = 32, 48


@pytest.fixture
def picture():
    """Brighter to the right in red, brighter to the bottom in green."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    pixels = np.stack([4 * columns, 6 * rows, 0 * rows], -1).astype(np.uint8)
    return "a.jpg", 3, pixels


def test_every_view_keeps_size_and_label_and_none_is_another(picture):
    views = list(in_views([picture], MOST_VIEWS))

    assert [file for file, _, _ in views] == ["a.jpg", *(f"a.jpg#{n}" for n in range(1, 10))]
    assert {label for _, label, _ in views} == {3}
    assert {pixels.shape for _, _, pixels in views} == {(HEIGHT, WIDTH, 3)}
    assert len({pixels.tobytes() for _, _, pixels in views}) == MOST_VIEWS


def test_the_first_is_the_picture_and_the_second_is_it_mirrored(picture):
    (_, _, first), (_, _, second) = in_views([picture], 2)

    np.testing.assert_array_equal(first, picture[2])
    np.testing.assert_array_equal(second, picture[2][:, ::-1])


def test_views_are_cut_in_from_every_corner(picture):
    corners = [pixels[[0, 0, -1, -1], [0, -1, 0, -1], :2] for _, _, pixels in
               in_views([picture], MOST_VIEWS)][2::2]  # fmt: skip
    left, right, top, bottom = 0, 4 * (WIDTH - 1), 0, 6 * (HEIGHT - 1)

    assert corners[0][0].tolist() == [left, top]
    assert corners[1][1].tolist() == [right, top]
    assert corners[2][2].tolist() == [left, bottom]
    assert corners[3][3].tolist() == [right, bottom]


@pytest.mark.parametrize("count", [0, MOST_VIEWS + 1])
def test_other_numbers_of_views_are_refused(picture, count):
    with pytest.raises(ConfigError, match=f"must be 1 to {MOST_VIEWS}; got {count}"):
        list(in_views([picture], count))
