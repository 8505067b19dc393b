"""The tokenizers of a run: its own ones, those of another run's files, or new ones trained on the training split."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from s2s_jax.run.run_dir import SIDES
from s2s_jax.text.copy_vocabulary import PairTokenizer
from s2s_jax.text.corpus import Corpus, feature_sides
from s2s_jax.text.encoding import LARGE
from s2s_jax.text.features import FeatureTokenizers, SeparatedLines, separator_of
from s2s_jax.text.subwords import Subwords
from s2s_jax.text.tagged_tokenizer import untagged
from s2s_jax.text.tokenizer_cache import TokenizerCache
from s2s_jax.text.tokenizers import (
    TOKENIZERS,
    Tokenizer,
    TokenizerConfig,
    TokenizersConfig,
    given_tokenizer,
    load_tokenizer,
    save_tokenizer,
    tokenizer_fingerprint,
    train_tokenizer,
    with_tags,
)
from s2s_jax.training.checkpoint.disk import sync_directory


def make_tokenizers(
    config: TokenizersConfig,
    corpus: Corpus,
    resumed: Path | None,
    *,
    copy_slots: int,
    tags: Sequence[str] = (),
    share_features: bool = False,
    cache: str = "",
    print_line: Callable[[str], None],
) -> PairTokenizer:
    """The tokenizers of the directory of a resumed run, else new ones or those of files, as configured.

    Args:
        tags: as data.tags; the source knows them, and the target too where both sides have one vocabulary.
        share_features: features have the source's tokenizer, which is learned from both.
        cache: as data.cache, for those that are learned.
    """
    sides: dict[str, Tokenizer] = {}
    features = corpus.sides[len(SIDES) :]
    for side in corpus.sides:
        group = "features" if side in features else side
        own, lines_of = getattr(config, group), SIDES if config.shared and side in SIDES else (side,)
        if share_features and "source" in lines_of:
            lines_of = *lines_of, *features
        stored = tokenizer_path(resumed, side) if resumed is not None else None
        if stored is not None and stored.exists():
            sides[side] = _same_as_file(load_tokenizer(stored), own, group)
        elif (share_features and side in features) or (config.shared and side == "target"):
            sides[side] = sides["source"]
        elif own.file:
            sides[side] = given_tokenizer(own, corpus.lines(*lines_of))
        else:
            sides[side] = _learned_tokenizer(own, corpus, lines_of, group, cache, print_line)
    sides = _with_tags(sides, tags)
    return _pair(sides, config, copy_slots=copy_slots, share_features=share_features)


def _with_tags(sides: dict[str, Tokenizer], tags: Sequence[str]) -> dict[str, Tokenizer]:
    """The tokenizers of all sides, of which source and perhaps target know the tags that are not empty."""
    named = [*dict.fromkeys(filter(None, tags))]
    tagged = SIDES if PairTokenizer(*(untagged(sides[side]) for side in SIDES)).one_vocabulary else SIDES[:1]
    return {side: with_tags(each, named if side in tagged else ()) for side, each in sides.items()}


def _pair(
    sides: Mapping[str, Tokenizer], config: TokenizersConfig, *, copy_slots: int, share_features: bool
) -> PairTokenizer:
    """The tokenizers of all sides as one."""
    source, target, *features = sides.values()
    types = [] if share_features else [each.type for each in features]  # the config's is not that of a file
    of_features = FeatureTokenizers(tuple(features), separator_of(config.features, *types))
    order = {"slots": copy_slots, "reverses_target": config.reverse_target}
    return PairTokenizer(source, target, **order, features=of_features)


def load_tokenizers(
    directory: Path,
    config: TokenizersConfig,
    facts: Mapping[str, Any],
    *,
    features: int,
    copy_slots: int,
    share_features: bool = False,
) -> PairTokenizer:
    """The tokenizers of a trained run with so many features.

    Raises:
        ValueError: one of them is not that with which the run was trained.
    """
    sides = {side: check_tokenizer(directory, side, facts) for side in (*SIDES, *feature_sides(features))}
    return _pair(sides, config, copy_slots=copy_slots, share_features=share_features)


def check_tokenizer(directory: Path, side: str, facts: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer of a side of a trained run.

    Raises:
        ValueError: it is not that with which the run was trained.
    """
    path = tokenizer_path(directory, side)
    tokenizer = load_tokenizer(path)
    current, trained = tokenizer_fingerprint(tokenizer)[:12], facts[f"{side}_tokenizer"][:12]
    if current != trained:
        raise ValueError(
            f"{path} is not the one the run was trained with (sha256 {current}, the run has {trained}); restore it "
            f"from a copy, or delete it and train it again on the same data: s2s train {directory}"
        )
    return tokenizer


def save_tokenizers(tokenizers: PairTokenizer, directory: Path) -> None:
    """Write the tokenizers into a run directory."""
    for side, tokenizer in tokenizers.sides.items():
        save_tokenizer(tokenizer, tokenizer_path(directory, side))
    sync_directory(directory)


def tokenizer_path(directory: Path, side: str) -> Path:
    """The file of a side's tokenizer in a run directory."""
    return directory / f"{side}.tokenizer.json"


def _same_as_file(tokenizer: Tokenizer, own: TokenizerConfig, group: str) -> Tokenizer:
    """The tokenizer of a run, after a look whether the file that it came from is still the same, where there is one."""
    file = own.file
    if file and all(Path(each).exists() for each in (file, own.vocabulary or file)):
        inner = untagged(tokenizer)
        present = untagged(given_tokenizer(own, (), symbols=getattr(inner, "vocabulary", None)))
        fingerprint, there = (tokenizer_fingerprint(one)[:12] for one in (inner, present))
        if there != fingerprint:
            raise ValueError(
                f"tokenizer.{group}.file={file} is not the tokenizer that the run was trained with (sha256 {there}, "
                f"the run has {fingerprint}); restore it, or give another --run."
            )
    return tokenizer


def _learned_tokenizer(
    own: TokenizerConfig,
    corpus: Corpus,
    sides: tuple[str, ...],
    group: str,
    cache: str,
    print_line: Callable[[str], None],
) -> Tokenizer:
    """A tokenizer learned from the lines of some sides, by the settings of tokenizer.`group`."""
    side = "+".join(sides) if sides != SIDES else "both"
    large, kind = len(corpus) >= LARGE, TOKENIZERS[own.type]
    kept = bool(cache) and large and kind.__module__.startswith("s2s_jax.")  # the code of others may change
    stored = TokenizerCache(Path(cache).expanduser(), own, corpus, side) if kept else None
    if stored and (tokenizer := stored.read(print_line)):
        print_line(f"{side} vocabulary: {own.type}, found in {cache}")
        return tokenizer
    lines = corpus.lines(*sides, most=own.lines if issubclass(kind, Subwords) else 0)
    if separator := separator_of(own, own.type):
        lines = SeparatedLines(lines, separator)
    if large:
        all_lines = len(corpus.lines(*sides))
        part = f" of {all_lines:,}" if len(lines) < all_lines else ""
        print_line(f"{side} vocabulary: {own.type}, learned from {len(lines):,}{part} lines")
    # subwords cannot be trained on empty lines, and need not be
    usable = own if any(lines) else dataclasses.replace(own, type="char")
    tokenizer = train_tokenizer(lines, usable, group=f"tokenizer.{group}")
    if stored:
        stored.write(tokenizer)
    return tokenizer
