"""Signals of commands that run until they are stopped."""

import signal

import pytest

from control_plane.cli.site.signals import termination_as_interrupt


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_interrupts_and_the_next_one_ends_the_process(number: signal.Signals) -> None:
    # The test run itself may be started with `nohup`, and what its caller ignores stays ignored.
    before = signal.signal(number, signal.default_int_handler)
    try:
        with termination_as_interrupt():
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(number)
            assert signal.getsignal(number) is signal.SIG_DFL
        assert signal.getsignal(number) is not signal.SIG_IGN
    finally:
        signal.signal(number, before)


def test_nohup_keeps_a_site_over_the_end_of_its_terminal() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with termination_as_interrupt():
            signal.raise_signal(signal.SIGHUP)
            inside = signal.getsignal(signal.SIGHUP)
        assert (inside, signal.getsignal(signal.SIGHUP)) == (signal.SIG_IGN, signal.SIG_IGN)
    finally:
        signal.signal(signal.SIGHUP, before)
