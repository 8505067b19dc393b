"""Sums of counts give the metrics of sacrebleu and of the formulas, over any multiset of the sources."""

import dataclasses
import functools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from s2s_jax.decode.forced_decoding import ScoredPair
from s2s_jax.evaluate.alignment import alignment_entropy, alignment_error_rate, guess_sure, hard
from s2s_jax.evaluate.evaluation import (
    FORCED_COLUMNS,
    aer_links,
    error_of_alignments,
    forced_sums,
    gold_links,
    group_by_source,
)
from s2s_jax.evaluate.metrics import (
    INPUTS,
    METRICS,
    Metric,
    Predictions,
    by_item,
    check_metric,
    counts_of,
    link_counts,
    measure,
    value,
)
from s2s_jax.evaluate.text_counts import bleu_scorer, chrf_scorer, references_by_rank
from s2s_jax.text.example import Example
from s2s_jax.text.pairs import parse_alignment
from s2s_jax.text.symbol_tokenizers import Characters, Words

TOKEN = some.sampled_from(["a", "b", "cc", "d\u00a0d", "é", "日本", "."])
LINE = some.lists(TOKEN, max_size=7).map(" ".join)
ITEM = some.tuples(LINE, some.lists(LINE, min_size=1, max_size=3))
TEXT_METRICS = [name for name, metric in METRICS.items() if "texts" in metric.needs]


@settings(max_examples=50, deadline=None)
@given(some.lists(ITEM, min_size=1, max_size=6), some.sampled_from(["word", "phone"]), some.randoms())
def test_counts_of_drawn_sources_add_up_to_their_metrics(items, unit, random):
    texts, references = map(list, zip(*items, strict=True))
    counts = counts_of(Predictions(texts, references, unit))
    drawn = [random.randrange(len(items)) for _ in items]
    expected = measure(Predictions([texts[each] for each in drawn], [references[each] for each in drawn], unit))
    assert {name for name in TEXT_METRICS if name in counts} == {
        name for name in TEXT_METRICS if unit in METRICS[name].units
    }
    for metric in counts:
        assert value(metric, counts[metric][drawn].sum(0)) == expected[metric], metric


@settings(max_examples=50, deadline=None)
@given(some.lists(ITEM, min_size=1, max_size=6), some.sampled_from([("word", "13a"), ("phone", "none")]))
def test_bleu_and_chrf_are_those_of_sacrebleu(items, unit):
    texts, references = map(list, zip(*items, strict=True))
    found = measure(Predictions(texts, references, unit[0]), ("bleu", "chrf"))
    ranked = references_by_rank(references)
    bleu = bleu_scorer(unit[1]).corpus_score(texts, ranked).score
    assert found["bleu"] == pytest.approx(min(bleu, 100.0), rel=1e-15, abs=1e-12)
    assert found["chrf"] == pytest.approx(chrf_scorer().corpus_score(texts, ranked).score, rel=1e-15, abs=1e-12)


def distance(left, right):
    """Levenshtein's recursion, from its definition."""

    @functools.cache
    def between(i, j):
        if not i or not j:
            return i + j
        replaced = between(i - 1, j - 1) + (left[i - 1] != right[j - 1])
        return min(replaced, between(i - 1, j) + 1, between(i, j - 1) + 1)

    return between(len(left), len(right))


def ratio(numerator, denominator):
    return pytest.approx(numerator / denominator) if denominator else None


@settings(max_examples=50, deadline=None)
@given(some.lists(ITEM, min_size=1, max_size=6))
def test_error_rates_and_exact_match_are_those_of_their_definitions(items):
    """The nearest reference counts, of equally near ones the longest; the unit phone makes WER a rate of items."""
    edits = length = all_edits = all_lengths = exact = exact_lines = lines = 0
    for text, references in items:
        hypothesis = [token for token in text.split(" ") if token]
        targets = [[token for token in reference.split(" ") if token] for reference in references]
        pairs = [(distance(hypothesis, target), len(target)) for target in targets]
        nearest = min(pair[0] for pair in pairs)
        edits, length = edits + nearest, length + max(size for far, size in pairs if far == nearest)
        all_edits, all_lengths = all_edits + sum(far for far, _ in pairs), all_lengths + sum(size for _, size in pairs)
        exact += any(hypothesis == target for target in targets)
        exact_lines, lines = exact_lines + sum(hypothesis == target for target in targets), lines + len(targets)
    texts, references = map(list, zip(*items, strict=True))
    words = measure(Predictions(texts, references, "word"))
    phones = measure(Predictions(texts, references, "phone"))
    assert words["wer"] == phones["per"] == ratio(edits, length)
    assert words["wer_per_line"] == phones["per_per_line"] == ratio(all_edits, all_lengths)
    assert words["exact_match"] == phones["exact_match"] == ratio(exact, len(items))
    assert words["exact_match_per_line"] == ratio(exact_lines, lines)
    assert phones["wer"] == ratio(len(items) - exact, len(items))
    assert phones["wer_per_line"] == ratio(lines - exact_lines, lines)


LIKELIHOODS = some.lists(some.tuples(some.floats(-20, 0), some.booleans()), min_size=1, max_size=6)


@settings(max_examples=50, deadline=None)
@given(some.lists(LIKELIHOODS, min_size=1, max_size=5))
def test_perplexity_and_token_accuracy_are_means_over_all_tokens(pairs):
    scored = [
        ScoredPair(
            example=Example("a", "b"),
            source_tokens=(),
            tokens=("b",) * len(tokens),
            log_probs=np.array([log_prob for log_prob, _ in tokens]),
            alignment=np.zeros((len(tokens), 0)),
            correct=sum(likeliest for _, likeliest in tokens),
            score=0.0,
        )
        for tokens in pairs
    ]
    values = measure(Predictions(**dict(zip(FORCED_COLUMNS, forced_sums(scored).T, strict=False))))
    tokens = [token for tokens in pairs for token in tokens]
    product = math.prod(math.exp(-log_prob / len(tokens)) for log_prob, _ in tokens)  # a geometric mean of 1 / p
    assert values["perplexity"] == pytest.approx(product)
    assert values["loss"] == pytest.approx(math.log(product), abs=1e-12)
    assert values["token_accuracy"] == ratio(sum(likeliest for _, likeliest in tokens), len(tokens))


LINK = some.tuples(some.integers(0, 3), some.integers(0, 2))
ALIGNED = some.tuples(some.integers(0, 2**32 - 1), some.sets(LINK, max_size=5))


@settings(max_examples=50, deadline=None)
@given(some.lists(ALIGNED, min_size=1, max_size=5))
def test_alignment_error_rate_is_that_of_its_definition(pairs):
    """1 - (|A & S| + |A & P|) / (|A| + |S|), Och & Ney 2003, where A holds target tokens with a gold link alone."""
    alignments = [np.random.default_rng(seed).random((3, 4)) for seed, _ in pairs]
    agreed = total = 0
    for weights, (_, gold) in zip(alignments, pairs, strict=True):
        for target in range(3):
            linked = [source for source, other in gold if other == target]
            sure = linked if len(linked) == 1 else []
            total += len(sure)
            if not linked:
                continue
            chosen = max(range(4), key=lambda source, row=weights[target]: row[source])
            total += 1
            agreed += (chosen in sure) + (chosen in linked)
    counts = link_counts(alignments, [guess_sure(gold) for _, gold in pairs])
    expected = None if not total else pytest.approx(1 - agreed / total)
    assert measure(Predictions(link_counts=counts), ["aer"])["aer"] == expected


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
    counts = counts_of(dataclasses.replace(answers, correct=np.array([2.0, 1.0])))
    assert value("perplexity", counts["perplexity"].sum(0)) == pytest.approx(math.exp(0.5))
    assert value("token_accuracy", counts["token_accuracy"].sum(0)) == 0.5
    assert measure(answers, ["loss"]) == {"loss": 0.5}
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
    guessed = list(map(guess_sure, gold))
    counts = link_counts(alignments, guessed)
    sure = [{link for link in links if sum(other[1] == link[1] for other in links) == 1} for links in gold]
    wanted = alignment_error_rate(list(map(hard, alignments)), sure=sure, possible=gold)
    assert value("aer", counts.sum(0)) == pytest.approx(wanted) == error_of_alignments(alignments, guessed)
    assert [links.sure for links in guessed] == sure
    assert value("aer", np.zeros(2)) is None
    assert link_counts([], []).shape == (0, 2)


def test_alignments_of_words_are_judged_between_words_with_sure_and_possible_links():
    """Whatever the tokens: two words are linked where any of their letters are; a space belongs to no word."""
    example = Example("ab c de", "x yz", parse_alignment("0-0 1p0 2-1 1p1", "ab c de", "x yz", "here"))
    letters = Characters(list("abcdexyz "))
    links = gold_links(example, letters, letters)
    assert links.sure == {(0, 0), (2, 1)}
    assert links.possible == {(0, 0), (1, 0), (2, 1), (1, 1)}
    rows = [1, 2, 3, 6, 0]  # the source letter of x, the space, y, z and the end token
    alignment = np.eye(8)[rows]
    # x: b, of word 0, sure; the space has no gold link; y: c, of word 1, possible; z: e, of word 2, sure; </s>: none
    assert error_of_alignments([alignment], [links]) == pytest.approx(1 - (2 + 3) / (3 + 2))
    elsewhere = np.eye(8)[[2, 2, 0, 0, 0]]  # x: the space, which no word has; y and z: a, of word 0, one wrong link
    assert error_of_alignments([elsewhere], [links]) == 1.0
    words = Words(["ab", "c", "de", "x", "yz"])
    by_word = gold_links(example, words, words)
    assert error_of_alignments([np.eye(4)[[0, 2, 3]]], [by_word]) == 0.0
    assert error_of_alignments([], []) is None


def test_which_links_the_error_rate_counts_is_told():
    def pair(alignment: str) -> Example:
        return Example("a b", "c d", parse_alignment(alignment, "a b", "c d", "here"))

    assert aer_links([pair("0-0"), pair("0p1")]) == "of words; sure and possible"
    assert aer_links([pair("0-0")]) == "of words; sure ones alone, none is marked as possible"
    assert aer_links([Example("a", "b", ((0, 0),))]).startswith("of tokens; the only link of a target token is sure")


def test_entropy_is_a_mean_over_target_tokens():
    alignments = [np.eye(3), np.full((1, 4), 0.25)]
    counts = counts_of(Predictions(["a", "b"], [["a"], ["b"]], alignments=alignments))["attention_entropy"]
    assert value("attention_entropy", counts.sum(0)) == pytest.approx(
        np.concatenate(list(map(alignment_entropy, alignments))).mean()
    )


def test_pairs_are_added_up_by_item():
    assert by_item(np.array([1.0, 2.0, 4.0]), np.array([0, 1, 0])).tolist() == [5.0, 2.0]
    assert by_item(np.ones((3, 2)), np.array([0, 0, 1])).tolist() == [[2.0, 2.0], [1.0, 1.0]]
    assert by_item(np.ones((0, 2)), np.zeros(0, int)).shape == (0, 2)


def test_equal_sources_are_one_item_unless_every_pair_is_to_be_one():
    pairs = [Example("b", "1"), Example("a", "2"), Example("b", "3")]
    merged, apart = group_by_source(pairs), group_by_source(pairs, merge=False)
    assert (merged.inputs, merged.references, merged.items.tolist()) == (["b", "a"], [["1", "3"], ["2"]], [0, 1, 0])
    assert (apart.inputs, apart.references, apart.items.tolist()) == (
        ["b", "a", "b"],
        [["1"], ["2"], ["3"]],
        [0, 1, 2],
    )


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="metric must be one of .*, got 'blue'; did you mean 'bleu'?"):
        value("blue", np.zeros(10))
    with pytest.raises(ValueError, match="unit must be one of phone, word, got 'fone'; did you mean 'phone'?"):
        counts_of(Predictions(["a"], [["a"]], "fone"))
    with pytest.raises(ValueError, match="references must be one list of lines per hypothesis"):
        counts_of(Predictions(["a"], []))
    with pytest.raises(ValueError, match="bleu_tokenizer must be one of"):
        counts_of(Predictions(["a"], [["a"]], bleu_tokenizer="nothing"))


def test_a_metric_without_its_inputs_is_refused_by_name():
    predictions = Predictions(["a"], [["a"]])
    with pytest.raises(ValueError, match=r"metric=loss needs forced decoding, and there is no nats and no tokens;"):
        measure(predictions, ["loss"])
    with pytest.raises(ValueError, match="validation.metric=aer needs a model with attention and data with gold"):
        check_metric("validation.metric", "aer", inputs=("texts", "references"))
    with pytest.raises(ValueError, match="validation.metric=per needs evaluation.unit=phone, got evaluation.unit=word"):
        check_metric("validation.metric", "per", inputs=("texts", "references"), unit="word")
    assert measure(predictions, ["per"]) == {"per": None}
    assert set(measure(predictions)) == set(TEXT_METRICS)


def test_a_new_metric_is_one_entry(monkeypatch):
    def lengths(predictions):
        return np.array([(len(text.split()), 1) for text in predictions.texts], np.float64)

    length = Metric("Length", None, "tokens", lengths, lambda sums: sums[..., 0] / sums[..., 1], ("texts",))
    monkeypatch.setitem(METRICS, "length", length)
    assert length.title == "Length (tokens)"
    predictions = Predictions(["a b", "a"], [["a"], ["b"]])
    assert measure(predictions)["length"] == measure(predictions, ["length"])["length"] == 1.5
    assert counts_of(predictions)["length"].tolist() == [[2, 1], [1, 1]]


def test_the_inputs_are_those_of_predictions():
    fields = {field.name for field in dataclasses.fields(Predictions)}
    assert fields - {"unit", "bleu_tokenizer"} == set(INPUTS)
    assert all(set(metric.needs) <= set(INPUTS) for metric in METRICS.values())
