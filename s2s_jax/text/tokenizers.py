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
from typing import ClassVar, Literal, Protocol, cast, runtime_checkable

import numpy as np
from jaxtyping import Int

from s2s_jax.shapes import EOS, PAD, SPECIAL
from s2s_jax.text.given_tokenizers import (
    GivenPieces,
    MergeCodes,
    file_type,
    learn_symbols,
    read_codes,
    read_pieces,
    read_vocabulary,
)
from s2s_jax.text.normalization import FORMS, LOWER, UNICODE_FORMS, UnicodeForm
from s2s_jax.text.ragged import Rows, with_eos
from s2s_jax.text.subwords import Subwords, Unigrams
from s2s_jax.text.symbol_tokenizers import Characters, Span, Words
from s2s_jax.text.tagged_tokenizer import TaggedTokenizer, untagged
from s2s_jax.validation import at_least, check_fields, fraction, one_of

TOKENIZER_FORMAT = 2  # of the files: what "type" names was "kind" in 1

TokenizerType = Literal["char", "word", "bpe", "unigram"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """How one side of the data is split into tokens; checked where its side is known, in `TokenizersConfig`."""

    type: TokenizerType = "bpe"
    """char, word (separated by spaces), bpe or unigram (sentencepiece)."""
    size: int = 8000
    """Most tokens in the vocabulary, including the four special ones; char and word keep the most frequent."""
    min_frequency: int = 1
    """Fewest occurrences in the training lines: rarer characters and words are unknown, rarer pieces (bpe, unigram) are
    split into smaller ones. With a vocabulary of BPE codes it is the `--vocabulary-threshold` of subword-nmt."""
    unicode: UnicodeForm = "none"
    """Unicode normalization form that is applied first: none, NFC, NFD, NFKC or NFKD."""
    lowercase: bool = False
    """Lower-case every line after `unicode`, by the rules of Unicode for no language in particular."""
    lines: int = 5_000_000
    """Most training lines, evenly spaced, that pieces (bpe, unigram) are learned from, which takes about 250 MB per
    million lines of 10 words; 0 for all."""
    file: str = ""
    """A tokenizer to be used unchanged, which the run keeps: another run's, such as RUN/target.tokenizer.json, a
    sentencepiece model (.model), or BPE codes of subword-nmt (any other name). Empty to learn one."""
    vocabulary: str = ""
    """Vocabulary of the BPE codes in `file`, as `subword-nmt get-vocab` writes it: merges that give a token outside it
    are undone. Empty: the most frequent tokens of the training lines."""
    dropout: float = 0.0
    """Probability that a merge of byte pairs is left out in training, anew in each epoch (BPE dropout, for bpe and BPE
    codes)."""
    sampling_alpha: float = 0.0
    """In training, draw segmentations of the unigram model with probabilities to this power (subword regularization):
    0.1 to 0.5 are usual, larger is closer to the best segmentation, 0 takes that one alone."""
    word_dropout: float = 0.0
    """Probability that a token is replaced by the unknown one in training, in the source or, in the target, where the
    decoder reads it; what it is to predict stays."""

    def check(self, group: str) -> None:
        """Check the settings, whose full names begin with `group`, such as `tokenizer.source`.

        Raises:
            ValueError: naming the setting, its value and what was wanted.
        """
        check_fields(self, group)
        one_of(f"{group}.type", self.type, TOKENIZERS)
        one_of(f"{group}.unicode", self.unicode, UNICODE_FORMS)
        at_least(f"{group}.size", self.size, len(SPECIAL) + 1)
        at_least(f"{group}.min_frequency", self.min_frequency, 1)
        at_least(f"{group}.lines", self.lines, 0)
        fraction(f"{group}.dropout", self.dropout)
        at_least(f"{group}.sampling_alpha", self.sampling_alpha, 0)
        fraction(f"{group}.word_dropout", self.word_dropout)
        if not self.file:
            self.check_redrawn(group, kind=self.type, offered=getattr(TOKENIZERS[self.type], "redrawn_by", ""))
        if self.lowercase and file_type(self.file) == "run":
            raise ValueError(
                f"{group}.lowercase=true cannot change the tokenizer in {group}.file={self.file}, which lower-cases or "
                f"not as it was learned; set {group}.lowercase=false."
            )
        if self.vocabulary and file_type(self.file) != MergeCodes.type:
            raise ValueError(
                f"{group}.vocabulary={self.vocabulary} belongs to BPE codes, and {group}.file={self.file!r} has none; "
                f"name the codes in {group}.file, or leave {group}.vocabulary empty."
            )

    def check_redrawn(self, group: str, *, kind: str, offered: str) -> None:
        """Refuse a setting of random segmentations that a tokenizer of this type does not have.

        Args:
            offered: the one that it has; empty for none.

        Raises:
            ValueError: naming the setting.
        """
        for name in ("dropout", "sampling_alpha"):
            if (value := getattr(self, name)) and name != offered:
                remedy = f"set {group}.{name}=0" + (f" and {group}.{offered}=0.1" if offered else "")
                raise ValueError(
                    f"{group}.{name}={value} does not go with a tokenizer of type {kind}: dropout is for bpe, "
                    f"sampling_alpha for unigram; {remedy}."
                )

    @property
    def form(self) -> str:
        """The form of `normalize` that lines are brought into."""
        return self.unicode + LOWER * self.lowercase

    def learning(self) -> "TokenizerConfig":
        """What the tokenizer itself depends on: the settings without those of training alone."""
        return dataclasses.replace(self, dropout=0.0, sampling_alpha=0.0, word_dropout=0.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeatureTokenizerConfig(TokenizerConfig):
    """How the features that `data.features` names are split into tokens; each of them has its own vocabulary."""

    type: TokenizerType = "word"
    """char, word (separated by `separator` and by spaces), bpe or unigram (sentencepiece)."""
    separator: str = ";"
    """What separates the words of a feature besides spaces, as in V;PST;3, with type=word; empty for spaces alone."""

    def check(self, group: str) -> None:
        """Check the settings.

        Raises:
            ValueError: as that of other sides, or a setting of noise, which is for source and target.
        """
        super().check(group)
        for name in ("dropout", "sampling_alpha", "word_dropout"):
            if value := getattr(self, name):
                raise ValueError(
                    f"{group}.{name}={value} is for source and target, whose tokens are drawn anew in training; "
                    f"features are read as they are: set {group}.{name}=0."
                )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenizersConfig:
    """How both sides are split into tokens; the vocabularies are learned from the training split alone."""

    shared: bool = False
    """Learn one tokenizer from the lines of both sides, so that they have one vocabulary; `source` and `target` must
    agree. One file given to both sides makes a vocabulary shared too."""
    reverse_target: bool = False
    """Write targets from the last token to the first (right to left); everything that is put out is turned back."""
    source: TokenizerConfig = dataclasses.field(default_factory=TokenizerConfig)
    """The tokenizer of the input."""
    target: TokenizerConfig = dataclasses.field(default_factory=TokenizerConfig)
    """The tokenizer of the output."""
    features: FeatureTokenizerConfig = dataclasses.field(default_factory=FeatureTokenizerConfig)
    """The tokenizers of the features."""

    def __post_init__(self):
        check_fields(self, "tokenizer")
        self.source.check("tokenizer.source")
        self.target.check("tokenizer.target")
        self.features.check("tokenizer.features")
        sides = [dataclasses.asdict(side.learning()) for side in (self.source, self.target)]
        differing = [name for name in sides[0] if sides[0][name] != sides[1][name]]
        if self.shared and differing:
            name, values = differing[0], [side[differing[0]] for side in sides]
            raise ValueError(
                f"tokenizer.shared=true makes one tokenizer of both sides, so their settings must agree, got "
                f"tokenizer.source.{name}={values[0]} and tokenizer.target.{name}={values[1]}; give both one value, or "
                "set tokenizer.shared=false."
            )


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
        """A tokenizer learned from lines, of at most `size` ids; ValueError where they do not suffice.

        Lines are brought into a form of `normalize`, whose name is `unicode`. A type that can leave out what is rare
        also takes `min_frequency`, which is given where it is not 1.
        """
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
# types that are not learned here, but come from files of other programs
GIVEN: dict[str, type[GivenPieces] | type[MergeCodes]] = {kind.type: kind for kind in (GivenPieces, MergeCodes)}


def train_tokenizer(lines: Iterable[str], config: TokenizerConfig, *, group: str = "tokenizer") -> Tokenizer:
    """A tokenizer learned from training lines alone.

    Args:
        group: the full name of the config in an experiment, such as `tokenizer.source`, for errors.

    Raises:
        ValueError: the lines are too few for a vocabulary of this size, or a setting is wrong.
    """
    config.check(group)
    rare = {"min_frequency": config.min_frequency} if config.min_frequency > 1 else {}
    try:
        tokenizer = TOKENIZERS[config.type].train(lines, size=config.size, unicode=config.form, **rare)
    except ValueError as error:
        raise ValueError(
            f"{group}.size={config.size} does not fit this data for {group}.type={config.type} ({error}); "
            f"choose another {group}.size, or {group}.type=char."
        ) from None
    if rare and tokenizer.size == len(SPECIAL):
        raise ValueError(f"{group}.min_frequency={config.min_frequency} leaves no {config.type} known; lower it.")
    return tokenizer


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
            return tokenizer_of(state)
    except KeyError as error:
        raise ValueError(f"{path} is no tokenizer: it has no {error}; restore it from a copy.") from None
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path} is no tokenizer: {str(error).rstrip('.')}; restore it from a copy.") from None
    remedy = "use a newer s2s_jax" if version > TOKENIZER_FORMAT else "learn it anew, or use the s2s_jax that wrote it"
    raise ValueError(f"{path} has format {version}, this version of s2s_jax reads {TOKENIZER_FORMAT}; {remedy}.")


def given_tokenizer(
    config: TokenizerConfig, lines: Iterable[str], *, symbols: Sequence[str] | None = None
) -> Tokenizer:
    """The tokenizer in the file of a config.

    Args:
        lines: training lines, from which the tokens of BPE codes are learned where no vocabulary is given.
        symbols: those tokens, where they are known already.

    Raises:
        FileNotFoundError, ValueError: naming the file.
    """
    path = Path(config.file)
    if file_type(config.file) == "run":
        return load_tokenizer(path)
    for file in filter(None, (config.file, config.vocabulary)):
        if not Path(file).exists():
            raise FileNotFoundError(f"no tokenizer file {file}.")
    if file_type(config.file) == GivenPieces.type:
        return read_pieces(path, config.form)
    merges, joins_end = read_codes(path)
    options = {"merges": merges, "joins_end": joins_end, "undoes": bool(config.vocabulary)}
    if config.vocabulary:
        symbols = read_vocabulary(Path(config.vocabulary), config.min_frequency)
    elif symbols is None:
        counting = {"size": config.size, "min_frequency": config.min_frequency, "dropout": config.dropout}
        symbols = learn_symbols(MergeCodes([], config.form, **options), lines, **counting)
    return MergeCodes(symbols, config.form, **options)


def tokenizer_of(state: dict) -> Tokenizer:
    """The tokenizer with this `state`.

    Raises:
        ValueError, KeyError, TypeError, RuntimeError: there is none.
    """
    if state["type"] == "tagged":
        return with_tags(tokenizer_of(state["tokenizer"]), state["tags"])
    one_of("type", state["type"], {**TOKENIZERS, **GIVEN})
    one_of("unicode", state["unicode"], FORMS)
    return {**TOKENIZERS, **GIVEN}[state["type"]].from_state(state)


def with_tags(tokenizer: Tokenizer, tags: Sequence[str]) -> Tokenizer:
    """The tokenizer, knowing these tags instead of those that it may know."""
    return cast(Tokenizer, TaggedTokenizer(untagged(tokenizer), tags)) if tags else untagged(tokenizer)


def tokenizer_fingerprint(tokenizer: Tokenizer) -> str:
    """SHA-256 of the state of a tokenizer: two with the same fingerprint give the same ids."""
    return hashlib.sha256(json.dumps(tokenizer.state(), sort_keys=True).encode()).hexdigest()


def encode_lines(tokenizer: Tokenizer, lines: Sequence[str]) -> Rows:
    """The ids of each line, ended by EOS."""
    if isinstance(tokenizer, TaggedTokenizer) and not any(map(tokenizer.tag_of, lines)):
        tokenizer = tokenizer.inner
    return tokenizer.encode_all(lines) if isinstance(tokenizer, Subwords) else with_eos(map(tokenizer.encode, lines))


def append_eos(ids: Sequence[int] | Int[np.ndarray, " I"]) -> Int[np.ndarray, " S"]:
    """The ids followed by EOS, as they are in a batch."""
    return np.array([*ids, EOS], np.int32)


def until_eos(ids: Sequence[int]) -> list[int]:
    """The ids before the first EOS, without padding."""
    ids = [int(number) for number in ids]
    before = ids[: ids.index(EOS)] if EOS in ids else ids
    return [number for number in before if number != PAD]
