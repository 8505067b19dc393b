"""How does a line become ids, and ids a line again?

A tokenizer never looks up the four special tokens in text: someone who types `</s>` gets the characters he typed.
Character and subword tokenizers give back every line they have symbols for, exactly.
"""

import base64
import collections
import dataclasses
import hashlib
import io
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int

from s2s_jax.shapes import EOS, PAD, SPECIAL, UNK
from s2s_jax.text.normalization import FORMS, normalize, origins
from s2s_jax.validation import at_least, check_fields, one_of

FORMAT = 1
Span = tuple[int, int]  # first code point, and one past the last


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """How one side of the data is cut into tokens."""

    type: str = "bpe"
    """char, word (cut at spaces), bpe or unigram (sentencepiece)."""
    size: int = 8000
    """Most tokens in the vocabulary, the four special ones counted; char and word keep the most frequent."""
    unicode: str = "none"
    """Unicode normalization before all else: none, NFC, NFD, NFKC or NFKD."""
    file: str = ""
    """A tokenizer of another run, such as RUN/target.tokenizer.json, to be taken as it is; empty to learn one."""

    def __post_init__(self):
        check_fields(self, "tokenizer")
        one_of("tokenizer.type", self.type, TOKENIZERS)
        one_of("tokenizer.unicode", self.unicode, FORMS)
        at_least("tokenizer.size", self.size, len(SPECIAL) + 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenizersConfig:
    """How both sides are cut; the vocabularies are learned from the training split alone."""

    source: TokenizerConfig = dataclasses.field(default_factory=TokenizerConfig)
    """The side that is read."""
    target: TokenizerConfig = dataclasses.field(default_factory=TokenizerConfig)
    """The side that is written."""

    def __post_init__(self):
        check_fields(self, "tokenizer")


@runtime_checkable
class Tokenizer(Protocol):
    """What every tokenizer can do."""

    type: ClassVar[str]

    @property
    def size(self) -> int:
        """How many ids there are, the special ones counted."""
        ...

    def encode(self, line: str) -> list[int]:
        """The ids of a line, without BOS and EOS."""
        ...

    def decode(self, ids: Sequence[int], unknown: Sequence[str] = ()) -> str:
        """The line that ids stand for: for UNK the next of `unknown`, else `<unk>`; nothing for other special ids."""
        ...

    def written(self, line: str) -> list[str]:
        """What each id of `encode` was looked up by: two tokens of one text are one token."""
        ...

    def spans(self, line: str) -> list[Span]:
        """Which characters of the line each id of `encode` stands for."""
        ...

    def symbols(self, ids: Sequence[int]) -> list[str]:
        """How each id is shown to a person."""
        ...

    def state(self) -> dict:
        """All there is to know, as JSON."""
        ...


class Symbols:
    """A fixed list of symbols; what `cut` makes of a line is looked up one by one."""

    type: ClassVar[str]
    joint: ClassVar[str]

    def __init__(self, symbols: Sequence[str], unicode: str = "none"):
        self.table = list(symbols)
        self.unicode = unicode
        self._ids = {symbol: number for number, symbol in enumerate(self.table, len(SPECIAL))}

    @classmethod
    def train(cls, lines: Iterable[str], config: TokenizerConfig):
        """The most frequent symbols of the lines; ties in code-point order."""
        counts = collections.Counter(symbol for line in lines for symbol in cls.cut(normalize(line, config.unicode)))
        ranked = sorted(counts, key=lambda symbol: (-counts[symbol], symbol))
        return cls(ranked[: config.size - len(SPECIAL)], config.unicode)

    @staticmethod
    def cut(line: str) -> list[str]:
        """The symbols of a line."""
        raise NotImplementedError

    @property
    def size(self) -> int:
        """How many ids there are, the special ones counted."""
        return len(SPECIAL) + len(self.table)

    def encode(self, line: str) -> list[int]:
        """The ids of a line; UNK for a symbol that training never saw."""
        return [self._ids.get(symbol, UNK) for symbol in self.written(line)]

    def written(self, line: str) -> list[str]:
        """The symbols of a line, known or not."""
        return self.cut(normalize(line, self.unicode))

    def decode(self, ids: Sequence[int], unknown: Sequence[str] = ()) -> str:
        """The line that ids stand for."""
        said = [number for number in ids if number >= UNK]
        return self.joint.join(filled_in(self.symbols(said), said, unknown))

    def symbols(self, ids: Sequence[int]) -> list[str]:
        """How each id is shown to a person."""
        return [SPECIAL[number] if number <= UNK else self.table[number - len(SPECIAL)] for number in ids]

    def state(self) -> dict:
        """All there is to know, as JSON."""
        return {"kind": self.type, "unicode": self.unicode, "symbols": self.table}

    @classmethod
    def from_state(cls, state: dict):
        """The tokenizer that `state` described.

        Raises:
            ValueError: an entry of the vocabulary is empty, no symbol, or there twice.
        """
        if not isinstance(state["symbols"], list):
            raise ValueError(f"its symbols are a {type(state['symbols']).__name__}, a list is wanted")
        check_symbols(state["symbols"], cut=cls.cut)
        return cls(state["symbols"], state["unicode"])


class Characters(Symbols):
    """One token a code point."""

    type = "char"
    joint = ""

    @staticmethod
    def cut(line: str) -> list[str]:
        """All code points."""
        return list(line)

    def spans(self, line: str) -> list[Span]:
        """One code point each."""
        return [(first, last) for _, first, last in origins(line, self.unicode)]


class Words(Symbols):
    """One token a word; words stand between ASCII spaces, and every other character belongs to a word."""

    type = "word"
    joint = " "

    @staticmethod
    def cut(line: str) -> list[str]:
        """What stands between ASCII spaces."""
        return [word for word in line.split(" ") if word]

    def spans(self, line: str) -> list[Span]:
        """Where each word stands."""
        spans, fresh = [], True
        for letter, first, last in origins(line, self.unicode):
            if letter != " ":
                spans.append((first, last) if fresh else (spans.pop()[0], last))
            fresh = letter == " "
        return spans


# sentencepiece writes a space as U+2581 and learns nothing from a line with U+2585: both are escaped, as is the escape
ESCAPE = "\ue000"
ESCAPED = {"\u2581": ESCAPE + "m", "\u2585": ESCAPE + "u", ESCAPE: ESCAPE + "e"}
LEARNED_AT_ONCE = 4000  # characters; the unigram trainer needs minutes for one line of a megabyte


class Subwords:
    """Byte-pair or unigram pieces by sentencepiece, with bytes to fall back on: nothing is unknown, nothing is lost.

    Sennrich et al. 2016, arXiv:1508.07909; Kudo 2018, arXiv:1804.10959; Kudo & Richardson 2018, arXiv:1808.06226.
    """

    type = "bpe"

    def __init__(self, model: bytes, unicode: str = "none"):
        import sentencepiece  # only subwords need it

        self.unicode = unicode
        self._model = model
        self._pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
        special = tuple(map(self._pieces.id_to_piece, range(min(len(SPECIAL), self.size))))
        if special != SPECIAL:
            raise ValueError(f"its first pieces are {' '.join(special)}, {' '.join(SPECIAL)} are wanted")

    @classmethod
    def train(cls, lines: Iterable[str], config: TokenizerConfig):
        """Pieces learned from the lines.

        Raises:
            ValueError: the lines are too few for a vocabulary of this size.
        """
        import sentencepiece  # only subwords need it

        file = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(_parts(escaped(normalize(line, config.unicode)) for line in lines)),
                model_writer=file,
                model_type=cls.type,
                vocab_size=config.size,
                hard_vocab_limit=False,
                character_coverage=1.0,
                byte_fallback=True,
                normalization_rule_name="identity",
                add_dummy_prefix=False,
                remove_extra_whitespaces=False,
                max_sentence_length=8 * LEARNED_AT_ONCE,  # bytes
                num_threads=1,
                pad_id=0,
                bos_id=1,
                eos_id=2,
                unk_id=3,
                minloglevel=2,
            )
        except (RuntimeError, OSError) as error:
            reason = " ".join(str(error).split()).rsplit("] ", 1)[-1]
            raise ValueError(
                f"tokenizer.size={config.size} does not fit this data for type={cls.type!r} (sentencepiece: {reason}); "
                "choose another size, or type='char'."
            ) from None
        return cls(file.getvalue(), config.unicode)

    @property
    def size(self) -> int:
        """How many ids there are, the special ones counted."""
        return self._pieces.get_piece_size()

    def encode(self, line: str) -> list[int]:
        """The ids of a line."""
        return self._pieces.encode(escaped(normalize(line, self.unicode)))

    def written(self, line: str) -> list[str]:
        """The pieces of a line."""
        return self.symbols(self.encode(line))

    def decode(self, ids: Sequence[int], unknown: Sequence[str] = ()) -> str:
        """The line that ids stand for."""
        parts, run = [], []
        for number in [*ids, UNK]:
            if number == UNK:
                parts.append(restored(self._pieces.decode(run)) if run else "")
                run = []
            elif number > UNK:
                run.append(int(number))
        between = filled_in([SPECIAL[UNK]] * (len(parts) - 1), [UNK] * (len(parts) - 1), unknown)
        return "".join(itertools.chain.from_iterable(zip(parts, [*between, ""], strict=True)))

    def spans(self, line: str) -> list[Span]:
        """Which characters each piece covers; the bytes of one character each cover all of it."""
        of_letters = [
            (first, last) for letter, first, last in origins(line, self.unicode) for _ in ESCAPED.get(letter, letter)
        ]
        pieces = self._pieces.encode(escaped(normalize(line, self.unicode)), return_type="offset_mapping")
        # a byte's offsets may be empty, (n, n): it stands for a part of letter n
        return [(of_letters[begin][0], of_letters[max(begin, end - 1)][1]) for begin, end in pieces["offsets"]]

    def symbols(self, ids: Sequence[int]) -> list[str]:
        """How each id is shown: a leading low line for the space that sentencepiece keeps in the piece."""
        return [SPECIAL[number] if number <= UNK else self._pieces.id_to_piece(int(number)) for number in ids]

    def state(self) -> dict:
        """All there is to know, as JSON."""
        return {"kind": self.type, "unicode": self.unicode, "model": base64.b64encode(self._model).decode()}

    @classmethod
    def from_state(cls, state: dict):
        """The tokenizer that `state` described."""
        return cls(base64.b64decode(state["model"], validate=True), state["unicode"])


class Unigrams(Subwords):
    """The unigram language model's pieces."""

    type = "unigram"


TOKENIZERS = {"char": Characters, "word": Words, "bpe": Subwords, "unigram": Unigrams}


def train_tokenizer(lines: Iterable[str], config: TokenizerConfig) -> Tokenizer:
    """A tokenizer learned from training lines alone."""
    return TOKENIZERS[config.type].train(lines, config)


def save_tokenizer(tokenizer: Tokenizer, path: Path) -> None:
    """Write a tokenizer as JSON, at once or not at all."""
    state = {"format": FORMAT, **tokenizer.state()}
    draft = path.with_suffix(".part")
    draft.write_text(json.dumps(state, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    draft.replace(path)


def load_tokenizer(path: Path) -> Tokenizer:
    """Read a tokenizer.

    Raises:
        FileNotFoundError, ValueError: naming the file and what is wrong with it.
    """
    if not path.exists():
        raise FileNotFoundError(f"no tokenizer {path}; the run is not whole.")
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        if state["format"] > FORMAT:
            raise ValueError(f"it has format {state['format']}, this version reads {FORMAT}; use a newer s2s_jax")
        config = TokenizerConfig(type=state["kind"], unicode=state["unicode"])
        return TOKENIZERS[config.type].from_state(state)
    except KeyError as error:
        raise ValueError(f"{path} is no tokenizer: it has no {error}; restore it from a copy.") from None
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path} is no tokenizer: {str(error).rstrip('.')}; restore it from a copy.") from None


def fingerprint(tokenizer: Tokenizer) -> str:
    """SHA-256 over all that a tokenizer knows: two with one fingerprint give the same ids."""
    return hashlib.sha256(json.dumps(tokenizer.state(), sort_keys=True).encode()).hexdigest()


def ended(ids: Sequence[int] | Int[np.ndarray, " I"]) -> Int[np.ndarray, " S"]:
    """Ids with EOS behind them, as they stand in a batch."""
    return np.array([*ids, EOS], np.int32)


def until_end(ids: Sequence[int]) -> list[int]:
    """The ids before the first EOS, padding taken off."""
    ids = [int(number) for number in ids]
    ended = ids[: ids.index(EOS)] if EOS in ids else ids
    return [number for number in ended if number != PAD]


def filled_in(symbols: Sequence[str], ids: Sequence[int], unknown: Sequence[str]) -> list[str]:
    """The symbols of ids, each UNK shown as the next of `unknown` as long as there is one."""
    own = iter(unknown)
    return [next(own, symbol) if number == UNK else symbol for symbol, number in zip(symbols, ids, strict=True)]


def check_symbols(symbols: Sequence[Any], *, cut: Callable[[str], list[str]]) -> None:
    """Refuse a vocabulary that cannot have come from counting what `cut` makes of lines.

    Raises:
        ValueError: an entry is empty, is more than one symbol, or stands twice, with its number.
    """
    seen: dict[str, int] = {}
    for number, symbol in enumerate(symbols):
        if not isinstance(symbol, str) or not symbol:
            raise ValueError(f"vocabulary entry {number} is {symbol!r}, a symbol of at least one character is wanted")
        if symbol in seen:
            raise ValueError(f"vocabulary entry {number} is {symbol!r}, and so is entry {seen[symbol]}")
        if cut(symbol) != [symbol]:
            raise ValueError(f"vocabulary entry {number} is {symbol!r}, which is {len(cut(symbol))} symbols, not one")
        seen[symbol] = number


def escaped(line: str) -> str:
    """The line without the letters that mean something to sentencepiece."""
    return "".join(ESCAPED.get(letter, letter) for letter in line)


def restored(line: str) -> str:
    """What `escaped` was given."""
    for letter, written in ESCAPED.items():  # the escape sign last
        line = line.replace(written, letter)
    return line


def _parts(lines: Iterable[str]) -> Iterator[str]:
    """The lines, long ones in parts."""
    return (line[start : start + LEARNED_AT_ONCE] for line in lines for start in range(0, len(line), LEARNED_AT_ONCE))
