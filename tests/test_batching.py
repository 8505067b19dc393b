"""How lines become batches: bounds, order, padding, and independence of neighbors."""

import jax
import numpy as np
import pytest
from fake import MODEL, table
from hypothesis import given, settings
from hypothesis import strategies as some

from s2s_jax.decode.batching import (
    invariant_shape,
    next_power_of_two,
    pad_rows,
    padded_positions,
    plan_batches,
    rounded_length,
    run_batches,
)
from s2s_jax.decode.forced_decoding import PairScorer
from s2s_jax.decode.lexical_constraints import ConstrainedLine
from s2s_jax.decode.result import SearchResult
from s2s_jax.decode.search import SearchConfig, compiled_search
from s2s_jax.decode.translate import Translator
from s2s_jax.text.copy_vocabulary import PairTokenizer
from s2s_jax.text.example import Example
from s2s_jax.text.tokenizers import Characters

SIDES = some.tuples(some.integers(1, 300), some.integers(1, 300))


@settings(max_examples=100, deadline=None)
@given(some.lists(SIDES, max_size=60), some.integers(1, 20), some.integers(1, 3000))
def test_every_row_is_in_one_batch_and_no_batch_exceeds_its_bounds(lengths, size, tokens):
    batches = plan_batches(lengths, size=size, tokens=tokens)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    for batch in batches:
        longest = tuple(max(side) for side in zip(*(lengths[row] for row in batch), strict=True))
        assert len(batch) <= size
        assert len(batch) == 1 or padded_positions(len(batch), longest) <= tokens
    totals = [sum(lengths[row]) for batch in batches for row in batch]
    assert totals == sorted(totals)


@settings(max_examples=100, deadline=None)
@given(some.lists(SIDES, max_size=60), some.integers(1, 20), some.integers(1, 3000))
def test_the_shape_of_an_invariant_batch_depends_on_each_line_alone(lengths, size, tokens):
    batches = plan_batches(lengths, size=size, tokens=tokens, invariant=True)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    for batch in batches:
        (shape,) = {invariant_shape(lengths[row], size=size, tokens=tokens) for row in batch}
        assert len(batch) <= min(size, shape.rows)
        assert shape.rows == 1 or shape.rows * shape.length * 2 <= tokens
        assert all(max(lengths[row]) <= shape.length for row in batch)


def test_a_long_line_is_decoded_alone():
    lengths = [(20,)] * 40 + [(6000,)] + [(22,)] * 23
    batches = plan_batches(lengths, size=64, tokens=16_384)
    assert [len(batch) for batch in batches] == [63, 1]
    assert batches[1] == [40]


def test_rows_are_padded_to_few_shapes():
    assert [rounded_length(length) for length in (1, 8, 9, 12, 13, 17, 33, 49)] == [8, 8, 12, 12, 16, 24, 48, 64]
    assert [next_power_of_two(count) for count in (0, 1, 2, 3, 64, 65)] == [1, 1, 2, 4, 64, 128]
    ids = [np.arange(1, 10, dtype=np.int32), np.arange(1, 3, dtype=np.int32), np.arange(1, 5, dtype=np.int32)]
    padded = pad_rows(ids)
    assert padded.shape == (4, 12)
    assert padded.size == padded_positions(3, (9,))
    assert padded.sum(1).tolist() == [45, 3, 10, 0]


def test_the_next_batch_is_dispatched_before_a_result_is_returned():
    dispatched = []

    def compute(rows):
        dispatched.append(rows)
        return np.array(rows)

    results = run_batches(compute, [(1,)] * 5, size=2, tokens=100)
    assert next(results)[0] == [0, 1]
    assert dispatched == [[0, 1], [2, 3]]
    assert [rows for rows, _ in results] == [[2, 3], [4]]


@pytest.mark.parametrize("tokens", [8, 16, 64])
def test_a_line_does_not_depend_on_the_budget_of_its_batch(tokens):
    tokenizer = Characters(["a"])
    pair = PairTokenizer(tokenizer, tokenizer)
    lines = ["a" * count for count in (1, 40, 2, 9, 3, 1)]
    config = SearchConfig(beam=2, batch_tokens=tokens)
    plain = SearchConfig(beam=2)
    answers, expected = (
        list(Translator(compiled_search(MODEL, each, 5), pair, each).translate(table(), lines))
        for each in (config, plain)
    )
    assert [each.source for each in answers] == lines
    assert [each.tokens for each in answers] == [each.tokens for each in expected]
    pairs = [Example(line, "aa") for line in lines]
    scores, scores_of_all = (
        [each.log_probability for each in PairScorer(MODEL, pair, each).score(table(), pairs)]
        for each in (config, plain)
    )
    np.testing.assert_allclose(scores, scores_of_all, rtol=1e-6)


@pytest.mark.parametrize("size", [1, 3, 4])
def test_the_program_of_a_line_in_invariant_batches_depends_on_no_other_line(size):
    """Nor on the window, also with constraints; and there are few programs. The search finds nothing."""
    tokenizer = Characters(["a"])
    pair, shapes = PairTokenizer(tokenizer, tokenizer), {}

    def search(params, source, numbers, **constraints):
        arrays = {name: jax.tree.map(np.shape, leaf) for name, leaf in constraints.items()}
        for number in numbers[source.any(1)].tolist():
            shapes.setdefault(number, []).append((source.shape, str(arrays)))
        none = np.full((len(numbers), 1), -np.inf)
        zeros = np.zeros((len(numbers), 1, 1), np.int32)
        return SearchResult(zeros, zeros + 0.0, zeros[..., None] + 0.0, none, none > 0, none)

    translator = Translator(search, pair, SearchConfig(batch_invariant=True, batch_size=size))
    lines = [ConstrainedLine("a" * count) for count in (1, 40, 2, 9, 3, 1)]
    lines += [ConstrainedLine("a", "a" * count) for count in (1, 3, 17)] + [ConstrainedLine("aa", phrases=("a",))]
    for window in (1, 4, 100):
        found = list(translator.translate(table(), lines, window=window))
        assert [each.source for each in found] == [each.line for each in lines]
    for number in range(len(lines)):
        assert len(shapes[number]) == 3
        assert len(set(shapes[number])) == 1, lines[number]
    assert {shape[0] for (shape, _), *_ in shapes.values()} == {next_power_of_two(size)}
    assert len({each[0] for each in shapes.values()}) == 6  # three lengths, two prefixes, phrases
