"""Lines that no training pair looks like: each has one answer, finite, and no line changes that of another.

Through the whole road from text to text, with a real model that never learned anything.
"""

import unicodedata

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from s2s_jax.decode.lexical_constraints import ConstrainedLine
from s2s_jax.decode.logits_rules import LogitsRules
from s2s_jax.decode.result import SearchResult
from s2s_jax.decode.search import SearchConfig, compiled_search
from s2s_jax.decode.translate import Translation, Translator
from s2s_jax.model.seq2seq import build
from s2s_jax.shapes import EOS, SPECIAL, UNK
from s2s_jax.text.copy_vocabulary import PairTokenizer
from s2s_jax.text.tokenizers import Words

TYPED = [*SPECIAL, "é", "a", "b"]  # what a person typed, the names of the special tokens among it
LONGEST = 6


@pytest.fixture(scope="module")
def translator() -> Translator:
    words = Words(TYPED, "NFC")
    model = build(tiny.experiment().model, source_vocabulary=words.size, target_vocabulary=words.size)
    search = SearchConfig(beam=2, rules=LogitsRules(min_length=3))
    return Translator(compiled_search(model, search, LONGEST), PairTokenizer(words, words), search)


@pytest.fixture(scope="module")
def ask(translator):
    words = len(TYPED) + len(SPECIAL)
    params = build(tiny.experiment().model, source_vocabulary=words, target_vocabulary=words).init(jax.random.key(0))

    def answers(*lines: str | ConstrainedLine) -> list[Translation]:
        return list(translator.translate(params, lines))

    return answers


def same(one: Translation, other: Translation) -> None:
    assert one.text == other.text
    np.testing.assert_allclose(one.hypotheses[0].log_probs, other.hypotheses[0].log_probs, atol=1e-5)


def test_a_very_long_line_has_one_answer_and_its_neighbors_keep_theirs(ask):
    """Row 15 of the faults."""
    long = "a b " * 400
    together = ask("a", long, "b a", "")
    assert [one.source for one in together] == ["a", long, "b a", ""]
    assert together[1].text
    for place, line in enumerate(("a", long, "b a")):
        same(together[place], ask(line)[0])


def test_a_line_of_nothing_known_is_answered_in_finite_numbers(ask):
    """Row 20 of the faults."""
    for line in ("never heard of", "\ue000", "\U0010ffff \x00", "?" * 500):
        answer = ask(line)[0]
        assert set(answer.source_tokens[:-1]) == {SPECIAL[UNK]}
        for hypothesis in answer.hypotheses:
            assert np.isfinite(hypothesis.score)
            assert np.isfinite(hypothesis.log_probs).all()
            assert np.isfinite(hypothesis.alignment).all()


def test_the_names_of_special_tokens_are_words_like_others(ask):
    """Row 21 of the faults: read, and said, and neither begins nor ends anything."""
    typed = "</s> a <pad> <s> <unk> b"
    answer = ask(typed)[0]
    assert answer.source_tokens == (*typed.split(), "</s>")
    assert answer.hypotheses[0].alignment.shape[1] == 7
    assert ask(ConstrainedLine("a", prefix=typed))[0].text == typed
    held = ask(ConstrainedLine("a", phrases=("</s> <pad>",)))[0]
    assert all("</s> <pad>" in one.text for one in held.hypotheses)


def test_both_spellings_of_a_letter_are_one_word_where_the_tokenizer_says_so(ask):
    """Row 24 of the faults; what was typed comes back as it was typed."""
    composed, apart = "é a", unicodedata.normalize("NFD", "é a")
    assert composed != apart
    answers = [ask(line)[0] for line in (composed, apart)]
    assert [one.source for one in answers] == [composed, apart]
    same(*answers)
    assert "é b" in ask(ConstrainedLine("a", phrases=(unicodedata.normalize("NFD", "é b"),)))[0].text


def test_what_never_ends_is_cut_off_and_flagged(ask):
    """Row 34 of the faults: here a prefix leaves no room for the end."""
    for hypothesis in ask(ConstrainedLine("a b", prefix="a b " * 4))[0].hypotheses:
        assert hypothesis.truncated
        assert hypothesis.text == "a b a b a b"


def test_an_unknown_token_of_a_cut_line_takes_a_word_that_was_read():
    """The column of the end token, which stands where the first word was not read, is no word's."""
    words = Words(["a"])
    result = SearchResult(
        tokens=jnp.array([[[UNK, UNK, EOS]]], jnp.int32),
        log_probs=jnp.zeros((1, 1, 3), jnp.float32),
        alignment=jnp.array([[[[0.1, 0.3, 0.6], [0.3, 0.1, 0.6], [0, 0, 1]]]], jnp.float32),
        scores=jnp.zeros((1, 1), jnp.float32),
        truncated=jnp.zeros((1, 1), bool),
        log_weights=jnp.zeros((1, 1), jnp.float32),
    )
    config = SearchConfig(max_source=3, replace_unknown=True)
    (answer,) = Translator(lambda *_, **__: result, PairTokenizer(words, words), config).translate({}, ["p q r s"])
    assert (answer.text, answer.unread) == ("q p", 2)
