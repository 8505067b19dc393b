"""How is an experiment trained in a folder, from nothing or from where it was stopped?"""

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from rich.console import Console

from s2s_jax import config as configs
from s2s_jax.config import Experiment
from s2s_jax.decode.search import SearchConfig, compiled_search
from s2s_jax.decode.translate import Translation, Translator
from s2s_jax.evaluate.evaluation import grouped
from s2s_jax.evaluate.quality import quality
from s2s_jax.model.interface import Model, Params
from s2s_jax.model.seq2seq import build
from s2s_jax.run.build import abstract_state, count, longest_answer, model_of
from s2s_jax.run.prepare import Prepared, encode, keep_prepared, prepare, slots_of
from s2s_jax.run.run_dir import FORMAT, SIDES, clear, demand_same, is_begun, write_json
from s2s_jax.shapes import Batch
from s2s_jax.text.batches import Plan
from s2s_jax.text.copy_vocabulary import PairTokeniser, different_kinds
from s2s_jax.train import devices, loop, vmapped_runs
from s2s_jax.train.checkpoint.checkpoints import Checkpoints
from s2s_jax.train.lock import Lock
from s2s_jax.train.metrics_writer import Recorder
from s2s_jax.train.objectives import make_loss, plain_sums
from s2s_jax.train.optimizer import make_optimiser
from s2s_jax.train.scheduled_sampling import SOFT
from s2s_jax.train.step import Metrics, Step, TrainState, make_step, start


def train(experiment: Experiment, directory: Path, console: Console, *, profile: Path | None = None) -> TrainState:
    """Train in a run directory; a directory with a run in it is resumed.

    Raises:
        FileNotFoundError, ValueError: what the user asked for cannot be done, in one line.
        Interrupted: a signal asked for an end; the state is saved.
    """
    mesh = devices.make_mesh(experiment.device)
    with _opened(experiment, directory, console, mesh) as opened:
        if opened.reason:
            return opened.state
        return loop.train(opened.job._replace(profile=profile), opened.state, opened.standing)


def train_replicas(
    experiments: Sequence[Experiment], directories: Sequence[Path], console: Console
) -> list[str | None]:
    """Train runs that differ in their seed, and in numbers of `config.TOLD`, in one compiled program, each in its own
    directory.

    Each becomes what `train` would have made of it, up to rounding, and can be used and resumed alone.

    Those that stand at different steps, since one of them had diverged, are trained one group after another.

    Returns:
        for each run None, or why it has stopped early.

    Raises:
        ValueError: they differ in more, or may stop on their own (patience, budget).
        Interrupted: a signal asked for an end; all states are saved.
    """
    _demand_replicas(experiments)
    mesh = devices.make_mesh(experiments[0].device, replicas=len(experiments))
    with contextlib.ExitStack() as stack:
        opened: list[_Opened] = []
        for experiment, directory in zip(experiments, directories, strict=True):
            shared = opened[0].shared if opened else None
            opened.append(stack.enter_context(_opened(experiment, directory, console, mesh, shared=shared)))
        tokenisers = opened[0].shared.prepared.tokenisers

        def step(numbers: dict[str, Any], state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
            one = configs.told(experiments[0], numbers)
            return _step(one, model_of(one, tokenisers))(state, batch)

        at = [int(one.state.step) for one in opened]
        lost: list[str | None] = [None] * len(opened)
        for taken in sorted({number for number, one in zip(at, opened, strict=True) if not one.reason}):
            places = [place for place, number in enumerate(at) if number == taken]
            over = devices.along(devices.make_mesh(experiments[0].device, replicas=len(places)), "replica")
            found = vmapped_runs.train(
                [vmapped_runs.Replica(opened[place].job, opened[place].standing) for place in places],
                [opened[place].state for place in places],
                _differing([experiments[place] for place in places]),
                step,
                functools.partial(jax.device_put, device=over),
            )
            for place, why in zip(places, found, strict=True):
                lost[place] = why
        return lost


def _differing(experiments: Sequence[Experiment]) -> dict[str, np.ndarray]:
    """The numbers in which the experiments differ, with each one's value."""
    each = [{setting.name: setting.value for setting in configs.settings(one)} for one in experiments]
    values = {name: np.array([one[name] for one in each]) for name in configs.TOLD}
    return {name: value for name, value in values.items() if np.ptp(value) > 0}


def _demand_replicas(experiments: Sequence[Experiment]) -> None:
    first = configs.shared(experiments[0])
    for other in map(configs.shared, experiments[1:]):
        if other != first:
            differing = "; ".join(configs.differences(other, first))
            raise ValueError(f"replicas differ in their seed and in {', '.join(configs.TOLD)} alone, got {differing}")
    for name in ("validation.patience", "budget.tokens", "budget.seconds"):
        group, field = name.split(".")
        if value := getattr(getattr(first, group), field):
            raise ValueError(
                f"replicas go in step to the last one, so none may stop before it; {name}={value} must be 0."
            )


class _Shared(NamedTuple):
    """What runs on the same data with the same model have in common."""

    prepared: Prepared
    model: Model
    validate: Callable[[Params], loop.Validated]


class _Opened(NamedTuple):
    """A run that is about to be trained."""

    job: loop.Job
    state: TrainState
    standing: loop.Standing
    shared: _Shared
    reason: str | None  # why there is nothing left to train


@contextlib.contextmanager
def _opened(
    experiment: Experiment, directory: Path, console: Console, mesh: Mesh, *, shared: _Shared | None = None
) -> Iterator[_Opened]:
    """A run's directory, locked, with its data, its state and its recorder; all is written when it is left."""
    say = functools.partial(console.print, markup=False, highlight=False)
    _demand_sense(experiment)
    with Lock(directory):
        devices.keep_compiled(experiment.device)
        devices.keep_freed_memory()
        if is_begun(directory):
            demand_same(experiment, directory)
        else:
            clear(directory)
        if shared is None:
            say(f"devices: {devices.describe(mesh)}; precision: {experiment.model.precision}")
            if warning := devices.accelerator_left_idle():
                say(f"warning: {warning}")
            prepared = prepare(experiment, directory, say)
            model = model_of(experiment, prepared.tokenisers)
            shared = _Shared(prepared, model, _validator(experiment, model, prepared, mesh))
        else:
            keep_prepared(shared.prepared, directory)
        prepared, model, validate = shared
        write_json(directory / "config.json", {"format": FORMAT, **configs.to_json(experiment)})
        with Checkpoints(directory / "checkpoints", experiment.checkpoint) as checkpoints:
            state, standing = _state(experiment, model, mesh, checkpoints, say)
            first = int(state.step)
            end = loop.End(experiment.steps, experiment.validation, experiment.budget)
            reason = end.reason(first, standing)
            plan = Plan(prepared.training, experiment.batch, seed=experiment.seed)
            if reason:
                say(f"{directory} is done: step {first} of {experiment.steps}; {reason}.")
            else:
                _say_sizes(say, state, prepared, plan)
            with Recorder(
                directory, experiment.record, steps=experiment.steps, console=console, resumed_at=first
            ) as recorder:
                job = loop.Job(
                    step=_step(experiment, model),
                    batches=plan.from_step,
                    put=functools.partial(devices.put, mesh=mesh),
                    validate=validate,
                    end=end,
                    checkpoints=checkpoints,
                    checkpoint_every=experiment.checkpoint.every,
                    recorder=recorder,
                    directory=directory,
                )
                yield _Opened(job, state, standing, shared, reason)


def _step(experiment: Experiment, model: Model) -> Step:
    """The compiled step that the settings ask for."""
    loss = make_loss(model, experiment.loss, experiment.forcing)
    optimiser = make_optimiser(experiment.optimiser, experiment.steps)
    return make_step(loss, optimiser, ema=experiment.optimiser.ema, parts=experiment.batch.parts)


def demand_trainable(experiment: Experiment) -> TrainState:
    """Refuse what cannot be trained before any data is read: its step is traced, on shapes alone.

    Returns:
        the shapes of the run's state, for vocabularies of 100 tokens.

    Raises:
        ValueError: choices that cannot go together.
    """
    _demand_sense(experiment)
    model = build(experiment.model, source_vocabulary=100, target_vocabulary=100)
    optimiser = make_optimiser(experiment.optimiser, experiment.steps)
    state = abstract_state(experiment, model, optimiser)
    lines = jax.ShapeDtypeStruct((2, 5), jnp.int32)
    links = jax.ShapeDtypeStruct((2, 5, 5), jnp.bool_) if experiment.loss.guided else ()
    jax.eval_shape(_step(experiment, model), state, Batch(lines, lines, links))  # type: ignore[arg-type]
    return state


def _demand_sense(experiment: Experiment) -> None:
    """Refuse what cannot go together."""
    build(experiment.model, source_vocabulary=8, target_vocabulary=8)
    _demand_alignment(experiment)
    _demand_alike(experiment)
    _demand_tokens(experiment)


def _demand_alignment(experiment: Experiment) -> None:
    """Refuse a loss on the alignment of a model that has none."""
    terms = experiment.loss.terms
    if terms and experiment.model.attention.score == "none":
        weight = getattr(experiment.loss, terms[0])
        raise ValueError(
            f"loss.{terms[0]}={weight} is about the alignment, and model.attention.score=none has none; choose a "
            f"score, or say loss.{terms[0]}=0."
        )


def _demand_tokens(experiment: Experiment) -> None:
    """Refuse to feed anything but tokens where words are copied by their ids."""
    tail, copy = experiment.forcing.tail, experiment.model.decoder.copy
    if tail in SOFT and copy != "none" and not experiment.forcing.always_true:
        raise ValueError(
            f"forcing.tail={tail} feeds weights over the vocabulary, and model.decoder.copy={copy} asks for tokens; "
            "take forcing.tail=argmax or sample."
        )


def _demand_alike(experiment: Experiment) -> None:
    """Refuse to copy between sides that are cut differently, before anything is learned of them."""
    kinds = experiment.text.source.kind, experiment.text.target.kind
    if slots_of(experiment) and kinds[0] != kinds[1]:
        raise ValueError(different_kinds(*kinds))


def _state(
    experiment: Experiment, model: Model, mesh: Mesh, checkpoints: Checkpoints, say: Callable[[str], None]
) -> tuple[TrainState, loop.Standing]:
    """The newest good state of the run, or a new one, on all devices."""
    optimiser = make_optimiser(experiment.optimiser, experiment.steps)
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
