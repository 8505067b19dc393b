"""Many seeds in one program: each becomes what its own run would have become."""

import dataclasses
import signal
import threading

import jax
import numpy as np
import pytest
import tiny
from rich.console import Console

from s2s_jax import run
from s2s_jax.config import override
from s2s_jax.run.run_dir import read_json
from s2s_jax.shapes import Batch
from s2s_jax.training.signals import Interrupted
from s2s_jax.training.vmapped_runs import stacked

QUIET = Console(quiet=True)
SEEDS = (3, 4)


def experiments(*changes: str):
    base = tiny.experiment("steps=7", "optimizer.name=sgd", "batch.buckets=2", "validation.every=4", *changes)
    return [dataclasses.replace(base, seed=seed) for seed in SEEDS]


def folders(path):
    return [path / str(seed) for seed in SEEDS]


def leaves(directory):
    return jax.tree.leaves(run.load(directory).params)


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    found = folders(tmp_path_factory.mktemp("together"))
    assert run.train_replicas(experiments(), found, QUIET) == [None, None]
    return found


def test_a_replica_is_the_run_of_its_seed(together, tmp_path):
    for experiment, directory in zip(experiments(), together, strict=True):
        alone = tmp_path / directory.name
        run.train(experiment, alone, QUIET)
        for one, other in zip(leaves(alone), leaves(directory), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)
        assert read_json(alone / "facts.json") == read_json(directory / "facts.json")
    first, second = (np.concatenate([leaf.ravel() for leaf in leaves(one)]) for one in together)
    assert np.abs(first - second).max() > 0.1


def test_replicas_are_told_their_own_numbers(tmp_path):
    """Runs that differ in numbers share a program, also where one of the numbers is 0."""
    base = tiny.experiment(
        "steps=4", "optimizer.name=sgd", "optimizer.warmup_steps=2", "scheduled_sampling.schedule=linear"
    )
    changes = (
        (
            "optimizer.learning-rate=0.1",
            "loss.label-smoothing=0.2",
            "scheduled_sampling.start=0.9",
            "model.decoder.dropout=0",
        ),
        (
            "optimizer.learning-rate=0.3",
            "model.encoder.dropout=0.3",
            "scheduled_sampling.decay=4",
            "model.decoder.dropout=0.4",
        ),
    )
    given = [override(base, *each) for each in changes]
    assert run.train_replicas(given, folders(tmp_path), QUIET) == [None, None]
    for experiment, directory in zip(given, folders(tmp_path), strict=True):
        alone = tmp_path / "alone" / directory.name
        run.train(experiment, alone, QUIET)
        for one, other in zip(leaves(alone), leaves(directory), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.wide
def test_replicas_lie_over_devices(together, tmp_path):
    run.train_replicas(experiments("device.count=2"), folders(tmp_path), QUIET)
    for one, two in zip(together, folders(tmp_path), strict=True):
        for a, b in zip(leaves(one), leaves(two), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.wide
def test_stopped_replicas_go_on_to_the_same_end(together, tmp_path):
    long = experiments("optimizer.schedule=constant")
    timer = threading.Timer(0.0, signal.raise_signal, [signal.SIGINT])

    class Asked(Console):
        """Asks for an end when the first step is compiled."""

        def print(self, *objects, **_):
            if "compiling" in str(objects[0]) and not timer.is_alive():
                timer.run()

    with pytest.raises(Interrupted):
        run.train_replicas(long, folders(tmp_path), Asked(quiet=True))
    stopped = [read_json(one / "config.json")["steps"] for one in folders(tmp_path)]
    assert stopped == [7, 7]
    assert run.train_replicas(long, folders(tmp_path), QUIET) == [None, None]
    assert run.train_replicas(long, folders(tmp_path), QUIET) == [None, None]  # nothing left to do
    for one, two in zip(together, folders(tmp_path), strict=True):
        for a, b in zip(leaves(one), leaves(two), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)


def test_replicas_that_cannot_go_in_step_are_refused(tmp_path):
    one, two = experiments()
    other = dataclasses.replace(two, model=dataclasses.replace(two.model, embedding=8))
    with pytest.raises(ValueError, match=r"scheduled_sampling\.start.* alone, got model\.embedding: 8"):
        run.train_replicas([one, other], folders(tmp_path), QUIET)
    with pytest.raises(ValueError, match=r"set validation\.patience=0, got 2"):
        run.train_replicas(experiments("validation.patience=2"), folders(tmp_path), QUIET)


def test_a_batch_of_replicas_is_padded_to_the_largest():
    small, large = Batch(np.ones((2, 3), np.int32), np.ones((2, 2), np.int32)), Batch(*np.ones((2, 3, 4), np.int32))
    found = stacked([small, large])
    assert found.source.shape == found.target.shape == (2, 3, 4)
    assert found.source[0].sum() == 6
    assert found.target[0, :2, :2].all()
