"""From an experiment to a run that is ready to train: check -> data -> tokenizers -> batches -> model -> state -> step.

Each stage is a module of this package, is given its own config, and returns what the next ones need. A run passes
through all of them; `check_trainable` through check, model, state and step, on shapes alone; replicas share data,
tokenizers and model.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jax.sharding import Mesh
from rich.console import Console

from s2s_jax.config import Experiment, settings, with_epochs
from s2s_jax.model.interface import Model, Params
from s2s_jax.run.batches import default_max_length
from s2s_jax.run.check import check_experiment, smoothing_warning
from s2s_jax.run.environment import record_start
from s2s_jax.run.identity import identity
from s2s_jax.run.inputs import Inputs, read_inputs, write_run
from s2s_jax.run.loaded_run import Run
from s2s_jax.run.model import count_parameters, count_trained, make_model
from s2s_jax.run.opening import Opening, check_directory, check_same_data, move_aside, open_run
from s2s_jax.run.rewards import sequence_training
from s2s_jax.run.run_dir import CHECKPOINTS, METRICS_FILE
from s2s_jax.run.state import start_state
from s2s_jax.run.step import step_values, training_step
from s2s_jax.run.validator import make_validator
from s2s_jax.run.warm_start import Start, read_source, starting_point, with_tokenizers_of
from s2s_jax.text.batches import BatchPlan
from s2s_jax.text.copy_vocabulary import PairTokenizer
from s2s_jax.text.tokenizers import TokenizersConfig
from s2s_jax.training import devices, distributed
from s2s_jax.training.checkpoint.checkpoints import Checkpoints
from s2s_jax.training.lock import Lock
from s2s_jax.training.loop import TrainerContext, ValidationResult, save
from s2s_jax.training.metrics_writer import MetricsWriter, append_record
from s2s_jax.training.optimizer import plateau_factor, warmup_warning
from s2s_jax.training.run_log import RunLog
from s2s_jax.training.step import TrainState, TrainStep
from s2s_jax.training.stop_policy import StopPolicy, TrainProgress


class Shared(NamedTuple):
    """What replicas have in common."""

    inputs: Inputs
    model: Model
    validate: Callable[[Params], ValidationResult]
    tokenizer: TokenizersConfig  # the settings of the tokenizers, which a warm start may have taken with them
    start: Start | None  # what a new run starts from; None where all of it is random, or the first run is resumed

    @property
    def tokenizers(self) -> PairTokenizer:
        """Those of the run, for both sides."""
        return self.inputs.tokenizers


class PreparedRun(NamedTuple):
    """A run that is ready for the loop."""

    experiment: Experiment
    context: TrainerContext
    state: TrainState
    shared: Shared
    stopped: str | None  # why there is nothing left to train


@contextlib.contextmanager
def prepared_run(
    experiment: Experiment,
    directory: Path,
    console: Console,
    mesh: Mesh,
    *,
    shared: Shared | None = None,
    overwrite: bool = False,
    extend: bool = False,
) -> Iterator[PreparedRun]:
    """A run, its directory locked, with everything that the loop needs; all is written when the context is left.

    Nothing that is in the directory is touched before all checks have passed and the data has been read.
    """
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(RunLog(console))
        print_line = log.print
        _lock(stack, experiment, directory)
        with distributed.together():
            opening = open_run(directory, experiment, overwrite=overwrite, extend=extend)
            experiment = opening.experiment
            devices.use_compilation_cache(experiment.device)
            if shared is None:
                print_devices(print_line, mesh, experiment.model.precision)
                shared = _share(experiment, mesh, print_line, directory, opening)
            start = _start_of(experiment, shared, opening, print_line)
            inputs = shared.inputs.with_facts(**(opening.started_from if start is None else start.facts))
            check_same_data(opening, inputs.facts, directory)
        with distributed.together():
            if opening.replaced and distributed.is_first():
                print_line(f"what {directory} held is now in {move_aside(directory)}")
        own = devices.own_rows(mesh)
        options = {"own": own, "mixture": inputs.mixture, "noise": inputs.noise}
        plan = BatchPlan(inputs.training, experiment.batch, seed=experiment.seed, **options)
        experiment = dataclasses.replace(with_epochs(experiment, plan.per_epoch), tokenizer=shared.tokenizer)
        inputs = inputs.with_facts(batches_per_epoch=plan.per_epoch)
        with distributed.together():  # left when no process finds anything unfinished any more
            checkpoints = stack.enter_context(_checkpoints(experiment, inputs.facts, directory))
        state, progress = _first_state(experiment, shared.model, start, checkpoints, mesh, print_line)
        with distributed.together():
            if distributed.is_first():
                write_run(experiment, inputs, directory, start)
                log.open(directory)
        first = int(state.step)
        policy = _stop_policy(experiment, plan)
        stopped = policy.reason(first, progress)
        if stopped:
            print_line(f"{directory} is done: step {first} of {experiment.steps}; {stopped}.")
        else:
            if distributed.is_first():
                record_start(directory, first)
            _print_sizes(print_line, experiment, state, shared.tokenizers, plan)
            for warning in (warmup_warning(experiment.optimizer, experiment.steps), smoothing_warning(experiment)):
                if warning:
                    print_line(f"warning: {warning}")
        with _writer(experiment, plan, directory, log, resumed_at=first, validated_every=policy.every) as writer:
            context = TrainerContext(
                batches=plan.from_step,
                validate=shared.validate,
                checkpoints=checkpoints,
                checkpoint=experiment.checkpoint,
                buckets=len(plan.buckets),
                largest=plan.largest() if experiment.steps - first >= plan.per_epoch else None,
                writer=writer,
                directory=directory,
                policy=policy,
                progress=progress,
                rate_factor=_rate_factor(experiment),
            )
            if start is not None:  # so that what it was taken from is not needed any more
                save(context, state, first, progress, None)
            yield PreparedRun(experiment, context, state, shared, stopped)


def _lock(stack: contextlib.ExitStack, experiment: Experiment, directory: Path) -> None:
    """Check what can be checked before anything is touched, and lock the directory until the stack is left."""
    with distributed.together():
        check_experiment(experiment)
        check_directory(directory)
    with distributed.together():
        if distributed.is_first():
            stack.enter_context(Lock(directory))


def _start_of(
    experiment: Experiment, shared: Shared, opening: Opening, print_line: Callable[[str], None]
) -> Start | None:
    """What a new run starts from; None where it is resumed."""
    if opening.resumed:
        return None
    if shared.start is None:  # all is random, or of the replicas the first one is resumed
        return starting_point(experiment, shared.tokenizers, read_source(experiment, print_line), print_line)
    return shared.start


def _first_state(
    experiment: Experiment,
    model: Model,
    start: Start | None,
    checkpoints: Checkpoints,
    mesh: Mesh,
    print_line: Callable[[str], None],
) -> tuple[TrainState, TrainProgress]:
    """The state that a run is trained from, of the same checkpoint in all processes, and its progress."""
    numbers = {"steps": experiment.steps, "seed": experiment.seed}
    with distributed.together():
        changed = None if start is None else start.put_into
        state = start_state(model, experiment.optimizer, checkpoints, mesh, print_line, start=changed, **numbers)
    distributed.check_same(int(state[0].step), f"the step of the newest checkpoint in {checkpoints.directory}")
    return state


def _stop_policy(experiment: Experiment, plan: BatchPlan) -> StopPolicy:
    patience = experiment.optimizer.decay_patience if experiment.optimizer.schedule == "plateau" else 0
    lengths = {"per_epoch": plan.per_epoch, "decay_patience": patience}
    return StopPolicy(experiment.steps, experiment.validation, experiment.budget, **lengths)


def _rate_factor(experiment: Experiment) -> Callable[[int], float] | None:
    """The factor of the learning rate after so many decays, where validations decide about it."""
    config = experiment.optimizer
    return functools.partial(plateau_factor, config) if config.schedule == "plateau" else None


def _writer(
    experiment: Experiment,
    plan: BatchPlan,
    directory: Path,
    log: RunLog,
    *,
    resumed_at: int,
    validated_every: int,
) -> MetricsWriter:
    """The writer of a run's progress."""
    return MetricsWriter(
        directory,
        experiment.record,
        steps=experiment.steps,
        log=log,
        resumed_at=resumed_at,
        validated_every=validated_every,
        values_at=step_values(experiment, per_epoch=plan.per_epoch),
        settings={setting.name: setting.value for setting in settings(experiment)},
    )


def _checkpoints(experiment: Experiment, facts: dict[str, Any], directory: Path) -> Checkpoints:
    """The checkpoints of a run, open for writing; metrics.jsonl records each that is written."""
    run, path = identity(experiment, facts), directory / METRICS_FILE
    on_written = functools.partial(append_record, path, "checkpoint") if distributed.is_first() else None
    return Checkpoints(directory / CHECKPOINTS, experiment.checkpoint, run=run, on_written=on_written)


def _share(
    experiment: Experiment, mesh: Mesh, print_line: Callable[[str], None], directory: Path, opening: Opening
) -> Shared:
    """Inputs, model and validator of a run."""
    source = None if opening.resumed else read_source(experiment, print_line)
    experiment = with_tokenizers_of(experiment, source)
    _check_with_taken(experiment, source)
    taken = None if source is None or not experiment.warm_start.tokenizers else source.directory
    inputs = read_inputs(experiment, print_line, resumed=directory if opening.resumed else taken)
    start = None if opening.resumed else starting_point(experiment, inputs.tokenizers, source, print_line)
    model = make_model(experiment.model, inputs.tokenizers)
    validation, max_length = (inputs.data.validation, inputs.validation), default_max_length(inputs.facts)
    validate = make_validator(experiment, model, inputs.tokenizers, *validation, mesh, max_length=max_length)
    return Shared(inputs, model, validate, experiment.tokenizer, start)


def _check_with_taken(experiment: Experiment, source: Run | None) -> None:
    """Check an experiment again, with the settings of the tokenizers that it has taken from another run."""
    if source is None or not experiment.warm_start.tokenizers:
        return
    try:
        check_experiment(experiment)
    except ValueError as error:
        raise ValueError(
            f"the tokenizers of warm_start.run={experiment.warm_start.run} come with their settings: {error} Or set "
            "--warm-start.tokenizers false."
        ) from None


def print_devices(print_line: Callable[[str], None], mesh: Mesh, precision: str) -> None:
    """Print what training runs on, with a warning where an accelerator is left idle."""
    print_line(f"devices: {devices.describe(mesh)}; precision: {precision}")
    if warning := devices.accelerator_left_idle():
        print_line(f"warning: {warning}")


def _print_sizes(
    print_line: Callable[[str], None],
    experiment: Experiment,
    state: TrainState,
    tokenizers: PairTokenizer,
    plan: BatchPlan,
) -> None:
    sizes = ", ".join(f"{side} {each.size:,}" for side, each in tokenizers.sides.items())
    shapes = ", ".join(f"{rows} x ({s}+{t})" for rows, (s, t) in zip(plan.rows, plan.buckets, strict=True))
    parameters, trained = count_parameters(state.params), count_trained(state.params, experiment.optimizer)
    frozen = "" if trained == parameters else f", of which {trained:,} are trained"
    steps = f"; epochs: {experiment.epochs}, {experiment.steps:,} steps" if experiment.epochs else ""
    print_line(f"vocabularies: {sizes}; parameters: {parameters:,}{frozen}")
    print_line(f"batches: {plan.per_epoch:,} per epoch, {plan.padding_fraction:.0%} padding, shapes {shapes}{steps}")


def step_of(
    experiment: Experiment,
    model: Model,
    tokenizers: PairTokenizer,
    mesh: Mesh,
    compiler_options: Mapping[str, Any] | None = None,
) -> TrainStep:
    """The training step of an experiment on a mesh."""
    return training_step(
        model,
        experiment.loss,
        experiment.scheduled_sampling,
        experiment.optimizer,
        steps=experiment.steps,
        sequence=sequence_training(experiment, tokenizers),
        layout=devices.layout_of(experiment.device, mesh),
        compiler_options=compiler_options,
    )
