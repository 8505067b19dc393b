"""Is what a training shows there, does it fit the terminal, and does it stay when the training ends?"""

import io
import time

import fake_training
import pytest
from rich.console import Console

from s2s_jax.training.display import Display, clock
from s2s_jax.training.loop import ValidationResult
from s2s_jax.training.metrics_writer import MetricsWriter, RecordConfig, StepSums
from s2s_jax.training.run_log import RunLog

HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"
RESULT = ValidationResult(
    {"loss": 0.5, "token_accuracy": 0.75, "exact_match": 0.25, "bleu": None}, ["source: a b", "translation: b a"], 0.5
)


def terminal(width: int = 80) -> tuple[Console, io.StringIO]:
    shown = io.StringIO()
    return Console(file=shown, force_terminal=True, width=width, height=30, color_system=None), shown


@pytest.mark.parametrize("width", [46, 80, 140])
def test_the_last_table_stays_with_its_loss_and_the_cursor_is_back(tmp_path, width):
    console, shown = terminal(width)
    changes = {"validate": lambda params: RESULT, "every": 3}
    with fake_training.training(tmp_path, steps=6, console=console, **changes) as (loop, _):
        loop.run()
    last = shown.getvalue().split("\x1b[2K")[-1]  # after the last erased line
    assert "6 of 6" in shown.getvalue()
    assert "1.0000 nats per token" in shown.getvalue()
    assert shown.getvalue().rindex(SHOW_CURSOR) > shown.getvalue().rindex(HIDE_CURSOR)
    assert "translation: b a" in last
    assert all(len(line) <= width for line in last.replace(SHOW_CURSOR, "").splitlines())


def test_a_pipe_gets_lines_that_say_what_takes_long(tmp_path):
    shown = io.StringIO()
    console = Console(file=shown, width=200)
    changes = {"validate": lambda params: RESULT, "every": 2, "log_every": 2}
    with fake_training.training(tmp_path, steps=4, console=console, **changes) as (loop, _):
        loop.run()
    lines = shown.getvalue().splitlines()
    assert lines[0] == "compiling for batches of 1 pairs with sources of 2 and targets of 3 tokens"
    assert lines[1].startswith("compiled in 0.")
    assert lines[2].startswith("step 2 of 4; loss 1.0000 nats per token; speed ")
    assert lines[3] == "validating at step 2; this first time, its programs are compiled"
    assert lines[4] == ("validation at step 2: loss 0.5000, token accuracy 0.7500, exact match 0.2500, bleu undefined")
    assert lines[5:7] == ["source: a b", "translation: b a"]
    assert sum("programs are compiled" in line for line in lines) == 1


def test_a_table_says_what_takes_long_until_it_is_over():
    console, shown = terminal()
    with Display(RunLog(console)) as display:
        display.now("compiling")
        display.show(loss="1.5")
        assert "now" in shown.getvalue()
        display.now("")
        display.show(loss="1.25")
    assert "compiling" not in shown.getvalue().split("\x1b[2K")[-1]
    assert "1.25" in shown.getvalue().split("\x1b[2K")[-1]


def test_the_time_left_counts_the_validations(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    shown = io.StringIO()
    options = {"steps": 100, "validated_every": 30, "log": RunLog(Console(file=shown, width=200))}
    with MetricsWriter(tmp_path, RecordConfig(log_every=10), **options) as writer:
        for step in range(1, 61):
            now[0] += 1.0
            writer.step(StepSums(step, 8.0, 4.0, 2.0, 1.0))
            if step % 30 == 0:
                writer.validating(step)
                now[0] += 100.0 if step == 30 else 7.0  # the first one compiles
                writer.validation(step, {"loss": 1.0}, [])
    left = [line.rsplit(", ", 1)[1] for line in shown.getvalue().splitlines() if line.startswith("step")]
    assert left == [
        "0:01:30 and 4 validations left",
        "0:01:20 and 4 validations left",
        "0:01:10 and 4 validations left",
        "0:06:00 left",  # 60 steps, 3 validations of 100 s
        "0:05:50 left",
        "0:05:40 left",
    ]
    assert clock(3725.9) == "1:02:05"
    assert writer.seconds == 60.0
