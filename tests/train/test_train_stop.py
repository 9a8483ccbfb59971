"""Requests to stop: remembered until the step is done, and never in vain."""

import os
import signal
import subprocess
import sys
import time

import pytest

from train.stop import StopRequest


@pytest.fixture(autouse=True)
def signals_of_a_terminal():
    """A shell that starts the tests in the background makes them ignore SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_remembered_and_handlers_come_back(number):
    before = signal.getsignal(number)
    with StopRequest() as stop:
        assert not stop.asked
        os.kill(os.getpid(), number)
        time.sleep(0.01)
        assert stop.asked
    assert signal.getsignal(number) is before


def send_twice(number):
    with StopRequest():
        for _ in range(2):
            os.kill(os.getpid(), number)
            time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_at_once(number):
    with pytest.raises(KeyboardInterrupt):
        send_twice(number)


def test_in_time_nothing_is_ended():
    with StopRequest(grace=0.05) as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
    time.sleep(0.1)
    assert stop.asked


# A mutex that is locked twice never returns to Python, as a collective without its peer.
STUCK = """
import ctypes, sys
from train.stop import StopRequest
libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)
with StopRequest(grace=0.5):
    print("begun", flush=True)
    libc.pthread_mutex_lock(mutex)
    libc.pthread_mutex_lock(mutex)
"""


def test_who_waits_for_a_rank_that_is_gone_ends_when_time_is_over():
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", STUCK], env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 75
    assert "another rank may be gone" in said
