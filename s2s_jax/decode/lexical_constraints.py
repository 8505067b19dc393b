"""Constraints on the translation of one line: a prefix, and phrases that it must hold.

Both are given as text and encoded by the target's tokenizer, with the copy vocabulary of the line. Where that has
pieces of words, a phrase is a sequence of whole words: `house` is not in `houses`, nor in `warehouse`.
"""

import functools
import re
import unicodedata
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from s2s_jax.decode.batching import next_power_of_two
from s2s_jax.decode.beam.phrases import PhraseTokens
from s2s_jax.decode.logits_rules import LogitsRules
from s2s_jax.shapes import EOS, PAD, SPECIAL, UNK
from s2s_jax.text.copy_vocabulary import PairTokenizer
from s2s_jax.text.subwords import Subwords
from s2s_jax.text.tagged_tokenizer import untagged
from s2s_jax.text.tokenizers import Tokenizer

SPACE = "\u2581"  # at the beginning of a piece that begins a word
LEAST_PREFIX, LEAST_PHRASES, LEAST_PHRASE = 16, 4, 16  # sizes of coarse arrays: tokens, phrases, tokens
# how the names of letters begin whose words have no spaces between them
WITHOUT_SPACES = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN")


class ConstrainedLine(NamedTuple):
    """A line, constraints on its translation, and its features; a blank line's translation is blank, whatever these."""

    line: str
    prefix: str = ""  # the translation begins with it
    phrases: tuple[str, ...] = ()  # the translation holds each somewhere, in any order: whole words, if it has such
    features: tuple[str, ...] = ()  # as data.features names them

    @classmethod
    def of(cls, line: "str | tuple[str, ...] | ConstrainedLine") -> "ConstrainedLine":
        """The line itself, or one without constraints: a text, or a tuple of a text and its features."""
        if isinstance(line, ConstrainedLine):
            return line
        return cls(line) if isinstance(line, str) else cls(line[0], features=tuple(line[1:]))


InputLine = str | tuple[str, ...] | ConstrainedLine  # what is translated


def token_arrays(
    lines: Sequence[ConstrainedLine], pair: PairTokenizer, rules: LogitsRules, *, rows: int, coarse: bool = False
) -> dict[str, Any]:
    """The constraints as arguments of a search: `prefix` [B, P], PAD behind each, and `phrases`, as `PhraseTokens`.

    A constraint that no line has is left out.

    Args:
        rows: of the batch, those that only fill it up included.
        coarse: few shapes instead of little padding, as invariant batches need them.

    Raises:
        ValueError: a prefix or a phrase can never be produced.
    """
    if pair.reverses_target and any(each.prefix or any(each.phrases) for each in lines):
        raise ValueError(
            "a model that writes targets from their end (tokenizer.reverse_target=true) cannot be given a prefix or "
            "phrases; leave them out, or translate with a run of tokenizer.reverse_target=false."
        )
    arrays = {
        "prefix": prefix_ids(lines, pair, rows, coarse=coarse),
        "phrases": phrase_tokens(lines, pair, rows, rules, coarse=coarse),
    }
    return {name: ids for name, ids in arrays.items() if ids is not None}


def array_sizes(line: ConstrainedLine, pair: PairTokenizer, rules: LogitsRules) -> tuple[int, ...]:
    """The sizes of a line's coarse arrays; lines of equal ones can share an invariant batch. () for no constraint."""
    arrays = token_arrays([line], pair, rules, rows=1, coarse=True)
    prefix, phrases = arrays.get("prefix"), arrays.get("phrases")
    if prefix is None and phrases is None:
        return ()
    return (0 if prefix is None else prefix.shape[1], *(() if phrases is None else phrases.forms.shape[1:]))


def empty_arrays(sizes: tuple[int, ...], pair: PairTokenizer, *, rows: int) -> dict[str, Any]:
    """The arrays of these sizes (`array_sizes`) that constrain nothing."""
    arrays: dict[str, Any] = {}
    if sizes and sizes[0]:
        arrays["prefix"] = np.full((rows, sizes[0]), PAD, np.int32)
    if len(sizes) > 1:
        forms = np.full((rows, *sizes[1:]), PAD, np.int32)
        arrays["phrases"] = PhraseTokens(forms, np.zeros(forms.shape[:2], bool), *_borders(pair))
    return arrays


def forms_per_phrase(pair: PairTokenizer) -> int:
    """In how many ways a phrase may be written; see `PhraseTokens`."""
    return 1 if word_borders(pair.target) is None else 2


def _borders(pair: PairTokenizer) -> "WordBorders":
    borders, one = word_borders(pair.target), np.ones((1,), bool)
    return WordBorders(one, one) if borders is None else borders


def _rounded_up(count: int, least: int, coarse: bool) -> int:
    """The next power of two; where few shapes are wanted, of `least` times a power of four."""
    if not coarse:
        return next_power_of_two(count)
    while least < count:
        least *= 4
    return least


def prefix_ids(
    lines: Sequence[ConstrainedLine], pair: PairTokenizer, rows: int, *, coarse: bool = False
) -> Int[np.ndarray, "B P"] | None:
    """The tokens that each row begins with; None where no row has a prefix."""
    ids = [_encode("prefix", each.prefix, each.line, pair) for each in lines]
    longest = max(map(len, ids))
    width = _rounded_up(longest, LEAST_PREFIX, coarse)
    return _padded([[prefix] for prefix in ids], (rows, 1, width))[:, 0] if longest else None


def phrase_tokens(
    lines: Sequence[ConstrainedLine], pair: PairTokenizer, rows: int, rules: LogitsRules, *, coarse: bool = False
) -> PhraseTokens | None:
    """The tokens of the phrases of each row; None where no row has a phrase."""
    if not any(text for each in lines for text in each.phrases):
        return None
    borders = word_borders(pair.target)
    phrases = [
        _maximal([_encode_phrase(text, each.line, pair, rules, borders) for text in each.phrases if text], borders)
        for each in lines
    ]
    if not any(phrases):
        return None
    most = _rounded_up(max(map(len, phrases)), LEAST_PHRASES, coarse)
    tokens = max(len(form) for row in phrases for phrase in row for form in phrase.forms)
    longest = _rounded_up(tokens, LEAST_PHRASE, coarse)
    forms = np.full((rows, most, forms_per_phrase(pair), longest), PAD, np.int32)
    whole = np.zeros((rows, most), bool)
    for row, of_row in enumerate(phrases):
        for number, phrase in enumerate(of_row):
            whole[row, number] = phrase.whole
            for place, form in enumerate(phrase.forms):
                forms[row, number, place, : len(form)] = form
    return PhraseTokens(forms, whole, *_borders(pair))


class WordBorders(NamedTuple):
    """What the pieces of a tokenizer do at the borders of words; see `PhraseTokens`."""

    begins: Bool[np.ndarray, " V"]
    ends: Bool[np.ndarray, " V"]


@functools.lru_cache(maxsize=4)
def word_borders(tokenizer: Tokenizer) -> WordBorders | None:
    """The borders of words in the tokens of a tokenizer; None where they are no pieces of words between spaces."""
    if not isinstance(untagged(tokenizer), Subwords):
        return None
    pieces = tokenizer.symbols(range(tokenizer.size))
    if not any(piece.startswith(SPACE) for piece in pieces[len(SPECIAL) :]):
        return None
    # a single byte may be any part of a letter
    letters = [(True, True) if re.fullmatch("<0x[0-9A-F]{2}>", piece) else _in_word(piece) for piece in pieces]
    begins, ends = ~np.array(letters).T
    begins[EOS] = True
    return WordBorders(begins, ends)


def _in_word(text: str) -> tuple[bool, bool]:
    """Whether a word may go on before the text, and after it."""
    return continues_word(text[0]), continues_word(text[-1])


def continues_word(letter: str) -> bool:
    """Whether a letter belongs to the same word as a letter beside it; none do in scripts without spaces."""
    if unicodedata.name(letter, "").startswith(WITHOUT_SPACES):
        return False
    return letter.isalnum() or letter == "_" or unicodedata.category(letter).startswith("M")


class Phrase(NamedTuple):
    """The tokens of a phrase; see `PhraseTokens`."""

    forms: tuple[list[int], ...]
    whole: bool


def _encode_phrase(
    phrase: str, line: str, pair: PairTokenizer, rules: LogitsRules, borders: WordBorders | None
) -> Phrase:
    """A phrase that begins with a letter begins after a space, or without one at a border."""
    text = phrase if borders is None else phrase.rstrip(" ")
    begins, goes_on = (False, False) if borders is None or not text else _in_word(text.lstrip(" "))
    if begins:
        text = text.lstrip(" ")
    ids = _encode("phrase", " " + text if begins else text, line, pair)
    if banned := set(ids) & set(rules.banned):
        raise ValueError(
            f"the phrase {phrase!r} for the line {line!r} holds id {min(banned)} of search.rules.banned; "
            "leave one of them out."
        )
    bare = pair.encode_target(text, line) if begins else []
    can_be_bare = bare and not {UNK, *rules.banned} & set(bare)
    return Phrase((ids, bare) if can_be_bare else (ids,), goes_on)


def _encode(kind: str, text: str, line: str, pair: PairTokenizer) -> list[int]:
    ids = pair.encode_target(text, line)
    if UNK in ids:
        raise ValueError(
            f"the {kind} {text!r} for the line {line!r} holds what the target's tokenizer does not know; leave it "
            "out, or spell it differently."
        )
    return ids


def _maximal(phrases: Sequence[Phrase], borders: WordBorders | None) -> list[Phrase]:
    """The phrases without empty ones and without those contained in another one."""
    kept: list[Phrase] = []
    for phrase in sorted(phrases, key=lambda phrase: len(phrase.forms[0]), reverse=True):
        if phrase.forms[0] and not any(_contains(other, phrase, borders) for other in kept):
            kept.append(phrase)
    return kept


def _contains(outer: Phrase, inner: Phrase, borders: WordBorders | None) -> bool:
    tokens, wanted = outer.forms[0], inner.forms[0]
    for end in range(len(wanted), len(tokens) + 1):
        ends = not inner.whole or borders is None or (borders.begins[tokens[end]] if end < len(tokens) else outer.whole)
        if tokens[end - len(wanted) : end] == wanted and ends:
            return True
    return False


def _padded(ids: Sequence[Sequence[Sequence[int]]], shape: tuple[int, int, int]) -> np.ndarray:
    array = np.full(shape, PAD, np.int32)
    for row, phrases in enumerate(ids):
        for number, phrase in enumerate(phrases):
            array[row, number, : len(phrase)] = phrase
    return array
