"""Random configurations, random options and random damage: each ends in the right answer or in one line that says why.

By default the examples are the same ones in every run, within a minute; `pytest -m wide tests/test_fuzz.py` draws
many others.
"""

import json
import math
import shutil
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as some

from s2s_jax import config
from s2s_jax.model.seq2seq import build
from s2s_jax.run.check import check_experiment
from s2s_jax.run.state import new_state
from s2s_jax.run.step import training_step
from s2s_jax.shapes import EOS, PAD, Batch

TRAINED_GROUPS = ("model.", "loss.", "scheduled_sampling.", "optimizer.")
NUMBERS = {int: (0, 1, 2, 3, 5), float: (0.0, 0.1, 0.5, 1.0, 2.0), bool: (False, True)}
LINES = "a b c\n\nc\nzzz ü a\na b c d e\n"
VOCABULARY, STEPS = 12, 3


def fuzzed(examples, *, wide):
    """Settings of a test: few fixed examples by default, or many random ones."""
    checks = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
    return settings(
        max_examples=10 * examples if wide else examples,
        derandomize=not wide,
        database=None,
        deadline=None,
        phases=(Phase.generate,),  # to shrink a failing example would take minutes
        suppress_health_check=checks,
    )


def assignments(groups, most):
    """Up to `most` overrides of settings of the given groups, of plausible and of extreme values."""
    drawn = []
    for setting in config.settings(tiny.experiment()):
        values = typing.get_args(setting.type) or NUMBERS.get(setting.type, ())
        if setting.name.startswith(groups) and values and typing.get_origin(setting.type) is not tuple:
            drawn.append(some.sampled_from(values).map(lambda value, name=setting.name: (name, value)))
    return some.lists(some.one_of(drawn), min_size=1, max_size=most, unique_by=lambda pair: pair[0])


def texts(pairs):
    return [f"{name}={str(value).lower() if isinstance(value, bool) else value}" for name, value in pairs]


def batch():
    """Lines of unequal lengths, and gold links for guided attention."""
    rows = np.full((4, 5), PAD, np.int32)
    for row, length in enumerate((1, 2, 4, 5)):
        rows[row, :length] = [*range(4, 3 + length), EOS]
    links = np.broadcast_to(np.eye(5, dtype=bool), (4, 5, 5))
    return rows, links


def trains(pairs):
    """Train a few steps of the tiny experiment with overrides, if it is legal."""
    try:
        experiment = config.override(tiny.experiment(), *texts(pairs), f"steps={STEPS}", "optimizer.warmup_steps=0")
        check_experiment(experiment)
    except ValueError as error:
        for line in str(error).splitlines():  # one per violation
            assert any(name in line for name, _ in pairs) or "model." in line, line
        return
    model = build(experiment.model, source_vocabulary=VOCABULARY, target_vocabulary=VOCABULARY)
    state = new_state(model, experiment.optimizer, steps=experiment.steps, seed=0)
    step = training_step(
        model, experiment.loss, experiment.scheduled_sampling, experiment.optimizer, steps=experiment.steps
    )
    rows, links = batch()
    state, metrics = step(state, Batch(rows, rows, links if experiment.loss.guided else ()))
    assert bool(metrics.finite)
    assert math.isfinite(float(metrics.sums.nats))
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(state.params))


@fuzzed(8, wide=False)
@given(pairs=assignments(TRAINED_GROUPS, 4))
def test_a_random_configuration_trains_or_is_refused(pairs):
    trains(pairs)


@pytest.mark.wide
@fuzzed(30, wide=True)
@given(pairs=assignments(TRAINED_GROUPS, 6))
def test_many_random_configurations_train_or_are_refused(pairs):
    trains(pairs)


@pytest.fixture(scope="module")
def lines(tmp_path_factory):
    """A file of lines to translate, one of them blank, one with unknown words."""
    path = tmp_path_factory.mktemp("fuzz") / "lines.txt"
    path.write_text(LINES, encoding="utf-8")
    return path


def is_refused(code, output, errors):
    """Whether a command was refused with one line that is for its user."""
    assert "Traceback" not in errors
    if code == 0:
        return False
    assert code == 2, errors
    assert len([line for line in errors.splitlines() if line.startswith("s2s: ")]) == 1, errors
    return True


def translates(s2s, run, lines, pairs, n_best, as_json):
    """Translate with random options: one answer per line, or a refusal that names a setting."""
    options = [f"--{name.replace('_', '-')}={value}" for name, value in (text.split("=") for text in texts(pairs))]
    options += [f"--n-best={n_best}"] * bool(n_best) + ["--json"] * as_json
    code, output, errors = s2s("translate", str(run), "--input", str(lines), *options)
    if is_refused(code, output, errors):
        assert any(name in errors for name in ("search.", "--n-best", "--beam")), errors
    elif as_json:
        assert [record["source"] for record in map(json.loads, output.splitlines())] == LINES.splitlines()
    elif n_best:
        numbers = [int(line.split(" ||| ")[0]) for line in output.splitlines()]
        assert sorted(set(numbers)) == list(range(LINES.count("\n")))
    else:
        assert output.count("\n") == LINES.count("\n")


SEARCHES = assignments(("search.",), 4).map(
    lambda pairs: [(name, value) for name, value in pairs if name not in ("search.max_source", "search.batch_tokens")]
)


@fuzzed(8, wide=False)
@given(pairs=SEARCHES, n_best=some.sampled_from((0, 0, 2)), as_json=some.booleans())
def test_random_options_of_translate_give_one_answer_per_line_or_are_refused(
    s2s, trained_run, lines, pairs, n_best, as_json
):
    translates(s2s, trained_run, lines, pairs, n_best, as_json)


@pytest.mark.wide
@fuzzed(30, wide=True)
@given(pairs=SEARCHES, n_best=some.sampled_from((0, 0, 2)), as_json=some.booleans())
def test_many_random_options_of_translate(s2s, trained_run, lines, pairs, n_best, as_json):
    translates(s2s, trained_run, lines, pairs, n_best, as_json)


def damaged(path, how, where, bit):
    """Flip a bit of a file, cut it, empty it, delete it, or put another file's bytes into it."""
    content = bytearray(path.read_bytes())
    place = int(where * max(0, len(content) - 1))
    if how == "deleted":
        path.unlink()
    elif how == "cut":
        path.write_bytes(content[:place])
    elif how == "replaced":
        path.write_bytes(b"[]\n")
    elif content:
        content[place] ^= 1 << bit
        path.write_bytes(content)


def survives(s2s, run, lines, right, draw):
    """Damage one file of a copy of a run; translating and resuming it are right, or refused by the name of a file."""
    copy = run.parent / "damaged"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(run, copy)
    files = sorted(path for path in copy.rglob("*") if path.is_file())
    path, how, where, bit = files[draw[0] % len(files)], *draw[1:]
    damaged(path, how, where, bit)
    about = f"{path.relative_to(copy)} {how} at {where}, bit {bit}"
    for command in (
        ("translate", str(copy), "--input", str(lines)),
        ("train", str(copy), "--run", str(copy), "--record.log-every", "50"),
    ):
        code, output, errors = s2s(*command)
        if is_refused(code, output, errors):
            assert str(copy) in errors, f"{about}: {errors}"
        elif command[0] == "translate" and output != right:
            assert "refused: step 120" in errors, f"{about}: {errors}"  # an older checkpoint is used


DAMAGE = some.tuples(
    some.integers(0, 10_000),
    some.sampled_from(("flipped", "flipped", "cut", "deleted", "replaced")),
    some.floats(0, 1),
    some.integers(0, 7),
)


@pytest.fixture(scope="module")
def right(trained_run, lines):
    """The translations of the run that is not damaged."""
    from s2s_jax.run import load

    run = load(trained_run)
    return "".join(f"{translation.text}\n" for translation in run.translate(LINES.splitlines()))


@fuzzed(5, wide=False)
@given(draw=DAMAGE)
def test_random_damage_to_a_run_is_survived_or_named(s2s, trained_run, lines, right, draw):
    survives(s2s, trained_run, lines, right, draw)


@pytest.mark.wide
@fuzzed(30, wide=True)
@given(draw=DAMAGE)
def test_much_random_damage(s2s, trained_run, lines, right, draw):
    survives(s2s, trained_run, lines, right, draw)
