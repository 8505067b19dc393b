"""The result of a line depends on no other line of its batch, whatever the search and its options."""

import jax.numpy as jnp
import numpy as np
import pytest
from fake import MODEL, table

from s2s_jax.decode.beam.phrases import anywhere
from s2s_jax.decode.logits_rules import LogitsRules
from s2s_jax.decode.sampling import Sampling
from s2s_jax.decode.search import SEARCHES, SearchConfig, compiled_search

# lengths 1 to 5, so that a bound by ratio ends the rows at different times
SOURCE = jnp.array([[2, 0, 0, 0, 0], [4, 3, 4, 3, 2], [3, 2, 0, 0, 0], [4, 4, 2, 0, 0]], jnp.int32)
NUMBERS, LONGEST = jnp.array([5, 0, 7, 3], jnp.int32), 8
PREFIX = jnp.array([[0, 0], [4, 3], [3, 0], [0, 0]], jnp.int32)
PHRASES = jnp.array([[[3, 4], [0, 0]], [[4, 4], [3, 0]], [[0, 0], [0, 0]], [[3, 0], [0, 0]]], jnp.int32)
RULES = LogitsRules(min_ratio=0.5, max_ratio=1.3, no_repeat_ngram=2, repetition_penalty=1.4)
OPTIONS = {
    "greedy": {},
    "greedy with coverage": {"coverage_penalty": 0.2},
    "greedy without full stop": {"stopping": "never"},
    "beam": {"beam": 3},
    "coverage": {"beam": 3, "coverage_penalty": 0.2},
    "bounded": {"beam": 3, "coverage_penalty": 0.2, "stopping": "bounded", "n_best": 2},
    "never": {"beam": 3, "coverage_penalty": 0.2, "stopping": "never", "length_normalization": "average"},
    "groups": {"beam": 4, "groups": 2, "group_penalty": 0.5, "coverage_penalty": 0.2},
    "siblings": {"beam": 3, "sibling_penalty": 0.4, "length_normalization": "reward", "coverage_penalty": 0.2},
    "sample": {"method": "sample", "samples": 3, "coverage_penalty": 0.2},
    "truncated sample": {"method": "sample", "samples": 2, "sampling": Sampling(temperature=0.7, top_k=2, top_p=0.9)},
    "stochastic": {"method": "stochastic", "beam": 3, "coverage_penalty": 0.2},
}


def constraints_of(arrays: dict[str, jnp.ndarray]) -> dict:
    """Arrays of tokens as arguments of a search."""
    return {name: anywhere(leaf) if name == "phrases" else leaf for name, leaf in arrays.items()}


def same_alone(find, **constraints) -> None:
    """Each row's result alone, in another place and beside empty rows, is that in the whole batch."""
    for seed in range(6):
        together = find(table(seed), SOURCE, NUMBERS, **constraints_of(constraints))
        for row in range(len(SOURCE)):
            place = (row + 1) % len(SOURCE)
            alone = {name: jnp.zeros_like(leaf).at[place].set(leaf[row]) for name, leaf in constraints.items()}
            source, numbers = (jnp.zeros_like(leaf).at[place].set(leaf[row]) for leaf in (SOURCE, NUMBERS))
            found = find(table(seed), source, numbers, **constraints_of(alone))
            for name, one, other in zip(found._fields, found, together, strict=True):
                np.testing.assert_array_equal(one[place], other[row], err_msg=f"{name} of row {row}")


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_a_line_alone_is_the_line_in_a_batch(name):
    same_alone(compiled_search(MODEL, SearchConfig(rules=RULES, **OPTIONS[name]), LONGEST), prefix=PREFIX)


@pytest.mark.parametrize("name", ["greedy with coverage", "coverage", "bounded"])
def test_a_line_with_phrases_alone_is_the_line_in_a_batch(name):
    same_alone(compiled_search(MODEL, SearchConfig(rules=RULES, **OPTIONS[name]), LONGEST), phrases=PHRASES)


def test_every_search_is_held():
    assert {options.get("method", "beam") for options in OPTIONS.values()} == set(SEARCHES)
