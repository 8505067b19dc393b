"""Subword tokenizers by sentencepiece: byte-pair encoding and the unigram language model."""

import base64
import contextlib
import ctypes
import functools
import io
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import ClassVar

import numpy as np

from s2s_jax.shapes import SPECIAL, UNK
from s2s_jax.text.normalization import normalize, origins
from s2s_jax.text.ragged import Rows, with_eos
from s2s_jax.text.segmentation import Segmenter
from s2s_jax.text.symbol_tokenizers import Span, replace_unknown

# sentencepiece writes a space as U+2581 and skips training lines with U+2585: both are escaped, as is the escape sign
ESCAPE = "\ue000"
ESCAPED = {"\u2581": ESCAPE + "m", "\u2585": ESCAPE + "u", ESCAPE: ESCAPE + "e"}
NEEDS_ESCAPE = re.compile("|".join(ESCAPED))
SPACE = "\u2581"  # in pieces
KNOWN_WORDS = 1 << 17  # that are kept with their ids, about 30 MB, at the start of lines and elsewhere
KNOWN_LETTERS = 50  # of the longest of them
LINES_AT_ONCE = 10_000  # that are tokenized while pieces are counted
TRAINING_LINE = 4000  # characters; the unigram trainer needs minutes for one line of a megabyte


class Subwords:
    """Byte-pair pieces, with single bytes as a fallback: no character is unknown, and decoding restores the line.

    Sennrich et al. 2016, arXiv:1508.07909; Kudo 2018, arXiv:1804.10959; Kudo & Richardson 2018, arXiv:1808.06226.
    """

    type: ClassVar[str] = "bpe"
    redrawn_by: str = "dropout"  # the setting with which `redraw` is used

    def __init__(self, model: bytes, unicode: str = "none"):
        import sentencepiece  # only subwords need it

        self.unicode = unicode
        self._model = model
        self._pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
        special = tuple(map(self._pieces.id_to_piece, range(min(len(SPECIAL), self.size))))
        if special != SPECIAL:
            raise ValueError(f"its first pieces are {' '.join(special)}, {' '.join(SPECIAL)} are wanted")
        # byte pairs of different words are never joined where no piece goes on after a space; a unigram model compares
        # sums over whole lines, whose rounding might decide otherwise in a word alone
        pieces = self.symbols(range(self.size))
        independent = self.type == "bpe" and not any(SPACE in piece[1:] for piece in pieces)
        self._words = (_Words(self._pieces.encode, ""), _Words(self._pieces.encode, " ")) if independent else None

    @classmethod
    def train(cls, lines: Iterable[str], *, size: int, unicode: str = "none", min_frequency: int = 1):
        """Pieces learned from the lines.

        Args:
            min_frequency: pieces that are rarer in the lines are split into smaller ones, down to single characters.

        Raises:
            ValueError: the lines are too few for a vocabulary of this size.
        """
        import sentencepiece  # only subwords need it

        file = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(_training_lines(escape(normalize(line, unicode)) for line in lines)),
                model_writer=file,
                model_type=cls.type,
                vocab_size=size,
                hard_vocab_limit=False,
                character_coverage=1.0,
                byte_fallback=True,
                normalization_rule_name="identity",
                add_dummy_prefix=False,
                remove_extra_whitespaces=False,
                max_sentence_length=8 * TRAINING_LINE,  # bytes
                num_threads=1,
                pad_id=0,
                bos_id=1,
                eos_id=2,
                unk_id=3,
                minloglevel=2,
            )
        except (RuntimeError, OSError) as error:
            reason = " ".join(str(error).split()).rsplit("] ", 1)[-1]
            raise ValueError(f"sentencepiece: {reason}") from None
        finally:
            return_memory()
        learned = cls(file.getvalue(), unicode)
        return cls(learned._without_rare(lines, min_frequency), unicode) if min_frequency > 1 else learned

    def _without_rare(self, lines: Iterable[str], min_frequency: int) -> bytes:
        """The model with rare pieces marked as unused, as by the option vocabulary_threshold of `spm_encode`."""
        from sentencepiece.sentencepiece_model_pb2 import ModelProto  # type: ignore[attr-defined]

        counts = np.zeros(self.size, np.int64)
        for some in batched(lines, LINES_AT_ONCE):
            counts += np.bincount(self.encode_all(some).flat, minlength=self.size)
        model = ModelProto()
        model.ParseFromString(self._model)
        kinds = ModelProto.SentencePiece
        for piece, count in zip(model.pieces, counts.tolist(), strict=True):
            if piece.type == kinds.NORMAL and count < min_frequency and len(piece.piece) > 1:
                piece.type = kinds.UNUSED
        return model.SerializeToString(deterministic=True)

    @property
    def size(self) -> int:
        """The number of ids, including the special ones."""
        return self._pieces.get_piece_size()

    def encode(self, line: str) -> list[int]:
        """The ids of the pieces of a line."""
        return self._pieces.encode(escape(normalize(line, self.unicode)))

    def encode_all(self, lines: Sequence[str]) -> Rows:
        """The ids of each line, ended by EOS."""
        escaped = [escape(normalize(line, self.unicode)) for line in lines]
        if self._words is not None:
            return with_eos(_encode_words(line, *self._words) for line in escaped)
        # threads would wait for each other: most of the time goes into making arrays
        ids = self._pieces.encode(escaped, add_eos=True, return_type="numpy", num_threads=1)
        return Rows(np.concatenate([np.empty(0, np.int32), *ids]), np.array([*map(len, ids)], np.int32))

    def redraw(self, ids: Sequence[int], *, strength: float, seed: int) -> list[int]:
        """The ids of a random segmentation of the text of these, a function of the seed.

        Args:
            strength: the probability that a possible merge is dropped (bpe), or the power to which the probability of a
                segmentation is taken (unigram).
        """
        return self._ids(self._segmenter.redraw(self._numbers(ids), strength=strength, seed=seed))

    @functools.cached_property
    def _segmenter(self) -> Segmenter:
        return Segmenter(self._model)

    def _numbers(self, ids: Sequence[int]) -> list[int]:
        """The numbers of the pieces in the model."""
        return [*ids]

    def _ids(self, numbers: Sequence[int]) -> list[int]:
        """The ids of the pieces with these numbers in the model."""
        return [*numbers]

    def tokenize(self, line: str) -> list[str]:
        """The pieces of a line."""
        return self.symbols(self.encode(line))

    def decode(self, ids: Sequence[int], unknown: Sequence[str] = ()) -> str:
        """The line that ids stand for, as it was before it was escaped."""
        parts, run = [], []
        for number in [*ids, UNK]:
            if number == UNK:
                parts.append(self._text(run, first=not parts) if run else "")
                run = []
            elif number > UNK:
                run.append(int(number))
        between = replace_unknown([SPECIAL[UNK]] * (len(parts) - 1), [UNK] * (len(parts) - 1), unknown)
        return "".join(itertools.chain.from_iterable(zip(parts, [*between, ""], strict=True)))

    def _text(self, ids: Sequence[int], *, first: bool) -> str:
        """The text of pieces alone, which are the first of a line or follow an unknown one."""
        return unescape(self._pieces.decode(ids))

    def spans(self, line: str) -> list[Span]:
        """The characters that each piece covers; the bytes of one character each cover all of it."""
        letter_spans = [
            (first, last) for letter, first, last in origins(line, self.unicode) for _ in ESCAPED.get(letter, letter)
        ]
        pieces = self._pieces.encode(escape(normalize(line, self.unicode)), return_type="offset_mapping")
        # a byte's offsets may be empty, (n, n): it stands for a part of letter n
        return [(letter_spans[begin][0], letter_spans[max(begin, end - 1)][1]) for begin, end in pieces["offsets"]]

    def symbols(self, ids: Sequence[int]) -> list[str]:
        """The piece of each id; U+2581 at its start is the space that sentencepiece keeps in the piece."""
        return [SPECIAL[number] if number <= UNK else self._pieces.id_to_piece(int(number)) for number in ids]

    def state(self) -> dict:
        """Type, normalization form and sentencepiece model, as JSON."""
        return {"type": self.type, "unicode": self.unicode, "model": base64.b64encode(self._model).decode()}

    @classmethod
    def from_state(cls, state: dict):
        """The tokenizer with this `state`."""
        return cls(base64.b64decode(state["model"], validate=True), state["unicode"])


class _Words(dict[str, list[int]]):
    """The ids of words that were seen, which takes a fifth of the time of whole lines.

    Args:
        before: what stands before each of the words: a space, or nothing.
    """

    def __init__(self, encode: Callable[[str], list[int]], before: str):
        super().__init__()
        self._encode, self._before = encode, before

    def __missing__(self, word: str) -> list[int]:
        ids = self._encode(self._before + word)
        if len(word) <= KNOWN_LETTERS:
            if len(self) == KNOWN_WORDS:
                self.clear()
            self[word] = ids
        return ids


def _encode_words(line: str, first: _Words, others: _Words) -> list[int]:
    """The ids of an escaped line, word by word."""
    start, *rest = line.split(" ")
    ids = [*first[start]]
    for word in rest:
        ids += others[word]
    return ids


class Unigrams(Subwords):
    """Pieces of the unigram language model."""

    type: ClassVar[str] = "unigram"
    redrawn_by: str = "sampling_alpha"


def return_memory() -> None:
    """Give the memory that sentencepiece has freed back to the system: 200 MB per million lines, which glibc keeps."""
    with contextlib.suppress(OSError, AttributeError, TypeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def escape(line: str) -> str:
    """The line with an escape sequence for each character that has a meaning in sentencepiece."""
    if not NEEDS_ESCAPE.search(line):
        return line
    return "".join(ESCAPED.get(letter, letter) for letter in line)


def unescape(line: str) -> str:
    """The line that `escape` was given."""
    for letter, sequence in ESCAPED.items():  # the escape sign last
        line = line.replace(sequence, letter)
    return line


def batched(lines: Iterable[str], size: int) -> Iterator[list[str]]:
    """The lines, so many at a time."""
    remaining = iter(lines)
    while some := list(itertools.islice(remaining, size)):
        yield some


def _training_lines(lines: Iterable[str]) -> Iterator[str]:
    """The lines, each cut into parts that the trainer takes."""
    return (line[start : start + TRAINING_LINE] for line in lines for start in range(0, len(line), TRAINING_LINE))
