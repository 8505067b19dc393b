"""Examples as pairs of ids, ready to be batched: the same ones whenever the run is resumed."""

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import s2s_jax
from s2s_jax.evaluate.evaluation import token_links
from s2s_jax.run.data import RunData
from s2s_jax.run.run_dir import RUN_FORMAT, SIDES
from s2s_jax.text.batches import BatchConfig, Pairs
from s2s_jax.text.copy_vocabulary import PairTokenizer
from s2s_jax.text.data_report import DataReport
from s2s_jax.text.encoding import encode_lines
from s2s_jax.text.example import Example, WordLinks
from s2s_jax.text.sources import DataConfig
from s2s_jax.text.tokenizers import append_eos, tokenizer_fingerprint


def encode(examples: Sequence[Example], tokenizers: PairTokenizer, *, cache: str = "") -> Pairs:
    """Examples as ids, each side ended by EOS; every id is below the size of its vocabulary and slots.

    Args:
        cache: as data.cache.
    """
    if not tokenizers.slots:
        sides = {side: [getattr(example, side) for example in examples] for side in SIDES}
        ids = (encode_lines(getattr(tokenizers, side), lines, cache=cache) for side, lines in sides.items())
        return Pairs(*ids)
    return Pairs(
        [append_eos(tokenizers.encode_source(example.source)) for example in examples],
        [append_eos(tokenizers.encode_target(example.target, example.source)) for example in examples],
    )


def encode_training(
    data: RunData, tokenizers: PairTokenizer, config: DataConfig, batch: BatchConfig, *, guided: float
) -> Pairs:
    """The training pairs within data.max_length, with gold links where loss.guided (`guided`) has a weight.

    Raises:
        ValueError: there are no gold alignments, data.max_length leaves too few pairs, or a pair is too long for a
            batch.
    """
    pairs, places = encode(data.training, tokenizers, cache=config.cache), data.reports["train"].kept_places
    if guided:
        pairs = pairs._replace(links=_gold_links(data.training, tokenizers, config, guided))
    kept = np.arange(len(pairs.sources))
    if config.max_length:
        pairs, kept = _short_enough(pairs, config, data.reports["train"], tokenizers)
    _check_fit(
        pairs, batch, lambda index: places[int(kept[index])], remedy=", or set data.max_length and data.too_long"
    )
    return pairs


def encode_validation(data: RunData, tokenizers: PairTokenizer, config: DataConfig, batch: BatchConfig) -> Pairs:
    """The validation pairs, none of which is dropped.

    Raises:
        ValueError: one is too long for a batch, which would end training at the first validation.
    """
    pairs = encode(data.validation, tokenizers, cache=config.cache)
    _check_fit(pairs, batch, data.reports["validation"].kept_places.__getitem__)
    return pairs


def _check_fit(pairs: Pairs, batch: BatchConfig, place: Callable[[int], str], *, remedy: str = "") -> None:
    """Refuse pairs that alone have more positions than a batch may have."""
    lengths = pairs.lengths()
    over = np.flatnonzero(lengths.sum(1) > batch.tokens)
    if len(over):
        source, target = lengths[over[0]]
        others = f" (and {len(over) - 1:,} more)" if len(over) > 1 else ""
        raise ValueError(
            f"{place(int(over[0]))}: a pair of {source:,} and {target:,} tokens{others}, over the {batch.tokens:,} "
            f"positions of batch.tokens; split or remove it, or raise batch.tokens, which takes memory{remedy}."
        )


def facts_of(pairs: Pairs, validation: Sequence[Example], tokenizers: PairTokenizer) -> dict[str, Any]:
    """What must not change when the run is resumed: fingerprints of data and tokenizers, and the longest target."""
    return {
        "format": RUN_FORMAT,
        "version": s2s_jax.__version__,
        "data": _fingerprint(pairs),
        "validation_data": _examples_fingerprint(validation),
        "longest_target": int(pairs.lengths()[:, 1].max()),
        **{f"{side}_tokenizer": tokenizer_fingerprint(getattr(tokenizers, side)) for side in SIDES},
    }


def default_max_length(facts: dict[str, Any]) -> int:
    """The bound on a translation's length where search.max_length is 0: 1.2 x the longest training target + 10."""
    return int(1.2 * facts["longest_target"]) + 10


def _gold_links(
    examples: Sequence[Example], tokenizers: PairTokenizer, config: DataConfig, guided: float
) -> list[np.ndarray]:
    """The links between the tokens of each pair, none where they are not known."""
    if all(example.links is None for example in examples):
        raise ValueError(
            f"loss.guided={guided} needs gold alignments, and data.train={config.train} has none; name a file of them "
            "in data.alignment, or set loss.guided=0."
        )
    links = (sorted(token_links(example, tokenizers.source, tokenizers.target)) for example in examples)
    return [np.array(pair, np.int32).reshape(-1, 2) for pair in links]


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
        cut = pairs.truncate(longest)
        targets = [tokenizers.drop_absent_slots(*both) for both in zip(cut.sources, cut.targets, strict=True)]
        return cut._replace(targets=targets), np.arange(len(over))
    report.kept -= int(over.sum())
    if over.all():
        raise ValueError(f"data.max_length={longest} leaves no training pair; raise it.")
    kept = np.flatnonzero(~over)
    return pairs.select(kept), kept


def _fingerprint(pairs: Pairs) -> str:
    hashed = hashlib.blake2b(digest_size=16)
    for part in filter(len, pairs):  # links only where a loss needs them
        hashed.update(np.array([len(ids) for ids in part], np.int64).tobytes())
        hashed.update(np.concatenate(part).tobytes())
    return hashed.hexdigest()


def _examples_fingerprint(examples: Sequence[Example]) -> str:
    """A fingerprint of texts and gold links, with which of them are sure; a validation also compares texts."""
    hashed = hashlib.blake2b(digest_size=16)
    for example in examples:
        links = None if example.links is None else sorted((int(i), int(j)) for i, j in example.links)
        if isinstance(example.links, WordLinks):
            links = [example.links.words.tolist(), example.links.sure.tolist()]
        hashed.update(json.dumps([example.source, example.target, links]).encode())
    return hashed.hexdigest()
