"""Tokenizers with a fixed list of symbols: one token per character, or one per word."""

import collections
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

from s2s_jax.shapes import SPECIAL, UNK
from s2s_jax.text.normalization import normalize, origins

Span = tuple[int, int]  # first code point, and one past the last


class Symbols:
    """A vocabulary of symbols; a line is split into symbols, and the id of each is looked up."""

    type: ClassVar[str]
    separator: ClassVar[str]

    def __init__(self, symbols: Sequence[str], unicode: str = "none"):
        self.vocabulary = list(symbols)
        self.unicode = unicode
        self._ids = {symbol: number for number, symbol in enumerate(self.vocabulary, len(SPECIAL))}

    @classmethod
    def train(cls, lines: Iterable[str], *, size: int, unicode: str = "none", min_frequency: int = 1):
        """The most frequent symbols of the lines, none rarer than `min_frequency`; ties in code-point order."""
        counts = collections.Counter(symbol for line in lines for symbol in cls.split(normalize(line, unicode)))
        return cls(most_frequent(counts, size=size, min_frequency=min_frequency), unicode)

    @staticmethod
    def split(line: str) -> list[str]:
        """The symbols of a line."""
        raise NotImplementedError

    @property
    def size(self) -> int:
        """The number of ids, including the special ones."""
        return len(SPECIAL) + len(self.vocabulary)

    def encode(self, line: str) -> list[int]:
        """The ids of a line; UNK for a symbol that is not in the vocabulary."""
        return [self._ids.get(symbol, UNK) for symbol in self.tokenize(line)]

    def tokenize(self, line: str) -> list[str]:
        """The symbols of a line, whether in the vocabulary or not."""
        return self.split(normalize(line, self.unicode))

    def decode(self, ids: Sequence[int], unknown: Sequence[str] = ()) -> str:
        """The line that ids stand for, its symbols joined by the separator."""
        visible = [number for number in ids if number >= UNK]
        return self.separator.join(replace_unknown(self.symbols(visible), visible, unknown))

    def symbols(self, ids: Sequence[int]) -> list[str]:
        """The symbol of each id; special ones as in `SPECIAL`."""
        return [SPECIAL[number] if number <= UNK else self.vocabulary[number - len(SPECIAL)] for number in ids]

    def state(self) -> dict:
        """Type, normalization form and vocabulary, as JSON."""
        return {"type": self.type, "unicode": self.unicode, "symbols": self.vocabulary}

    @classmethod
    def from_state(cls, state: dict):
        """The tokenizer with this `state`.

        Raises:
            ValueError: an entry of the vocabulary is empty, is not one symbol, or occurs twice.
        """
        if not isinstance(state["symbols"], list):
            raise ValueError(f"its symbols are a {type(state['symbols']).__name__}, a list is wanted")
        check_symbols(state["symbols"], split=cls.split)
        return cls(state["symbols"], state["unicode"])


class Characters(Symbols):
    """One token per code point."""

    type: ClassVar[str] = "char"
    separator = ""

    @staticmethod
    def split(line: str) -> list[str]:
        """All code points of the line."""
        return list(line)

    def spans(self, line: str) -> list[Span]:
        """The characters of the line that each token came from: one, or several that were composed."""
        return [(first, last) for _, first, last in origins(line, self.unicode)]


class Words(Symbols):
    """One token per word; words are separated by ASCII spaces, and every other character belongs to a word."""

    type: ClassVar[str] = "word"
    separator = " "

    @staticmethod
    def split(line: str) -> list[str]:
        """The parts between ASCII spaces."""
        return [word for word in line.split(" ") if word]

    def spans(self, line: str) -> list[Span]:
        """The characters of the line that each word covers."""
        spans, starts_word = [], True
        for letter, first, last in origins(line, self.unicode):
            if letter != " ":
                spans.append((first, last) if starts_word else (spans.pop()[0], last))
            starts_word = letter == " "
        return spans


def most_frequent(counts: Mapping[str, int], *, size: int, min_frequency: int) -> list[str]:
    """The most frequent symbols that `size` ids have room for, by frequency; ties in code-point order."""
    frequent = [symbol for symbol, count in counts.items() if count >= min_frequency]
    return sorted(frequent, key=lambda symbol: (-counts[symbol], symbol))[: size - len(SPECIAL)]


def replace_unknown(symbols: Sequence[str], ids: Sequence[int], unknown: Sequence[str]) -> Iterator[str]:
    """The symbols of ids, where each UNK is replaced by the next of `unknown` as long as there is one."""
    replacements = iter(unknown)
    pairs = zip(symbols, ids, strict=True)
    return (next(replacements, symbol) if number == UNK else symbol for symbol, number in pairs)


def check_symbols(symbols: Sequence[Any], *, split: Callable[[str], list[str]]) -> None:
    """Refuse a vocabulary that cannot have come from counting the symbols of lines.

    Raises:
        ValueError: an entry is empty, is more than one symbol, or occurs twice, with its number.
    """
    seen: dict[str, int] = {}
    for number, symbol in enumerate(symbols):
        if not isinstance(symbol, str) or not symbol:
            raise ValueError(f"vocabulary entry {number} is {symbol!r}, a symbol of at least one character is wanted")
        if symbol in seen:
            raise ValueError(f"vocabulary entry {number} is {symbol!r}, and so is entry {seen[symbol]}")
        if split(symbol) != [symbol]:
            raise ValueError(f"vocabulary entry {number} is {symbol!r}, which is {len(split(symbol))} symbols, not one")
        seen[symbol] = number
