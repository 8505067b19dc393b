"""Several runs, checkpoints or a language model at once; and what a translation must begin with or hold."""

import dataclasses
import io
import json
import shutil
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny
from json_page import check_keys
from rich.console import Console

from s2s_jax import run
from s2s_jax.cli import main
from s2s_jax.decode.lexical_constraints import ConstrainedLine
from s2s_jax.text.example import Example
from s2s_jax.text.sources import DataConfig, read_split
from s2s_jax.training.checkpoint.average import newest_average
from s2s_jax.training.checkpoint.checkpoints import CheckpointConfig, CheckpointError, Checkpoints

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A run, and a language model with its target tokenizer."""
    folder = tmp_path_factory.mktemp("several")
    shared = ("validation.sentences=0", "data.eval_size=20", "checkpoint.keep=3", "checkpoint.every=20")
    run.train(tiny.experiment("steps=60", *shared), folder / "first", QUIET)
    (folder / "lines").write_text("z z\n\nz z z\nz z z z\n")
    language = (
        *shared, "steps=60", f"data.train=lines:{folder / 'lines'}", f"data.validation=lines:{folder / 'lines'}",
        f"tokenizer.target.file={folder / 'first' / 'target.tokenizer.json'}", "model.attention.score=none",
        "tokenizer.source.type=bpe",
    )  # fmt: skip
    run.train(tiny.experiment(*language), folder / "language", QUIET)
    return folder


@pytest.fixture
def s2s(capfdbinary, monkeypatch):
    """Run a command on given lines: its exit code, standard output and standard error."""

    def command(*arguments: str | Path, typed: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(typed.encode())))
        code = main([str(argument) for argument in arguments])
        captured = capfdbinary.readouterr()
        return code, captured.out.decode(), captured.err.decode()

    return command


@pytest.fixture(scope="module")
def younger(folder) -> Path:
    """The first run as it was after 20 steps."""
    shutil.copytree(folder / "first", folder / "younger")
    for later in ("40", "60"):
        shutil.rmtree(folder / "younger" / "checkpoints" / later)
    return folder / "younger"


def test_two_runs_are_compared_sentence_by_sentence(folder, younger, s2s):
    code, out, errors = s2s("compare", folder / "first", younger, "--metric", "exact_match", "--json")
    assert (code, errors) == (0, "")
    found = json.loads(out)
    check_keys("compare", found)
    alone = [json.loads(s2s("evaluate", each, "--json")[1]) for each in (folder / "first", younger)]
    base, other = found["systems"]
    for system, numbers in zip((base, other), alone, strict=True):
        for name in ("exact_match", "bleu", "chrf", "loss"):
            assert system["metrics"][name] == pytest.approx(numbers[name], rel=1e-6)
    gap = other["differences"]["exact_match"]
    assert gap["mean"] == pytest.approx(alone[1]["exact_match"] - alone[0]["exact_match"])
    assert gap["mean"] < 0
    wins = gap["wins"]
    assert sum(wins.values()) == found["sources"] == alone[0]["sources"]
    assert (wins["better"] - wins["worse"]) / found["sources"] == pytest.approx(gap["mean"])
    assert gap["interval"]["low"] < gap["mean"] < gap["interval"]["high"]
    assert (gap["interval"]["over"], 0 < gap["p"] < 1) == ("sentences", True)
    assert found["settings"] == {"step": {"A": 60, "B": 20}}


def test_a_comparison_is_read_by_a_person(folder, younger, s2s):
    code, out, _ = s2s("compare", folder / "first", younger, "--metric", "wer")
    assert code == 0
    assert (
        "\nB is worse than A by WER on sentences like these: p < 0.001, interval over sentences; sentences better 0, "
        in out
    )
    assert "\n  step  60  20\n" in out
    assert "WER per reference" not in out


def test_runs_that_cannot_be_compared_are_refused(folder, younger, s2s):
    lines = f"lines:{folder / 'lines'}"
    for arguments, message in [
        ((folder / "first",), "s2s: compare needs two runs or more"),
        ((folder / "first", f"{folder / 'first'}/"), "s2s: compare was given a run twice"),
        ((folder / "first", younger, "--metric", "attention_entropy"), "has no better direction"),
        ((folder / "first", folder / "language"), "other test sentences, so that nothing can be compared"),
    ]:
        code, out, errors = s2s("compare", *arguments)
        assert (code, out) == (2, "")
        assert message in errors
    code, _, errors = s2s("compare", folder / "first", folder / "language", "--data.test", lines)
    assert (code, errors) == (0, "")


def test_an_ensemble_is_evaluated_as_one(folder, s2s):
    """A run and its own average are two members."""
    code, out, errors = s2s("evaluate", folder / "first", "--ensemble", folder / "first", "--average", "2", "--json")
    found = json.loads(out)
    assert (code, errors) == (0, "averaged: steps 40, 60\n")
    assert found["with"] == [str(folder / "first")]
    assert found["averaged"] == [40, 60]
    assert found["perplexity"] > 1


def test_a_run_with_itself_is_the_run(folder, s2s):
    typed = "a b\n\nc d e\n"
    once = s2s("translate", folder / "first", typed=typed)
    thrice = ("--ensemble", folder / "first", "--ensemble", folder / "first", "--ensemble-average", "linear")
    assert s2s("translate", folder / "first", *thrice, typed=typed) == once
    assert once[1].count("\n") == 3


def test_runs_of_other_tokens_are_refused_with_both_fingerprints(folder, s2s):
    code, out, errors = s2s("translate", folder / "first", "--ensemble", folder / "language", typed="a\n")
    assert (code, out) == (2, "")
    assert f"{folder / 'language'} has another source tokenizer (sha256 " in errors
    assert "train it with tokenizer.source.file" in errors


def test_the_newest_checkpoints_are_averaged_and_named(folder, s2s):
    each = []
    for step in (20, 40, 60):
        with Checkpoints(folder / "first" / "checkpoints") as checkpoints:
            each.append(checkpoints.restore_raw(step)["params"])
    averaged = run.load(folder / "first", average=2)
    assert (averaged.step, averaged.averaged) == (60, (40, 60))
    for mean, *two in zip(*map(jax.tree.leaves, (averaged.params, *each[1:])), strict=True):
        np.testing.assert_allclose(mean, (two[0] + two[1]) / 2, atol=1e-7)
        assert mean.dtype == two[0].dtype
    code, out, errors = s2s("translate", folder / "first", "--average", "3", typed="a b\n\nc d e\n")
    assert (code, out.count("\n")) == (0, 3)
    assert errors == "averaged: steps 20, 40, 60\n"


@pytest.mark.parametrize(
    ("count", "message"), [("9", "steps 20, 40, 60); average fewer"), ("-1", "average must be pos")]
)
def test_more_checkpoints_than_there_are_cannot_be_averaged(folder, s2s, count, message):
    code, _, errors = s2s("translate", folder / "first", "--average", count, typed="a\n")
    assert code == 2
    assert message in errors


def test_a_damaged_checkpoint_is_named_and_not_passed_over(tmp_path):
    @dataclasses.dataclass
    class Kept:
        evaluation_params: dict

    jax.tree_util.register_dataclass(Kept, ["evaluation_params"], [])
    tree = Kept({"w": np.arange(3, dtype=np.float32)})
    with Checkpoints(tmp_path / "c", CheckpointConfig(keep=3)) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, jax.tree.map(lambda leaf, by=step: leaf * by, tree), metrics=None, about={})
    with Checkpoints(tmp_path / "c") as checkpoints:
        np.testing.assert_allclose(newest_average(checkpoints, tree, 3).params["w"], [0, 2, 4])
        metadata = tmp_path / "c" / "2" / "_CHECKPOINT_METADATA"
        metadata.write_text(metadata.read_text().replace("crc32", "crc33"))
        with pytest.raises(CheckpointError, match="step 2: "):
            newest_average(checkpoints, tree, 3)
        assert newest_average(checkpoints, tree, 1).steps == (3,)


def test_a_language_model_is_trained_on_lines_alone(folder):
    """Its source has nothing but an end; it takes the other run's tokens; blank lines are dropped."""
    experiment = run.read_experiment(folder / "language")
    examples, report = read_split(experiment.data, "train")
    assert [(one.source, one.target) for one in examples] == [("", "z z"), ("", "z z z"), ("", "z z z z")]
    assert report.lines()[0].startswith("3 of 4")
    language = run.load(folder / "language")
    assert language.tokenizers["target"].state() == run.load(folder / "first").tokenizers["target"].state()
    assert language.tokenizers["source"].size == 4
    pairs = [Example("", "z z"), Example("", "a b")]
    likely, unlikely = (float(one.log_probs.sum()) for one in language.score(pairs))
    assert likely > unlikely + 3


def test_a_language_model_affects_the_translation(folder, s2s):
    """With a weight that outweighs the translation model, it produces what it was trained on."""
    settings = ("--search.language-model", folder / "language", "--search.language-weight")
    plain = s2s("translate", folder / "first", typed="a b c\n")
    gentle = s2s("translate", folder / "first", *settings, "1e-6", typed="a b c\n")
    strong = s2s("translate", folder / "first", *settings, "100", typed="a b c\n")
    assert plain == gentle
    assert set(strong[1].split()) == {"z"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("--search.language-model", "somewhere"), "search.language_weight=0.0 need each other; set both"),
        (
            ("--search.language-weight", "0.3"),
            "search.language_model='' and search.language_weight=0.3 need each other",
        ),
        (("--search.language-model", "/no", "--search.language-weight", "0.3"), "no run at /no"),
        (("--ensemble", "/no"), "no run at /no"),
    ],
)
def test_unusable_language_models_are_refused(folder, s2s, settings, message):
    code, _, errors = s2s("translate", folder / "first", *settings, typed="a\n")
    assert code == 2
    assert message in errors
    assert errors.count("\n") == 1


def test_a_prefix_is_kept_and_so_are_phrases(folder, s2s, tmp_path):
    (tmp_path / "prefix").write_text("z y\n\n\nq\n")
    (tmp_path / "phrases").write_text("\nx\nb a\tz\n\n")
    command = ("translate", folder / "first", "--input", tmp_path / "lines")
    (tmp_path / "lines").write_text("a b\n\nc d\ne\n")
    plain, prefixed, held = (
        s2s(*command, *more)[1].split("\n")
        for more in ((), ("--prefix", tmp_path / "prefix"), ("--constraints", tmp_path / "phrases"))
    )
    assert prefixed[0].startswith("z y")
    assert prefixed[3].startswith("q")
    assert prefixed[1] == held[1] == ""
    assert prefixed[2] == plain[2]
    assert (held[0], held[3]) == (plain[0], plain[3])
    assert "b a" in held[2]
    assert "z" in held[2].split()


@pytest.mark.parametrize("option", ["--prefix", "--constraints"])
@pytest.mark.parametrize(
    ("lines", "message"), [("a\n", "has 1 lines, the input has 2 or more"), ("a\n" * 3, "the input has 2;")]
)
def test_a_file_beside_the_input_has_a_line_for_each_line(folder, s2s, tmp_path, option, lines, message):
    (tmp_path / "beside").write_text(lines)
    code, _, errors = s2s("translate", folder / "first", option, tmp_path / "beside", typed="a\nb\n")
    assert code == 2
    assert message in errors


def test_phrases_that_can_never_be_produced_are_refused(folder):
    first = run.load(folder / "first")
    with pytest.raises(ValueError, match="the phrase 'ü' for the line 'a' holds what the target's tokenizer does not"):
        list(first.stream([ConstrainedLine("a", phrases=("ü",))]))
    banned = run.load(folder / "first", changes=["search.rules.banned=[5]"])
    word = banned.tokenizers["target"].symbols([5])[0]
    with pytest.raises(ValueError, match=f"the phrase '{word}' for the line 'a' holds id 5 of search.rules.banned"):
        list(banned.stream([ConstrainedLine("a", phrases=(word,))]))


def test_lines_alone_have_no_alignment(tmp_path):
    (tmp_path / "lines").write_text("a b\n")
    config = DataConfig(train=f"lines:{tmp_path / 'lines'}", alignment=str(tmp_path / "links"))
    with pytest.raises(ValueError, match="goes with a TSV file or two parallel ones, not with data.train=lines:"):
        read_split(config, "train")
