"""From an experiment to a trained run: check -> data -> tokenizers -> batches -> model -> state -> step -> loop.

Each stage is a module of this package, is given its own config, and returns what the next ones need. `train` passes
through all of them; `check_trainable` through check, model, state and step, on shapes alone; replicas share data,
tokenizers and model.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from rich.console import Console

from s2s_jax import config as configs
from s2s_jax.config import Experiment
from s2s_jax.imports import import_code
from s2s_jax.model.interface import Model, Params
from s2s_jax.run.batches import default_max_length
from s2s_jax.run.check import check_experiment
from s2s_jax.run.identity import identity
from s2s_jax.run.inputs import Inputs, read_inputs, write_run
from s2s_jax.run.loaded_run import Run, load
from s2s_jax.run.model import count_parameters, make_model
from s2s_jax.run.opening import change_texts, check_directory, check_same_data, move_aside, open_run
from s2s_jax.run.run_dir import CHECKPOINTS, METRICS_FILE, SIDES
from s2s_jax.run.state import start_state
from s2s_jax.run.step import step_values, training_step
from s2s_jax.run.validator import make_validator
from s2s_jax.shapes import Batch
from s2s_jax.text.batches import BatchPlan
from s2s_jax.text.copy_vocabulary import PairTokenizer
from s2s_jax.training import devices
from s2s_jax.training.checkpoint.checkpoints import Checkpoints
from s2s_jax.training.console import training_console
from s2s_jax.training.lock import Lock
from s2s_jax.training.loop import TrainerContext, TrainingLoop, ValidationResult, single_program
from s2s_jax.training.metrics_writer import MetricsWriter, append_record
from s2s_jax.training.optimizer import warmup_warning
from s2s_jax.training.step import Metrics, TrainState, TrainStep
from s2s_jax.training.stop_policy import StopPolicy
from s2s_jax.training.vmapped_runs import vmapped_program


def train(
    experiment: Experiment,
    directory: str | Path,
    console: Console | None = None,
    *,
    profile: str | Path | None = None,
    overwrite: bool = False,
    extend: bool = False,
) -> Run:
    """Train in a run directory and return the run; an existing run is resumed.

    Args:
        console: where progress is printed; by default the terminal or the notebook.
        profile: directory for a trace of some steps.
        overwrite: train anew; a run that is there is moved to `DIRECTORY.old-1` (or the next number that is free).
        extend: `steps` may differ from those of the run that is there, although its learning rate schedule reads
            them: it then follows the schedule of the new number from its newest checkpoint on, and config.json
            records both parts.

    Raises:
        FileNotFoundError, ValueError: something in the experiment or the directory does not allow it.
        NotFinite: the training diverged.
        Interrupted: a signal stopped the training; the state is saved.
    """
    fit(experiment, directory, console, profile=profile, overwrite=overwrite, extend=extend)
    return load(directory)


def fit(
    experiment: Experiment,
    directory: str | Path,
    console: Console | None = None,
    *,
    profile: str | Path | None = None,
    overwrite: bool = False,
    extend: bool = False,
) -> TrainState:
    """As `train`, but return the last state, whose parameters need not be the best, and load nothing."""
    import_code(experiment.imports)
    mesh = devices.make_mesh(experiment.device)
    where = Path(directory), console or training_console(), mesh
    with _prepared(experiment, *where, overwrite=overwrite, extend=extend) as run:
        if run.stopped:
            return run.state
        step = _step(run.experiment, run.shared.model)
        program = single_program(step, functools.partial(devices.put, mesh=mesh))
        loop = TrainingLoop([run.context], program, [run.state], profile=None if profile is None else Path(profile))
        (failure,) = loop.run()
        if failure is not None:
            raise failure
        return loop.state


def train_replicas(
    experiments: Sequence[Experiment], directories: Sequence[str | Path], console: Console | None = None
) -> list[str | None]:
    """Train runs that differ in their seed and in `config.VMAPPABLE_SETTINGS` in one compiled program.

    Each becomes, in its own directory, what `train` would have made of it, up to rounding, and can be used and resumed
    alone. Those that are at different steps, since one of them had diverged, are trained one group after another.

    Returns:
        per run None, or the text of the error that ended it: its step was not finite.

    Raises:
        ValueError: they differ in more, or may stop early (patience, budget).
        Interrupted: a signal stopped the training; all states are saved.
    """
    import_code(experiments[0].imports)
    _check_replicas(experiments)
    mesh = devices.make_mesh(experiments[0].device, replicas=len(experiments))
    with contextlib.ExitStack() as stack:
        runs: list[_PreparedRun] = []
        for experiment, directory in zip(experiments, directories, strict=True):
            shared = runs[0].shared if runs else None
            prepared = _prepared(experiment, Path(directory), console or training_console(), mesh, shared=shared)
            runs.append(stack.enter_context(prepared))
        failures: list[str | None] = [None] * len(runs)
        steps = [int(run.state.step) for run in runs]
        for first in sorted({step for step, run in zip(steps, runs, strict=True) if not run.stopped}):
            members = [index for index, step in enumerate(steps) if step == first]
            group = [runs[index] for index in members]
            program = _replica_program([experiments[index] for index in members], group[0].shared.tokenizers)
            results = TrainingLoop([run.context for run in group], program, [run.state for run in group]).run()
            for index, result in zip(members, results, strict=True):
                failures[index] = None if result is None else str(result)
        return failures


def _step(experiment: Experiment, model: Model) -> TrainStep:
    return training_step(
        model, experiment.loss, experiment.scheduled_sampling, experiment.optimizer, steps=experiment.steps
    )


def _replica_program(experiments: Sequence[Experiment], tokenizers: PairTokenizer):
    """The program of replicas, with the settings in which they differ as traced numbers."""
    placement = devices.along(devices.make_mesh(experiments[0].device, replicas=len(experiments)), "replica")

    def step(numbers: dict[str, Any], state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        experiment = configs.with_traced(experiments[0], numbers)
        return _step(experiment, make_model(experiment.model, tokenizers))(state, batch)

    return vmapped_program(step, _differing(experiments), functools.partial(jax.device_put, device=placement))


def _differing(experiments: Sequence[Experiment]) -> dict[str, np.ndarray]:
    """The vmappable settings in which the experiments differ, with the value of each."""
    each = [{setting.name: setting.value for setting in configs.settings(experiment)} for experiment in experiments]
    values = {name: np.array([settings[name] for settings in each]) for name in configs.VMAPPABLE_SETTINGS}
    return {name: value for name, value in values.items() if np.ptp(value) > 0}


def _check_replicas(experiments: Sequence[Experiment]) -> None:
    first = configs.without_vmappable(experiments[0])
    for other in map(configs.without_vmappable, experiments[1:]):
        if other != first:
            each = [{setting.name: setting.value for setting in configs.settings(one)} for one in (other, first)]
            differing = change_texts(configs.differences(*each))
            raise ValueError(
                f"replicas may differ in seed and in {', '.join(configs.VMAPPABLE_SETTINGS)} alone, got {differing}"
            )
    for name in ("validation.patience", "budget.tokens", "budget.seconds"):
        group, field = name.split(".")
        if value := getattr(getattr(first, group), field):
            raise ValueError(
                f"replicas all train to the last step, so none may stop before it; set {name}=0, got {value}."
            )


class _Shared(NamedTuple):
    """What replicas have in common."""

    inputs: Inputs
    model: Model
    validate: Callable[[Params], ValidationResult]

    @property
    def tokenizers(self) -> PairTokenizer:
        return self.inputs.tokenizers


class _PreparedRun(NamedTuple):
    """A run that is ready for the loop."""

    experiment: Experiment
    context: TrainerContext
    state: TrainState
    shared: _Shared
    stopped: str | None  # why there is nothing left to train


@contextlib.contextmanager
def _prepared(
    experiment: Experiment,
    directory: Path,
    console: Console,
    mesh: Mesh,
    *,
    shared: _Shared | None = None,
    overwrite: bool = False,
    extend: bool = False,
) -> Iterator[_PreparedRun]:
    """A run, its directory locked, with everything that the loop needs; all is written when the context is left.

    Nothing that is in the directory is touched before all checks have passed and the data has been read.
    """
    print_line = functools.partial(console.print, markup=False, highlight=False)
    check_experiment(experiment)
    check_directory(directory)
    with Lock(directory):
        opening = open_run(directory, experiment, overwrite=overwrite, extend=extend)
        experiment = opening.experiment
        devices.use_compilation_cache(experiment.device)
        if shared is None:
            _print_devices(print_line, mesh, experiment.model.precision)
            shared = _share(experiment, mesh, print_line, resumed=directory if opening.resumed else None)
        check_same_data(opening, shared.inputs.facts, directory)
        if opening.replaced:
            print_line(f"what {directory} held is now in {move_aside(directory)}")
        plan = BatchPlan(shared.inputs.training, experiment.batch, seed=experiment.seed)
        with _checkpoints(experiment, shared.inputs.facts, directory) as checkpoints:
            numbers = {"steps": experiment.steps, "seed": experiment.seed}
            state, progress = start_state(shared.model, experiment.optimizer, checkpoints, mesh, print_line, **numbers)
            write_run(experiment, shared.inputs, directory)
            first = int(state.step)
            policy = StopPolicy(experiment.steps, experiment.validation, experiment.budget)
            stopped = policy.reason(first, progress)
            if stopped:
                print_line(f"{directory} is done: step {first} of {experiment.steps}; {stopped}.")
            else:
                _print_sizes(print_line, state, shared.tokenizers, plan)
                if warning := warmup_warning(experiment.optimizer, experiment.steps):
                    print_line(f"warning: {warning}")
            with _writer(experiment, plan, directory, console, resumed_at=first) as writer:
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
                )
                yield _PreparedRun(experiment, context, state, shared, stopped)


def _writer(
    experiment: Experiment, plan: BatchPlan, directory: Path, console: Console, *, resumed_at: int
) -> MetricsWriter:
    """The writer of a run's progress."""
    steps, sampling = experiment.steps, experiment.scheduled_sampling
    return MetricsWriter(
        directory,
        experiment.record,
        steps=steps,
        console=console,
        resumed_at=resumed_at,
        validated_every=experiment.validation.every,
        values_at=step_values(sampling, experiment.optimizer, steps=steps, per_epoch=plan.per_epoch),
    )


def _checkpoints(experiment: Experiment, facts: dict[str, Any], directory: Path) -> Checkpoints:
    """The checkpoints of a run, open for writing; metrics.jsonl records each that is written."""
    run, path = identity(experiment, facts), directory / METRICS_FILE
    on_written = functools.partial(append_record, path, "checkpoint")
    return Checkpoints(directory / CHECKPOINTS, experiment.checkpoint, run=run, on_written=on_written)


def _share(experiment: Experiment, mesh: Mesh, print_line: Callable[[str], None], *, resumed: Path | None) -> _Shared:
    """Inputs, model and validator of a run."""
    inputs = read_inputs(experiment, print_line, resumed=resumed)
    model = make_model(experiment.model, inputs.tokenizers)
    validation, max_length = (inputs.data.validation, inputs.validation), default_max_length(inputs.facts)
    validate = make_validator(experiment, model, inputs.tokenizers, *validation, mesh, max_length=max_length)
    return _Shared(inputs, model, validate)


def _print_devices(print_line: Callable[[str], None], mesh: Mesh, precision: str) -> None:
    print_line(f"devices: {devices.describe(mesh)}; precision: {precision}")
    if warning := devices.accelerator_left_idle():
        print_line(f"warning: {warning}")


def _print_sizes(
    print_line: Callable[[str], None], state: TrainState, tokenizers: PairTokenizer, plan: BatchPlan
) -> None:
    sizes = ", ".join(f"{side} {getattr(tokenizers, side).size:,}" for side in SIDES)
    shapes = ", ".join(f"{rows} x ({s}+{t})" for rows, (s, t) in zip(plan.rows, plan.buckets, strict=True))
    print_line(f"vocabularies: {sizes}; parameters: {count_parameters(state.params):,}")
    print_line(f"batches: {plan.per_epoch:,} per epoch, {plan.padding_fraction:.0%} padding, shapes {shapes}")
