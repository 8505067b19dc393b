"""Metrics of texts against a slow Levenshtein, cases counted by hand, and laws that no rate may break."""

import math
import typing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from s2s_jax.evaluate.config import EvaluationConfig
from s2s_jax.evaluate.metrics import LengthBucket, Predictions, by_length, measure, signatures
from s2s_jax.evaluate.text_counts import BLEU_TOKENIZERS, UnitName, edit_distance, space_tokens

TOKEN = some.sampled_from(["a", "b", "cc", "d\u00a0d", "é"])
LINE = some.lists(TOKEN, max_size=6).map(" ".join)
ITEMS = some.lists(some.tuples(LINE, some.lists(LINE, min_size=1, max_size=3)), min_size=1, max_size=5)
RATES = ("exact_match", "exact_match_per_line", "wer", "wer_per_line", "per", "per_per_line", "bleu", "chrf")


def quality(texts, references, **options):
    """All numbers of texts, and the signatures."""
    predictions = Predictions(texts, references, **options)
    return measure(predictions) | signatures(predictions)


def slow_distance(hypothesis, reference):
    if not hypothesis or not reference:
        return len(hypothesis) + len(reference)
    return min(
        slow_distance(hypothesis[1:], reference) + 1,
        slow_distance(hypothesis, reference[1:]) + 1,
        slow_distance(hypothesis[1:], reference[1:]) + (hypothesis[0] != reference[0]),
    )


@settings(max_examples=40, deadline=None)
@given(LINE, LINE)
def test_the_edit_distance_of_tokens(hypothesis, reference):
    hypothesis_tokens, reference_tokens = tuple(hypothesis.split(" ")), tuple(reference.split(" "))
    hypothesis_tokens, reference_tokens = [
        tuple(t for t in side if t) for side in (hypothesis_tokens, reference_tokens)
    ]
    assert edit_distance(hypothesis, reference) == (
        slow_distance(hypothesis_tokens, reference_tokens),
        len(reference_tokens),
    )


def test_tokens_are_cut_at_the_ascii_space_only():
    assert space_tokens(" a\u00a0b  c\td\u3000e ") == ["a\u00a0b", "c\td\u3000e"]
    assert quality(["a\u00a0b"], [["a b"]])["wer"] == 1.0  # one token for two: a replacement and an insertion


def test_words_with_several_references_by_hand():
    found = quality(
        ["a b c d", "x y", "p"],
        [["a b c d"], ["x", "x y z w", "x z"], ["", "q r s"]],
    )
    # closest: 0 of 4; distances 1, 2, 1 where of the two at distance 1 the longer counts: 1 of 2; "" is 1 of 0
    assert found["wer"] == (0 + 1 + 1) / (4 + 2 + 0)
    assert found["wer_per_line"] == (0 + 1 + 2 + 1 + 1 + 3) / (4 + 1 + 4 + 2 + 0 + 3)
    assert found["exact_match"] == 1 / 3
    assert found["exact_match_per_line"] == 1 / 6
    assert found["per"] is None
    assert found["per_per_line"] is None


def test_phones_with_several_references_by_hand():
    found = quality(
        ["T AH0 M EY1 T OW2", "R EH1 D"],
        [["T AH0 M EY1 T OW2", "T AH0 M AA1 T OW2"], ["R IY1 D", "R IY1 D Z"]],
        unit="phone",
    )
    assert found["wer"] == 1 / 2
    assert found["wer_per_line"] == 3 / 4
    assert found["per"] == (0 + 1) / (6 + 3)
    assert found["per_per_line"] == (0 + 1 + 1 + 2) / (6 + 6 + 3 + 4)
    assert found["exact_match"] == 1 / 2


def test_bleu_by_hand():
    # unigrams 4 of 5, bigrams 3 of 4, trigrams 2 of 3, four-grams 1 of 2; as long as the reference
    found = quality(["the cat sat on mats"], [["the cat sat on it"]])
    assert found["bleu"] == pytest.approx(100 * math.prod((4 / 5, 3 / 4, 2 / 3, 1 / 2)) ** (1 / 4))
    assert found["bleu_signature"].startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    assert found["chrf_signature"].startswith("nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:")


def test_a_missing_reference_is_not_an_empty_one():
    hypotheses = ["a b c d e", "v w x y z"]
    one = ["a b c d e"]
    found = quality(hypotheses, [[*one, "k"], ["v w x y z a b c d e f g"]])
    filled = quality(hypotheses, [[*one, "k"], ["v w x y z a b c d e f g", "v w x y z a b c d e f g"]])
    empty = quality(hypotheses, [[*one, "k"], ["v w x y z a b c d e f g", ""]])
    assert found["bleu"] == filled["bleu"] == pytest.approx(100 * math.exp(1 - 17 / 10))
    assert found["chrf"] == filled["chrf"]
    assert found["bleu"] < empty["bleu"]  # the empty line would be the closest in length
    assert found["bleu_signature"].startswith("nrefs:var|")
    assert found["chrf_signature"].startswith("nrefs:var|")


def test_bleu_takes_phones_as_they_are_and_another_tokenizer():
    assert "|tok:none|" in quality(["a . b"], [["a . b"]], unit="phone")["bleu_signature"]
    assert "|tok:char|" in quality(["我喜欢猫"], [["我喜欢猫"]], bleu_tokenizer="char")["bleu_signature"]
    assert quality(["我喜欢猫"], [["我喜欢猫"]], bleu_tokenizer="char")["bleu"] == 100.0


def test_no_reference_token_at_all_has_no_rate():
    found = quality(["", "a"], [[""], [""]])
    assert found["wer"] is None
    assert found["wer_per_line"] is None
    assert found["exact_match"] == 0.5
    phones = quality(["", "a"], [[""], [""]], unit="phone")
    assert phones["per"] is None
    assert phones["wer"] == 0.5


def test_a_hundred_lines_with_a_spaced_full_stop_log_nothing(caplog):
    quality(["a b ."] * 100, [["a b ."]] * 100)
    assert not caplog.records


@settings(max_examples=40, deadline=None)
@given(ITEMS, some.sampled_from(["word", "phone"]))
def test_what_equals_a_reference_is_perfect(items, unit):
    found = quality([lines[-1] for _, lines in items], [lines for _, lines in items], unit=unit)
    assert found["exact_match"] == 1.0
    assert found["wer"] in (0.0, None)
    assert found["per"] in (0.0, None)


@settings(max_examples=40, deadline=None)
@given(ITEMS, some.randoms(use_true_random=False), some.sampled_from(["word", "phone"]))
def test_the_order_of_items_and_of_references_does_not_matter(items, random, unit):
    shuffled = [
        (hypothesis, random.sample(lines, len(lines))) for hypothesis, lines in random.sample(items, len(items))
    ]
    first = quality([hypothesis for hypothesis, _ in items], [lines for _, lines in items], unit=unit)
    second = quality([hypothesis for hypothesis, _ in shuffled], [lines for _, lines in shuffled], unit=unit)
    assert {name: first[name] for name in RATES if name != "chrf"} == {
        name: second[name] for name in RATES if name != "chrf"
    }  # of references that tie, sacrebleu's chrF takes the first, and they need not be of one length


@settings(max_examples=40, deadline=None)
@given(some.lists(some.tuples(LINE, some.lists(LINE, min_size=2, max_size=2, unique=True)), min_size=1, max_size=5))
def test_the_closest_reference_is_never_further_than_every_line(items):
    """Holds where all sources have as many references; uneven numbers weigh the sources differently."""
    hypothesis, lines = [hypothesis for hypothesis, _ in items], [lines for _, lines in items]
    words, phones = quality(hypothesis, lines), quality(hypothesis, lines, unit="phone")
    assert words["exact_match"] >= words["exact_match_per_line"]
    assert phones["wer"] <= phones["wer_per_line"]
    best = sum(min(edit_distance(one, line).distance for line in choices) for one, choices in items)
    every = sum(edit_distance(one, line).distance for one, choices in items for line in choices)
    assert 2 * best <= every


def test_by_length_by_hand():
    texts = ["a b c d", "a b c x", "q", "r"]
    rows = by_length(
        Predictions(texts, [["a b c d"], ["a b c d", "z"], ["q"], ["s t"]]),
        [0, 10, 11, 99],
        edges=(10, 20, 30),
    )
    assert rows == [
        LengthBucket("0-10", 2, 0.5, 1 / 8, pytest.approx(100 * (7 / 8 * 5 / 6 * 3 / 4 * 1 / 2) ** 0.25)),
        LengthBucket("11-20", 1, 1.0, 0.0, 0.0),
        LengthBucket("31+", 1, 0.0, 1.0, 0.0),
    ]


@pytest.mark.parametrize(
    ("hypotheses", "references", "message"),
    [
        ([], [], r"hypotheses must be a list of at least one line, got \[\]"),
        ("ab", [["a"], ["b"]], "hypotheses must be a list of at least one line, got 'ab'"),
        (["a"], [], "references must be one list of lines per hypothesis, got 0 for 1 hypotheses"),
        (["a", "b"], [["a"], []], r"references\[1\] must hold at least one line, got none; leave that source out"),
        (["a"], ["a"], r"references\[0\] must be a list of lines, got the string 'a'; write \['a'\]"),
    ],
)
def test_lists_that_do_not_belong_together_are_refused(hypotheses, references, message):
    for refuse in (quality, lambda hypothesis, lines: by_length(Predictions(hypothesis, lines), [1])):
        with pytest.raises(ValueError, match=message):
            refuse(hypotheses, references)


def test_unknown_choices_are_refused():
    with pytest.raises(ValueError, match="unit must be one of phone, word, got 'letter'"):
        quality(["a"], [["a"]], unit="letter")
    with pytest.raises(ValueError, match=r"bleu_tokenizer must be one of 13a, char, .*, got '13b'"):
        quality(["a"], [["a"]], bleu_tokenizer="13b")
    with pytest.raises(ValueError, match=r"edges must rise, got \(10, 10\)"):
        by_length(Predictions(["a"], [["a"]]), [1], edges=(10, 10))
    with pytest.raises(ValueError, match="lengths must be one per hypothesis, got 2 for 1 hypotheses"):
        by_length(Predictions(["a"], [["a"]]), [1, 2])


def test_the_units_that_are_typed_are_those_of_the_table():
    assert set(typing.get_args(UnitName)) == set(BLEU_TOKENIZERS)
    with pytest.raises(ValueError, match="evaluation.unit must be one of phone, word, got 'letter'"):
        EvaluationConfig(unit="letter")
