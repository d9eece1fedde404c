"""What every test shares: live tests wait for `--live`, and hypothesis repeats itself.

Some integration tests measure rates, delays and recoveries against real clocks, on a machine that
others use too and that may take seconds from a process. One of those that fails is tried again, at
most twice, and pytest's closing lines name it; no bound is wider for it. All others must pass at
once.
With `-n 2 --dist loadgroup` a file stays in one process; all that start a Ray cluster share one.
"""

import hypothesis
import pytest

# Examples follow from the test's source, not from a seed or a clock; a busy machine is no failure.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("repeatable")

RERUNS, RERUN_AFTER_S = 2, 2.0
AGAINST_CLOCKS = (
    "test_emulated_link", "test_faults_of_the_content", "test_faults_of_the_device",
    "test_faults_of_the_link", "test_link_estimates", "test_live_run", "test_namespace_link",
)  # fmt: skip
WITH_RAY = ("test_cluster", "test_cluster_training", "test_compare_killed", "test_ray_serve")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Offer `--live`."""
    parser.addoption(
        "--live", action="store_true", help="run tests that need a Jetson and a server"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tell which tests go together; skip live ones unless they were asked for."""
    for item in items:
        group = "ray" if item.path.stem in WITH_RAY else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))
        if item.path.stem in AGAINST_CLOCKS:
            item.add_marker(pytest.mark.flaky(reruns=RERUNS, reruns_delay=RERUN_AFTER_S))
    if config.getoption("--live"):
        return
    for item in items:
        if item.get_closest_marker("live"):
            item.add_marker(pytest.mark.skip(reason="needs a Jetson: pytest --live"))
