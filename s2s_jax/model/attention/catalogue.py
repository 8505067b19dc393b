"""The catalogue of attention: every choice with its formula and papers, and what can be combined.

Formulas and papers are read from the docstrings of the choices and written nowhere else.
"""

import copy
import functools
import itertools
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from s2s_jax.model.attention.attention import WITHOUT_ATTENTION
from s2s_jax.model.attention.citations import REFERENCES
from s2s_jax.model.attention.config import AttentionConfig
from s2s_jax.model.compatibility import AXES, axis_names, is_legal_attention, refused_by_architecture
from s2s_jax.model.decoder.architectures import ARCHITECTURES

ARCHITECTURE = "architecture"  # of model.decoder, beside the axes of model.attention


class CatalogueEntry(NamedTuple):
    """One value of one axis."""

    axis: str
    name: str
    formula: str
    papers: tuple[str, ...]  # keys of REFERENCES
    never_with: dict[str, list[str]]  # by axis: values that are in no legal combination with this one


def catalogue() -> Iterator[CatalogueEntry]:
    """All values of all axes, axis by axis, and the architectures of decoders, which decide what queries."""
    pairs, axes = _legal_pairs(), axis_names()
    for axis, names in axes.items():
        for name in names:
            never = {
                other: [value for value in axes[other] if frozenset([(axis, name), (other, value)]) not in pairs]
                for other in axes
                if other != axis
            }
            yield _entry(axis, name, _choice(axis, name), never)
    for name, kind in ARCHITECTURES.items():
        yield _entry(ARCHITECTURE, name, kind, refused_by_architecture(name))


def _entry(axis: str, name: str, choice: Any, never: dict[str, list[str]]) -> CatalogueEntry:
    text = " ".join(_before_arguments(choice.__doc__ or "").split())
    papers = sorted((key for key in REFERENCES if key in text), key=text.index)
    refused = {key: values for key, values in never.items() if values}
    return CatalogueEntry(axis, name, _formula(text, papers), tuple(papers), refused)


def _choice(axis: str, name: str) -> Any:
    return AXES[axis][name] if name in AXES[axis] else WITHOUT_ATTENTION[name]


def _before_arguments(docstring: str) -> str:
    return docstring.partition("The class attributes")[0].partition("Args:")[0]


def _formula(text: str, papers: list[str]) -> str:
    """The first sentence of a docstring, up to the paper that it cites."""
    sentence = re.split(r"(?<=[\w)|^2])\. (?=[A-Z])", text, maxsplit=1)[0]
    for paper in papers:
        sentence = sentence.partition(paper)[0]
    return sentence.removeprefix("none: ").rstrip(" .;:,")


def legal_combinations() -> tuple[dict[str, str], ...]:
    """Every combination of the four axes that can be built."""
    return _legal(tuple(axis_names().items()))


@functools.cache  # by the names, to which the user may add
def _legal(axes: tuple[tuple[str, tuple[str, ...]], ...]) -> tuple[dict[str, str], ...]:
    names, config = [axis for axis, _ in axes], AttentionConfig()
    combinations = (dict(zip(names, values, strict=True)) for values in itertools.product(*dict(axes).values()))
    return tuple(combination for combination in combinations if is_legal_attention(_with_names(config, combination)))


def _with_names(config: AttentionConfig, combination: dict[str, str]) -> AttentionConfig:
    """The config with names of the tables, which need no check; `dataclasses.replace` would take ten times as long."""
    config = copy.copy(config)
    vars(config).update(combination)
    return config


def pairwise_design() -> list[dict[str, str]]:
    """A few legal combinations that contain every legal pair of values: a pairwise covering design.

    Greedy: each combination is one with the most pairs that are not covered yet, the first of them in the tables'
    order.
    """
    numbers = {pair: number for number, pair in enumerate(_legal_pairs())}
    rows = [(row, sum(1 << numbers[pair] for pair in _pairs(row))) for row in legal_combinations()]
    uncovered, design = (1 << len(numbers)) - 1, []
    while uncovered:
        best, pairs = max(rows, key=lambda row: (row[1] & uncovered).bit_count())
        design.append(best)
        uncovered &= ~pairs
    return design


def _pairs(combination: dict[str, str]) -> frozenset[frozenset[tuple[str, str]]]:
    return frozenset(frozenset(pair) for pair in itertools.combinations(combination.items(), 2))


def _legal_pairs() -> frozenset[frozenset[tuple[str, str]]]:
    """The pairs of values of two axes that are together in some legal combination."""
    return frozenset(pair for combination in legal_combinations() for pair in _pairs(combination))
