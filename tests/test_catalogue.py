"""Does the catalogue have every choice, with a formula, papers that exist, and what it can be combined with?"""

import json
import re

import pytest
from json_page import check_keys

from s2s_jax.cli import main
from s2s_jax.model.attention.catalogue import catalogue, legal_combinations
from s2s_jax.model.attention.citations import REFERENCES
from s2s_jax.model.compatibility import AXES, axis_names
from s2s_jax.model.decoder.architectures import ARCHITECTURES

WITHOUT_PAPER = {"none", "uniform", "exponential", "sigmoid", "top-k", "bahdanau-new-state"}  # too plain to be anyone's


@pytest.fixture(scope="module")
def entries():
    return list(catalogue())


def test_every_choice_is_listed_once_with_a_formula_and_papers(entries):
    tables = axis_names() | {"architecture": tuple(ARCHITECTURES)}
    assert [(entry.axis, entry.name) for entry in entries] == [
        (axis, name) for axis, names in tables.items() for name in names
    ]
    for entry in entries:
        assert entry.formula, entry.name
        assert bool(entry.papers) == (entry.name not in WITHOUT_PAPER), entry.name


def test_every_cited_paper_is_listed_in_full():
    for table in (*AXES.values(), ARCHITECTURES):
        for entry in table.values():
            named = re.findall(
                r"[A-Z][a-z]+(?: & [A-Z][a-z]+| et al\.)? \d{4}", " ".join((entry.__doc__ or "").split())
            )
            assert set(named) <= set(REFERENCES), entry
    for reference in REFERENCES.values():
        assert re.search(r"\b20\d\d\b", reference), reference


def test_impossible_partners_are_in_no_legal_combination(entries):
    pairs = {(chosen["score"], chosen["normalizer"]) for chosen in legal_combinations()}
    for entry in entries:
        if entry.axis == "score":
            never = entry.never_with.get("normalizer", [])
            assert [name for name in axis_names()["normalizer"] if (entry.name, name) not in pairs] == never


def test_an_architecture_lists_what_it_refuses(entries):
    refused = {entry.name: entry.never_with for entry in entries if entry.axis == "architecture"}
    assert refused["luong"] == {}
    assert "sparsemax" in refused["hard"]["normalizer"]
    with_memory = ["location-aware", "dynamic-convolution", "gaussian-mixture", "gaussian-mixture-v2"]
    assert refused["hard"]["score"] == ["none", "last-state", *with_memory]


def test_the_command_shows_and_cites(capsys):
    assert main(["attention"]) == 0
    shown = capsys.readouterr().out
    assert "legal combinations" in shown
    assert main(["attention", "--cite", "mocha"]) == 0
    assert "Monotonic Chunkwise Attention. ICLR 2018. arXiv:1712.05382" in capsys.readouterr().out
    assert main(["attention", "--cite", "softmx"]) == 2
    assert "did you mean 'softmax'?" in capsys.readouterr().err
    assert main(["attention", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    check_keys("attention", found)
    record = next(one for one in found["choices"] if one["name"] == "concat")
    assert record["formula"] == "score = v . tanh(W [q; k])"
