"""How do the data of an experiment become pairs of ids, the same ones whenever its run goes on?"""

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import s2s_jax
from s2s_jax.config import Experiment
from s2s_jax.evaluate.evaluation import token_links
from s2s_jax.run.run_dir import FORMAT, SIDES, check_same_facts, write_json
from s2s_jax.text.batches import Pairs
from s2s_jax.text.copy_vocabulary import PairTokenizer
from s2s_jax.text.data_report import DataReport
from s2s_jax.text.example import Example
from s2s_jax.text.sources import read_split
from s2s_jax.text.tokenizers import (
    Tokenizer,
    append_eos,
    load_tokenizer,
    save_tokenizer,
    tokenizer_fingerprint,
    train_tokenizer,
)


class PreparedData(NamedTuple):
    """The data of a run, ready to be batched."""

    tokenizers: dict[str, Tokenizer]
    training: Pairs
    validation: list[Example]
    facts: dict[str, Any]  # what must not change under a run: fingerprints, and the longest target
    reports: dict[str, Any]  # what was found in the data, and what was done about it


def prepare(experiment: Experiment, directory: Path, say: Callable[[str], None]) -> PreparedData:
    """Read the data, learn or load the tokenizers, and make sure that a resumed run sees what it saw before."""
    examples, report = read_split(experiment.data, "train")
    for line in report.lines():
        say(f"training data: {line}")
    validation, held = read_split(experiment.data, "validation")
    say(f"validation data: {held.lines()[0]}")
    reports = {"train": dataclasses.asdict(report), "validation": dataclasses.asdict(held)}
    tokenizers = {side: _tokenizer(experiment, directory, examples, side) for side in SIDES}
    pair = PairTokenizer(**tokenizers, slots=slots_of(experiment))
    encoded = encode(examples, pair)
    if experiment.loss.guided:
        encoded = encoded._replace(links=_gold(experiment, examples, tokenizers))
    training = _short_enough(encoded, experiment, report, pair)
    reports["train"] = dataclasses.asdict(report)
    facts = {
        "format": FORMAT,
        "version": s2s_jax.__version__,
        "data": _data_fingerprint(training),
        "longest_target": int(training.lengths()[:, 1].max()),
        **{f"{side}_tokenizer": tokenizer_fingerprint(tokenizers[side]) for side in SIDES},
    }
    prepared = PreparedData(tokenizers, training, validation, facts, reports)
    save_prepared(prepared, directory)
    return prepared


def save_prepared(prepared: PreparedData, directory: Path) -> None:
    """Write into a run's directory what it was trained from, or refuse one that was trained from something else."""
    write_json(directory / "data_report.json", prepared.reports)
    for side, tokenizer in prepared.tokenizers.items():
        if not (path := tokenizer_file(directory, side)).exists():
            save_tokenizer(tokenizer, path)
    check_same_facts(directory / "facts.json", prepared.facts)


def tokenizer_file(directory: Path, side: str) -> Path:
    """Where a run keeps the tokenizer of a side."""
    return directory / f"{side}.tokenizer.json"


def encode(examples: Sequence[Example], pair: PairTokenizer) -> Pairs:
    """Pairs as ids, each side ended by EOS; every id is below its vocabulary's size and slots, a law of tokenizers."""
    return Pairs(
        [append_eos(pair.encode_source(example.source)) for example in examples],
        [append_eos(pair.encode_target(example.target, example.source)) for example in examples],
    )


def _gold(experiment: Experiment, examples: Sequence[Example], tokenizers: dict[str, Tokenizer]) -> list[np.ndarray]:
    """The links between the tokens of each pair, none where nobody knows them."""
    if all(example.links is None for example in examples):
        raise ValueError(
            f"loss.guided={experiment.loss.guided} needs gold alignments, and data.train={experiment.data.train} has "
            "none; name a file of them in data.alignment, or say loss.guided=0."
        )
    found = (sorted(token_links(example, **tokenizers)) for example in examples)
    return [np.array(links, np.int32).reshape(-1, 2) for links in found]


def _tokenizer(experiment: Experiment, directory: Path, examples: Sequence[Example], side: str) -> Tokenizer:
    """The run's own tokenizer, or the one that was asked for, or one learned from the training split."""
    path, config = tokenizer_file(directory, side), getattr(experiment.tokenizer, side)
    if path.exists():
        return load_tokenizer(path)
    if config.file:
        return load_tokenizer(Path(config.file))
    lines = [getattr(one, side) for one in examples]
    # no pieces can be learned from nothing, and none are needed
    return train_tokenizer(
        lines, config if any(lines) else dataclasses.replace(config, type="char"), group=f"tokenizer.{side}"
    )


def _short_enough(pairs: Pairs, experiment: Experiment, report: DataReport, pair: PairTokenizer) -> Pairs:
    """The pairs within data.max_length, the others dropped or cut as the config says."""
    longest, policy = experiment.data.max_length, experiment.data.too_long
    if not longest:
        return pairs
    over = np.any(pairs.lengths() - 1 > longest, axis=1)
    if policy == "error" and over.mean() > 0.05:
        raise ValueError(
            f"data.max_length={longest} would drop {over.mean():.0%} of the training pairs; raise it, or say "
            "data.too_long=drop or truncate."
        )
    for number in np.flatnonzero(over):
        report.add(f"longer than data.max_length={longest}, {policy}", f"pair {number + 1}")
    if policy == "truncate":
        cut = pairs.truncate(longest)
        return cut._replace(
            targets=[pair.drop_absent_slots(*both) for both in zip(cut.sources, cut.targets, strict=True)]
        )
    report.kept -= int(over.sum())
    if over.all():
        raise ValueError(f"data.max_length={longest} leaves no training pair; raise it.")
    return pairs.select(np.flatnonzero(~over))


def _data_fingerprint(pairs: Pairs) -> str:
    hashed = hashlib.blake2b(digest_size=16)
    for part in filter(len, pairs):  # links only where a loss asks for them
        hashed.update(np.array([len(ids) for ids in part], np.int64).tobytes())
        hashed.update(np.concatenate(part).tobytes())
    return hashed.hexdigest()


def slots_of(experiment: Experiment) -> int:
    """How many words of its own a sentence may have."""
    return experiment.model.decoder.copy_slots if experiment.model.decoder.copy != "none" else 0
