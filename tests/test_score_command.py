"""`s2s score`: which columns it reads, which settings it knows, and what it says of a source that is too long."""

import json

import pytest
from stdin import type_in

from s2s_jax import run
from s2s_jax.cli import score


def test_columns_and_fields_are_those_that_are_named(s2s, trained_run, tmp_path):
    """As in training; without names the first two columns, or the fields source and target."""
    (tmp_path / "two.tsv").write_text("a b\ta b\n")
    (tmp_path / "three.tsv").write_text("a b\tnote\ta b\n")
    (tmp_path / "pairs.jsonl").write_text(json.dumps({"left": "a b", "right": "a b"}) + "\n")
    expected = s2s("score", str(trained_run), "--input", str(tmp_path / "two.tsv"))
    assert expected[0] == 0
    for file, source, target in (("three.tsv", "1", "3"), ("pairs.jsonl", "left", "right")):
        options = "--input", str(tmp_path / file), "--data.source", source, "--data.target", target
        assert s2s("score", str(trained_run), *options) == expected
    code, out, errors = s2s("score", str(trained_run), "--input", str(tmp_path / "two.tsv"), "--data.source", "left")
    assert (code, out) == (2, "")
    assert "data.source names a column of a TSV file by number (1 is the first), got 'left'" in errors


@pytest.mark.parametrize(("fields", "typed"), [(("1", "3"), b"a b\tnote\ta b\n"), (("left", "right"), b"a b\ta b\n")])
def test_the_names_of_a_run_count_where_they_can(s2s, trained_run, tmp_path, monkeypatch, fields, typed):
    """Columns of its TSV files are not fields of JSON, nor fields of its JSON files columns of TSV."""
    named = [f"data.{side}={name}" for side, name in zip(("source", "target"), fields, strict=True)]
    monkeypatch.setattr(score, "load_run", lambda arguments: run.load(trained_run, changes=named))
    type_in(monkeypatch, typed)
    code, out, errors = s2s("score", str(trained_run))
    assert (code, errors) == (0, "")
    assert out.endswith("\ta b\ta b\n")
    names = fields if fields[0] == "left" else ("source", "target")
    (tmp_path / "pairs.jsonl").write_text(json.dumps(dict.fromkeys(names, "a b")) + "\n")
    assert s2s("score", str(trained_run), "--input", str(tmp_path / "pairs.jsonl"))[:2] == (0, out)


@pytest.mark.parametrize(
    "setting",
    ["rules.no_repeat_ngram=2", "rules.min_ratio=1.0", "rules.unknown=false", "beam=5", "method=stochastic", "seed=1"],
)
def test_what_only_a_search_reads_is_refused(s2s, trained_run, setting):
    name, value = setting.split("=")
    code, out, errors = s2s("score", str(trained_run), f"--search.{name}", value)
    assert (code, out) == (2, "")
    assert f"--search.{name.replace('_', '-')} decides which translations a search finds" in errors


def test_what_changes_a_score_counts(s2s, trained_run, tmp_path):
    (tmp_path / "pairs.tsv").write_text("a b\ta a\n")
    options = "--input", str(tmp_path / "pairs.tsv"), "--json"
    plain, penalized, long = (
        json.loads(s2s("score", str(trained_run), *options, *more)[1])
        for more in ((), ("--search.rules.repetition-penalty", "2"), ("--search.length-penalty", "1"))
    )
    assert penalized["log_probability"] == plain["log_probability"] == long["log_probability"]
    assert penalized["score"] < plain["score"] < long["score"]


def test_a_source_that_is_not_read_to_its_end_is_named(s2s, trained_run, monkeypatch):
    type_in(monkeypatch, b"a b\ta b\n" + b"a " * 50 + b"\ta b\n")
    code, out, errors = s2s("score", str(trained_run), "--search.max-source", "16")
    assert (code, len(out.splitlines())) == (0, 2)
    assert errors.startswith("stdin: pair 2: 50 tokens, only the first 15 were read (search.max_source)")
