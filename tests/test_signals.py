import os
import signal
import threading
import time
from contextlib import suppress

import pytest

from labelgen.signals import held, raise_lost, stop_once


@pytest.fixture(autouse=True)
def signals_of_a_terminal():
    """A shell that starts the tests in the background makes them ignore SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.05)


def clean_up_after(number, cleaned):
    with stop_once():
        try:
            os.kill(os.getpid(), number)
            time.sleep(1)
        finally:
            interrupt()
            cleaned.append(True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_stops_and_the_next_does_not_spoil_the_cleaning(number):
    cleaned = []
    with pytest.raises(KeyboardInterrupt):
        clean_up_after(number, cleaned)
    assert cleaned
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def hold_until_the_end(reached):
    with stop_once():
        with held():
            interrupt()
            reached.append("end")
        reached.append("after")


def test_an_interruption_waits_for_the_end_of_a_block_whichever_thread_hears_it():
    reached, over = [], threading.Event()
    other = threading.Thread(target=over.wait)
    other.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            hold_until_the_end(reached)
    finally:
        over.set()
        other.join()
    assert reached == ["end"]


def lose_one_interruption():
    with stop_once():
        try:
            interrupt()
        except KeyboardInterrupt:  # as a callback from C does
            time.sleep(0.15)
        interrupt()


def test_a_later_signal_counts_again(monkeypatch):
    monkeypatch.setattr("labelgen.signals._DEAF_SECONDS", 0.1)
    with pytest.raises(KeyboardInterrupt):
        lose_one_interruption()


def find_a_lost_one():
    with stop_once():
        raise_lost()
        with suppress(KeyboardInterrupt):
            interrupt()
        raise_lost()


def test_an_interruption_that_got_lost_is_found():
    with pytest.raises(KeyboardInterrupt):
        find_a_lost_one()
    raise_lost()


def test_what_was_ignored_stays_ignored():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with stop_once():
        interrupt()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
