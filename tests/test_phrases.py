"""A phrase is a sequence of words, whatever pieces its words have: regular expressions over the text are the oracle."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from s2s_jax.decode.beam.phrases import phrases_of
from s2s_jax.decode.lexical_constraints import ConstrainedLine, continues_word, phrase_tokens
from s2s_jax.decode.logits_rules import NO_RULES
from s2s_jax.decode.search import SearchConfig, compiled_search
from s2s_jax.decode.translate import Translator
from s2s_jax.model.seq2seq import build
from s2s_jax.shapes import EOS, PAD, SPECIAL
from s2s_jax.text.copy_vocabulary import PairTokenizer
from s2s_jax.text.subwords import Subwords
from s2s_jax.text.tokenizers import TOKENIZERS, Characters, Words

PIECES = ["▁a", "a", "▁b", "b", "(", "東"]  # every text of these letters has one segmentation


class Letters(Subwords):
    """A subword tokenizer of the pieces above, without a model."""

    def __init__(self):
        self.unicode = "none"

    @property
    def size(self) -> int:
        return len(SPECIAL) + len(PIECES)

    def encode(self, line: str) -> list[int]:
        pieces = re.findall("▁[ab]|.", line.replace(" ", "▁"))
        return [len(SPECIAL) + PIECES.index(piece) for piece in pieces]

    def symbols(self, ids) -> list[str]:
        return [SPECIAL[number] if number < len(SPECIAL) else PIECES[number - len(SPECIAL)] for number in ids]


def text_of(ids) -> str:
    return "".join(Letters().symbols(ids)).replace("▁", " ")


def holds(text: str, phrase: str) -> bool:
    """Whether a text has the words of a phrase; only a letter beside a letter makes a longer word."""
    before = r"(?<![ab])" if phrase[0] in "ab" else ""
    after = r"(?![ab])" if phrase[-1] in "ab" else ""
    return re.search(before + re.escape(phrase) + after, text) is not None


SETS = (("a",), ("ab", "a b"), ("a a b", "b a"), ("(a", "東"), ("b東", "a(b"), ("a b", "b ab"), ("東a", "aa"))


@pytest.mark.parametrize("wanted", SETS, ids=str)
def test_phrases_are_held_where_their_words_are(wanted):
    """In thousands of random texts of 6 pieces; what is missing is no more than what completes them."""
    pair = PairTokenizer(Letters(), Letters())
    given = phrase_tokens([ConstrainedLine("", phrases=wanted)], pair, 1, NO_RULES)
    assert given is not None
    phrases = jax.jit(phrases_of)(given)
    tokens = np.random.default_rng(0).integers(len(SPECIAL), Letters().size, (4000, 6))
    begun = phrases.nothing((1, len(tokens)))
    after = jax.jit(phrases.after)
    for time in range(tokens.shape[1]):
        begun = after(begun, jnp.array(tokens[None, :, time], jnp.int32))
    ended = after(begun, jnp.full((1, len(tokens)), EOS, jnp.int32))
    unmet = np.asarray(jax.jit(phrases.unmet)(ended))[0].any(-1)
    expected = np.array([all(holds(text_of(row), phrase) for phrase in wanted) for row in tokens])
    assert 0 < expected.sum() < 4000
    for row in np.flatnonzero(unmet == expected):
        raise AssertionError((text_of(tokens[row]), wanted, expected[row]))
    assert ((np.asarray(jax.jit(phrases.missing)(begun))[0] == 0) == expected).all()


@pytest.mark.parametrize("wanted", SETS, ids=str)
def test_following_tokens_complete_the_phrases_in_as_many_steps_as_are_missing(wanted):
    pair = PairTokenizer(Letters(), Letters())
    phrases = jax.jit(phrases_of)(phrase_tokens([ConstrainedLine("", phrases=wanted)], pair, 1, NO_RULES))  # type: ignore[arg-type]
    tokens = np.random.default_rng(1).integers(len(SPECIAL), Letters().size, (200, 3))
    after, missing_of, following = jax.jit(phrases.after), jax.jit(phrases.missing), jax.jit(phrases.following)
    begun = phrases.nothing((1, len(tokens)))
    for time in range(tokens.shape[1]):
        begun = after(begun, jnp.array(tokens[None, :, time], jnp.int32))
    missing = np.asarray(missing_of(begun))[0]
    for _ in range(12):
        choices = following(begun)
        left = np.stack([missing_of(after(begun, choices[..., place]))[0] for place in range(choices.shape[-1])])
        assert (left.min(0) <= np.maximum(missing - 1, 0)).all()
        place, missing = left.argmin(0), left.min(0)
        begun = after(begun, choices[:, jnp.arange(len(tokens)), place])
    assert not missing.any()


def test_no_line_begins_with_the_space_before_a_phrase():
    """Later a phrase may follow a space, and a bracket without one; `東` needs neither."""
    line = ConstrainedLine("", phrases=("a", "東b"))
    phrases = jax.jit(phrases_of)(phrase_tokens([line], PairTokenizer(Letters(), Letters()), 1, NO_RULES))  # type: ignore[arg-type]
    offered = []
    for begin in ("", "b", "("):
        begun = phrases.nothing((1, 1))
        for token in Letters().encode(begin):
            begun = phrases.after(begun, jnp.array([[token]], jnp.int32))
        tokens = [token for token in phrases.following(begun)[0, 0].tolist() if token != PAD]
        offered.append(set(Letters().symbols(tokens)))
    assert offered == [{"a", "東"}, {"▁a", "東"}, {"▁a", "a", "東"}]


TEXT = ["the red house and the man", "the houses of men", "a warehouse", "the man in the red house", "man", "red"]


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_a_translation_holds_whole_words(kind):
    """With pieces, a phrase was glued to the word before it: manhouse."""
    tokenizer = TOKENIZERS[kind].train(TEXT * 20, size=300, unicode="none")
    model = build(tiny.experiment().model, source_vocabulary=tokenizer.size, target_vocabulary=tokenizer.size)
    search = SearchConfig(beam=3, max_length=12)
    translator = Translator(compiled_search(model, search, 12), PairTokenizer(tokenizer, tokenizer), search)
    params = model.init(jax.random.key(0))
    wanted = [("house",), ("red house", "man"), (" house ", "house"), ("men",)]
    lines = [ConstrainedLine("man", prefix, phrases) for prefix in ("", "the man", "(", "ho") for phrases in wanted]
    for line, answer in zip(lines, translator.translate(params, lines), strict=True):
        for hypothesis in answer.hypotheses:
            for phrase in line.phrases:
                assert re.search(rf"\b{phrase.strip()}\b", hypothesis.text), (line, hypothesis.text)
            assert not hypothesis.truncated


def test_other_tokenizers_have_no_pieces_of_words():
    """A word is a token, and letters may stand inside a word."""
    for tokenizer, text in ((Words(["a", "b"]), "a b"), (Characters(["a", "b"]), "ab")):
        line = ConstrainedLine("", phrases=(text, "a"))
        given = phrase_tokens([line], PairTokenizer(tokenizer, tokenizer), 1, NO_RULES)
        assert given is not None
        assert given.forms[0, 0].tolist() == [[4, 5]]  # the other one is contained in it
        assert not given.whole.any()


def test_letters_of_scripts_without_spaces_are_words():
    assert [continues_word(letter) for letter in "aé1_\u0301а"] == [True] * 6
    assert [continues_word(letter) for letter in " (-'東のไ。"] == [False] * 8
