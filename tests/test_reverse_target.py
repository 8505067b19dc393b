"""Targets that are written from their end: the model sees them reversed, and nobody else does."""

import numpy as np
import pytest
import tiny
from fake import MODEL, table

from s2s_jax.decode.forced_decoding import PairScorer
from s2s_jax.decode.lexical_constraints import ConstrainedLine
from s2s_jax.decode.search import SearchConfig, compiled_search
from s2s_jax.decode.translate import Translator
from s2s_jax.run.check import check_experiment
from s2s_jax.shapes import EOS
from s2s_jax.text.copy_vocabulary import PairTokenizer
from s2s_jax.text.example import Example
from s2s_jax.text.symbol_tokenizers import Characters, Words

LETTERS = Characters(["a"])
FORWARD, BACKWARD = (PairTokenizer(LETTERS, LETTERS, reverses_target=reverses) for reverses in (False, True))
LINES = ["ab", "", "a", "abcaab"]


def test_targets_are_encoded_from_their_end_and_decoded_in_reading_order():
    """Lines at once or one by one, with the words that a sentence alone has; sources as they are."""
    words = Words(["b", "c"])
    for pair in (BACKWARD, PairTokenizer(words, words, slots=2, reverses_target=True)):
        sources, targets = ["a b", "x y"], ["b c a x", "y x"]
        found = [rows.flat.tolist() for rows in pair.encode_pairs(sources, targets)]
        by_line = [pair.encode_target(target, source) for source, target in zip(sources, targets, strict=True)]
        assert found[1] == [*by_line[0], EOS, *by_line[1], EOS]
        assert found[0][: len(pair.encode_source(sources[0]))] == pair.encode_source(sources[0])
    for ids, source, text in zip(by_line, sources, ["b c a <unk>", "y x"], strict=True):
        turned = np.array([*ids, EOS])[pair.reading_order([*ids, EOS])]
        assert pair.decode(turned.tolist(), source) == text
        assert np.array(ids)[pair.reading_order(ids)].tolist() == ids[::-1]  # of a target that was cut off
    assert pair.links_in_model_order({(0, 0), (1, 2)}, "b c a x") == [(0, 3), (1, 1)]
    assert FORWARD.links_in_model_order({(1, 2), (0, 0)}, "aaaa") == [(0, 0), (1, 2)]


def test_pairs_are_scored_as_reversed_ones_and_shown_in_reading_order():
    search = SearchConfig()
    pairs = [Example("ab", line) for line in LINES]
    turned = [Example("ab", line[::-1]) for line in LINES]
    ours = PairScorer(MODEL, BACKWARD, search).score(table(), pairs)
    plain = PairScorer(MODEL, FORWARD, search).score(table(), turned)
    for backward, forward in zip(ours, plain, strict=True):
        order = [*range(len(forward.tokens) - 1)[::-1], -1]
        assert backward.tokens == tuple(forward.tokens[place] for place in order)
        assert backward.score == forward.score
        np.testing.assert_array_equal(backward.log_probs, forward.log_probs[order])
        np.testing.assert_array_equal(backward.alignment, forward.alignment[order])


@pytest.mark.parametrize("longest", [3, 8])  # the shorter bound cuts hypotheses off, which then have no end
def test_translations_are_turned_with_their_alignments(longest):
    search = SearchConfig(beam=3)
    find = compiled_search(MODEL, search, longest)
    results = [Translator(find, pair, search).translate(table(), ["aa", "ab"]) for pair in (BACKWARD, FORWARD)]
    compared = 0
    for backward, forward in zip(*results, strict=True):
        for one, other in zip(backward.hypotheses, forward.hypotheses, strict=True):
            order = [*range(len(other.tokens) - (not other.truncated))[::-1], *[-1] * (not other.truncated)]
            assert one.tokens == tuple(other.tokens[place] for place in order)
            assert (one.score, one.truncated) == (other.score, other.truncated)
            np.testing.assert_array_equal(one.log_probs, np.array(other.log_probs)[order])
            np.testing.assert_array_equal(one.alignment, other.alignment[order])
            compared += one.tokens != other.tokens
    assert compared


def test_what_needs_a_target_written_from_its_beginning_is_refused():
    translator = Translator(compiled_search(MODEL, SearchConfig(), 3), BACKWARD, SearchConfig())
    for line in (ConstrainedLine("a", prefix="a"), ConstrainedLine("a", phrases=("a",))):
        with pytest.raises(ValueError, match="cannot be given a prefix or phrases"):
            list(translator.translate(table(), [line]))
    with pytest.raises(ValueError, match=r"loss.diagonal=0.5 wants source and target in one order"):
        check_experiment(tiny.experiment("tokenizer.reverse_target=true", "loss.diagonal=0.5"))
