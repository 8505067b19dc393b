"""`s2s train`: trains an experiment, or resumes a run."""

import dataclasses
import os
import sys
from pathlib import Path

from s2s_jax import config, run
from s2s_jax.cli.arguments import Arguments, UsageError
from s2s_jax.cli.experiments import find, settings_alone
from s2s_jax.cli.inputs import check_not_exported
from s2s_jax.cli.output import print_json
from s2s_jax.imports import merged_names
from s2s_jax.training.console import training_console
from s2s_jax.training.devices import keep_freed_memory
from s2s_jax.training.signals import Interrupted, SignalGuard


def train_command(arguments: Arguments) -> None:
    """Train an experiment, or resume a run."""
    options = arguments.options
    if options.experiment is None:
        raise UsageError("train needs an EXPERIMENT: a Python file with experiment(), its name, or a run to resume")
    check_not_exported(options.experiment)
    experiment, directory = find(options.experiment, options.run)
    experiment = config.override(experiment, *arguments.overrides)
    experiment = dataclasses.replace(experiment, imports=merged_names(experiment.imports, options.imports))
    console = training_console(stderr=options.json)
    keep_freed_memory()
    if warning := settings_alone(options.experiment, directory):
        console.print(warning, markup=False, style="bold")
    try:
        state = run.fit(
            experiment,
            directory,
            console,
            profile=Path(options.profile) if options.profile else None,
            overwrite=options.overwrite,
            extend=options.extend,
        )
    except Interrupted as stop:
        if SignalGuard.is_still_computing():  # Python would wait for it; all files are written and closed
            print(f"s2s: {stop}", file=sys.stderr, flush=True)
            os._exit(stop.code)
        raise
    if options.json:
        last = {record.pop("kind"): record for record in run.newest_metrics(directory)}
        print_json({"run": str(directory), "step": int(state.step), **last})
    else:
        console.print(
            f"the run is {directory}; next: echo 'your line' | s2s translate {directory}", markup=False, highlight=False
        )
