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
from s2s_jax.evaluate.evaluation import group_by_source
from s2s_jax.evaluate.metrics import Predictions, measure
from s2s_jax.imports import import_code
from s2s_jax.model.interface import Model, Params
from s2s_jax.model.seq2seq import build
from s2s_jax.run.build import abstract_state, count, longest_answer, model_of
from s2s_jax.run.loaded_run import Run, load
from s2s_jax.run.prepare import PreparedData, encode, prepare, save_prepared, slots_of
from s2s_jax.run.run_dir import FORMAT, SIDES, check_same_settings, clear, has_checkpoint, write_json
from s2s_jax.shapes import Batch
from s2s_jax.text.batches import BatchPlan
from s2s_jax.text.copy_vocabulary import PairTokenizer, unequal_types
from s2s_jax.train import devices, loop, vmapped_runs
from s2s_jax.train.checkpoint.checkpoints import Checkpoints
from s2s_jax.train.lock import Lock
from s2s_jax.train.metrics_writer import MetricsWriter
from s2s_jax.train.objectives import make_loss, plain_sums
from s2s_jax.train.optimizer import make_optimizer
from s2s_jax.train.scheduled_sampling import SOFT_PREDICTIONS
from s2s_jax.train.step import Metrics, TrainState, TrainStep, initial_state, make_step


def train(
    experiment: Experiment,
    directory: str | Path,
    console: Console | None = None,
    *,
    profile: str | Path | None = None,
) -> Run:
    """Train in a run directory and return the run; an existing run is resumed.

    Args:
        console: where progress is printed; by default the terminal or the notebook.
        profile: directory for a trace of some steps.

    Raises:
        FileNotFoundError, ValueError: something in the experiment or the directory does not allow it.
        Interrupted: a signal stopped the training; the state is saved.
    """
    fit(experiment, directory, console, profile=profile)
    return load(directory)


def fit(
    experiment: Experiment,
    directory: str | Path,
    console: Console | None = None,
    *,
    profile: str | Path | None = None,
) -> TrainState:
    """As `train`, and return the last state, whose parameters need not be the best."""
    directory, console = Path(directory), console or Console()
    profile = None if profile is None else Path(profile)
    import_code(experiment.imports)
    mesh = devices.make_mesh(experiment.device)
    with _opened(experiment, directory, console, mesh) as opened:
        if opened.reason:
            return opened.state
        return loop.train(opened.job._replace(profile=profile), opened.state, opened.standing)


def train_replicas(
    experiments: Sequence[Experiment], directories: Sequence[str | Path], console: Console | None = None
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
    console = console or Console()
    import_code(experiments[0].imports)
    _check_replicas(experiments)
    mesh = devices.make_mesh(experiments[0].device, replicas=len(experiments))
    with contextlib.ExitStack() as stack:
        opened: list[_Opened] = []
        for experiment, directory in zip(experiments, directories, strict=True):
            shared = opened[0].shared if opened else None
            opened.append(stack.enter_context(_opened(experiment, Path(directory), console, mesh, shared=shared)))
        tokenizers = opened[0].shared.prepared.tokenizers

        def step(numbers: dict[str, Any], state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
            one = configs.with_traced(experiments[0], numbers)
            return _step(one, model_of(one, tokenizers))(state, batch)

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
    values = {name: np.array([one[name] for one in each]) for name in configs.VMAPPABLE_SETTINGS}
    return {name: value for name, value in values.items() if np.ptp(value) > 0}


def _check_replicas(experiments: Sequence[Experiment]) -> None:
    first = configs.without_vmappable(experiments[0])
    for other in map(configs.without_vmappable, experiments[1:]):
        if other != first:
            differing = "; ".join(configs.differences(other, first))
            raise ValueError(
                f"replicas differ in their seed and in {', '.join(configs.VMAPPABLE_SETTINGS)} alone, got {differing}"
            )
    for name in ("validation.patience", "budget.tokens", "budget.seconds"):
        group, field = name.split(".")
        if value := getattr(getattr(first, group), field):
            raise ValueError(
                f"replicas go in step to the last one, so none may stop before it; {name}={value} must be 0."
            )


class _Shared(NamedTuple):
    """What runs on the same data with the same model have in common."""

    prepared: PreparedData
    model: Model
    validate: Callable[[Params], loop.ValidationResult]


class _Opened(NamedTuple):
    """A run that is about to be trained."""

    job: loop.TrainerContext
    state: TrainState
    standing: loop.TrainProgress
    shared: _Shared
    reason: str | None  # why there is nothing left to train


@contextlib.contextmanager
def _opened(
    experiment: Experiment, directory: Path, console: Console, mesh: Mesh, *, shared: _Shared | None = None
) -> Iterator[_Opened]:
    """A run's directory, locked, with its data, its state and its recorder; all is written when it is left."""
    say = functools.partial(console.print, markup=False, highlight=False)
    _check_sense(experiment)
    with Lock(directory):
        devices.use_compilation_cache(experiment.device)
        if has_checkpoint(directory):
            check_same_settings(experiment, directory)
        else:
            clear(directory)
        if shared is None:
            say(f"devices: {devices.describe(mesh)}; precision: {experiment.model.precision}")
            if warning := devices.accelerator_left_idle():
                say(f"warning: {warning}")
            prepared = prepare(experiment, directory, say)
            model = model_of(experiment, prepared.tokenizers)
            shared = _Shared(prepared, model, _validator(experiment, model, prepared, mesh))
        else:
            save_prepared(shared.prepared, directory)
        prepared, model, validate = shared
        write_json(directory / "config.json", {"format": FORMAT, **configs.to_json(experiment)})
        with Checkpoints(directory / "checkpoints", experiment.checkpoint) as checkpoints:
            state, standing = _state(experiment, model, mesh, checkpoints, say)
            first = int(state.step)
            end = loop.StopPolicy(experiment.steps, experiment.validation, experiment.budget)
            reason = end.reason(first, standing)
            plan = BatchPlan(prepared.training, experiment.batch, seed=experiment.seed)
            if reason:
                say(f"{directory} is done: step {first} of {experiment.steps}; {reason}.")
            else:
                _say_sizes(say, state, prepared, plan)
            with MetricsWriter(
                directory, experiment.record, steps=experiment.steps, console=console, resumed_at=first
            ) as recorder:
                job = loop.TrainerContext(
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


def _step(experiment: Experiment, model: Model) -> TrainStep:
    """The compiled step that the settings ask for."""
    loss = make_loss(model, experiment.loss, experiment.scheduled_sampling)
    optimizer = make_optimizer(experiment.optimizer, experiment.steps)
    return make_step(loss, optimizer, ema=experiment.optimizer.ema, parts=experiment.batch.parts)


def check_trainable(experiment: Experiment) -> TrainState:
    """Refuse what cannot be trained before any data is read: its step is traced, on shapes alone.

    Returns:
        the shapes of the run's state, for vocabularies of 100 tokens.

    Raises:
        ValueError: choices that cannot go together.
    """
    _check_sense(experiment)
    model = build(experiment.model, source_vocabulary=100, target_vocabulary=100)
    optimizer = make_optimizer(experiment.optimizer, experiment.steps)
    state = abstract_state(experiment, model, optimizer)
    lines = jax.ShapeDtypeStruct((2, 5), jnp.int32)
    links = jax.ShapeDtypeStruct((2, 5, 5), jnp.bool_) if experiment.loss.guided else ()
    jax.eval_shape(_step(experiment, model), state, Batch(lines, lines, links))  # type: ignore[arg-type]
    return state


def _check_sense(experiment: Experiment) -> None:
    """Refuse what cannot go together."""
    build(experiment.model, source_vocabulary=8, target_vocabulary=8)
    _check_alignment(experiment)
    _check_alike(experiment)
    _check_tokens(experiment)


def _check_alignment(experiment: Experiment) -> None:
    """Refuse a loss on the alignment of a model that has none."""
    terms = experiment.loss.terms
    if terms and experiment.model.attention.score == "none":
        weight = getattr(experiment.loss, terms[0])
        raise ValueError(
            f"loss.{terms[0]}={weight} is about the alignment, and model.attention.score=none has none; choose a "
            f"score, or say loss.{terms[0]}=0."
        )


def _check_tokens(experiment: Experiment) -> None:
    """Refuse to feed anything but tokens where words are copied by their ids."""
    tail, copy = experiment.scheduled_sampling.prediction, experiment.model.decoder.copy
    if tail in SOFT_PREDICTIONS and copy != "none" and not experiment.scheduled_sampling.is_teacher_forcing:
        raise ValueError(
            f"scheduled_sampling.prediction={tail} feeds weights over the vocabulary, and model.decoder.copy={copy} asks for tokens; "
            "take scheduled_sampling.prediction=argmax or sample."
        )


def _check_alike(experiment: Experiment) -> None:
    """Refuse to copy between sides that are cut differently, before anything is learned of them."""
    kinds = experiment.tokenizer.source.type, experiment.tokenizer.target.type
    if slots_of(experiment) and kinds[0] != kinds[1]:
        raise ValueError(unequal_types(*kinds))


def _state(
    experiment: Experiment, model: Model, mesh: Mesh, checkpoints: Checkpoints, say: Callable[[str], None]
) -> tuple[TrainState, loop.TrainProgress]:
    """The newest good state of the run, or a new one, on all devices."""
    optimizer = make_optimizer(experiment.optimizer, experiment.steps)
    example = abstract_state(experiment, model, optimizer)
    if not checkpoints.steps():
        params = model.init(jax.random.key(experiment.seed))
        fresh = initial_state(params, optimizer, seed=experiment.seed, ema=experiment.optimizer.ema)
        return jax.device_put(fresh, devices.on_all(mesh)), loop.TrainProgress()
    restored = checkpoints.restore(example)
    for line in checkpoints.refused:
        say(f"refused: {line}")
    say(f"resuming at step {restored.step}")
    standing = {name: restored.about[name] for name in loop.TrainProgress._fields}
    standing["best"] = math.inf if standing["best"] is None else standing["best"]
    return jax.device_put(restored.tree, devices.on_all(mesh)), loop.TrainProgress(**standing)


def _validator(
    experiment: Experiment, model: Model, prepared: PreparedData, mesh
) -> Callable[[Params], loop.ValidationResult]:
    """The function that measures parameters: loss over the whole split, quality over its first lines."""
    pair = PairTokenizer(**prepared.tokenizers, slots=slots_of(experiment))
    pairs = encode(prepared.validation, pair)
    plan = BatchPlan(pairs, experiment.batch, seed=0)
    sums_of = jax.jit(functools.partial(plain_sums, model, chunk=experiment.loss.vocabulary_chunk))
    items = group_by_source(prepared.validation[: experiment.validation.sentences])
    # greedy
    search = SearchConfig(
        batch_size=experiment.search.batch_size,
        rules=experiment.search.rules,
        replace_unknown=experiment.search.replace_unknown,
    )
    translator = Translator(compiled_search(model, search, longest_answer(prepared.facts)), pair, search)

    def validate(params: Params) -> loop.ValidationResult:
        sums = [jax.device_get(sums_of(params, devices.put(batch, mesh))) for batch in plan.in_order()]
        nats, tokens, correct = (
            sum(float(getattr(one, name)) for one in sums) for name in ("nats", "tokens", "correct")
        )
        values = {"loss": nats / max(tokens, 1), "token_accuracy": correct / max(tokens, 1)}
        if not items.sources:
            return loop.ValidationResult(values, [])
        translations = list(translator.translate(params, items.sources))
        predicted = Predictions([one.text for one in translations], items.references, experiment.evaluation.unit)
        measured = measure(predicted, ("exact_match", "bleu"))
        values |= {name: float(measured[name]) for name in ("exact_match", "bleu")}  # type: ignore[arg-type]
        return loop.ValidationResult(values, _sample(translations[0], items.references[0][0]))

    return validate


def _sample(translation: Translation, reference: str) -> list[str]:
    return [f"source:      {translation.source}", f"translation: {translation.text}", f"reference:   {reference}"]


def _say_sizes(say, state: TrainState, prepared: PreparedData, plan: BatchPlan) -> None:
    sizes = ", ".join(f"{side} {prepared.tokenizers[side].size:,}" for side in SIDES)
    shapes = ", ".join(f"{rows} x ({s}+{t})" for rows, (s, t) in zip(plan.rows, plan.buckets, strict=True))
    say(f"vocabularies: {sizes}; parameters: {count(state.params):,}")
    say(f"batches: {plan.per_epoch:,} an epoch, {plan.padding_fraction:.0%} padding, shapes {shapes}")
