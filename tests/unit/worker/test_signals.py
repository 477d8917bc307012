"""A signal reaches the work, at whatever moment it comes."""

from __future__ import annotations

import os
import signal
import time

import pytest
from alakai_worker.signals import Signals, Stopped


def test_a_signal_noted_in_the_moment_before_a_blocking_call_interrupts_it() -> None:
    with Signals() as signals:
        wakeup = signal.set_wakeup_fd(-1)
        signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
        os.write(wakeup, bytes([signal.SIGTERM]))  # all that Python does before the call begins
        with pytest.raises(Stopped, match="SIGTERM"), signals.raised():
            time.sleep(30)


def test_a_signal_that_came_before_the_work_keeps_it_from_beginning() -> None:
    with Signals() as signals:
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(Stopped, match="SIGINT"), signals.raised():
            pytest.fail("the work began")


def test_what_was_there_before_is_there_again() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with Signals():
        pass
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before
    assert signal.set_wakeup_fd(-1) == -1
