"""Does a signal save and stop a training, wherever it comes; is what is resumed the run that was never stopped?"""

import os
import pty
import signal
import subprocess
import sys
import threading
import time

import fake_training
import pytest
import tiny
from rich.console import Console

from s2s_jax import run
from s2s_jax.text.batches import BatchPlan
from s2s_jax.training.checkpoint.pytree_io import digest
from s2s_jax.training.signals import Interrupted, SignalGuard, SignalReceived

QUIET = Console(quiet=True)


@pytest.fixture(autouse=True)
def no_nohup():
    """SIGHUP as a terminal sends it, although the tests may have been started with `nohup`."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def signal_before(monkeypatch, step: int, number: signal.Signals) -> None:
    """Send this process a signal while the batch of a step is made."""
    batches = BatchPlan.from_step

    def signalled(plan, start, stop):
        for count, batch in enumerate(batches(plan, start, stop), start + 1):
            if count == step:
                signal.raise_signal(number)
            yield batch

    monkeypatch.setattr(BatchPlan, "from_step", signalled)


def test_every_signal_of_the_table_has_its_exit_code():
    assert [Interrupted(number, 1).code for number in SignalGuard.signals] == [130, 143, 129, 138]


def test_stopped_by_a_signal_and_resumed_is_never_stopped_bit_for_bit(tmp_path, monkeypatch):
    """Rows 41 and 42 of the faults, in one process; `test_run` kills processes."""
    changes = ("steps=12", "validation.every=6", "validation.sentences=0", "checkpoint.every=50")
    whole = run.fit(tiny.experiment(*changes), tmp_path / "whole", QUIET)
    with monkeypatch.context() as patch:
        signal_before(patch, 5, signal.SIGTERM)
        with pytest.raises(Interrupted, match="SIGTERM: saved at step 5; the same command resumes from there."):
            run.fit(tiny.experiment(*changes), tmp_path / "run", QUIET)
    assert digest(run.fit(tiny.experiment(*changes), tmp_path / "run", QUIET)) == digest(whole)


@pytest.mark.parametrize("number", SignalGuard.signals)
def test_every_signal_saves_and_stops(tmp_path, number):
    def signalled(first, last):
        for step, batch in enumerate(fake_training.batches(first, last), 1):
            if step == 3:
                signal.raise_signal(number)
            yield batch

    with fake_training.training(tmp_path, steps=9, batches=signalled) as (loop, saved):
        with pytest.raises(Interrupted, match=rf"{number.name}: saved at step 3;"):
            loop.run()
        assert saved.steps == [3]


@pytest.mark.parametrize("moment", ["compiling", "validating"])
def test_a_signal_does_not_wait_for_a_compilation_or_a_validation(tmp_path, moment):
    """Row 41 of the faults: XLA compiles for many seconds without returning to Python."""
    release = threading.Event()

    def stuck(*_):
        os.kill(os.getpid(), signal.SIGTERM)
        release.wait(60)
        return fake_training.Lowered()

    if moment == "compiling":
        step, changes = 0, {"given": fake_training.program(lower=stuck)}
    else:
        step, changes = 4, {"validate": stuck, "every": 4}
    began = time.monotonic()
    with fake_training.training(tmp_path, steps=9, **changes) as (loop, saved):
        with pytest.raises(Interrupted, match=f"SIGTERM: saved at step {step};"):
            loop.run()
        assert saved.steps == [step]
    assert time.monotonic() - began < 2
    assert SignalGuard.is_still_computing()
    release.set()


def test_the_result_and_the_error_of_a_function_pass_through():
    with SignalGuard() as guard:
        assert guard.run(divmod, 7, 2) == (3, 1)
        with pytest.raises(TimeoutError, match="its own"):
            guard.run(lambda: (_ for _ in ()).throw(TimeoutError("its own")))
        assert guard.number == 0
        signal.raise_signal(signal.SIGHUP)
        with pytest.raises(SignalReceived):
            guard.run(time.sleep, 0.2)
        assert guard.number == signal.SIGHUP
    assert SignalGuard().run(divmod, 7, 2) == (3, 1)  # without a guard, in this thread


def test_an_ignored_signal_stays_ignored():
    """`nohup s2s train ...` goes on when the terminal is closed."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with SignalGuard() as guard:
            signal.raise_signal(signal.SIGHUP)
            assert guard.number == 0
    finally:
        signal.signal(signal.SIGHUP, before)


SECOND = """
import signal, time
from s2s_jax.training.signals import SignalGuard
with SignalGuard():
    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGINT)
    print("first", flush=True)
    time.sleep(0.15)
    signal.raise_signal(signal.SIGINT)
    print("never", flush=True)
"""


def test_the_second_signal_stops_at_once_and_gives_the_cursor_back():
    """Row 42 of the faults, on a terminal. A signal that comes twice at once, as `timeout` sends it, is one."""
    ours, theirs = pty.openpty()
    process = subprocess.run([sys.executable, "-c", SECOND], stdout=theirs, stderr=theirs, timeout=60, check=False)
    os.close(theirs)
    shown = os.read(ours, 4096)
    os.close(ours)
    assert process.returncode == -signal.SIGINT
    assert shown == b"first\r\n\x1b[?25h\x1b[?25h"
