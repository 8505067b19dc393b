"""How do the parts work together? One function for each thing a user wants done with a run directory."""

import contextlib
import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from rich.console import Console

import s2s_jax
from s2s_jax import config as configs
from s2s_jax.config import Experiment
from s2s_jax.decode.score import Scored, score
from s2s_jax.decode.search_config import SearchConfig, demand_sense
from s2s_jax.decode.translate import Translation, Translator, filled
from s2s_jax.evaluate.evaluation import Grouped, error_of_alignments, evaluate, grouped, token_links
from s2s_jax.evaluate.pictures import Picture, grid
from s2s_jax.evaluate.quality import quality
from s2s_jax.model.interface import Model, Params
from s2s_jax.model.seq2seq import build
from s2s_jax.shapes import Batch
from s2s_jax.text.batches import Pairs, Plan, ended
from s2s_jax.text.examples import Example
from s2s_jax.text.own_words import PairTokeniser, different_kinds
from s2s_jax.text.report import Report
from s2s_jax.text.sources import read_split
from s2s_jax.text.tokenise import Tokeniser, fingerprint, load_tokeniser, save_tokeniser, train_tokeniser
from s2s_jax.train import devices, loop
from s2s_jax.train.checkpoint import Checkpoints
from s2s_jax.train.leaves import digest
from s2s_jax.train.lock import Lock
from s2s_jax.train.loss import make_loss, plain_sums
from s2s_jax.train.optimiser import make_optimiser
from s2s_jax.train.record import Recorder
from s2s_jax.train.step import TrainState, make_step, start

FORMAT = 1
SIDES = ("source", "target")


class Prepared(NamedTuple):
    """The data of a run, ready to be batched."""

    tokenisers: dict[str, Tokeniser]
    training: Pairs
    validation: list[Example]
    facts: dict[str, Any]  # what must not change under a run: fingerprints, and the longest target


class Trained(NamedTuple):
    """A run as its users see it."""

    experiment: Experiment
    model: Model
    params: Params
    step: int
    tokenisers: dict[str, Tokeniser]
    facts: dict[str, Any]
    refused: list[str]  # checkpoints that were damaged and passed over


# --- training ---------------------------------------------------------------------------------------------------------


def train(experiment: Experiment, directory: Path, console: Console, *, profile: Path | None = None) -> TrainState:
    """Train in a run directory; a directory with a run in it is resumed.

    Raises:
        FileNotFoundError, ValueError: what the user asked for cannot be done, in one line.
        Interrupted: a signal asked for an end; the state is saved.
    """
    say = functools.partial(console.print, markup=False, highlight=False)
    build(experiment.model, source_vocabulary=8, target_vocabulary=8)  # refuses what cannot go together, at once
    demand_sense(experiment.search)
    _demand_alignment(experiment)
    _demand_alike(experiment)
    mesh = devices.make_mesh(experiment.device)
    with Lock(directory):
        devices.keep_compiled(experiment.device)
        devices.keep_freed_memory()
        if _is_begun(directory):
            _demand_same(experiment, directory)
        else:
            _clear(directory)
        say(f"devices: {devices.describe(mesh)}; precision: {experiment.model.precision}")
        if warning := devices.accelerator_left_idle():
            say(f"warning: {warning}")
        prepared = prepare(experiment, directory, say)
        model = _model(experiment, prepared.tokenisers)
        optimiser = make_optimiser(experiment.optimiser, experiment.steps)
        _write_json(directory / "config.json", {"format": FORMAT, **configs.to_json(experiment)})
        with Checkpoints(directory / "checkpoints", experiment.checkpoint) as checkpoints:
            state, standing = _state(experiment, model, optimiser, mesh, checkpoints, say)
            first = int(state.step)
            if first > experiment.steps or first == experiment.steps == standing.at:
                say(f"{directory} is done: step {first} of {experiment.steps}.")
                return state
            plan = Plan(prepared.training, experiment.batch, seed=experiment.seed)
            _say_sizes(say, state, prepared, plan)
            with Recorder(
                directory, experiment.record, steps=experiment.steps, console=console, resumed_at=first
            ) as recorder:
                loss = make_loss(model, experiment.loss, experiment.forcing)
                job = loop.Job(
                    step=make_step(loss, optimiser, ema=experiment.optimiser.ema, parts=experiment.batch.parts),
                    batches=plan.from_step,
                    put=functools.partial(devices.put, mesh=mesh),
                    validate=_validator(experiment, model, prepared, mesh),
                    validation=experiment.validation,
                    checkpoints=checkpoints,
                    checkpoint_every=experiment.checkpoint.every,
                    recorder=recorder,
                    directory=directory,
                    steps=experiment.steps,
                    profile=profile,
                )
                return loop.train(job, state, standing)


def _demand_alignment(experiment: Experiment) -> None:
    """Refuse a loss on the alignment of a model that has none."""
    terms = experiment.loss.terms
    if terms and experiment.model.attention.score == "none":
        weight = getattr(experiment.loss, terms[0])
        raise ValueError(
            f"loss.{terms[0]}={weight} is about the alignment, and model.attention.score=none has none; choose a "
            f"score, or say loss.{terms[0]}=0."
        )


def _demand_alike(experiment: Experiment) -> None:
    """Refuse to copy between sides that are cut differently, before anything is learned of them."""
    kinds = experiment.text.source.kind, experiment.text.target.kind
    if slots_of(experiment) and kinds[0] != kinds[1]:
        raise ValueError(different_kinds(*kinds))


def slots_of(experiment: Experiment) -> int:
    """How many words of its own a sentence may have."""
    return experiment.model.decoder.copy_slots if experiment.model.decoder.copy != "none" else 0


def prepare(experiment: Experiment, directory: Path, say: Callable[[str], None]) -> Prepared:
    """Read the data, learn or load the tokenisers, and make sure that a resumed run sees what it saw before."""
    examples, report = read_split(experiment.data, "train")
    for line in report.lines():
        say(f"training data: {line}")
    validation, held = read_split(experiment.data, "validation")
    say(f"validation data: {held.lines()[0]}")
    reports = {"train": dataclasses.asdict(report), "validation": dataclasses.asdict(held)}
    tokenisers = {side: _tokeniser(experiment, directory, examples, side) for side in SIDES}
    pair = PairTokeniser(**tokenisers, slots=slots_of(experiment))
    encoded = encode(examples, pair)
    if experiment.loss.guided:
        encoded = encoded._replace(links=_gold(experiment, examples, tokenisers))
    training = _short_enough(encoded, experiment, report, pair)
    reports["train"] = dataclasses.asdict(report)
    _write_json(directory / "data_report.json", reports)
    facts = {
        "format": FORMAT,
        "version": s2s_jax.__version__,
        "data": _data_fingerprint(training),
        "longest_target": int(training.lengths()[:, 1].max()),
        **{f"{side}_tokeniser": fingerprint(tokenisers[side]) for side in SIDES},
    }
    _demand_same_facts(directory / "facts.json", facts)
    return Prepared(tokenisers, training, validation, facts)


def encode(examples: Sequence[Example], pair: PairTokeniser) -> Pairs:
    """Pairs as ids, each side ended by EOS; every id is below its vocabulary's size and slots, a law of tokenisers."""
    return Pairs(
        [ended(pair.encode_source(example.source)) for example in examples],
        [ended(pair.encode_target(example.target, example.source)) for example in examples],
    )


def _gold(experiment: Experiment, examples: Sequence[Example], tokenisers: dict[str, Tokeniser]) -> list[np.ndarray]:
    """The links between the tokens of each pair, none where nobody knows them."""
    if all(example.links is None for example in examples):
        raise ValueError(
            f"loss.guided={experiment.loss.guided} needs gold alignments, and data.train={experiment.data.train} has "
            "none; name a file of them in data.alignment, or say loss.guided=0."
        )
    found = (sorted(token_links(example, **tokenisers)) for example in examples)
    return [np.array(links, np.int32).reshape(-1, 2) for links in found]


def _tokeniser(experiment: Experiment, directory: Path, examples: Sequence[Example], side: str) -> Tokeniser:
    """The run's own tokeniser, or one learned from the training split."""
    path = directory / f"{side}.tokeniser.json"
    if path.exists():
        return load_tokeniser(path)
    tokeniser = train_tokeniser((getattr(one, side) for one in examples), getattr(experiment.text, side))
    save_tokeniser(tokeniser, path)
    return tokeniser


def _short_enough(pairs: Pairs, experiment: Experiment, report: Report, pair: PairTokeniser) -> Pairs:
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
        cut = pairs.cut(longest)
        return cut._replace(targets=[pair.without_lost(*both) for both in zip(cut.sources, cut.targets, strict=True)])
    report.kept -= int(over.sum())
    if over.all():
        raise ValueError(f"data.max_length={longest} leaves no training pair; raise it.")
    return pairs.chosen(np.flatnonzero(~over))


def _data_fingerprint(pairs: Pairs) -> str:
    hashed = hashlib.blake2b(digest_size=16)
    for part in filter(len, pairs):  # links only where a loss asks for them
        hashed.update(np.array([len(ids) for ids in part], np.int64).tobytes())
        hashed.update(np.concatenate(part).tobytes())
    return hashed.hexdigest()


def _model(experiment: Experiment, tokenisers: dict[str, Tokeniser]) -> Model:
    sizes = {f"{side}_vocabulary": tokenisers[side].size for side in SIDES}
    says = PairTokeniser(**tokenisers, slots=slots_of(experiment)).says()
    return build(experiment.model, **sizes, says=says)


def _state(
    experiment, model: Model, optimiser, mesh, checkpoints: Checkpoints, say
) -> tuple[TrainState, loop.Standing]:
    """The newest good state of the run, or a new one, on all devices."""
    example = abstract_state(experiment, model, optimiser)
    if not checkpoints.steps():
        params = model.init(jax.random.key(experiment.seed))
        fresh = start(params, optimiser, seed=experiment.seed, ema=experiment.optimiser.ema)
        return jax.device_put(fresh, devices.on_all(mesh)), loop.Standing()
    restored = checkpoints.restore(example)
    for line in checkpoints.refused:
        say(f"refused: {line}")
    say(f"resuming at step {restored.step}")
    about = restored.about
    best = math.inf if about["best"] is None else about["best"]
    return jax.device_put(restored.tree, devices.on_all(mesh)), loop.Standing(best, about["stale"], about["at"])


def abstract_state(experiment: Experiment, model: Model, optimiser) -> TrainState:
    """The shapes of a run's state, nothing allocated."""
    options = {"seed": experiment.seed, "ema": experiment.optimiser.ema}
    return jax.eval_shape(lambda: start(model.init(jax.random.key(0)), optimiser, **options))


def _validator(experiment: Experiment, model: Model, prepared: Prepared, mesh) -> Callable[[Params], loop.Validated]:
    """The function that measures parameters: loss over the whole split, quality over its first lines."""
    slots = slots_of(experiment)
    pairs = encode(prepared.validation, PairTokeniser(**prepared.tokenisers, slots=slots))
    plan = Plan(pairs, experiment.batch, seed=0)
    sums_of = jax.jit(functools.partial(plain_sums, model, chunk=experiment.loss.chunk))
    items = grouped(prepared.validation[: experiment.validation.sentences])
    # greedy
    search = SearchConfig(
        sentences=experiment.search.sentences,
        rules=experiment.search.rules,
        replace_unknown=experiment.search.replace_unknown,
    )
    longest = longest_answer(prepared.facts)
    translator = Translator(model, search=search, max_length=longest, slots=slots, **prepared.tokenisers)

    def validate(params: Params) -> loop.Validated:
        sums = [jax.device_get(sums_of(params, devices.put(batch, mesh))) for batch in plan.in_order()]
        nats, tokens, correct = (
            sum(float(getattr(one, name)) for one in sums) for name in ("nats", "tokens", "correct")
        )
        values = {"loss": nats / max(tokens, 1), "token_accuracy": correct / max(tokens, 1)}
        if not items.sources:
            return loop.Validated(values, [])
        translations = list(translator.translate(params, items.sources))
        measured = quality([one.text for one in translations], items.references, unit=experiment.evaluation.unit)
        values |= {name: float(measured[name]) for name in ("exact_match", "bleu")}  # type: ignore[arg-type]
        return loop.Validated(values, _sample(translations[0], items.references[0][0]))

    return validate


def _sample(translation: Translation, reference: str) -> list[str]:
    return [f"source:      {translation.source}", f"translation: {translation.text}", f"reference:   {reference}"]


def longest_answer(facts: dict[str, Any]) -> int:
    """The bound on a translation's length that nobody set: 1.2 x the longest training target + 10 tokens."""
    return int(1.2 * facts["longest_target"]) + 10


def _say_sizes(say, state: TrainState, prepared: Prepared, plan: Plan) -> None:
    sizes = ", ".join(f"{side} {prepared.tokenisers[side].size:,}" for side in SIDES)
    shapes = ", ".join(f"{rows} x ({s}+{t})" for rows, (s, t) in zip(plan.rows, plan.shapes, strict=True))
    say(f"vocabularies: {sizes}; parameters: {count(state.params):,}")
    say(f"batches: {plan.per_epoch:,} an epoch, {plan.waste:.0%} padding, shapes {shapes}")


def count(params: Params) -> int:
    """How many numbers there are in a tree."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


# --- a run on disk ----------------------------------------------------------------------------------------------------


def _is_begun(directory: Path) -> bool:
    """Whether there is a checkpoint to go on from; without one, a run starts from the beginning."""
    return any((directory / "checkpoints").glob("[0-9]*"))


def _clear(directory: Path) -> None:
    """Take away what a run that never came to a checkpoint has left: it would bind the next one to its settings."""
    for name in ("config.json", "facts.json", "metrics.jsonl", *(f"{side}.tokeniser.json" for side in SIDES)):
        (directory / name).unlink(missing_ok=True)


def _demand_same(experiment: Experiment, directory: Path) -> None:
    """Refuse to resume a run with settings that would have made another one."""
    changed = configs.differences(read_experiment(directory), experiment)
    if changed:
        raise ValueError(
            f"{directory} holds a run with other settings ({'; '.join(changed)}); resume it with the same ones, or "
            "give another --run."
        )


def _demand_same_facts(path: Path, facts: dict[str, Any]) -> None:
    if path.exists():
        before = _read_json(path)
        changed = [name for name in facts if name not in ("version", "format") and before.get(name) != facts[name]]
        if changed:
            said = "; ".join(f"{name}: {before.get(name)} before, {facts[name]} now" for name in changed)
            raise ValueError(f"{path.parent} was trained on other data ({said}); restore it, or give another --run.")
    _write_json(path, facts)


def read_experiment(directory: Path) -> Experiment:
    """The experiment of a run.

    Raises:
        FileNotFoundError, ValueError: there is no run, or its config.json cannot be read.
    """
    path = directory / "config.json"
    if not path.exists():
        raise FileNotFoundError(
            f"no run at {directory} (it has no config.json); train one: s2s train EXPERIMENT --run {directory}"
        )
    record = _read_json(path)
    if record.pop("format", 0) > FORMAT:
        raise ValueError(f"{path} was written by a newer s2s_jax; use that, or at least its version.")
    return configs.from_json(record)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not JSON ({error}); restore it from a copy.") from None


def _write_json(path: Path, record: dict[str, Any]) -> None:
    """Write at once or not at all, so that a kill leaves no half file."""
    draft = path.with_suffix(".part")
    draft.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    draft.replace(path)


def load(directory: Path, *, changes: Sequence[str] = ()) -> Trained:
    """A trained run: its best checkpoint, or its newest where none was validated.

    Args:
        changes: overrides of settings that do not change the model, such as `search.beam=5`.

    Raises:
        FileNotFoundError, ValueError: there is no run, or it does not fit together.
        CheckpointError: no checkpoint of it is whole.
    """
    experiment = read_experiment(directory)
    changed = functools.reduce(configs.override, changes, experiment)
    devices.keep_compiled(changed.device)
    devices.keep_freed_memory()
    facts = _read_json(directory / "facts.json")
    tokenisers = {side: load_tokeniser(directory / f"{side}.tokeniser.json") for side in SIDES}
    for side in SIDES:
        _demand_fingerprint(directory, side, fingerprint(tokenisers[side]), facts[f"{side}_tokeniser"])
    model = _model(experiment, tokenisers)
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


# --- using a run ------------------------------------------------------------------------------------------------------


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
