"""What a signal does to a command before it is ready, and after."""

import signal

import pytest

from adaptive_split.cli.service import Service
from adaptive_split.testing import ManualClock

SIGNALS = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])


@pytest.fixture
def service():
    return Service(ManualClock())


@SIGNALS
def test_a_signal_is_kept_in_mind_until_the_command_may_be_interrupted(service, number):
    done = []
    with service:
        signal.raise_signal(number)
        done.append("what must be whole")
        service.interruptible()
        done.append("never reached")

    assert done == ["what must be whole"]


@SIGNALS
def test_a_command_that_may_be_interrupted_ends_at_once_and_closes_untorn(service, number):
    done = []
    with service:
        service.interruptible()
        try:
            signal.raise_signal(number)
            done.append("never reached")
        finally:
            signal.raise_signal(number)
            done.append("closed")

    assert done == ["closed"]


@SIGNALS
def test_a_service_that_is_ready_ends_by_itself(service, number):
    finished = []
    with service:
        service.interruptible()
        service.ready(lambda: finished.append(service.told_to_stop))
        signal.raise_signal(number)
        signal.raise_signal(number)

    assert finished == [True]


def test_a_stop_that_was_lost_while_loading_is_heard_when_ready(service):
    with service:
        service.interruptible()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        service.ready()
        pytest.fail("a service that was told to stop must not become ready")


def test_errors_pass_and_signals_are_treated_as_before(service):
    before = signal.getsignal(signal.SIGTERM)

    with pytest.raises(ValueError, match="ours"), service:
        raise ValueError("ours")

    assert signal.getsignal(signal.SIGTERM) is before
