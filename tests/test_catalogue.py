"""Does the catalogue tell of every choice: a formula, a paper that exists, and what it goes with?"""

import json
import re

import pytest

from s2s_jax.cli import main
from s2s_jax.model.attention.catalogue import catalogue, legal_combinations
from s2s_jax.model.attention.citations import REFERENCES
from s2s_jax.model.compatibility import AXES, axis_names

NOBODYS = {"none", "exponential", "sigmoid", "top-k"}  # too plain to be anyone's


@pytest.fixture(scope="module")
def found():
    return list(catalogue())


def test_every_choice_stands_in_it_once_with_a_formula_and_a_paper(found):
    assert [(choice.axis, choice.name) for choice in found] == [
        (axis, name) for axis, names in axis_names().items() for name in names
    ]
    for choice in found:
        assert choice.formula, choice.name
        assert bool(choice.papers) == (choice.name not in NOBODYS), choice.name


def test_every_paper_that_a_docstring_names_is_listed_in_full():
    for table in AXES.values():
        for choice in table.values():
            named = re.findall(
                r"[A-Z][a-z]+(?: & [A-Z][a-z]+| et al\.)? \d{4}", " ".join((choice.__doc__ or "").split())
            )
            assert set(named) <= set(REFERENCES), choice
    for reference in REFERENCES.values():
        assert re.search(r"\b20\d\d\b", reference), reference


def test_what_never_goes_together_is_what_no_legal_combination_has(found):
    pairs = {(chosen["score"], chosen["normalizer"]) for chosen in legal_combinations()}
    for choice in found:
        if choice.axis == "score":
            never = choice.never_with.get("normalizer", [])
            assert [name for name in axis_names()["normalizer"] if (choice.name, name) not in pairs] == never


def test_the_command_shows_and_cites(capsys):
    assert main(["attention"]) == 0
    shown = capsys.readouterr().out
    assert "legal combinations" in shown
    assert main(["attention", "--cite", "mocha"]) == 0
    assert "Monotonic Chunkwise Attention. ICLR 2018. arXiv:1712.05382" in capsys.readouterr().out
    assert main(["attention", "--cite", "softmx"]) == 2
    assert "did you mean 'softmax'?" in capsys.readouterr().err
    assert main(["attention", "--json"]) == 0
    record = next(one for one in json.loads(capsys.readouterr().out) if one["name"] == "concat")
    assert record["formula"] == "score = v . tanh(W [q; k])"
