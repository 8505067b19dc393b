"""Which choices of attention are there, who proposed them, and what goes with what?

Formula and papers stand in each choice's docstring and nowhere else.
"""

import dataclasses
import functools
import itertools
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from s2s_jax.model.attention.attention import NoAttention, axes
from s2s_jax.model.attention.citations import REFERENCES
from s2s_jax.model.attention.compatibility import first_violation
from s2s_jax.model.attention.config import AttentionConfig
from s2s_jax.model.attention.constraints import CONSTRAINTS
from s2s_jax.model.attention.history import HISTORIES
from s2s_jax.model.attention.normalizers import NORMALIZERS
from s2s_jax.model.attention.scores import SCORES

TABLES: dict[str, dict[str, Any]] = {
    "score": SCORES,
    "normalizer": NORMALIZERS,
    "history": HISTORIES,
    "constraint": CONSTRAINTS,
}


class CatalogueEntry(NamedTuple):
    """One value of one axis."""

    axis: str
    name: str
    formula: str
    papers: tuple[str, ...]  # keys of REFERENCES
    never_with: dict[str, list[str]]  # by axis: values that go with it under no choice of the other axes


def choices() -> Iterator[CatalogueEntry]:
    """All of them, axis by axis."""
    together, names_of = _pairs_that_go(), axes()
    for axis, names in names_of.items():
        for name in names:
            text = " ".join(_before_arguments(_choice(axis, name).__doc__ or "").split())
            papers = sorted((key for key in REFERENCES if key in text), key=text.index)
            never = {
                other: [value for value in names_of[other] if frozenset([(axis, name), (other, value)]) not in together]
                for other in names_of
                if other != axis
            }
            refused = {key: values for key, values in never.items() if values}
            yield CatalogueEntry(axis, name, _formula(text, papers), tuple(papers), refused)


def _choice(axis: str, name: str) -> Any:
    return NoAttention if (axis, name) == ("score", "none") else TABLES[axis][name]


def _before_arguments(docstring: str) -> str:
    return docstring.partition("Args:")[0]


def _formula(text: str, papers: list[str]) -> str:
    """The first sentence, up to the paper that it is from."""
    sentence = re.split(r"(?<=[\w)|^2])\. (?=[A-Z])", text, maxsplit=1)[0]
    for paper in papers:
        sentence = sentence.partition(paper)[0]
    return sentence.removeprefix("none: ").rstrip(" .;:,")


@functools.cache
def legal() -> tuple[dict[str, str], ...]:
    """Every combination of the four axes that can be built."""
    names = axes()
    every = (dict(zip(names, values, strict=True)) for values in itertools.product(*names.values()))
    return tuple(
        chosen for chosen in every if first_violation(dataclasses.replace(AttentionConfig(), **chosen)) is None
    )


def covering() -> list[dict[str, str]]:
    """Few legal combinations in which every pair of values that go together stands: a pairwise covering design.

    Greedy: each combination is one that covers most pairs not covered yet, the first of them in the tables' order.
    """
    numbers = {pair: number for number, pair in enumerate(_pairs_that_go())}
    rows = [(chosen, sum(1 << numbers[pair] for pair in _pairs(chosen))) for chosen in legal()]
    left, found = (1 << len(numbers)) - 1, []
    while left:
        chosen, pairs = max(rows, key=lambda row: (row[1] & left).bit_count())
        found.append(chosen)
        left &= ~pairs
    return found


def _pairs(chosen: dict[str, str]) -> frozenset[frozenset[tuple[str, str]]]:
    return frozenset(frozenset(pair) for pair in itertools.combinations(chosen.items(), 2))


@functools.cache
def _pairs_that_go() -> frozenset[frozenset[tuple[str, str]]]:
    """The pairs of values of two axes that stand together in some legal combination."""
    return frozenset(pair for chosen in legal() for pair in _pairs(chosen))
