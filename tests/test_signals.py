"""Signals break work off where it may be broken off, and are remembered everywhere else."""

import os
import signal
import threading
import time

import pytest

from studies.signals import Interrupted, StopSignals


def send(signum: int = signal.SIGINT) -> None:
    os.kill(os.getpid(), signum)
    time.sleep(0.01)  # Python runs the handler between two instructions.


@pytest.mark.parametrize(
    ("signum", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["INT", "TERM"]
)
def test_a_signal_breaks_an_interruptible_block_off_at_once(signum, exit_code):
    went_on = False
    with StopSignals() as signals, pytest.raises(Interrupted) as stop, signals.interruptible():
        send(signum)
        went_on = True
    assert not went_on
    assert stop.value.exit_code == exit_code


def test_elsewhere_a_signal_is_remembered_until_the_next_check():
    with StopSignals() as signals:
        signals.check()
        send(signal.SIGTERM)
        with pytest.raises(Interrupted) as stop:
            signals.check()
    assert stop.value.exit_code == 143


def test_an_interruptible_block_is_not_entered_after_a_signal():
    entered = False
    with StopSignals() as signals:
        send()
        with pytest.raises(Interrupted), signals.interruptible():
            entered = True
    assert not entered


def test_a_shielded_block_inside_an_interruptible_one_is_finished_first():
    finished = went_on = False
    with StopSignals() as signals, pytest.raises(Interrupted), signals.interruptible():
        with signals.interruptible(False):
            send()
            finished = True
        signals.check()
        went_on = True
    assert finished and not went_on


def test_behind_a_shielded_block_signals_break_off_again():
    with StopSignals() as signals, pytest.raises(Interrupted), signals.interruptible():
        with signals.interruptible(False):
            pass
        send()


def test_a_second_signal_changes_nothing():
    cleaned_up = False
    with StopSignals() as signals:
        with pytest.raises(Interrupted), signals.interruptible():
            send(signal.SIGINT)
        send(signal.SIGTERM)
        cleaned_up = True
        with pytest.raises(Interrupted) as stop:
            signals.check()
    assert cleaned_up
    assert stop.value.exit_code == 130


def test_interrupted_is_not_caught_as_an_ordinary_exception():
    assert not issubclass(Interrupted, Exception)


def test_the_handlers_from_before_are_restored():
    before = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    with StopSignals():
        assert signal.getsignal(signal.SIGTERM) != before[1]
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == before


def test_outside_the_main_thread_handlers_are_left_alone():
    seen = []

    def work() -> None:
        with StopSignals() as signals, signals.interruptible():
            seen.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
