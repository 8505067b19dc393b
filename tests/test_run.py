"""The whole road: train, resume, translate, score, align; what is promised of runs that are cut short."""

import dataclasses
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from rich.console import Console

import s2s_jax
from s2s_jax import run
from s2s_jax.decode.batching import WINDOW
from s2s_jax.evaluate.metrics import METRICS, Metric
from s2s_jax.model.interface import Memory, Model, State, StepOutput
from s2s_jax.model.seq2seq import MODELS
from s2s_jax.text.batches import BatchPlan
from s2s_jax.text.example import Example
from s2s_jax.text.sources import read_split
from s2s_jax.training import objectives
from s2s_jax.training.checkpoint.pytree_io import digest
from s2s_jax.training.loop import NotFinite
from s2s_jax.training.signals import Interrupted

QUIET = Console(quiet=True)


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("runs") / "copy"
    run.train(tiny.experiment(), directory, QUIET)
    return directory


@pytest.fixture(scope="session")
def loaded(trained):
    return run.load(trained)


def records(directory: Path, kind: str) -> list[dict]:
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if record["kind"] == kind]


def test_it_learns_to_copy(trained):
    last = records(trained, "validation")[-1]
    assert last["loss"] < 0.1
    assert last["exact_match"] > 0.9


def test_every_number_of_an_evaluation_is_there(loaded):
    found = loaded.evaluate("test")
    assert found["exact_match"] > 0.9
    assert found["token_accuracy"] > 0.95
    assert 1 <= found["perplexity"] < 1.2
    assert found["bleu"] > 90
    assert found["wer"] < 0.05
    assert found["per"] is None
    assert 0 <= found["aer"] < 0.6
    assert sum(row["sources"] for row in found["by_source_length"]) == found["sources"]
    assert 0 <= found["attention_entropy"] < np.log(6)  # at most five tokens and the end token


@pytest.mark.parametrize("beam", [1, 4])
def test_lines_come_back_in_order_and_blank_ones_stay_blank(trained, beam):
    """Rows 11 and 12 of the faults: one output line an input line, in order, always."""
    lines = ["a b c", "", "z", " \u00a0\u200b", "d e f g h", "unheard of", "a b c"]
    answers = run.load(trained, changes=[f"search.beam={beam}"]).translate(lines)
    assert [answer.source for answer in answers] == lines
    assert answers[0].text == answers[-1].text == "a b c"
    assert [answers[place].text for place in (1, 3)] == ["", ""]
    assert answers[4].text == "d e f g h"
    for answer in (answers[0], answers[4]):
        best = answer.hypotheses[0]
        assert best.alignment.shape == (len(best.tokens), len(answer.source_tokens))
        np.testing.assert_allclose(best.alignment.sum(-1), 1, atol=1e-5)
        assert len(best.log_probs) == len(best.tokens)
        assert len(answer.hypotheses) == beam
        assert [one.score for one in answer.hypotheses] == sorted(
            (one.score for one in answer.hypotheses), reverse=True
        )


def test_neighbors_do_not_change_a_translation(loaded):
    """Row 32 of the faults: batch neighbors and padding never change a number beyond rounding."""
    alone = loaded.translate(["q r"])[0].best
    crowd = loaded.translate(["a b c d e", "q r", "x"] * 5)[1].best
    assert alone.text == crowd.text
    assert alone.score == pytest.approx(crowd.score, abs=1e-5)
    np.testing.assert_allclose(alone.alignment, crowd.alignment, atol=1e-5)


def test_a_scored_translation_has_the_probability_that_search_gave_it(loaded):
    (answer,) = loaded.translate(["k l m"])
    (scored,) = loaded.score([("k l m", answer.text)])
    np.testing.assert_allclose(scored.log_probs, answer.log_probs, atol=1e-5)
    np.testing.assert_allclose(scored.alignment, answer.alignment, atol=1e-5)
    assert scored.score == pytest.approx(answer.score, abs=1e-5)


def test_scores_come_in_order(loaded):
    pairs = [Example("a b c d", "a b c d"), Example("x", "x"), Example("a b", "b a")]
    scored = list(loaded.score(pairs))
    assert [one.example for one in scored] == pairs
    assert scored[1].log_probs.sum() > scored[2].log_probs.sum()


def test_settings_of_a_search_are_for_one_question_and_compiled_once(loaded):
    lines = ["a b c", "d e"]
    before = loaded.translate(lines)
    wide = loaded.translate(lines, beam=3, rules={"min_length": 2}, length_penalty=1.0)
    assert [len(one.hypotheses) for one in wide] == [3, 3]
    programs = loaded.translator(beam=3, rules={"min_length": 2}, length_penalty=1.0).search._cache_size()
    assert loaded.translate(lines, beam=3, rules={"min_length": 2}, length_penalty=1.0)[0].tokens == wide[0].tokens
    assert loaded.translator(beam=3, rules={"min_length": 2}, length_penalty=1.0).search._cache_size() == programs
    assert [one.text for one in loaded.translate(lines)] == [one.text for one in before]
    one = wide[0]
    assert (one.score, one.tokens, one.log_probs, one.truncated) == (
        *(one.best.score, one.best.tokens, one.best.log_probs, one.best.truncated),
    )
    assert one.alignment.shape == (len(one.tokens), 4)
    (blank,) = loaded.translate([" "])
    assert (blank.text, blank.score, blank.tokens, blank.hypotheses) == ("", 0.0, (), ())


def test_a_mistyped_setting_of_a_search_is_answered(loaded):
    with pytest.raises(ValueError, match="no setting 'search.baem'; did you mean 'search.beam'?"):
        loaded.translate(["a"], baem=3)
    with pytest.raises(ValueError, match="search.beam must be a whole number, got 'five'"):
        loaded.translate(["a"], beam="five")
    with pytest.raises(TypeError, match="lines must be several, got one text"):
        loaded.translate("a b")


@pytest.mark.parametrize("ask", ["stream", "score"])
def test_a_stream_is_read_a_window_at_a_time(loaded, ask):
    read = []

    def endless():
        for number in itertools.count():
            read.append(number)
            yield "a b" if ask == "stream" else ("a b", "a b")

    answers = getattr(loaded, ask)(endless())
    window = loaded.experiment.search.batch_size * WINDOW
    next(answers)
    assert len(read) == window
    assert len(list(itertools.islice(answers, window))) == window
    assert len(read) == 2 * window


def test_the_package_offers_its_names_without_importing_jax_for_them():
    code = (
        "import sys, s2s_jax\nassert not {'jax', 'numpy', 'flax'} & set(sys.modules)\n"
        "assert 'load' in s2s_jax.__all__\n"
        "try: s2s_jax.lood\nexcept AttributeError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "module 's2s_jax' has no attribute 'lood'\n", done.stderr
    assert s2s_jax.load is run.load


def test_stopped_and_resumed_is_never_stopped_bit_for_bit(tmp_path):
    """At a step between validations, with scheduled sampling, dropout, averaging, skipped spikes and a plateau."""
    changes = (
        "validation.every=5", "validation.metric=exact_match",
        "scheduled_sampling.schedule=linear", "scheduled_sampling.decay=30", "scheduled_sampling.prediction=sample",
        "model.decoder.dropout=0.2", "model.encoder.recurrent_dropout=0.1", "optimizer.ema=0.9",
        "optimizer.schedule=plateau", "optimizer.decay_patience=2", "optimizer.skip_spikes=1.1",
    )  # fmt: skip
    for steps in (13, 40):
        resumed = run.fit(tiny.experiment(*changes, f"steps={steps}"), tmp_path / "parts", QUIET)
    whole = run.fit(tiny.experiment(*changes, "steps=40"), tmp_path / "whole", QUIET)
    assert digest(resumed) == digest(whole)
    assert [one["step"] for one in records(tmp_path / "parts", "validation")] == [5, 10, 13, *range(15, 41, 5)]
    best, stale, decays = -1.0, 0, 0
    for one in records(tmp_path / "whole", "validation")[:-1]:  # the last step is trained before its validation
        best, stale = (one["exact_match"], 0) if one["exact_match"] > best else (best, stale + 1)
        decays, stale = (decays + 1, 0) if stale == 2 else (decays, stale)
    rates = [records(tmp_path / run, "train")[-1]["learning_rate"] for run in ("parts", "whole")]
    assert decays > 0
    assert rates[0] == rates[1] == pytest.approx(2e-2 * 0.5**decays)
    skipped = [records(tmp_path / run, "train")[-1]["skipped_steps"] for run in ("parts", "whole")]
    assert skipped[0] == skipped[1] > 0  # of the 20 that have a history


def test_stopped_just_before_a_validation_it_is_made_up_for(tmp_path, monkeypatch):
    """The signal comes with the step that a validation belongs to: it is saved at once, and measured when resumed."""
    batches = BatchPlan.from_step

    def signalled(plan, start, stop):
        for number, batch in enumerate(batches(plan, start, stop), start + 1):
            if number == 10:
                signal.raise_signal(signal.SIGTERM)
            yield batch

    experiment = tiny.experiment("steps=20", "validation.every=10")
    with monkeypatch.context() as patch:
        patch.setattr(BatchPlan, "from_step", signalled)
        with pytest.raises(Interrupted, match="SIGTERM: saved at step 10"):
            run.train(experiment, tmp_path / "run", QUIET)
    assert records(tmp_path / "run", "validation") == []
    run.train(experiment, tmp_path / "run", QUIET)
    assert [one["step"] for one in records(tmp_path / "run", "validation")] == [10, 20]


def command(directory: Path, *changes: str) -> list[str]:
    """`s2s train` of the tiny experiment in a process of its own."""
    file = directory.parent / "oracle_search.py"
    file.write_text(f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\nfrom tiny import experiment\n")
    settings = ["--steps", "60", "--checkpoint.every", "7", "--record.log-every", "5", "--validation.every", "30"]
    words = [word for change in changes for word in ("--" + change.split("=")[0], change.split("=")[1])]
    cache = ["--device.cache", str(directory.parent / "cache")]
    return [sys.executable, "-m", "s2s_jax", "train", str(file), "--run", str(directory), *settings, *cache, *words]


def environment() -> dict[str, str]:
    return {**os.environ, "XLA_FLAGS": "", "PYTHONUNBUFFERED": "1"}


def start(directory: Path, *changes: str) -> subprocess.Popen:
    return subprocess.Popen(
        command(directory, *changes), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    )


def until_step(directory: Path, step: int, process: subprocess.Popen) -> None:
    """Wait until the run has told of a step."""
    end = time.monotonic() + 120
    while time.monotonic() < end and process.poll() is None:
        if (directory / "metrics.jsonl").exists() and any(one["step"] >= step for one in records(directory, "train")):
            return
        time.sleep(0.01)
    raise AssertionError(f"step {step} was never reached: {process.communicate()}")


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("killed") / "whole"
    done = subprocess.run(command(directory), capture_output=True, text=True, env=environment(), timeout=300)
    assert done.returncode == 0, done.stderr
    return directory


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGKILL, -9),
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.wide),
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.wide),
    ],
)
def test_killed_anywhere_and_resumed_gives_the_same_bits(uninterrupted, number, code):
    """Rows 37 and 41 of the faults, and the promise: parameters, optimizer, order and coins as if nothing had been."""
    directory = uninterrupted.parent / number.name
    process = start(directory)
    until_step(directory, 15, process)
    process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == code
    if code > 0:
        assert f"{number.name}: saved at step" in errors
        assert len(errors.splitlines()) == 1
    done = subprocess.run(command(directory), capture_output=True, text=True, env=environment(), timeout=300)
    assert done.returncode == 0, done.stderr
    assert "resuming at step" in done.stdout
    assert run.info(directory)["parameters_digest"] == run.info(uninterrupted)["parameters_digest"]
    steps = [one["step"] for one in records(directory, "train")]
    assert steps == [one["step"] for one in records(uninterrupted, "train")]


def test_a_flipped_bit_is_named_and_the_older_step_is_used(uninterrupted):
    """Row 40 of the faults, seen by a user of `info`."""
    whole = run.info(uninterrupted)
    newest = max(
        (path for path in (uninterrupted / "checkpoints").iterdir() if path.name.isdigit()), key=lambda p: int(p.name)
    )
    data = max((path for path in newest.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    raw = bytearray(data.read_bytes())
    raw[len(raw) // 2] ^= 8
    data.write_bytes(raw)
    try:
        found = run.info(uninterrupted)
    finally:
        raw[len(raw) // 2] ^= 8
        data.write_bytes(raw)
    assert found["step"] < whole["step"] == 60
    assert any("checksum" in line or "damaged" in line for line in found["refused"])
    assert str(whole["step"]) in found["refused"][0]


@pytest.mark.parametrize(("found", "message"), [(2, "written by an older s2s_jax"), (4, "written by a newer s2s_jax")])
def test_a_run_of_another_format_is_refused(tmp_path, found, message):
    (tmp_path / "config.json").write_text(json.dumps({"format": found, "steps": 5}))
    with pytest.raises(ValueError, match=message):
        run.read_experiment(tmp_path)


def test_the_best_checkpoint_is_that_of_the_validation_metric(tmp_path):
    """WER falls where it is better, AER needs gold alignments, and what they are at the best step is what is kept."""
    for metric, beam in (("wer", 2), ("aer", 1)):
        changes = ("data.train=task:reverse", "data.eval_size=20", "steps=30", f"validation.beam={beam}")
        changes += ("validation.every=10",)
        loaded = run.train(tiny.experiment(*changes, f"validation.metric={metric}"), tmp_path / metric, QUIET)
        values = {record["step"]: record[metric] for record in records(tmp_path / metric, "validation")}
        assert list(values) == [10, 20, 30]
        assert values[loaded.step] == min(values.values())
        # what `evaluate` computes of the same split by the same function
        assert loaded.evaluate("validation", beam=beam)[metric] == pytest.approx(values[loaded.step], abs=1e-6)


def test_a_run_is_not_resumed_with_another_validation_metric(tmp_path):
    """The best checkpoint is that of the lowest cost, and the costs of two metrics cannot be compared."""
    constant = "optimizer.schedule=constant"
    run.train(tiny.experiment("steps=4", "validation.every=2", constant), tmp_path / "run", QUIET)
    with pytest.raises(ValueError, match=r"validation.metric: 'loss' before, 'wer' now\); resume it with the same"):
        run.train(tiny.experiment("steps=8", "validation.metric=wer", constant), tmp_path / "run", QUIET)
    resumed = run.train(tiny.experiment("steps=8", "validation.every=2", constant), tmp_path / "run", QUIET)
    assert resumed.step in (2, 4, 6, 8)


def test_a_metric_of_the_users_own_may_read_alignments_and_forced_decoding(tmp_path, monkeypatch):
    """All inputs have one row per source in `evaluate`, also where a source has several references."""

    def attended(predictions):
        rows = [len(alignment) for alignment in predictions.alignments]
        return np.stack([np.array(rows, np.float64), predictions.tokens], 1)

    needs = ("alignments", "tokens")
    monkeypatch.setitem(METRICS, "attended", Metric("Attended", None, "", attended, METRICS["wer"].values, needs))
    file = tmp_path / "pairs.tsv"
    file.write_text("a\tx\na\ty\nb\tz\n")
    changes = ("steps=1", f"data.train={file}", f"data.validation={file}", "data.lengths=[0, 0]")
    loaded = run.train(tiny.experiment(*changes), tmp_path / "run", QUIET)
    tokens = sum(len(translation.tokens) for translation in loaded.translate(["a", "b"]))
    assert loaded.evaluate("test")["attended"] == tokens / 6  # one token and the end token per target
    other = run.train(tiny.experiment(*changes, "model.attention.score=none"), tmp_path / "none", QUIET)
    assert not {"attended", "attention_entropy"} & set(other.evaluate("test"))


def test_aer_of_data_without_gold_alignments_is_refused(tmp_path):
    file = tmp_path / "pairs.tsv"
    file.write_text("a b\tb a\n" * 5)
    changes = (f"data.train={file}", f"data.validation={file}", "data.lengths=[0, 0]", "validation.metric=aer")
    with pytest.raises(
        ValueError, match="validation.metric=aer needs gold alignments, and the validation data has none"
    ):
        run.train(tiny.experiment(*changes), tmp_path / "run", QUIET)


def test_an_objective_of_the_users_own_trains(tmp_path, monkeypatch):
    def focal(model, params, batch, step, key, *, loss, sampling, sequence):
        sums = objectives.cross_entropy(model, params, batch, step, key, loss=loss, sampling=sampling)
        return sums._replace(auxiliary=sums.nats)  # twice the loss

    monkeypatch.setitem(objectives.OBJECTIVES, "twice", focal)
    run.train(tiny.experiment("steps=2", "record.log_every=1", "loss.objective=twice"), tmp_path / "run", QUIET)
    (first, _) = records(tmp_path / "run", "train")
    assert first["auxiliary"] == pytest.approx(first["loss"])


def bigrams(config, *, source_vocabulary, target_vocabulary, copy_table=None):
    """A model of the user's own: the logits of a token are a row of a table."""

    def init(key):
        return {"table": jax.random.normal(key, (target_vocabulary, target_vocabulary))}

    def encode(params, source, key=None):
        rows, length = source.shape
        return Memory((), jnp.zeros((rows, length, 1)), source != 0), State(jnp.zeros(rows), (), ())

    def step(params, memory, state, token):
        mask = memory.mask.astype(jnp.float32)
        alignment = mask / jnp.maximum(mask.sum(1, keepdims=True), 1)
        return state, StepOutput(params["table"][token], alignment, jnp.zeros((len(token), 1)))

    return Model(init, encode, step)


def test_a_model_of_the_users_own_trains_resumes_and_loads(tmp_path, monkeypatch):
    monkeypatch.setitem(MODELS, "bigrams", bigrams)
    for steps in (2, 4):
        changes = (f"steps={steps}", "model.builder=bigrams", "optimizer.schedule=constant")
        loaded = run.train(tiny.experiment(*changes), tmp_path / "run", QUIET)
    assert loaded.params["table"].shape == (30, 30)
    assert run.info(tmp_path / "run")["step"] == 4
    assert loaded.translate(["a b"])[0].hypotheses
    assert loaded.evaluate("test", beam=2)["loss"] > 0
    monkeypatch.delitem(MODELS, "bigrams")
    with pytest.raises(ValueError, match="model.builder must be one of .* If a name is your own, give the file"):
        run.load(tmp_path / "run")


def test_another_experiment_in_the_same_folder_is_refused(trained):
    with pytest.raises(ValueError, match="model.encoder.size: 16 before, 20 now"):
        run.train(tiny.experiment("model.encoder.size=20"), trained, QUIET)


def test_another_vocabulary_under_a_run_is_refused(trained):
    """Row 23 of the faults: the hash of the tokenizer is stored, and both are shown."""
    path = trained / "target.tokenizer.json"
    text = path.read_text()
    state = json.loads(text)
    state["symbols"][0], state["symbols"][1] = state["symbols"][1], state["symbols"][0]
    path.write_text(json.dumps(state))
    try:
        with pytest.raises(
            ValueError, match=r"not the one the run was trained with \(sha256 \w{12}, the run has \w{12}\)"
        ):
            run.load(trained)
    finally:
        path.write_text(text)


def test_what_never_came_to_a_checkpoint_binds_nobody(tmp_path):
    directory = tmp_path / "run"
    with pytest.raises(ValueError, match="data.max_length=1 would drop"):
        run.train(tiny.experiment("data.max_length=1"), directory, QUIET)
    run.train(tiny.experiment("steps=1", "tokenizer.source.type=char"), directory, QUIET)
    assert json.loads((directory / "source.tokenizer.json").read_text())["type"] == "char"


def test_impossible_pairs_are_refused_before_anything_is_read(tmp_path):
    with pytest.raises(ValueError, match="model.attention.score=dot multiplies a decoder state"):
        run.train(tiny.experiment("model.attention.score=dot", "model.decoder.size=31"), tmp_path / "r", QUIET)
    assert not (tmp_path / "r").exists()


def test_divergence_stops_the_run_and_keeps_the_batch(tmp_path):
    """Row 28 of the faults: stop before the update, keep what is needed to look into it."""
    directory = tmp_path / "run"
    changes = (
        "optimizer.name=sgd",
        "optimizer.learning_rate=1e38",
        "optimizer.clip_norm=0",
        "optimizer.warmup_steps=0",
    )
    with pytest.raises(NotFinite, match=r"step \d+: .* lower optimizer.learning_rate"):
        run.train(tiny.experiment(*changes), directory, QUIET)
    kept = np.load(next(directory.glob("not_finite_*.npz")))
    assert kept["source"].shape[0] == 64


def test_early_stopping_waits_as_long_as_it_was_told(tmp_path):
    changes = ("steps=90", "validation.every=10", "validation.patience=2", "optimizer.learning_rate=0")
    state = run.fit(tiny.experiment(*changes), tmp_path / "run", QUIET)
    assert int(state.step) == 30


def test_fewer_pairs_than_a_batch_are_enough(tmp_path):
    """Row 18 of the faults: one pair trains."""
    file = tmp_path / "one.tsv"
    file.write_text("a b\tb a\n")
    changes = ("steps=2", f"data.train={file}", f"data.validation={file}", "data.lengths=[0, 0]")
    run.train(tiny.experiment(*changes), tmp_path / "run", QUIET)
    assert run.load(tmp_path / "run").translate(["a b"])[0].hypotheses


def test_an_empty_target_in_validation_is_kept_and_measured(tmp_path):
    """Row 10 of the faults: never dropped, never 0/0."""
    train, held = tmp_path / "train.tsv", tmp_path / "held.tsv"
    train.write_text("a b\tb a\nc\tc\n" * 5)
    held.write_text("a b\t\nc\t\n")
    changes = ("steps=1", f"data.train={train}", f"data.validation={held}", "data.lengths=[0, 0]")
    run.train(tiny.experiment(*changes), tmp_path / "run", QUIET)
    found = run.load(tmp_path / "run").evaluate("validation")
    assert found["sources"] == 2
    assert found["wer"] is None
    assert np.isfinite(found["perplexity"])


def test_references_of_one_source_count_together(tmp_path):
    file = tmp_path / "pairs.tsv"
    file.write_text("a\tx\na\ty\nb\tz\n")
    changes = ("steps=1", f"data.train={file}", f"data.validation={file}", "data.lengths=[0, 0]")
    run.train(tiny.experiment(*changes), tmp_path / "run", QUIET)
    found = run.load(tmp_path / "run").evaluate("test")
    assert (found["sources"], found["references"]) == (2, 3)


def test_a_picture_is_drawn_with_gold_links(loaded, tmp_path):
    examples, _ = read_split(loaded.experiment.data, "test")
    path = run.draw(loaded, list(loaded.score(examples[:2])), tmp_path / "picture.png")
    assert path.read_bytes().startswith(b"\x89PNG")


def test_interrupted_says_its_code():
    error = Interrupted(signal.SIGTERM, 12)
    assert error.code == 143
    assert "SIGTERM: saved at step 12" in str(error)


def test_no_pickle_and_no_eval_anywhere():
    """Loading a run cannot execute code."""
    package = Path(s2s_jax.__file__).parent
    for path in package.rglob("*.py"):
        text = path.read_text()
        for word in ("pickle", " eval(", "yaml.load", "torch.load"):
            named = re.search(rf"(?<!\w){re.escape(word)}", text)  # submitit calls a file of its own result_pickle
            assert not named or "No pickle" in text, f"{path}: {word}"


def test_two_devices_train_as_one_does(tmp_path):
    states = [
        run.train(
            tiny.experiment("steps=3", "optimizer.name=sgd", "validation.sentences=0", f"device.count={count}"),
            tmp_path / str(count),
            QUIET,
        )
        for count in (1, 2)
    ]
    for one, two in zip(*(jax.tree.leaves(state.params) for state in states), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-6)


@pytest.mark.wide
def test_a_budget_ends_a_run_where_it_would_have_ended_uninterrupted(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    bounded = tiny.experiment(
        "budget.tokens=2000",
        "checkpoint.every=1",
        "checkpoint.keep=50",
        "validation.sentences=0",
        "optimizer.schedule=constant",
    )
    step = int(run.fit(bounded, whole, QUIET).step)
    ended = records(whole, "end")[0]
    assert ended["reason"].startswith("its budget is spent")
    assert ended["step"] == step < 300
    assert 2000 <= ended["tokens"] < 2000 + 64 * 6
    assert records(whole, "validation")[-1]["step"] == step
    run.train(dataclasses.replace(bounded, steps=step - 1), parts, QUIET)
    assert int(run.fit(bounded, parts, QUIET).step) == step
    assert records(parts, "end")[-1]["tokens"] == ended["tokens"]


def test_a_run_that_lost_patience_stays_done(tmp_path):
    impatient = tiny.experiment(
        "steps=50", "validation.every=2", "validation.sentences=0", "validation.patience=1", "optimizer.learning-rate=5"
    )
    step = int(run.fit(impatient, tmp_path, QUIET).step)
    assert step < 50
    assert int(run.fit(impatient, tmp_path, QUIET).step) == step
