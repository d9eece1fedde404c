"""What files of integration tests share."""

import pytest

from tests.secure_world import World


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Certificates of a server, of devices, and of some that must be refused."""
    return World(tmp_path_factory.mktemp("certificates"))
