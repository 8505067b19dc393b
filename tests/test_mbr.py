"""The hypothesis that agrees best with all, by hand."""

import math

import pytest
from sacrebleu import sentence_bleu, sentence_chrf

from s2s_jax.decode.mbr import MBR_METRICS, consensus

LOG = math.log


def overlap(one: str, other: str) -> float:
    return len(set(one) & set(other)) / len(set(one) | set(other))


def test_by_hand():
    """ab meets ab (1), abc (2/3) and x (0); abc meets 2/3, 1 and 0; x meets itself alone."""
    found = consensus(["x", "ab", "abc"], [LOG(0.4), LOG(0.35), LOG(0.25)], overlap)
    assert [place for place, _ in found] == [1, 2, 0]
    assert [utility for _, utility in found] == pytest.approx([0.35 + 0.25 * 2 / 3, 0.25 + 0.35 * 2 / 3, 0.4])


def test_duplicate_samples_have_twice_the_weight():
    found = consensus(["a", "b", "b", "c"], [0.0] * 4, MBR_METRICS["exact"])
    assert found == [(1, pytest.approx(0.5)), (0, pytest.approx(0.25)), (3, pytest.approx(0.25))]


def test_token_ids_will_do():
    found = consensus([(3, 4), (5,), (3,)], [0.0, 0.0, 0.0], lambda one, other: len(set(one) & set(other)))
    assert found[0] == (0, pytest.approx(1.0))


def test_weights_are_up_to_a_factor_and_some_must_be_finite():
    weights = [-2000.0, -2001.0, -math.inf]
    found = dict(consensus(["a", "b", "c"], weights, MBR_METRICS["exact"]))
    assert found == pytest.approx({0: 1 / (1 + math.exp(-1)), 1: 1 / (1 + math.e), 2: 0.0})


def test_sentence_scores_are_sacrebleus():
    one, other = "the cat sat on a mat", "the cat sat on the mat"
    assert MBR_METRICS["chrf"](one, other) == pytest.approx(sentence_chrf(one, [other]).score)
    assert MBR_METRICS["bleu"](one, other) == pytest.approx(sentence_bleu(one, [other]).score)
    assert MBR_METRICS["bleu"]("a", "a") == 100.0


def test_empty_or_unequal_inputs_are_refused():
    with pytest.raises(ValueError, match="must include one of finite weight, got none"):
        consensus([], [], overlap)
    with pytest.raises(ValueError, match="log_weights must be one per hypothesis, got 1 for 2 of them"):
        consensus(["a", "b"], [0.0], overlap)
