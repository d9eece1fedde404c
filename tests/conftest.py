"""What every test shares: live tests wait for `--live`, and hypothesis repeats itself."""

import hypothesis
import pytest

# Examples follow from the test's source, not from a seed or a clock; a busy machine is no failure.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("repeatable")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Offer `--live`."""
    parser.addoption(
        "--live", action="store_true", help="run tests that need a Jetson and a server"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip live tests unless they were asked for."""
    if config.getoption("--live"):
        return
    for item in items:
        if item.get_closest_marker("live"):
            item.add_marker(pytest.mark.skip(reason="needs a Jetson: pytest --live"))
