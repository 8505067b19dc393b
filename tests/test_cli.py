"""Commands as a user types them: output, one-line errors, exit codes."""

import json
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from json_page import check_keys
from stdin import type_in

from s2s_jax import run
from s2s_jax.cli import main
from s2s_jax.cli.arguments import COMMANDS, command_parsers, make_parser
from s2s_jax.cli.command_line import parse
from s2s_jax.cli.experiments import named_file
from s2s_jax.cli.settings import CHOICE_TABLES, choices, command_settings
from s2s_jax.cli.suggestions import SYNONYMS, field_name
from s2s_jax.config import Experiment, settings
from s2s_jax.shipped import EXPERIMENTS
from s2s_jax.training.signals import Interrupted


@pytest.fixture(scope="module")
def directory(trained_run):
    return trained_run


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "COMMAND"),
        (["trian"], "no command 'trian'; did you mean 'train'?"),
        (["train"], "train needs an EXPERIMENT"),
        (["train", "dtaes"], "no experiment 'dtaes'; did you mean 'dates'?"),
        (["train", "no/such/file.py"], "no experiment no/such/file.py"),
        (["train", "dates", "--model.attention.scor", "dot"], "did you mean --model.attention.score?"),
        (["train", "dates", "--model.attention", "dot"], "--model.attention is a group of settings: --model."),
        (["train", "dates", "--batch_size", "8"], "did you mean --batch.size?"),
        (["train", "dates", "--lr", "1"], "did you mean --optimizer.learning-rate?"),
        (["train", "dates", "--optimizer.lr", "1"], "did you mean --optimizer.learning-rate?"),
        (["train", "--jsn", "dates"], "no option --jsn; did you mean --json?"),
        (["train", "dates", "--steps"], "--steps has no value"),
        (["train", "dates", "--steps", "--json"], "--steps has no value"),
        (["train", "dates", "extra"], "unexpected argument 'extra'"),
        (["train", "dates", "--import", "no_such_file.py"], "no_such_file.py: there is no such file"),
        (["train", "dates", "--import", "no.such.module"], "there is no module 'no'"),
        (["train", "dates", "--help", "model.atention"], "did you mean 'model.attention'?"),
        (["info", "x", "--search.beam", "2"], "no setting --search.beam; see s2s info --help"),
        (["translate", "/no/such/run"], "no run at /no/such/run"),
        (["translate", "/no/such/run", "--nbest", "2"], "did you mean --n-best?"),
        (["translate", "/no/such/run", "--batch-size", "2"], "did you mean --search.batch-size?"),
        (["translate"], "required: RUN"),
        (["info", "/no/such/run"], "no run at /no/such/run"),
        (["evaluate", "/no/such/run", "--beam", "x"], "invalid int value: 'x'"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_two(s2s, arguments, message):
    code, out, errors = s2s(*arguments)
    assert (code, out) == (2, "")
    assert message in errors
    assert errors.count("\n") == 1


@pytest.mark.parametrize("command", [*COMMANDS, ""])
def test_every_command_has_help_of_80_columns(s2s, command):
    try:
        code, out, _ = s2s(*([command] if command else []), "--help")
    except SystemExit as ended:
        assert not command
        code, out = ended.code, "usage: s2s"
    assert code == 0
    assert out.startswith("usage: s2s")
    assert max(len(line) for line in out.splitlines()) <= 80


def test_help_of_an_experiment_shows_every_setting_with_description_and_value(s2s):
    code, out, _ = s2s("train", "dates", "--optimizer.clip-norm", "2.5", "--help")
    assert code == 0
    assert "--model.attention.score additive" in out
    assert "--optimizer.clip-norm 2.5" in out
    assert "Peak learning rate, reached after warm-up." in out
    assert s2s("train", "--help", "dates", "--optimizer.clip-norm", "2.5")[1] == out


def test_help_of_a_group_shows_its_settings_alone_and_the_values_of_choices(s2s):
    code, out, _ = s2s("train", "--help", "model.encoder", "dates")
    assert code == 0
    assert out.startswith("model.encoder: ")
    assert "--model.encoder.cell gru" in out
    assert "Values: true, false." in out
    assert "--model.decoder" not in out
    assert "--search.beam" in s2s("translate", "--help", "search")[1]
    assert "--lengths.mean" in s2s("bench", "--help", "lengths")[1]


def test_options_may_stand_before_the_experiment_and_have_hyphens_or_underscores():
    arguments = parse(["train", "--steps", "5", "--model.attention.learned-alpha=true", "reverse"])
    assert arguments.options.experiment == "reverse"
    assert arguments.overrides == ["steps=5", "model.attention.learned_alpha=true"]
    arguments = parse(["translate", "--n_best", "2", "--search.length_penalty", "-1", "runs/x"])
    assert (arguments.options.run, arguments.options.n_best) == ("runs/x", 2)
    assert arguments.overrides == ["search.length_penalty=-1"]
    arguments = parse(["bench", "W1", "--json", "W2", "--rounds", "3", "--", "W3"])
    assert (arguments.options.workloads, arguments.options.rounds) == (["W1", "W2", "W3"], 3)
    arguments = parse(["sweep", "plan", "--seeds", "2", "scores"])
    assert (arguments.options.action, arguments.options.file) == ("plan", "scores")


def test_every_synonym_leads_to_a_flag_that_exists():
    parsers = command_parsers(make_parser()).values()
    options = {
        field_name(option) for parser in parsers for action in parser._actions for option in action.option_strings
    }
    known = options | {setting.name for setting in command_settings("train")}
    missing = {flag for flags in SYNONYMS.values() for flag in flags} - known
    assert not missing


def test_every_table_of_choices_belongs_to_a_setting():
    known = {setting.name for setting in settings(Experiment())}
    assert set(CHOICE_TABLES) <= known


def complete(script, *words: str) -> list[str]:
    """What bash completes the last word to."""
    line = " ".join(map(shlex.quote, words))
    code = f"source {script}; COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _shtab_s2s; echo ${{COMPREPLY[@]}}"
    return subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True).stdout.split()


def test_bash_completes_commands_experiments_settings_and_choices(s2s, tmp_path):
    code, out, _ = s2s("completion", "bash")
    assert code == 0
    (tmp_path / "s2s.sh").write_text(out)
    assert complete(tmp_path / "s2s.sh", "s2s", "tra") == ["train", "translate"]
    assert "dates" in complete(tmp_path / "s2s.sh", "s2s", "train", "dat")
    assert complete(tmp_path / "s2s.sh", "s2s", "train", "dates", "--optimizer.cl") == ["--optimizer.clip-norm"]
    assert complete(tmp_path / "s2s.sh", "s2s", "evaluate", "r", "--split", "te") == ["test"]
    executors = complete(tmp_path / "s2s.sh", "s2s", "sweep", "run", "scores", "--executor", "")
    assert executors == ["local", "ray", "slurm"]
    cells = complete(tmp_path / "s2s.sh", "s2s", "train", "dates", "--model.encoder.bidirectional", "")
    assert cells == ["true", "false"]


def test_the_model_of_a_run_cannot_be_overridden(s2s, directory):
    code, _, errors = s2s("translate", str(directory), "--model.attention.score", "dot")
    assert code == 2
    assert "--model.attention.score is settled when a run is trained" in errors


def test_evaluate_as_json_has_the_keys_that_scripts_rely_on(s2s, directory):
    code, out, _ = s2s("evaluate", str(directory), "--json")
    found = json.loads(out)
    assert code == 0
    check_keys("evaluate", found)
    assert {"exact_match", "token_accuracy", "perplexity", "bleu", "chrf", "wer", "per", "aer"} <= set(found)
    assert found["per"] is None
    code, out, _ = s2s("evaluate", str(directory), "--split", "validation", "--beam", "2")
    assert "exact match:" in out


def test_evaluate_names_the_split_that_it_read(s2s, directory, tmp_path):
    path = tmp_path / "held.tsv"
    path.write_text("a b\ta b\n")
    files = ("--data.train", str(path), "--data.validation", str(path), "--data.lengths", "[0,0]")
    _, out, errors = s2s("evaluate", str(directory), "--json", *files)
    assert json.loads(out)["split"] == "validation"
    assert "note: no test data is named (data.test), so the validation data is evaluated\n" in errors
    _, out, errors = s2s("evaluate", str(directory), "--json", *files, "--data.test", str(path))
    assert json.loads(out)["split"] == "test"
    assert "no test data" not in errors


def test_info_as_json_has_the_keys_that_scripts_rely_on(s2s, directory):
    code, out, _ = s2s("info", str(directory), "--json")
    found = json.loads(out)
    assert code == 0
    check_keys("info", found)
    assert found["step"] == 120
    assert found["parameters"] > 1000
    assert len(found["parameters_digest"]) == 64
    code, out, _ = s2s("info", str(directory))
    assert found["parameters_digest"] in out


def test_score_gives_a_number_a_pair(s2s, directory, tmp_path):
    file = tmp_path / "pairs.tsv"
    file.write_text("a b\ta b\na b\tb a\n")
    code, out, _ = s2s("score", str(directory), "--input", str(file))
    right, wrong = (float(line.split("\t")[0]) for line in out.splitlines())
    assert code == 0
    assert right > wrong
    code, out, _ = s2s("score", str(directory), "--input", str(file), "--json")
    assert json.loads(out.splitlines()[0])["log_probability"] == pytest.approx(right, abs=1e-3)


def test_score_as_json_says_what_filters_and_rerankers_need(s2s, directory, monkeypatch):
    type_in(monkeypatch, b"a b\ta b\n")
    code, out, _ = s2s("score", str(directory), "--json")
    found = json.loads(out)
    assert code == 0
    check_keys("score", found)
    assert found["cross_entropy"] == pytest.approx(-sum(found["log_probs"]) / 3, abs=1e-6)
    assert found["tokens"] == ["a", "b", "</s>"]
    assert [len(row) for row in found["alignment"]] == [3, 3, 3]
    code, out, _ = s2s("translate", str(directory), "--json", "--input", "/dev/null")
    assert (code, out) == (0, "")


def test_score_puts_n_best_lists_in_order(s2s, directory, tmp_path):
    """Pairs of one source that stand together are one list; the same source further on is another."""
    file = tmp_path / "lists.tsv"
    file.write_text("a b\tb a\na b\ta b\nc\tc\na b\tx y z\na b\ta b\n")
    code, out, _ = s2s("score", str(directory), "--n-best", str(file))
    rows = [line.split("\t") for line in out.splitlines()]
    assert code == 0
    assert [row[1] for row in rows] == ["a b", "a b", "c", "a b", "a b"]
    assert [row[2] for row in rows] == ["a b", "b a", "c", "a b", "x y z"]
    scores = [float(row[0]) for row in rows]
    assert scores[0] == scores[3] > scores[1]
    settings = ("--search.length-normalization", "average", "--search.length-penalty", "1", "--json")
    code, out, _ = s2s("score", str(directory), "--n-best", str(file), *settings)
    first = json.loads(out.splitlines()[0])
    assert first["score"] == pytest.approx(-first["cross_entropy"], abs=1e-6)


def test_pairs_that_are_none_are_refused_with_their_line(s2s, directory, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("a\nb\n")
    two.write_text("a\n")
    code, out, errors = s2s("score", str(directory), "--input", f"{one},{two}")
    assert (code, out.count("\n")) == (2, 1)  # the pair before is scored
    assert "two ends before line 2, the other file does not" in errors
    code, out, errors = s2s("score", str(directory), "--input", str(one))
    assert (code, out) == (2, "")
    assert "one:1: 1 tab-separated column, 2 are wanted" in errors


def test_a_line_that_is_far_too_long_is_read_in_part_and_said(s2s, directory, monkeypatch):
    """Rows 15 and 16 of the faults: a megabyte on the last line, without an end; still a line for each line."""
    type_in(monkeypatch, b"a b\n" + b"a " * 500_000)
    code, out, errors = s2s("translate", str(directory), "--search.max-source", "16", "--search.max-length", "20")
    assert code == 0
    assert out.splitlines()[0] == "a b"
    assert len(out.splitlines()) == 2
    assert (
        errors
        == "stdin:2: 500,000 tokens, only the first 15 were read (search.max_source); cut the line into sentences.\n"
    )


@pytest.mark.parametrize("name", ["dates", "claims/scores"])
def test_a_file_of_yours_that_hides_a_shipped_one_is_named(monkeypatch, tmp_path, capsys, name):
    monkeypatch.chdir(tmp_path)
    shipped = EXPERIMENTS / f"{name}.py"
    assert named_file(name) == shipped
    assert capsys.readouterr().err == ""
    own = Path("experiments", f"{name}.py")
    own.parent.mkdir(parents=True)
    own.write_text("")
    assert named_file(name) == own
    assert capsys.readouterr().err == f"{name} is your {own}, and not the shipped {shipped}\n"
    monkeypatch.chdir(EXPERIMENTS.parent)
    assert named_file(name) == own
    assert capsys.readouterr().err == ""


def test_special_tokens_that_are_typed_are_words_like_others(s2s, directory, monkeypatch):
    """Rows 20, 21 and 34 of the faults: nothing known in a line, the end token typed, an answer cut off."""
    type_in(monkeypatch, b"</s>\na </s> b\nno word known\na b c\n")
    code, out, _ = s2s("translate", str(directory), "--json", "--search.max-length", "2")
    typed, inside, unknown, cut = map(json.loads, out.splitlines())
    assert code == 0
    assert typed["source_tokens"] == ["<unk>", "</s>"]
    assert inside["source_tokens"] == ["a", "<unk>", "b", "</s>"]
    assert unknown["source_tokens"] == ["<unk>"] * 3 + ["</s>"]
    for one in (typed, inside, unknown):
        assert all(value <= 0 for value in one["hypotheses"][0]["log_probs"])  # finite: JSON has no other
    assert cut["hypotheses"][0]["truncated"] is True


def test_a_run_may_be_named_from_a_folder_beside_it(s2s, directory, monkeypatch):
    (directory.parent / "beside").mkdir()
    monkeypatch.chdir(directory.parent / "beside")
    type_in(monkeypatch, b"a b c\n")
    code, out, errors = s2s("translate", f"../{directory.name}")
    assert code == 0, errors
    assert out == "a b c\n"


def test_align_draws_and_writes(s2s, directory, tmp_path):
    code, out, _ = s2s("align", str(directory), "--json", "--count", "2", "--output", str(tmp_path / "p.png"))
    found = json.loads(out)
    assert code == 0
    assert (tmp_path / "p.png").exists()
    assert len(json.loads((tmp_path / "p.json").read_text())) == 2
    assert len(found["pairs"]) == 2
    check_keys("align", found)
    file = tmp_path / "lines"
    file.write_text("a b\n")
    code, out, _ = s2s("align", str(directory), "--input", str(file))
    assert code == 0
    assert str(directory / "alignment.png") in out


def test_train_as_json_says_where_it_got(s2s, directory, tmp_path):
    file = tmp_path / "small.py"
    file.write_text("from tiny import experiment\n")
    code, out, _ = s2s("train", str(file), "--run", str(tmp_path / "r"), "--steps", "2", "--json")
    assert code == 0
    assert json.loads(out)["step"] == 2
    check_keys("train", json.loads(out))
    code, out, _ = s2s("train", str(tmp_path / "r"))  # a run is an experiment too: it is done
    assert code == 0
    assert "is done: step 2 of 2" in out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\n", "own.py has no function experiment()"),
        ("x = 1\ndef experiment(:\n", "own.py:2: "),
        ("def experiment(): return 3\n", "returned int, an Experiment is wanted"),
        ("x = 1\nimport no_such_sibling\n", "own.py:2: ModuleNotFoundError: No module named 'no_such_sibling'"),
        ("def experiment():\n    return 1 / 0\n", "own.py:2: ZeroDivisionError: division by zero"),
        (
            "import broken_sibling\ndef experiment():\n    return broken_sibling.wrong()\n",
            "broken_sibling.py:2: NameError: ",
        ),
        (
            "from s2s_jax.config import Experiment\ndef experiment():\n    return Experiment(stepz=3)\n",
            "got an unexpected keyword argument 'stepz'",
        ),
        (
            "from s2s_jax.config import Experiment\n\ndef experiment():\n    return Experiment(steps=-3)\n",
            "own.py:4: steps must be positive, got -3",
        ),
    ],
)
def test_mistakes_in_the_users_own_file_are_told_with_its_line(s2s, tmp_path, monkeypatch, text, message):
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "broken_sibling", raising=False)
    file = tmp_path / "own.py"
    file.write_text(text)
    (tmp_path / "broken_sibling.py").write_text("def wrong():\n    return unknown\n")
    code, out, errors = s2s("train", str(file))
    assert (code, out) == (2, "")
    assert message in errors
    assert errors.count("\n") == 1
    with pytest.raises((Exception, SystemExit)):
        main(["train", str(file), "--traceback"])


@pytest.mark.parametrize(("broken", "error"), [(None, TypeError), (int, ValueError)])
def test_an_internal_error_keeps_its_traceback(monkeypatch, broken, error):
    """Also where it is of a type that the package raises on purpose."""
    monkeypatch.setattr("s2s_jax.cli.commands.Path", broken)
    with pytest.raises(error):
        main(["info", "x"])


def test_only_an_interrupted_training_chooses_its_exit_code(s2s, monkeypatch):
    class PageError(OSError):
        code = 404

    for error, expected in ((PageError("no such page"), 2), (Interrupted(signal.SIGTERM, 3), 143)):

        def fail(*_, error=error):
            raise error

        monkeypatch.setattr("s2s_jax.run.info", fail)
        code, out, errors = s2s("info", "x")
        assert (code, out) == (expected, "")
        assert errors.endswith(f"{error}\n")


OWN_SCORE = """
from s2s_jax.model.attention.scores import SCORES
from s2s_jax.model.attention.scores.content import Dot

SCORES["own-dot"] = Dot
"""


def test_own_code_is_imported_before_anything_else_and_recorded(s2s, tmp_path, monkeypatch):
    from s2s_jax.model.attention.scores import SCORES

    monkeypatch.setattr(sys, "path", list(sys.path))
    file, small = tmp_path / "own_score.py", tmp_path / "small.py"
    file.write_text(OWN_SCORE)
    small.write_text("from tiny import experiment\n")
    words = ["train", str(small), "--run", str(tmp_path / "r"), "--steps", "2", "--model.attention.score", "own-dot"]
    words += ["--model.decoder.size", "16", "--model.encoder.bidirectional", "false"]
    code, _, errors = s2s(*words)
    assert code == 2
    assert "model.attention.score must be one of" in errors
    try:
        code, _, errors = s2s(*words, "--import", str(file), "--json")
        assert code == 0, errors
        assert "own-dot" in SCORES
        assert run.read_experiment(tmp_path / "r").imports == (str(file),)
        values = next(choices(setting) for setting in command_settings("train") if setting.name.endswith("n.score"))
        assert "own-dot" in values
    finally:
        del SCORES["own-dot"]


def test_a_module_is_imported_by_name(s2s, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "lab_code.py").write_text("import lab_absent\n")
    code, _, errors = s2s("info", "/no/such/run", "--import", "lab_code")
    assert code == 2
    assert "lab_code.py:1: ModuleNotFoundError: No module named 'lab_absent'" in errors


def test_a_reader_that_leaves_early_sees_no_traceback(directory):
    """Row 50 of the faults: broken pipe, and a locale that knows no Unicode."""
    import os

    shell = f"yes 'a b' | head -200 | {sys.executable} -m s2s_jax translate '{directory}' | head -1"
    done = subprocess.run(
        ["bash", "-c", shell],
        capture_output=True,
        env={**os.environ, "LC_ALL": "C", "LANG": "C", "XLA_FLAGS": ""},
        timeout=120,
        check=False,
    )
    assert done.stdout == b"a b\n"
    assert done.stderr == b""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--coordinator", "localhost:1"], "--coordinator needs --processes and --process-id as well"),
        (["--distributed"], "--distributed finds no Slurm, Open MPI, Kubernetes or TPU pod around this process; give"),
        (["--executor", "ray"], "--executor ray needs --processes N, one for each GPU or host"),
        (["--slurm", "nodes=2"], "--slurm has no effect with --executor local; leave one of them out"),
        (["--executor", "slurm", "--slurm", "nodes"], "--slurm needs NAME=VALUE, got 'nodes'"),
    ],
)
def test_a_training_of_many_processes_says_what_it_lacks(s2s, monkeypatch, words, message):
    monkeypatch.setattr("jax.distributed.initialize", found_no_cluster)
    code, _, errors = s2s("train", "reverse", *words)
    assert code == 2
    assert errors.startswith(f"s2s: {message}")
    assert errors.count("\n") == 1


def found_no_cluster(**given):
    raise ValueError("coordinator_address should be defined.")
