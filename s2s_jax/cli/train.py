"""`s2s train`: trains an experiment, or resumes a run."""

import argparse
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
from s2s_jax.training import distributed
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
    _join_processes(options, experiment)
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
    except distributed.ProcessLost as loss:  # jax would wait for the lost process at exit
        print(f"s2s: {loss}", file=sys.stderr, flush=True)
        os._exit(1)
    if options.json and distributed.is_first():
        last = {record.pop("kind"): record for record in run.newest_metrics(directory)}
        print_json({"run": str(directory), "step": int(state.step), **last})
    elif not options.json:
        console.print(
            f"the run is {directory}; next: echo 'your line' | s2s translate {directory}", markup=False, highlight=False
        )


def _join_processes(options: argparse.Namespace, experiment: config.Experiment) -> None:
    """Join the other processes of a distributed training, where there are any.

    Raises:
        UsageError: one of the options that say where they are is missing.
    """
    given = {"--coordinator": options.coordinator, "--processes": options.processes, "--process-id": options.process_id}
    missing = [name for name, value in given.items() if value is None]
    if 0 < len(missing) < len(given):
        raise UsageError(f"{' and '.join(given.keys() - missing)} needs {' and '.join(missing)} as well")
    if not missing or options.distributed:
        _keep_stdout_for_python()
    if not missing:
        place = (options.coordinator, options.processes, options.process_id)
        distributed.start(*place, heartbeat=experiment.device.heartbeat)
    elif options.distributed:
        distributed.start(heartbeat=experiment.device.heartbeat)


def _keep_stdout_for_python() -> None:
    """Let what libraries below Python print, as Gloo does, go to stderr."""
    sys.stdout.flush()
    sys.stdout = os.fdopen(os.dup(1), "w", encoding=sys.stdout.encoding, errors=sys.stdout.errors, buffering=1)
    os.dup2(2, 1)
