"""What must a translation of one line begin with, and what must it hold?

A text is not a list of tokens: it is cut by the target's tokenizer, with the words that the line itself can lend it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from s2s_jax.decode.logits_rules import LogitsRules
from s2s_jax.shapes import PAD, UNK
from s2s_jax.text.copy_vocabulary import PairTokenizer


class ConstrainedLine(NamedTuple):
    """A line, and what its translation must keep to. A blank line's is blank, whatever is wanted."""

    line: str
    prefix: str = ""  # what it begins with
    phrases: tuple[str, ...] = ()  # what it holds somewhere, each of them, in any order

    @classmethod
    def of(cls, line: "str | ConstrainedLine") -> "ConstrainedLine":
        """The line with nothing wanted, where it is only a line."""
        return line if isinstance(line, ConstrainedLine) else cls(line)


def token_arrays(
    wanted: Sequence[ConstrainedLine], pair: PairTokenizer, rules: LogitsRules, *, rows: int
) -> dict[str, Int[np.ndarray, "B ..."]]:
    """What a search takes beside the source: `prefix` [B, P], `phrases` [B, N, L], PAD behind each; what nobody wants
    is left out.

    Args:
        rows: how many there are, those that only fill a batch up counted.

    Raises:
        ValueError: a phrase can never be said.
    """
    found = {"prefix": prefix_ids(wanted, pair, rows), "phrases": phrase_ids(wanted, pair, rows, rules)}
    return {name: ids for name, ids in found.items() if ids is not None}


def prefix_ids(wanted: Sequence[ConstrainedLine], pair: PairTokenizer, rows: int) -> Int[np.ndarray, "B P"] | None:
    """The tokens that each row begins with; None where no row has any."""
    ids = [pair.encode_target(one.prefix, one.line) for one in wanted]
    longest = max(map(len, ids))
    return _filled([[one] for one in ids], (rows, 1, rounded(longest)))[:, 0] if longest else None


def phrase_ids(
    wanted: Sequence[ConstrainedLine], pair: PairTokenizer, rows: int, rules: LogitsRules
) -> Int[np.ndarray, "B N L"] | None:
    """The tokens of each phrase of each row; None where no row has any."""
    ids = [_outermost([_sayable(phrase, one.line, pair, rules) for phrase in one.phrases]) for one in wanted]
    longest = max((len(phrase) for phrases in ids for phrase in phrases), default=0)
    return _filled(ids, (rows, rounded(max(map(len, ids))), rounded(longest))) if longest else None


def rounded(count: int) -> int:
    """The next power of two, so that few shapes occur."""
    return 1 << max(count - 1, 0).bit_length()


def _sayable(phrase: str, line: str, pair: PairTokenizer, rules: LogitsRules) -> list[int]:
    ids = pair.encode_target(phrase, line)
    if UNK in ids:
        raise ValueError(
            f"the phrase {phrase!r}, wanted for the line {line!r}, holds what the target's tokenizer does not know; "
            "leave it out, or spell it otherwise."
        )
    if banned := set(ids) & set(rules.banned):
        raise ValueError(
            f"the phrase {phrase!r}, wanted for the line {line!r}, holds id {min(banned)} of search.rules.banned; "
            "leave one of them out."
        )
    return ids


def _outermost(phrases: Sequence[Sequence[int]]) -> list[Sequence[int]]:
    """The phrases without those that stand in another one, which is met only when they are; and without empty ones."""
    kept: list[Sequence[int]] = []
    for phrase in sorted(phrases, key=len, reverse=True):
        if phrase and not any(
            other[at : at + len(phrase)] == phrase for other in kept for at in range(len(other) - len(phrase) + 1)
        ):
            kept.append(phrase)
    return kept


def _filled(ids: Sequence[Sequence[Sequence[int]]], shape: tuple[int, int, int]) -> np.ndarray:
    array = np.full(shape, PAD, np.int32)
    for row, phrases in enumerate(ids):
        for number, phrase in enumerate(phrases):
            array[row, number, : len(phrase)] = phrase
    return array
