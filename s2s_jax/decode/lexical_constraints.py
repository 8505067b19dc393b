"""Constraints on the translation of one line: a prefix, and phrases that it must hold.

Both are given as text and encoded by the target's tokenizer, with the copy vocabulary of the line.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from s2s_jax.decode.batching import next_power_of_two
from s2s_jax.decode.logits_rules import LogitsRules
from s2s_jax.shapes import PAD, UNK
from s2s_jax.text.copy_vocabulary import PairTokenizer


class ConstrainedLine(NamedTuple):
    """A line with constraints on its translation; a blank line's translation is blank, whatever the constraints."""

    line: str
    prefix: str = ""  # the translation begins with it
    phrases: tuple[str, ...] = ()  # the translation holds each of them somewhere, in any order

    @classmethod
    def of(cls, line: "str | ConstrainedLine") -> "ConstrainedLine":
        """The line itself, or a plain line without constraints."""
        return line if isinstance(line, ConstrainedLine) else cls(line)


def token_arrays(
    lines: Sequence[ConstrainedLine], pair: PairTokenizer, rules: LogitsRules, *, rows: int
) -> dict[str, Int[np.ndarray, "B ..."]]:
    """The constraints as arguments of a search: `prefix` [B, P] and `phrases` [B, N, L], PAD behind each.

    A constraint that no line has is left out.

    Args:
        rows: of the batch, those that only fill it up included.

    Raises:
        ValueError: a prefix or a phrase can never be produced.
    """
    arrays = {"prefix": prefix_ids(lines, pair, rows), "phrases": phrase_ids(lines, pair, rows, rules)}
    return {name: ids for name, ids in arrays.items() if ids is not None}


def prefix_ids(lines: Sequence[ConstrainedLine], pair: PairTokenizer, rows: int) -> Int[np.ndarray, "B P"] | None:
    """The tokens that each row begins with; None where no row has a prefix."""
    ids = [_encode("prefix", each.prefix, each.line, pair) for each in lines]
    longest = max(map(len, ids))
    return _padded([[prefix] for prefix in ids], (rows, 1, next_power_of_two(longest)))[:, 0] if longest else None


def phrase_ids(
    lines: Sequence[ConstrainedLine], pair: PairTokenizer, rows: int, rules: LogitsRules
) -> Int[np.ndarray, "B N L"] | None:
    """The tokens of each phrase of each row; None where no row has a phrase."""
    ids = [_maximal([_encode_phrase(text, each.line, pair, rules) for text in each.phrases]) for each in lines]
    longest = max((len(phrase) for phrases in ids for phrase in phrases), default=0)
    return _padded(ids, (rows, next_power_of_two(max(map(len, ids))), next_power_of_two(longest))) if longest else None


def _encode_phrase(phrase: str, line: str, pair: PairTokenizer, rules: LogitsRules) -> list[int]:
    ids = _encode("phrase", phrase, line, pair)
    if banned := set(ids) & set(rules.banned):
        raise ValueError(
            f"the phrase {phrase!r} for the line {line!r} holds id {min(banned)} of search.rules.banned; "
            "leave one of them out."
        )
    return ids


def _encode(kind: str, text: str, line: str, pair: PairTokenizer) -> list[int]:
    ids = pair.encode_target(text, line)
    if UNK in ids:
        raise ValueError(
            f"the {kind} {text!r} for the line {line!r} holds what the target's tokenizer does not know; leave it "
            "out, or spell it differently."
        )
    return ids


def _maximal(phrases: Sequence[Sequence[int]]) -> list[Sequence[int]]:
    """The phrases without empty ones and without those contained in another one."""
    kept: list[Sequence[int]] = []
    for phrase in sorted(phrases, key=len, reverse=True):
        if phrase and not any(
            other[at : at + len(phrase)] == phrase for other in kept for at in range(len(other) - len(phrase) + 1)
        ):
            kept.append(phrase)
    return kept


def _padded(ids: Sequence[Sequence[Sequence[int]]], shape: tuple[int, int, int]) -> np.ndarray:
    array = np.full(shape, PAD, np.int32)
    for row, phrases in enumerate(ids):
        for number, phrase in enumerate(phrases):
            array[row, number, : len(phrase)] = phrase
    return array
