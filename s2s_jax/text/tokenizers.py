"""Tokenizers: the table of types, their configs, and how one is trained, saved and loaded.

A tokenizer never looks up the four special tokens in text: someone who types `</s>` gets the characters he typed.
Character and subword tokenizers restore exactly every line whose symbols they know.

A tokenizer of your own is a class with the members of `Tokenizer`, `train` and `from_state`, put into `TOKENIZERS`.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int

from s2s_jax.shapes import EOS, PAD, SPECIAL
from s2s_jax.text.normalization import UNICODE_FORMS, UnicodeForm
from s2s_jax.text.ragged import Rows, with_eos
from s2s_jax.text.subwords import Subwords, Unigrams
from s2s_jax.text.symbol_tokenizers import Characters, Span, Words
from s2s_jax.validation import at_least, check_fields, one_of

TOKENIZER_FORMAT = 2  # of the files: what "type" names was "kind" in 1

TokenizerType = Literal["char", "word", "bpe", "unigram"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """How one side of the data is split into tokens; checked where its side is known, in `TokenizersConfig`."""

    type: TokenizerType = "bpe"
    """char, word (separated by spaces), bpe or unigram (sentencepiece)."""
    size: int = 8000
    """Most tokens in the vocabulary, including the four special ones; char and word keep the most frequent."""
    unicode: UnicodeForm = "none"
    """Unicode normalization form that is applied first: none, NFC, NFD, NFKC or NFKD."""
    lines: int = 5_000_000
    """Most training lines, evenly spaced, that pieces (bpe, unigram) are learned from, which takes about 250 MB per
    million lines of 10 words; 0 for all."""
    file: str = ""
    """A tokenizer of another run, such as RUN/target.tokenizer.json, to be used unchanged; empty to learn one."""

    def check(self, group: str) -> None:
        """Check the settings, whose full names begin with `group`, such as `tokenizer.source`.

        Raises:
            ValueError: naming the setting, its value and what was wanted.
        """
        check_fields(self, group)
        one_of(f"{group}.type", self.type, TOKENIZERS)
        one_of(f"{group}.unicode", self.unicode, UNICODE_FORMS)
        at_least(f"{group}.size", self.size, len(SPECIAL) + 1)
        at_least(f"{group}.lines", self.lines, 0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenizersConfig:
    """How both sides are split into tokens; the vocabularies are learned from the training split alone."""

    source: TokenizerConfig = dataclasses.field(default_factory=TokenizerConfig)
    """The tokenizer of the input."""
    target: TokenizerConfig = dataclasses.field(default_factory=TokenizerConfig)
    """The tokenizer of the output."""

    def __post_init__(self):
        check_fields(self, "tokenizer")
        self.source.check("tokenizer.source")
        self.target.check("tokenizer.target")


@runtime_checkable
class Tokenizer(Protocol):
    """What every tokenizer can do."""

    type: ClassVar[str]

    @property
    def size(self) -> int:
        """The number of ids, including the special ones."""
        ...

    def encode(self, line: str) -> list[int]:
        """The ids of a line, without BOS and EOS."""
        ...

    def decode(self, ids: Sequence[int], unknown: Sequence[str] = ()) -> str:
        """The line that ids stand for: for UNK the next of `unknown`, else `<unk>`; nothing for other special ids."""
        ...

    def tokenize(self, line: str) -> list[str]:
        """The text of each id of `encode`, in the vocabulary or not: tokens with equal texts are equal tokens."""
        ...

    def spans(self, line: str) -> list[Span]:
        """The characters of the line that each id of `encode` stands for."""
        ...

    def symbols(self, ids: Sequence[int]) -> list[str]:
        """The text that each id is displayed as."""
        ...

    def state(self) -> dict:
        """Everything that the tokenizer consists of, as JSON, with its `type` and its form of `unicode`."""
        ...


class TrainableTokenizer(Tokenizer, Protocol):
    """What the classes in `TOKENIZERS` offer besides."""

    @classmethod
    def train(cls, lines: Iterable[str], *, size: int, unicode: str) -> Tokenizer:
        """A tokenizer learned from lines, of at most `size` ids; ValueError where they do not suffice."""
        ...

    @classmethod
    def from_state(cls, state: dict) -> Tokenizer:
        """The tokenizer with this `state`; ValueError or KeyError where it cannot be one."""
        ...


TOKENIZERS: dict[str, type[TrainableTokenizer]] = {
    "char": Characters,
    "word": Words,
    "bpe": Subwords,
    "unigram": Unigrams,
}


def train_tokenizer(lines: Iterable[str], config: TokenizerConfig, *, group: str = "tokenizer") -> Tokenizer:
    """A tokenizer learned from training lines alone.

    Args:
        group: the full name of the config in an experiment, such as `tokenizer.source`, for errors.

    Raises:
        ValueError: the lines are too few for a vocabulary of this size, or a setting is wrong.
    """
    config.check(group)
    try:
        return TOKENIZERS[config.type].train(lines, size=config.size, unicode=config.unicode)
    except ValueError as error:
        raise ValueError(
            f"{group}.size={config.size} does not fit this data for {group}.type={config.type} ({error}); "
            f"choose another {group}.size, or {group}.type=char."
        ) from None


def save_tokenizer(tokenizer: Tokenizer, path: Path) -> None:
    """Write a tokenizer as JSON, atomically."""
    state = {"format": TOKENIZER_FORMAT, **tokenizer.state()}
    draft = path.with_suffix(".part")
    draft.write_text(json.dumps(state, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    draft.replace(path)


def load_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer in a file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: its content is not a tokenizer, or of another format than this version reads.
    """
    if not path.exists():
        raise FileNotFoundError(f"no tokenizer {path}; the run is incomplete.")
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        version = int(state["format"])
        if version == TOKENIZER_FORMAT:
            one_of("type", state["type"], TOKENIZERS)
            one_of("unicode", state["unicode"], UNICODE_FORMS)
            return TOKENIZERS[state["type"]].from_state(state)
    except KeyError as error:
        raise ValueError(f"{path} is no tokenizer: it has no {error}; restore it from a copy.") from None
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path} is no tokenizer: {str(error).rstrip('.')}; restore it from a copy.") from None
    remedy = "use a newer s2s_jax" if version > TOKENIZER_FORMAT else "learn it anew, or use the s2s_jax that wrote it"
    raise ValueError(f"{path} has format {version}, this version of s2s_jax reads {TOKENIZER_FORMAT}; {remedy}.")


def tokenizer_fingerprint(tokenizer: Tokenizer) -> str:
    """SHA-256 of the state of a tokenizer: two with the same fingerprint give the same ids."""
    return hashlib.sha256(json.dumps(tokenizer.state(), sort_keys=True).encode()).hexdigest()


def encode_lines(tokenizer: Tokenizer, lines: Sequence[str]) -> Rows:
    """The ids of each line, ended by EOS."""
    return tokenizer.encode_all(lines) if isinstance(tokenizer, Subwords) else with_eos(map(tokenizer.encode, lines))


def append_eos(ids: Sequence[int] | Int[np.ndarray, " I"]) -> Int[np.ndarray, " S"]:
    """The ids followed by EOS, as they are in a batch."""
    return np.array([*ids, EOS], np.int32)


def until_eos(ids: Sequence[int]) -> list[int]:
    """The ids before the first EOS, without padding."""
    ids = [int(number) for number in ids]
    before = ids[: ids.index(EOS)] if EOS in ids else ids
    return [number for number in before if number != PAD]
