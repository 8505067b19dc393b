"""Alignments against counts by hand: the error rate, links of tokens, entropy and the Pharaoh format."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from s2s_jax.evaluate.alignment import alignment_entropy, alignment_error_rate, hard, to_pharaoh, to_tokens

LINKS = some.frozensets(some.tuples(some.integers(0, 4), some.integers(0, 4)), max_size=8)


def test_hard_takes_the_heaviest_source_of_each_target():
    weights = np.array([[0.2, 0.7, 0.1], [0.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.0, 0.0, 1e-9]], np.float32)
    assert hard(weights) == {(1, 0), (0, 2), (2, 3)}


def test_hard_of_nothing_is_nothing_and_of_nan_an_error():
    assert hard(np.zeros((3, 0), np.float32)) == hard(np.zeros((0, 3), np.float32)) == frozenset()
    with pytest.raises(ValueError, match="alignment holds NaN, so it has no largest weight"):
        hard(np.array([[0.5, np.nan]]))


def test_error_rate_by_hand():
    predicted = [{(0, 0), (1, 1), (2, 2), (0, 3)}, {(0, 0)}]
    sure = [{(0, 0), (1, 2)}, {(1, 0)}]
    possible = [{(1, 1), (2, 2)}, set()]
    # target 3 has no gold link, so (0, 3) does not count: A = 3 + 1, A & S = 1 + 0, A & P = 3 + 0, S = 2 + 1
    assert alignment_error_rate(predicted, sure=sure, possible=possible) == 1 - (1 + 3) / (4 + 3)
    assert alignment_error_rate(predicted, sure=sure, possible=possible, every_target=True) == 1 - (1 + 3) / (5 + 3)
    # without possible links: targets 0 and 2 are judged, A = 2 + 1, and both counts of agreement are 1 + 0
    assert alignment_error_rate(predicted, sure=sure) == 1 - (1 + 1) / (3 + 3)


def test_gold_links_that_were_not_predicted_count():
    assert alignment_error_rate([set()], sure=[{(0, 0)}]) == 1.0


def test_nothing_on_either_side_has_no_rate():
    assert alignment_error_rate([], sure=[]) is None
    assert alignment_error_rate([{(0, 0)}], sure=[set()]) is None
    assert alignment_error_rate([{(0, 0)}], sure=[set()], every_target=True) == 1.0


def test_error_rate_refuses_lists_of_unequal_length():
    with pytest.raises(ValueError, match="one set of links per sentence, got 1, 2 and 2 sets"):
        alignment_error_rate([set()], sure=[set(), set()])


@settings(max_examples=50)
@given(LINKS, LINKS, LINKS)
def test_error_rate_laws(predicted, sure, possible):
    rate = alignment_error_rate([predicted], sure=[sure], possible=[possible])
    assert rate is None or 0.0 <= rate <= 1.0
    if sure:
        assert alignment_error_rate([sure], sure=[sure], possible=[possible]) == 0.0
        assert alignment_error_rate([sure | possible], sure=[sure], possible=[possible]) == 0.0
    twice = alignment_error_rate([predicted] * 2, sure=[sure] * 2, possible=[possible] * 2)
    assert twice == rate


def test_to_tokens_links_tokens_whose_characters_are_linked():
    # "ab c" -> ab, c and "x yz" -> x, yz, y (tokens may share a character)
    found = to_tokens(
        {(0, 0), (1, 3), (2, 1), (3, 2), (9, 0)},
        source_spans=[(0, 2), (3, 4)],
        target_spans=[(0, 1), (2, 4), (2, 3)],
    )
    assert found == {(0, 0), (0, 1), (1, 1), (1, 2)}


def test_one_span_a_character_changes_nothing():
    spans = [(place, place + 1) for place in range(5)]
    links = frozenset({(0, 4), (3, 1)})
    assert to_tokens(links, source_spans=spans, target_spans=spans) == links


def test_entropy_by_hand():
    weights = np.array(
        [[1, 0, 0, 0], [0.25, 0.25, 0.25, 0.25], [0, 0, 0, 0], [0, 0.8, 0, 0.2], [2, 2, 0, 0]], np.float32
    )
    wanted = [0, math.log(4), 0, -0.8 * math.log(0.8) - 0.2 * math.log(0.2), math.log(2)]
    np.testing.assert_allclose(alignment_entropy(weights), wanted, atol=1e-7)
    assert not np.signbit(alignment_entropy(weights)).any()
    assert alignment_entropy(np.zeros((2, 0))).tolist() == [0.0, 0.0]


def test_pharaoh_by_hand():
    assert to_pharaoh([(0, 0), (11, 2)]) == "0-0 11-2"
