"""What can be done with a trained run? One function for each thing that a user wants."""

import contextlib
import functools
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from s2s_jax import config as configs
from s2s_jax.config import Experiment
from s2s_jax.decode.score import Scored, score
from s2s_jax.decode.translate import Translation, Translator, filled
from s2s_jax.evaluate.evaluation import Grouped, error_of_alignments, evaluate, grouped, token_links
from s2s_jax.evaluate.pictures import Picture, grid
from s2s_jax.model.interface import Model, Params
from s2s_jax.run.folder import SIDES, read_experiment, read_json
from s2s_jax.run.parts import abstract_state, count, longest_answer, model_of
from s2s_jax.run.prepare import encode, slots_of
from s2s_jax.shapes import Batch
from s2s_jax.text.examples import Example
from s2s_jax.text.own_words import PairTokeniser
from s2s_jax.text.sources import read_split
from s2s_jax.text.tokenise import Tokeniser, fingerprint, load_tokeniser
from s2s_jax.train import devices
from s2s_jax.train.checkpoint import Checkpoints
from s2s_jax.train.leaves import digest
from s2s_jax.train.optimiser import make_optimiser
from s2s_jax.train.step import TrainState


class Trained(NamedTuple):
    """A run as its users see it."""

    experiment: Experiment
    model: Model
    params: Params
    step: int
    tokenisers: dict[str, Tokeniser]
    facts: dict[str, Any]
    refused: list[str]  # checkpoints that were damaged and passed over


def load(directory: Path, *, changes: Sequence[str] = ()) -> Trained:
    """A trained run: its best checkpoint, or its newest where none was validated.

    Args:
        changes: overrides of settings that do not change the model, such as `search.beam=5`.

    Raises:
        FileNotFoundError, ValueError: there is no run, or it does not fit together.
        CheckpointError: no checkpoint of it is whole.
    """
    experiment = read_experiment(directory)
    changed = configs.override(experiment, *changes)
    devices.keep_compiled(changed.device)
    devices.keep_freed_memory()
    facts = read_json(directory / "facts.json")
    tokenisers = {side: load_tokeniser(directory / f"{side}.tokeniser.json") for side in SIDES}
    for side in SIDES:
        _demand_fingerprint(directory, side, fingerprint(tokenisers[side]), facts[f"{side}_tokeniser"])
    model = model_of(experiment, tokenisers)
    example = abstract_state(experiment, model, make_optimiser(experiment.optimiser, experiment.steps))
    with Checkpoints(directory / "checkpoints") as checkpoints:
        restored = checkpoints.restore(example, best=True)
        refused = list(checkpoints.refused)
    return Trained(changed, model, restored.tree.shown, restored.step, tokenisers, facts, refused)


def _demand_fingerprint(directory: Path, side: str, now: str, then: str) -> None:
    if now != then:
        raise ValueError(
            f"{directory}/{side}.tokeniser.json is not the one the run was trained with (sha256 {now[:12]}, the run "
            f"has {then[:12]}); restore it from a copy."
        )


def translator(run: Trained) -> Translator:
    """The run's search over the run's model."""
    search, slots = run.experiment.search, slots_of(run.experiment)
    if search.replace_unknown and run.experiment.model.attention.score == "none":
        raise ValueError(
            "search.replace_unknown needs to know where the model looks, and this one has no attention "
            "(model.attention.score=none); leave it out."
        )
    longest = longest_answer(run.facts)
    return Translator(run.model, search=search, max_length=longest, slots=slots, **run.tokenisers)


def translate(run: Trained, lines: Iterable[str]) -> Iterator[Translation]:
    """A translation for each line, in order."""
    return translator(run).translate(run.params, lines)


class ScoredPair(NamedTuple):
    """A given pair under forced decoding."""

    example: Example
    source_tokens: tuple[str, ...]
    tokens: tuple[str, ...]  # the end token counted
    log_probs: np.ndarray
    alignment: np.ndarray
    correct: int  # tokens that would have been said in their place


def score_pairs(run: Trained, examples: Sequence[Example]) -> Iterator[ScoredPair]:
    """Log-probability and alignment of given pairs, in order; pairs of like length are scored together."""
    pair = PairTokeniser(**run.tokenisers, slots=slots_of(run.experiment))
    pairs = encode(examples, pair)
    lengths = pairs.lengths().sum(1)
    order = np.argsort(lengths, kind="stable")
    compiled = jax.jit(functools.partial(score, run.model))
    step = run.experiment.search.sentences
    found: dict[int, ScoredPair] = {}
    for first in range(0, len(order), step):
        members = order[first : first + step]
        batch = Batch(*(filled([side[member] for member in members]) for side in (pairs.sources, pairs.targets)))
        scored: Scored = jax.device_get(compiled(run.params, batch))
        for row, member in enumerate(members):
            given = examples[member], pairs.sources[member], pairs.targets[member]
            found[int(member)] = _scored_pair(pair, *given, scored, row)
    return (found[number] for number in range(len(examples)))


def _scored_pair(
    pair: PairTokeniser, example: Example, source: np.ndarray, target: np.ndarray, scored: Scored, row: int
) -> ScoredPair:
    return ScoredPair(
        example,
        tuple(pair.source_symbols(source.tolist(), example.source)),
        tuple(pair.target_symbols(target.tolist(), example.source)),
        np.array(scored.log_probs[row, : len(target)]),
        np.array(scored.alignment[row, : len(target), : len(source)]),
        int(scored.correct[row, : len(target)].sum()),
    )


def evaluate_split(run: Trained, split: str) -> dict[str, Any]:
    """All numbers of a split of the run's data."""
    examples, _ = read_split(run.experiment.data, split)
    items: Grouped = grouped(examples)
    translations = list(translate(run, items.sources))
    scored = list(score_pairs(run, examples))
    return evaluate(
        translations,
        items,
        nats=-float(sum(pair.log_probs.sum() for pair in scored)),
        tokens=sum(len(pair.tokens) for pair in scored),
        correct=sum(pair.correct for pair in scored),
        unit=run.experiment.evaluation.unit,
        aer=alignment_error(run, scored),
    )


def alignment_error(run: Trained, pairs: Sequence[ScoredPair]) -> float | None:
    """AER of forced alignments where gold ones are known and the model attends at all."""
    judged = [pair for pair in pairs if pair.example.links is not None]
    if not judged or run.experiment.model.attention.score == "none":
        return None
    gold = [token_links(pair.example, **run.tokenisers) for pair in judged]
    return error_of_alignments([pair.alignment for pair in judged], gold)


def align(run: Trained, pairs: Sequence[ScoredPair], path: Path) -> Path:
    """A picture of the alignments of pairs, gold links outlined where they are known."""
    pictures = [
        Picture(
            source=pair.source_tokens,
            target=pair.tokens,
            alignment=pair.alignment,
            title=f"{pair.example.source} → {pair.example.target}",
            gold=None if pair.example.links is None else token_links(pair.example, **run.tokenisers),
        )
        for pair in pairs
    ]
    return grid(path, pictures)


def translated_pairs(run: Trained, lines: Sequence[str]) -> list[ScoredPair]:
    """Lines with the run's own translations of them, scored: what `align` shows of new lines."""
    examples = [Example(line, translation.text) for line, translation in zip(lines, translate(run, lines), strict=True)]
    return list(score_pairs(run, [example for example in examples if example.target]))


def info(directory: Path) -> dict[str, Any]:
    """What a run is: step, parameters, a digest over all of their bytes, settings, data and checkpoints."""
    run = load(directory)
    with Checkpoints(directory / "checkpoints") as checkpoints:
        newest = _newest(run, checkpoints)
        steps = checkpoints.steps()
    return {
        "step": newest.step,
        "best_step": run.step,
        "parameters": count(newest.tree.params),
        "parameters_digest": digest(newest.tree.params),
        "checkpoints": steps,
        "refused": sorted({*run.refused, *newest.refused}),
        "facts": run.facts,
        "config": configs.to_json(run.experiment),
    }


class Newest(NamedTuple):
    """The newest good checkpoint of a run."""

    step: int
    tree: TrainState
    refused: list[str]


def _newest(run: Trained, checkpoints: Checkpoints) -> Newest:
    optimiser = make_optimiser(run.experiment.optimiser, run.experiment.steps)
    restored = checkpoints.restore(abstract_state(run.experiment, run.model, optimiser))
    return Newest(restored.step, restored.tree, list(checkpoints.refused))


def newest_metrics(directory: Path) -> list[dict[str, Any]]:
    """The last lines of a run's metrics.jsonl: one of each kind."""
    path, found = directory / "metrics.jsonl", {}
    with contextlib.suppress(FileNotFoundError):
        for line in path.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            found[record["kind"]] = record
    return list(found.values())
