"""How is an experiment trained in a folder, from nothing or from where it was stopped?"""

import functools
import math
from collections.abc import Callable
from pathlib import Path

import jax
from rich.console import Console

from s2s_jax import config as configs
from s2s_jax.config import Experiment
from s2s_jax.decode.search_config import SearchConfig, compiled_search, demand_sense
from s2s_jax.decode.translate import Translation, Translator
from s2s_jax.evaluate.evaluation import grouped
from s2s_jax.evaluate.quality import quality
from s2s_jax.model.interface import Model, Params
from s2s_jax.model.seq2seq import build
from s2s_jax.run.folder import FORMAT, SIDES, clear, demand_same, is_begun, write_json
from s2s_jax.run.parts import abstract_state, count, longest_answer, model_of
from s2s_jax.run.prepare import Prepared, encode, prepare, slots_of
from s2s_jax.text.batches import Plan
from s2s_jax.text.own_words import PairTokeniser, different_kinds
from s2s_jax.train import devices, loop
from s2s_jax.train.checkpoint import Checkpoints
from s2s_jax.train.lock import Lock
from s2s_jax.train.loss import make_loss, plain_sums
from s2s_jax.train.optimiser import make_optimiser
from s2s_jax.train.record import Recorder
from s2s_jax.train.step import TrainState, make_step, start


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
        if is_begun(directory):
            demand_same(experiment, directory)
        else:
            clear(directory)
        say(f"devices: {devices.describe(mesh)}; precision: {experiment.model.precision}")
        if warning := devices.accelerator_left_idle():
            say(f"warning: {warning}")
        prepared = prepare(experiment, directory, say)
        model = model_of(experiment, prepared.tokenisers)
        optimiser = make_optimiser(experiment.optimiser, experiment.steps)
        write_json(directory / "config.json", {"format": FORMAT, **configs.to_json(experiment)})
        with Checkpoints(directory / "checkpoints", experiment.checkpoint) as checkpoints:
            state, standing = _state(experiment, model, optimiser, mesh, checkpoints, say)
            first = int(state.step)
            end = loop.End(experiment.steps, experiment.validation, experiment.budget)
            if reason := end.reason(first, standing):
                say(f"{directory} is done: step {first} of {experiment.steps}; {reason}.")
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
                    end=end,
                    checkpoints=checkpoints,
                    checkpoint_every=experiment.checkpoint.every,
                    recorder=recorder,
                    directory=directory,
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
    standing = {name: restored.about[name] for name in loop.Standing._fields}
    standing["best"] = math.inf if standing["best"] is None else standing["best"]
    return jax.device_put(restored.tree, devices.on_all(mesh)), loop.Standing(**standing)


def _validator(experiment: Experiment, model: Model, prepared: Prepared, mesh) -> Callable[[Params], loop.Validated]:
    """The function that measures parameters: loss over the whole split, quality over its first lines."""
    pair = PairTokeniser(**prepared.tokenisers, slots=slots_of(experiment))
    pairs = encode(prepared.validation, pair)
    plan = Plan(pairs, experiment.batch, seed=0)
    sums_of = jax.jit(functools.partial(plain_sums, model, chunk=experiment.loss.chunk))
    items = grouped(prepared.validation[: experiment.validation.sentences])
    # greedy
    search = SearchConfig(
        sentences=experiment.search.sentences,
        rules=experiment.search.rules,
        replace_unknown=experiment.search.replace_unknown,
    )
    translator = Translator(compiled_search(model, search, longest_answer(prepared.facts)), pair, search)

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


def _say_sizes(say, state: TrainState, prepared: Prepared, plan: Plan) -> None:
    sizes = ", ".join(f"{side} {prepared.tokenisers[side].size:,}" for side in SIDES)
    shapes = ", ".join(f"{rows} x ({s}+{t})" for rows, (s, t) in zip(plan.rows, plan.shapes, strict=True))
    say(f"vocabularies: {sizes}; parameters: {count(state.params):,}")
    say(f"batches: {plan.per_epoch:,} an epoch, {plan.waste:.0%} padding, shapes {shapes}")
