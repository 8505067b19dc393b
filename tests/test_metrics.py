"""Sums of counts give the numbers of `quality` and of sacrebleu, over any multiset of the sources."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from s2s_jax.evaluate.alignment import alignment_error_rate, entropy, hard, sure_of
from s2s_jax.evaluate.evaluation import error_of_alignments
from s2s_jax.evaluate.metrics import METRICS, Predictions, by_source, counts_of, link_counts, value
from s2s_jax.evaluate.quality import quality

TOKEN = some.sampled_from(["a", "b", "cc", "d\u00a0d", "é", "日本", "."])
LINE = some.lists(TOKEN, max_size=7).map(" ".join)
ITEM = some.tuples(LINE, some.lists(LINE, min_size=1, max_size=3))
TEXT_METRICS = ("exact_match", "wer", "per", "bleu", "chrf")


@settings(max_examples=50, deadline=None)
@given(some.lists(ITEM, min_size=1, max_size=6), some.sampled_from(["word", "phone"]), some.randoms())
def test_counts_of_drawn_sources_add_up_to_their_quality(items, unit, random):
    texts, references = map(list, zip(*items, strict=True))
    counts = counts_of(Predictions(texts, references, unit))
    drawn = [random.randrange(len(items)) for _ in items]
    wanted = quality([texts[each] for each in drawn], [references[each] for each in drawn], unit=unit)
    for metric in TEXT_METRICS:
        if metric not in counts:
            assert wanted[metric] is None
            continue
        got = value(metric, counts[metric][drawn].sum(0))
        assert (got is None) == (wanted[metric] is None), metric
        assert got is None or got == pytest.approx(wanted[metric], rel=1e-12, abs=1e-12), metric


def test_closest_reference_by_hand():
    counts = counts_of(Predictions(["a b", "x", ""], [["a b c", "a b"], ["y z"], [""]]))
    assert counts["exact_match"].tolist() == [[1, 1], [0, 1], [1, 1]]
    assert counts["wer"].tolist() == [[0, 2], [2, 2], [0, 0]]
    assert value("wer", counts["wer"].sum(0)) == 0.5
    assert value("wer", counts["wer"][2]) is None  # nothing to divide by
    assert "per" not in counts


def test_many_sums_at_once_are_those_one_by_one():
    texts = ["the cat sat on the mat .", "a dog ran far away", "no"]
    references = [["the cat sat on a mat ."], ["a dog ran very far away"], ["no", "yes"]]
    counts = counts_of(Predictions(texts, references))
    weights = np.random.default_rng(0).multinomial(3, [1 / 3] * 3, size=(4, 5)).astype(float)
    for metric in counts:
        summed = weights @ counts[metric]
        many = METRICS[metric].values(summed)
        assert many.shape == (4, 5)
        assert many.ravel().tolist() == [value(metric, each) for each in summed.reshape(20, -1)]


def test_forced_numbers_by_hand():
    answers = Predictions(["a", "b"], [["a"], ["c"]], nats=np.array([1.0, 2.0]), tokens=np.array([2.0, 4.0]))
    counts = counts_of(answers._replace(correct=np.array([2.0, 1.0])))
    assert value("perplexity", counts["perplexity"].sum(0)) == pytest.approx(math.exp(0.5))
    assert value("token_accuracy", counts["token_accuracy"].sum(0)) == 0.5
    assert value("perplexity", np.array([1e9, 1.0])) == math.exp(700.0)
    assert value("perplexity", np.zeros(2)) is None
    assert math.isnan(value("perplexity", np.array([math.nan, 1.0])))  # diverged: a number, and not "does not apply"
    assert "token_accuracy" not in counts_of(answers)
    assert "aer" not in counts_of(answers)


def test_links_add_up_to_the_alignment_error_rate():
    random = np.random.default_rng(0)
    alignments = [random.dirichlet(np.ones(4), size=3) for _ in range(5)]
    gold = [{(int(random.integers(4)), int(random.integers(3))) for _ in range(3)} for _ in range(5)]
    gold[0] = {(0, 1), (1, 1), (2, 0)}  # a target token with two source tokens: possible links only
    counts = link_counts(alignments, gold)
    sure = [{link for link in links if sum(other[1] == link[1] for other in links) == 1} for links in gold]
    wanted = alignment_error_rate(list(map(hard, alignments)), sure=sure, possible=gold)
    assert value("aer", counts.sum(0)) == pytest.approx(wanted) == error_of_alignments(alignments, gold)
    assert list(map(sure_of, gold)) == sure
    assert value("aer", np.zeros(2)) is None
    assert link_counts([], []).shape == (0, 2)


def test_entropy_is_a_mean_over_target_tokens():
    alignments = [np.eye(3), np.full((1, 4), 0.25)]
    counts = counts_of(Predictions(["a", "b"], [["a"], ["b"]], alignments=alignments))["attention_entropy"]
    assert value("attention_entropy", counts.sum(0)) == pytest.approx(
        np.concatenate(list(map(entropy, alignments))).mean()
    )


def test_pairs_are_added_up_by_source():
    assert by_source(np.array([1.0, 2.0, 4.0]), ["b", "a", "b"]).tolist() == [5.0, 2.0]
    assert by_source(np.ones((3, 2)), ["x", "x", "y"]).tolist() == [[2.0, 2.0], [1.0, 1.0]]


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="metric must be one of .*, got 'blue'; did you mean 'bleu'?"):
        value("blue", np.zeros(10))
    with pytest.raises(ValueError, match="unit must be one of phone, word, got 'fone'; did you mean 'phone'?"):
        counts_of(Predictions(["a"], [["a"]], "fone"))
    with pytest.raises(ValueError, match="references must be one list of lines a hypothesis"):
        counts_of(Predictions(["a"], []))
    with pytest.raises(ValueError, match="bleu_tokenizer must be one of"):
        counts_of(Predictions(["a"], [["a"]], bleu_tokenizer="nothing"))
