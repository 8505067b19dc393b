"""Tokenizers from files of other programs: sentencepiece models, and byte-pair codes of subword-nmt.

Both are applied exactly as their programs apply them; only the ids are ours, the four special ones first.
"""

import collections
import itertools
import random
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from s2s_jax.shapes import EOS, SPECIAL, UNK
from s2s_jax.text.normalization import normalize, origins
from s2s_jax.text.ragged import Rows
from s2s_jax.text.subwords import KNOWN_WORDS, SPACE, Subwords
from s2s_jax.text.symbol_tokenizers import Span, Symbols, Words, check_symbols, most_frequent

JOINER = "@@"  # at the end of a token that the word goes on after
END = "</w>"  # in codes: the end of a word
Merge = tuple[str, str]


def file_type(file: str) -> Literal["", "run", "sentencepiece", "subword-nmt"]:
    """What a tokenizer's file is by its name: one of a run (.json), a sentencepiece model (.model), or BPE codes."""
    if not file:
        return ""
    return "run" if file.endswith(".json") else "sentencepiece" if file.endswith(".model") else "subword-nmt"


class GivenPieces(Subwords):
    """The pieces of a sentencepiece model of any kind, with the normalization that is part of the model.

    Its control pieces, which no text gives, are left out; its unknown piece is UNK.
    """

    type: ClassVar[str] = "sentencepiece"

    def __init__(self, model: bytes, unicode: str = "none"):
        import sentencepiece

        self.unicode, self._model, self._words = unicode, model, None
        self._pieces = pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
        ordinary = [n for n in range(pieces.get_piece_size()) if not (pieces.is_control(n) or pieces.is_unknown(n))]
        self._theirs = [pieces.unk_id()] * len(SPECIAL) + ordinary  # by our id
        self._ours = np.full(pieces.get_piece_size(), UNK, np.int32)  # by their id
        self._ours[ordinary] = np.arange(len(SPECIAL), len(self._theirs))
        self.redrawn_by = self._segmenter.setting

    @property
    def size(self) -> int:
        """The number of ids, including the special ones."""
        return len(self._theirs)

    def encode(self, line: str) -> list[int]:
        """The ids of the pieces of a line; UNK where the model has no piece."""
        return self._ids(self._pieces.encode(normalize(line, self.unicode)))

    def encode_all(self, lines: Sequence[str]) -> Rows:
        """The ids of each line, ended by EOS."""
        ids = [self.encode(line) for line in lines]
        flat = [number for row in ids for number in (*row, EOS)]
        return Rows(np.array(flat, np.int32), np.array([len(row) + 1 for row in ids], np.int32))

    def spans(self, line: str) -> list[Span]:
        """The characters that each piece covers."""
        letters = [(first, last) for _, first, last in origins(line, self.unicode)]
        offsets = self._pieces.encode(normalize(line, self.unicode), return_type="offset_mapping")["offsets"]
        return [
            (letters[min(begin, len(letters) - 1)][0], letters[min(max(begin, end - 1), len(letters) - 1)][1])
            for begin, end in offsets
        ]

    def symbols(self, ids: Sequence[int]) -> list[str]:
        """The piece of each id."""
        return [
            SPECIAL[number] if number <= UNK else self._pieces.id_to_piece(self._theirs[int(number)]) for number in ids
        ]

    def _text(self, ids: Sequence[int], *, first: bool) -> str:
        text = self._pieces.decode(self._numbers(ids))
        begins_word = self.symbols(ids[:1])[0].startswith(SPACE)
        # sentencepiece leaves out the space before the first word of what it decodes
        return f" {text}" if begins_word and not first and not text.startswith(" ") else text

    def _numbers(self, ids: Sequence[int]) -> list[int]:
        return [self._theirs[number] for number in ids]

    def _ids(self, numbers: Sequence[int]) -> list[int]:
        return self._ours[[*numbers]].tolist()


class MergeCodes(Symbols):
    """Words that are split by the merges that `subword-nmt learn-bpe` has learned. Sennrich et al. 2016, section 3.2.

    Args:
        symbols: the tokens with an id, each with `@@` at its end if the word goes on.
        merges: the first one first.
        joins_end: whether the last letter of a word is one symbol with the mark of its end (codes of version 0.2).
        undoes: whether merges that give a token that is not among the symbols are undone.
    """

    type: ClassVar[str] = "subword-nmt"
    redrawn_by: str = "dropout"
    separator = " "

    def __init__(
        self, symbols: Sequence[str], unicode: str = "none", *, merges: Sequence[Merge], joins_end: bool, undoes: bool
    ):
        super().__init__(symbols, unicode)
        self.merges, self.joins_end, self.undoes = [*map(tuple, merges)], joins_end, undoes
        self._ranks = {merge: rank for rank, merge in reversed([*enumerate(self.merges)])}  # the first of equal ones
        self._parts = {"".join(merge): merge for merge in self._ranks}
        self._known_words: dict[str, list[str]] = {}

    def tokenize(self, line: str) -> list[str]:
        """The tokens of a line, whether in the vocabulary or not."""
        return [token for word in Words.split(normalize(line, self.unicode)) for token in self._known(word)]

    def redraw(self, ids: Sequence[int], *, strength: float, seed: int) -> list[int]:
        """The ids of the same words, split with the probability `strength` that a possible merge is left out.

        A word keeps its tokens where it, or what is drawn, has one outside the vocabulary.
        """
        rng, redrawn, start = random.Random(seed), [], 0
        tokens = self.symbols(ids)
        for end, token in enumerate(tokens, 1):
            if token.endswith(JOINER) and end < len(tokens):
                continue
            word, old = "".join(each.removesuffix(JOINER) for each in tokens[start:end]), [*ids[start:end]]
            new = [self._ids.get(each, UNK) for each in self.split_word(word, dropout=strength, rng=rng)]
            redrawn += old if UNK in old or UNK in new else new
            start = end
        return redrawn

    def split_word(self, word: str, *, dropout: float, rng: random.Random) -> list[str]:
        """The tokens of a word, where each possible merge is left out of a round with a probability."""
        return _joined(self._pieces(word, keep=lambda: rng.random() > dropout))

    def decode(self, ids: Sequence[int], unknown: Sequence[str] = ()) -> str:
        """The line that ids stand for, its words put together."""
        return re.sub(f"{JOINER} |{JOINER}$", "", super().decode(ids, unknown))

    def spans(self, line: str) -> list[Span]:
        """The characters of the line that each token covers."""
        letters = origins(line, self.unicode)
        words = ([*group] for space, group in itertools.groupby(letters, lambda each: each[0] == " ") if not space)
        spans = []
        for word in words:
            start = 0
            for token in filter(None, self._pieces("".join(letter for letter, _, _ in word))):
                spans.append((word[start][1], word[start + len(token) - 1][2]))
                start += len(token)
        return spans

    def state(self) -> dict:
        """Everything that it consists of, as JSON."""
        merges = [" ".join(merge) for merge in self.merges]
        return {**super().state(), "merges": merges, "joins_end": self.joins_end, "undoes": self.undoes}

    @classmethod
    def from_state(cls, state: dict):
        """The tokenizer with this `state`."""
        check_symbols(state["symbols"], split=Words.split)
        merges = [(left, right) for left, right in (merge.split(" ") for merge in state["merges"])]
        options = {name: bool(state[name]) for name in ("joins_end", "undoes")}
        return cls(state["symbols"], state["unicode"], merges=merges, **options)

    def _known(self, word: str) -> list[str]:
        """The tokens of a word, kept for the next time."""
        if (tokens := self._known_words.get(word)) is None:
            if len(self._known_words) == KNOWN_WORDS:
                self._known_words.clear()
            tokens = self._known_words[word] = _joined(self._pieces(word))
        return tokens

    def _pieces(self, word: str, keep: Callable[[], bool] = lambda: True) -> list[str]:
        """The parts of a word. A merge that is possible is considered where `keep` says so, anew in each round."""
        if len(word) == 1:
            return [word]
        parts = [*word[:-1], word[-1] + END] if self.joins_end else [*word, END]
        while pairs := [pair for pair in enumerate(itertools.pairwise(parts)) if keep() and pair[1] in self._ranks]:
            best = min((pair for _, pair in pairs), key=self._ranks.__getitem__)
            parts = _merged(parts, "".join(best), [place for place, pair in pairs if pair == best])
        parts[-1] = parts[-1].removesuffix(END)
        parts = [part for part in parts if part]
        if not (self.undoes and self.vocabulary):
            return parts
        last = len(parts) - 1
        return [piece for place, part in enumerate(parts) for piece in self._split(part, final=place == last)]

    def _split(self, part: str, *, final: bool) -> Iterator[str]:
        """The part if it is in the vocabulary, else what it was merged from, as far as that is known."""
        merge = self._parts.get(part + END * final)
        if (part + JOINER * (not final)) in self._ids or merge is None:
            yield part
            return
        left, right = merge
        yield from self._split(left, final=False)
        yield from self._split(right.removesuffix(END) if final else right, final=final)


def _joined(pieces: Sequence[str]) -> list[str]:
    """The tokens of the pieces of a word; undoing merges of version 0.1 may leave nothing as the last piece."""
    return [piece + JOINER for piece in pieces[:-1]] + [piece for piece in pieces[-1:] if piece]


def _merged(parts: list[str], whole: str, places: Sequence[int]) -> list[str]:
    """The parts with a merge at each of the places that does not overlap with an earlier one."""
    merged, start = [], 0
    for place in places:
        if place >= start:
            merged += [*parts[start:place], whole]
            start = place + 2
    return merged + parts[start:]


def read_pieces(path: Path, unicode: str) -> GivenPieces:
    """The sentencepiece model in a file.

    Raises:
        ValueError: it is none.
    """
    try:
        return GivenPieces(path.read_bytes(), unicode)
    except (RuntimeError, OSError) as error:
        raise ValueError(f"{path} is no sentencepiece model: {' '.join(str(error).split())}") from None


def read_codes(path: Path) -> tuple[list[Merge], bool]:
    """The merges in a file of BPE codes, and whether it is of version 0.2.

    Raises:
        ValueError: a line is no merge.
    """
    lines = _lines(path)
    version = re.sub(r"(\.0+)*$", "", lines[0].split()[-1]) if lines and lines[0].startswith("#version:") else ""
    if version not in ("", "0.1", "0.2"):
        raise ValueError(f"{path}:1: BPE codes of version {version}, only 0.1 and 0.2 are known.")
    merges = [tuple(line.strip("\r\n ").split(" ")) for line in lines[bool(version) :]]
    for number, merge in enumerate(merges, 1 + bool(version)):
        if len(merge) != 2:
            raise ValueError(
                f"{path}:{number}: {' '.join(merge)!r} is no merge of BPE codes, which is two symbols; a tokenizer of "
                "a run ends in .json, a sentencepiece model in .model."
            )
    return merges, version == "0.2"  # type: ignore[return-value]


def read_vocabulary(path: Path, min_frequency: int) -> list[str]:
    """The tokens of a vocabulary of subword-nmt that are not rarer than that.

    Raises:
        ValueError: a line is no token with its count, or all are rarer.
    """
    tokens = {}
    for number, line in enumerate(_lines(path), 1):
        token, _, count = line.strip("\r\n ").partition(" ")
        if not token or not count.isdecimal():
            raise ValueError(f"{path}:{number}: {line!r} is no token and count of a vocabulary of subword-nmt.")
        if int(count) >= min_frequency:
            tokens[token] = None
    if not tokens:
        raise ValueError(f"{path} has no token with a count of {min_frequency} or more.")
    return [*tokens]


def learn_symbols(
    codes: MergeCodes, lines: Iterable[str], *, size: int, min_frequency: int, dropout: float
) -> list[str]:
    """The most frequent tokens that codes make of lines, and of the same lines with dropout where it is used."""
    counts: collections.Counter[str] = collections.Counter()
    rng = random.Random(0)
    for line in lines:
        counts.update(codes.tokenize(line))
        for word in Words.split(normalize(line, codes.unicode)) if dropout else ():
            counts.update(codes.split_word(word, dropout=dropout, rng=rng))
    return most_frequent(counts, size=size, min_frequency=min_frequency)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").rstrip("\n").split("\n")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8, so it holds no BPE codes or vocabulary.") from None
