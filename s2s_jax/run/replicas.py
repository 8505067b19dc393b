"""Replicas: runs that differ in a few numbers, trained in one compiled program."""

import contextlib
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from s2s_jax import config as configs
from s2s_jax.config import Experiment
from s2s_jax.imports import import_code
from s2s_jax.run.model import make_model
from s2s_jax.run.opening import change_texts
from s2s_jax.run.preparation import PreparedRun, prepared_run, step_of
from s2s_jax.shapes import Batch
from s2s_jax.text.copy_vocabulary import PairTokenizer
from s2s_jax.training import devices, distributed
from s2s_jax.training.console import training_console
from s2s_jax.training.loop import StepProgram, TrainingLoop
from s2s_jax.training.step import Metrics, TrainState
from s2s_jax.training.vmapped_runs import vmapped_program


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
        runs: list[PreparedRun] = []
        for experiment, directory in zip(experiments, directories, strict=True):
            shared = runs[0].shared if runs else None
            prepared = prepared_run(experiment, Path(directory), console or training_console(), mesh, shared=shared)
            runs.append(stack.enter_context(prepared))
        failures: list[str | None] = [None] * len(runs)
        steps = [int(run.state.step) for run in runs]
        for first in sorted({step for step, run in zip(steps, runs, strict=True) if not run.stopped}):
            members = [index for index, step in enumerate(steps) if step == first]
            group = [runs[index] for index in members]
            program = _replica_program([run.experiment for run in group], group[0].shared.tokenizers)
            results = TrainingLoop([run.context for run in group], program, [run.state for run in group]).run()
            for index, result in zip(members, results, strict=True):
                failures[index] = None if result is None else str(result)
        return failures


def _replica_program(experiments: Sequence[Experiment], tokenizers: PairTokenizer) -> StepProgram:
    """The program of replicas, with the settings in which they differ as traced numbers."""
    mesh = devices.make_mesh(experiments[0].device, replicas=len(experiments))

    def step(numbers: dict[str, Any], state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        experiment = configs.with_traced(experiments[0], numbers)
        return step_of(experiment, make_model(experiment.model, tokenizers), tokenizers, mesh)(state, batch)

    return vmapped_program(
        step,
        _differing(experiments),
        place=functools.partial(devices.place_replicas, mesh=mesh),
        put=functools.partial(devices.put_replicas, mesh=mesh),
        compiler_options=devices.compiler_options(experiments[0].device),
    )


def _differing(experiments: Sequence[Experiment]) -> dict[str, np.ndarray]:
    """The vmappable settings in which the experiments differ, with the value of each."""
    each = [{setting.name: setting.value for setting in configs.settings(experiment)} for experiment in experiments]
    values = {name: np.array([settings[name] for settings in each]) for name in configs.VMAPPABLE_SETTINGS}
    return {name: value for name, value in values.items() if np.ptp(value) > 0}


def _check_replicas(experiments: Sequence[Experiment]) -> None:
    if distributed.is_shared():
        raise ValueError("replicas are trained by one process; train each of them by itself to use several.")
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
