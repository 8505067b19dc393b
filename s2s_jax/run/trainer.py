"""Training of a run: what `preparation` makes ready goes into the loop."""

import functools
from pathlib import Path

from rich.console import Console

from s2s_jax.config import Experiment
from s2s_jax.imports import import_code
from s2s_jax.run.loaded_run import Run, load
from s2s_jax.run.preparation import prepared_run, step_of
from s2s_jax.training import devices, distributed
from s2s_jax.training.console import training_console
from s2s_jax.training.loop import TrainingLoop, single_program
from s2s_jax.training.pmapped_run import pmapped_program
from s2s_jax.training.step import TrainState


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
    with prepared_run(experiment, *where, overwrite=overwrite, extend=extend) as run:
        if run.stopped:
            return run.state
        options = devices.compiler_options(run.experiment.device)
        step = step_of(run.experiment, run.shared.model, run.shared.tokenizers, mesh, options)
        if run.experiment.device.parallel == "pmap":
            program = pmapped_program(step, mesh)
        else:
            program = single_program(step, functools.partial(devices.put, mesh=mesh))
        loop = TrainingLoop([run.context], program, [run.state], profile=None if profile is None else Path(profile))
        with distributed.losses_named():
            (failure,) = loop.run()
        if failure is not None:
            raise failure
        return loop.state
