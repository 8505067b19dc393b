"""Examples as pairs of ids, ready to be batched: the same ones whenever the run is resumed."""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import s2s_jax
from s2s_jax.evaluate.evaluation import token_links
from s2s_jax.run.data import RunData
from s2s_jax.run.run_dir import RUN_FORMAT
from s2s_jax.text.batches import BatchConfig, Pairs
from s2s_jax.text.copy_vocabulary import PairTokenizer
from s2s_jax.text.corpora import Mixture, mixture, shifted, with_first
from s2s_jax.text.corpus import Corpus
from s2s_jax.text.data_report import DataReport
from s2s_jax.text.encoding import encode_corpus, folder_for_data
from s2s_jax.text.example import Example, WordLinks
from s2s_jax.text.ragged import Ragged, RaggedWriter, Rows
from s2s_jax.text.sources import DataConfig
from s2s_jax.text.tagged_tokenizer import TaggedTokenizer
from s2s_jax.text.tokenizers import tokenizer_fingerprint


def encode(examples: Iterable[Example], tokenizers: PairTokenizer) -> Pairs:
    """A few examples as ids, each side ended by EOS; every id is below the size of its vocabulary and slots."""
    return Pairs.of(*encode_corpus(Corpus.of(examples), tokenizers))


def encode_training(
    data: RunData,
    tokenizers: PairTokenizer,
    config: DataConfig,
    batch: BatchConfig,
    *,
    guided: float,
    print_line: Callable[[str], None],
) -> tuple[Pairs, Mixture | None]:
    """The training pairs within data.max_length, and how they are mixed where they are from several corpora.

    They have gold links where loss.guided (`guided`) has a weight.

    Raises:
        ValueError: there are no gold alignments, data.max_length leaves too few pairs, or a pair is too long for a
            batch.
    """
    settings = {"cache": config.cache, "workers": config.workers, "print_line": print_line}
    report = data.reports["train"]
    pairs, places = Pairs.of(*encode_corpus(data.training, tokenizers, **settings)), report.kept_places
    if guided:
        pairs = pairs._replace(links=_gold_links(data.training, tokenizers, config, guided))
    kept = np.arange(len(pairs.sources))
    if config.max_length:
        pairs, kept = _short_enough(pairs, config, report, tokenizers)
    corpus = np.repeat(np.arange(len(report.corpus_sizes)), report.corpus_sizes)[kept]
    if any(config.tags):
        pairs = _tagged(pairs, corpus, config, tokenizers)
    _check_fit(
        pairs, batch, lambda index: places[int(kept[index])], remedy=", or set data.max_length and data.too_long"
    )
    return pairs, _mixture(corpus, config, report) if len(report.corpus_sizes) > 1 else None


def _tagged(pairs: Pairs, corpus: np.ndarray, config: DataConfig, tokenizers: PairTokenizer) -> Pairs:
    """The pairs with the tag of their corpus before each source."""
    tokenizer, folder = tokenizers.source, folder_for_data(config.cache)
    assert isinstance(tokenizer, TaggedTokenizer)
    first = np.array([tokenizer.tag_id(tag) if tag else 0 for tag in config.tags], np.int32)[corpus]
    pairs = pairs._replace(sources=with_first(pairs.sources, first, folder, pairs.sources.flat.dtype))
    return pairs if pairs.links is None else pairs._replace(links=shifted(pairs.links, first != 0, folder))


def _mixture(corpus: np.ndarray, config: DataConfig, report: DataReport) -> Mixture:
    """How the corpora are mixed, which the report takes.

    Raises:
        ValueError: data.max_length leaves no pair of a corpus.
    """
    sizes = np.bincount(corpus, minlength=len(config.corpora)).tolist()
    if not all(sizes):
        empty = config.corpora[sizes.index(0)]
        raise ValueError(f"data.max_length={config.max_length} leaves no training pair of {empty}; raise it.")
    mixed = mixture(sizes, weights=config.weights, temperature=config.temperature)
    columns = zip(config.corpora, sizes, mixed.shares, mixed.copies, strict=True)
    report.corpora = [dict(zip(("corpus", "pairs", "share", "copies"), each, strict=True)) for each in columns]
    return mixed


def encode_validation(data: RunData, tokenizers: PairTokenizer, batch: BatchConfig) -> Pairs:
    """The validation pairs, none of which is dropped.

    Raises:
        ValueError: one is too long for a batch, which would end training at the first validation.
    """
    pairs = encode(data.validation, tokenizers)
    _check_fit(pairs, batch, data.reports["validation"].kept_places.__getitem__)
    return pairs


def _check_fit(pairs: Pairs, batch: BatchConfig, place: Callable[[int], str], *, remedy: str = "") -> None:
    """Refuse pairs that alone have more positions than a batch may have."""
    lengths = pairs.lengths()
    positions = sum((feature.lengths for feature in pairs.features), lengths.sum(1))
    over = np.flatnonzero(positions > batch.tokens)
    if len(over):
        source, target = lengths[over[0]]
        more = int(positions[over[0]] - source - target)
        features = f" with features of {more:,}" if more else ""
        others = f" (and {len(over) - 1:,} more)" if len(over) > 1 else ""
        raise ValueError(
            f"{place(int(over[0]))}: a pair of {source:,} and {target:,} tokens{features}{others}, over the "
            f"{batch.tokens:,} positions of batch.tokens; split or remove it, or raise batch.tokens, which takes "
            f"memory{remedy}."
        )


def facts_of(
    pairs: Pairs, validation: Sequence[Example], tokenizers: PairTokenizer, mixed: Mixture | None = None
) -> dict[str, Any]:
    """What must not change when the run is resumed: fingerprints of data and tokenizers, and the longest target."""
    return {
        "format": RUN_FORMAT,
        "version": s2s_jax.__version__,
        "data": _fingerprint(pairs, mixed.sizes if mixed else ()),
        "validation_data": _examples_fingerprint(validation),
        "longest_target": int(pairs.lengths()[:, 1].max()),
        **{f"{side}_tokenizer": tokenizer_fingerprint(each) for side, each in tokenizers.sides.items()},
    }


def default_max_length(facts: dict[str, Any]) -> int:
    """The bound on a translation's length where search.max_length is 0: 1.2 x the longest training target + 10."""
    return int(1.2 * facts["longest_target"]) + 10


def _gold_links(corpus: Corpus, tokenizers: PairTokenizer, config: DataConfig, guided: float) -> Ragged:
    """The links between the tokens of each pair, none where they are not known."""
    writer, known = RaggedWriter(np.dtype(np.int32), folder_for_data(config.cache), columns=(2,)), False
    for block in corpus.blocks():
        known = known or any(links is not None for links in block.links)
        examples = map(Example, block.sources, block.targets, block.links)
        known_links = (
            tokenizers.links_in_model_order(token_links(example, tokenizers.source, tokenizers.target), example.target)
            for example in examples
        )
        links = Ragged.of(known_links, columns=(2,))
        writer.write(Rows(links.flat, links.lengths))
    if not known:
        raise ValueError(
            f"loss.guided={guided} needs gold alignments, and data.train={config.train} has none; name a file of them "
            "in data.alignment, or set loss.guided=0."
        )
    return writer.finish()


def _short_enough(
    pairs: Pairs, config: DataConfig, report: DataReport, tokenizers: PairTokenizer
) -> tuple[Pairs, np.ndarray]:
    """The pairs within data.max_length, and their indices; longer ones are dropped or truncated, by data.too_long."""
    longest, policy = config.max_length, config.too_long
    over = np.any(pairs.lengths() - 1 > longest, axis=1)
    if policy == "error" and over.mean() > 0.05:
        raise ValueError(
            f"data.max_length={longest} would drop {over.mean():.0%} of the training pairs; raise it, or set "
            "data.too_long=drop or truncate."
        )
    done = "truncated" if policy == "truncate" else "dropped"
    for number in np.flatnonzero(over):
        report.add(f"longer than data.max_length={longest}, pair {done}", report.kept_places[int(number)])
    if policy == "truncate":
        folder = folder_for_data(config.cache)
        cut = pairs.truncate(longest, reverses_target=tokenizers.reverses_target, folder=folder)
        if tokenizers.slots:
            cut = cut._replace(targets=_without_absent_slots(cut, tokenizers, folder))
        return cut, np.arange(len(over))
    report.kept -= int(over.sum())
    if over.all():
        raise ValueError(f"data.max_length={longest} leaves no training pair; raise it.")
    kept = np.flatnonzero(~over)
    return pairs.select(kept), kept


def _without_absent_slots(pairs: Pairs, tokenizers: PairTokenizer, folder: Path | None) -> Ragged:
    writer = RaggedWriter(pairs.targets.flat.dtype, folder)
    for parts in zip(pairs.sources.parts(), pairs.targets.parts(), strict=True):
        targets = Ragged.of(map(tokenizers.drop_absent_slots, *parts))
        writer.write(Rows(targets.flat, targets.lengths))
    return writer.finish()


def _fingerprint(pairs: Pairs, sizes: Sequence[int]) -> str:
    """A fingerprint of ids and links, and of the sizes of several corpora."""
    hashed = hashlib.blake2b(" ".join(map(str, sizes)).encode(), digest_size=16)
    for side in filter(None, (*pairs[:3], *pairs.features)):  # links only where a loss needs them
        hashed.update(side.lengths.astype(np.int64).tobytes())
        for part in side.parts():
            hashed.update(part.numbers().tobytes())
    return hashed.hexdigest()


def _examples_fingerprint(examples: Sequence[Example]) -> str:
    """A fingerprint of texts and gold links, with which of them are sure; a validation also compares texts."""
    hashed = hashlib.blake2b(digest_size=16)
    for example in examples:
        links = None if example.links is None else sorted((int(i), int(j)) for i, j in example.links)
        if isinstance(example.links, WordLinks):
            links = [example.links.words.tolist(), example.links.sure.tolist()]
        hashed.update(json.dumps([example.source, example.target, links, *example.features]).encode())
    return hashed.hexdigest()
