"""What does the training loop record, and what does it do and say when a step cannot be taken?"""

import io
import json
import sys
import time

import fake_training
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from rich.console import Console

from s2s_jax import run
from s2s_jax.shapes import Batch
from s2s_jax.training.checkpoint.checkpoints import CheckpointConfig
from s2s_jax.training.loop import NotFinite, TrainingLoop, ValidationResult
from s2s_jax.training.memory import MemoryNeed, OutOfMemory, Shape, explained, fitting_rows, memory_warning
from s2s_jax.training.stop_policy import BudgetConfig, StopPolicy, ValidationConfig
from s2s_jax.training.trackers import TRACKERS, Tracker


def diverging_at(bad: int):
    """A step that is not finite at the `bad`-th step."""

    def step(state, batch):
        after, metrics = fake_training.take_step(state, batch)
        if int(after.step) == bad:
            return state, metrics._replace(finite=jnp.array(False), norm=jnp.float32(np.inf))
        return after, metrics

    return fake_training.program(step=step)


class Writing(fake_training.Saved):
    """Checkpoints whose write takes until somebody waits for it."""

    def __init__(self):
        super().__init__()
        self.pending: list[int] = []

    def save(self, step, state, **_):
        self.pending.append(step)

    def wait(self):
        self.steps += self.pending
        self.pending = []


@pytest.mark.parametrize(
    ("every", "newest"), [(1, "the newest checkpoint is that of step 1;"), (50, "no checkpoint was written yet;")]
)
def test_a_divergence_names_the_newest_checkpoint_also_one_that_is_being_written(tmp_path, every, newest):
    """Row 28 of the faults."""
    changes = {"checkpoints": Writing(), "checkpoint": CheckpointConfig(every=every), "given": diverging_at(2)}
    with fake_training.training(tmp_path, steps=9, **changes) as (loop, _):
        (failure,) = loop.run()
    assert isinstance(failure, NotFinite)
    assert "step 2: the loss is 1 nats per token, the gradient's norm inf; the step was not taken." in str(failure)
    assert newest in str(failure)
    assert np.load(tmp_path / "not_finite_2.npz")["source"].shape == (1, 2)


def records(directory, kind):
    lines = map(json.loads, (directory / "metrics.jsonl").read_text().splitlines())
    return [record for record in lines if record["kind"] == kind]


def test_checkpoints_are_written_by_time_too(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def slowly(first, last):
        for batch in fake_training.batches(first, last):
            now[0] += 25  # seconds
            yield batch

    config = CheckpointConfig(every_minutes=1.0)
    with fake_training.training(tmp_path, steps=9, batches=slowly, checkpoint=config) as (loop, saved):
        loop.run()
    assert saved.steps == [3, 6, 9]
    with pytest.raises(ValueError, match=r"checkpoint.every_minutes must be 0 or more, got -1.0"):
        CheckpointConfig(every_minutes=-1.0)


def test_a_skipped_spike_is_told_and_counted(tmp_path):
    """Row 33 of the faults: never silent."""

    def step(state, batch):
        state, metrics = fake_training.take_step(state, batch)
        return state, metrics._replace(spike=jnp.array(int(state.step) in (2, 3)), norm=jnp.float32(70.0))

    shown = io.StringIO()
    changes = {"given": fake_training.program(step=step), "console": Console(file=shown, width=100), "log_every": 2}
    with fake_training.training(tmp_path, steps=6, **changes) as (loop, _):
        loop.run()
    assert [record["skipped_steps"] for record in records(tmp_path, "train")] == [1, 1, 0]
    assert "step 2: the gradient's norm 70 is a spike; the step was skipped\n" in shown.getvalue()
    assert shown.getvalue().count("skipped") == 2


def test_rows_have_the_learning_rate_the_epoch_and_the_probability_of_the_true_token(tmp_path):
    changes = ("steps=6", "record.log_every=2", "data.train_size=192", "optimizer.warmup_steps=4")
    changes += ("scheduled_sampling.schedule=linear", "scheduled_sampling.decay=10", "optimizer.schedule=constant")
    run.fit(tiny.experiment(*changes), tmp_path, Console(quiet=True))
    rows = records(tmp_path, "train")
    assert [row["epoch"] for row in rows] == pytest.approx([2 / 3, 4 / 3, 2])
    assert [row["learning_rate"] for row in rows] == pytest.approx([0.01, 0.02, 0.02])
    assert [row["teacher_forcing_probability"] for row in rows] == pytest.approx([0.9, 0.7, 0.5])
    (compiled,) = records(tmp_path, "compile")  # of the largest bucket, before the first step: memory is known
    assert (compiled["step"], compiled["count"], compiled["rows"]) == (0, 1, 64)
    assert compiled["megabytes"] > 0.1


def test_tensorboard_gets_what_the_metrics_file_gets(tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(
        "tensorboardX.SummaryWriter.add_scalar", lambda self, name, value, step: given.append((name, step, value))
    )
    with fake_training.training(tmp_path, steps=2, trackers=("tensorboard",)) as (loop, _):
        loop.run()
    assert any((tmp_path / "tensorboard").iterdir())
    assert [each for each in given if each[0] == "train/loss"] == [("train/loss", 1, 1.0), ("train/loss", 2, 1.0)]
    assert ("validation/loss", 2, 1.0) in given


class Listener(Tracker):
    """Remembers its messages, and fails after some messages."""

    most = 4

    def __init__(self, directory, settings):
        self.settings, self.messages, self.closed = dict(settings), [], False
        Listener.last = self

    def numbers(self, kind, step, values):
        if len(self.messages) == self.most:
            raise OSError("the network is gone")
        self.messages.append((kind, step, dict(values)))

    def picture(self, name, step, pixels):
        self.messages.append((name, step, pixels.shape))

    def close(self):
        self.closed = True


def test_a_tracker_is_told_of_the_run_and_its_failure_ends_nothing(tmp_path, monkeypatch):
    monkeypatch.setitem(TRACKERS, "listener", Listener)
    shown = io.StringIO()
    changes = (
        "steps=4",
        "validation.every=2",
        "record.log_every=2",
        "record.trackers=listener",
        "validation.sentences=5",
    )
    run.fit(tiny.experiment(*changes, "data.eval_size=5"), tmp_path, Console(file=shown, width=200))
    compiled, first, validated, picture = Listener.last.messages
    assert Listener.last.settings["model.attention.score"] == "general"
    assert (compiled[0], first[:2], validated[:2]) == ("compile", ("train", 2), ("validation", 2))
    assert {"loss", "learning_rate"} <= set(first[2])
    assert (picture[:2], picture[2][2]) == (("alignment", 2), 3)
    assert validated[2]["loss"] == records(tmp_path, "validation")[0]["loss"]
    assert "warning: tracker listener failed (the network is gone); training continues without it" in shown.getvalue()
    assert not Listener.last.closed
    assert len(records(tmp_path, "validation")) == 2


def test_a_tracker_is_shown_alignments_and_closed_and_one_that_cannot_be_drawn_ends_nothing(tmp_path, monkeypatch):
    monkeypatch.setitem(TRACKERS, "listener", Listener)
    monkeypatch.setattr(Listener, "most", 100)
    shown, draws = io.StringIO(), [lambda: {}["a font"], lambda: {"alignment": np.zeros((4, 6, 3), np.uint8)}]
    changes = {"every": 1, "log_every": 100, "trackers": ("listener",), "console": Console(file=shown, width=200)}

    def validate(params):
        return ValidationResult({"loss": 1.0}, [], 1.0, draws.pop(0))

    with fake_training.training(tmp_path, steps=2, validate=validate, **changes) as (loop, _):
        assert loop.run() == [None]
    assert "warning: no picture for trackers could be drawn at step 1 ('a font')" in shown.getvalue()
    assert ("alignment", 2, (4, 6, 3)) in Listener.last.messages
    assert Listener.last.closed


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_the_trackers_take_what_they_are_told(tmp_path, monkeypatch, name):
    """Where they are installed; they are no part of the packages that the tests need."""
    pytest.importorskip(name)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlflow").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    for step in (1, 2):  # the second time it goes on in the same run
        tracker = TRACKERS[name](tmp_path, {"seed": step})
        tracker.numbers("train", step, {"loss": 1.0 / step})
        tracker.picture("alignment", step, np.zeros((4, 6, 3), np.uint8))
        tracker.close()
    assert len(json.loads((tmp_path / "trackers.json").read_text())) == 1
    if name == "mlflow":
        (losses,) = (tmp_path / "mlflow").rglob("metrics/train/loss")
        assert [line.split()[1:] for line in losses.read_text().splitlines()] == [["1.0", "1"], ["0.5", "2"]]
    else:
        assert len(list((tmp_path / "wandb").glob("offline-run-*"))) >= 1


def test_a_tensorboard_that_is_not_installed_leaves_no_file_open(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with (
        pytest.raises(ValueError, match="^record.trackers=tensorboard needs"),
        fake_training.training(tmp_path, steps=2, trackers=("tensorboard",)),
    ):
        pass


def test_more_shapes_than_buckets_are_warned_of(tmp_path):
    """Row 36 of the faults."""

    def ragged(first, last):
        for length in range(first + 1, last + 1):
            yield Batch(np.ones((1, length), np.int32), np.ones((1, 3), np.int32))

    shown = io.StringIO()
    console = Console(file=shown, width=200)
    with fake_training.training(tmp_path, steps=4, batches=ragged, buckets=2, console=console) as (loop, _):
        loop.run()
    assert [record["count"] for record in records(tmp_path, "compile")] == [1, 2, 3, 4]
    warning = "warning: the step was compiled {} times, once per shape of batches, and there are 2 buckets."
    assert warning.format(3) in shown.getvalue()
    assert warning.format(2) not in shown.getvalue()


def test_the_largest_shape_is_compiled_first(tmp_path):
    """Rows 25 and 35 of the faults: a batch that is too large is known before the first step."""
    largest = Batch(np.ones((4, 9), np.int32), np.ones((4, 8), np.int32))
    with fake_training.training(tmp_path, steps=2, largest=largest) as (loop, _):
        loop.run()
    compiled = [(record["step"], record["rows"], record["source"]) for record in records(tmp_path, "compile")]
    assert compiled == [(0, 4, 9), (0, 1, 2)]


NEED = MemoryNeed(parameters=10.0, optimizer=20.0, activations=600.0)
SHAPE = Shape(rows=64, source=20, target=21)


@pytest.mark.parametrize("where", ["compiling", "sending", "reading"])
def test_a_lack_of_memory_says_what_fits(tmp_path, where):
    """Row 35 of the faults: jax raises it while it compiles, when a step is sent, or when its result is read."""

    def fail(*_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 99 bytes.")

    class Failing:
        def __array__(self, *_):
            fail()

    def step_of_failing(state, batch):
        state, metrics = fake_training.take_step(state, batch)
        return state, metrics._replace(norm=Failing())

    changes = {"compiling": {"lower": fail}, "sending": {"step": fail}, "reading": {"step": step_of_failing}}[where]
    with (
        pytest.raises(OutOfMemory, match="^a batch of 1 pairs with sources of 2 and targets of 3 tokens does not fit"),
        fake_training.training(tmp_path, steps=9, given=fake_training.program(**changes)) as (loop, _),
    ):
        loop.run()


def test_the_remedy_of_a_lack_of_memory_fits():
    assert fitting_rows(SHAPE, NEED, limit=330.0) == 32
    assert fitting_rows(SHAPE, NEED, limit=120.0) == 9
    assert fitting_rows(SHAPE, NEED, limit=5.0) == 1
    assert fitting_rows(SHAPE, None, limit=None) == 32
    with (
        pytest.raises(OutOfMemory) as raised,
        explained(SHAPE, NEED, 120.0),
    ):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")
    assert str(raised.value) == (
        "a batch of 64 pairs with sources of 20 and targets of 21 tokens does not fit into the memory of the device "
        "(it needs 630.0 MB per device (parameters 10.0, optimizer 20.0, activations 600.0) of 120 MB); in a new run, "
        "use --batch.size 9, or --optimizer.accumulate 8 for the same batch in parts."
    )
    with (
        pytest.raises(OutOfMemory, match="use --model.remat-every 10, or a lower --data.max-length"),
        explained(Shape(1, 9000, 9000), None, None),
    ):
        raise MemoryError
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"), explained(SHAPE, NEED, 120.0):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")


def test_a_step_that_needs_more_than_the_device_has_is_warned_of():
    """Row 25 of the faults."""
    assert memory_warning(NEED, 630.0) is None
    assert memory_warning(None, 1.0) is None
    assert memory_warning(NEED, 600.0).startswith("a step needs 630 MB and the device has 600 MB; use a lower --batch.")


def test_each_replica_decays_on_its_own_plateau(tmp_path):
    """One whose cost falls keeps its rate; one whose cost never does loses half of it at every second validation."""
    seen, shown = [], io.StringIO()

    def step(state, batch):
        seen.append(np.asarray(state.rate_factor).tolist())
        return fake_training.take_step(state, batch)

    def joined(states):
        return states[0]._replace(rate_factor=jnp.ones(2))

    falling = iter(range(9, 0, -1))

    def validate(params):
        return ValidationResult({"loss": 1.0}, [], float(next(falling)))

    changes = {"rate_factor": lambda decays: 0.5**decays, "every": 2, "console": Console(file=shown, width=100)}
    changes["policy"] = StopPolicy(12, ValidationConfig(every=2), BudgetConfig(), decay_patience=2)
    given = fake_training.program(step=step, join_states=joined)
    with (
        fake_training.training(tmp_path, steps=12, given=given, **changes) as (loop, _),
        fake_training.training(tmp_path, steps=12, given=given, validate=validate, **changes) as (other, _),
    ):
        both = TrainingLoop([*loop.runs, *other.runs], given, [fake_training.state_at(0)] * 2)
        assert both.run() == [None, None]
    # the first validation, at step 2, is the best there is; those at 6 and 10 are the second ones since then
    assert seen == [[1.0, 1.0]] * 6 + [[0.5, 1.0]] * 4 + [[0.25, 1.0]] * 2
    assert shown.getvalue().count("no improvement; the learning rate is now times") == 2
