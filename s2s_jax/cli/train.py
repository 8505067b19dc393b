"""`s2s train`: trains an experiment, or resumes a run."""

import argparse
import dataclasses
import json
import os
import sys
from pathlib import Path

from s2s_jax import config, run
from s2s_jax.cli.arguments import Arguments, UsageError
from s2s_jax.cli.errors import DONE
from s2s_jax.cli.experiments import find, settings_alone
from s2s_jax.cli.inputs import check_not_exported
from s2s_jax.cli.output import print_json
from s2s_jax.imports import merged_names
from s2s_jax.run import launch
from s2s_jax.run.run_dir import checkpoint_steps
from s2s_jax.training import distributed
from s2s_jax.training.console import training_console
from s2s_jax.training.devices import keep_freed_memory
from s2s_jax.training.signals import Interrupted, SignalGuard


def train_command(arguments: Arguments) -> int:
    """Train an experiment, or resume a run, here or on a cluster; the exit code."""
    options = arguments.options
    if options.experiment is None:
        raise UsageError("train needs an EXPERIMENT: a Python file with experiment(), its name, or a run to resume")
    check_not_exported(options.experiment)
    arguments = _without_aliases(arguments)
    experiment, directory = find(options.experiment, options.run)
    experiment = config.override(experiment, *arguments.overrides)
    experiment = dataclasses.replace(experiment, imports=merged_names(experiment.imports, options.imports))
    _check_executor(options)
    if options.executor != "local":
        return _launch(arguments, directory)
    _join_processes(options, experiment)
    console = training_console(stderr=options.json)
    keep_freed_memory()
    if not experiment.warm_start.run and (warning := settings_alone(options.experiment, directory)):
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
        _print_result(directory, int(state.step))
    elif not options.json:
        console.print(
            f"the run is {directory}; next: echo 'your line' | s2s translate {directory}", markup=False, highlight=False
        )
    return DONE


def _without_aliases(arguments: Arguments) -> Arguments:
    """The arguments with `--from` and `--freeze` as the settings that they stand for.

    Raises:
        UsageError: the setting is given as well.
    """
    options = arguments.options
    short = {"--from": ("warm_start.run", options.from_run), "--freeze": ("optimizer.freeze", options.freeze)}
    overrides = list(arguments.overrides)
    for alias, (name, value) in short.items():
        if value is None or value == []:
            continue
        if value == "":
            raise UsageError(f"{alias} is empty; name a run, or leave it out")
        if any(assignment.startswith(f"{name}=") for assignment in overrides):
            raise UsageError(f"{alias} and --{name.replace('_', '-')} are the same setting; leave one of them out")
        overrides.append(f"{name}={value if isinstance(value, str) else json.dumps(value)}")
    return dataclasses.replace(arguments, overrides=overrides)


def _print_result(directory: Path, step: int) -> None:
    last = {record.pop("kind"): record for record in run.newest_metrics(directory)}
    print_json({"run": str(directory), "step": step, **last})


def _check_executor(options: argparse.Namespace) -> None:
    """Refuse options that the executor does not have.

    Raises:
        UsageError: naming one.
    """
    wrong = {
        "--address": options.address and options.executor != "ray",
        "--slurm": options.slurm and options.executor != "slurm",
        "--coordinator": options.coordinator and options.executor != "local",
        "--distributed": options.distributed and options.executor != "local",
    }
    for name, is_wrong in wrong.items():
        if is_wrong:
            raise UsageError(f"{name} has no effect with --executor {options.executor}; leave one of them out")
    for pair in options.slurm:
        if "=" not in pair:
            raise UsageError(f"--slurm needs NAME=VALUE, got {pair!r}")


def _launch(arguments: Arguments, directory: Path) -> int:
    """Train in the processes of a cluster, and wait for them.

    Returns:
        the exit code: that of the first process that failed, or 128 + the signal that asked for an end.

    Raises:
        UsageError: an option that the executor does not have, or lacks.
    """
    options = arguments.options
    words = ["train", options.experiment, "--run", str(directory)]
    words += [word for name in options.imports for word in ("--import", name)]
    words += [f"--{name}" for name in ("overwrite", "extend") if getattr(options, name)]
    words += [f"--profile={options.profile}"] if options.profile else []
    words += [f"--{assignment}" for assignment in arguments.overrides]
    if options.executor == "ray":
        if not options.processes:
            raise UsageError("--executor ray needs --processes N, one for each GPU or host")
        codes, number = launch.train_on_ray(words, options.processes, options.address, show=not options.json)
    else:
        slurm = dict(pair.split("=", 1) for pair in options.slurm)
        logs = directory.with_name(f"{directory.name}.slurm")
        print(f"what the tasks print is in {logs}", file=sys.stderr)
        codes, number = launch.train_on_slurm(words, slurm, logs)
    failed = next((code for code in codes if code), DONE)
    if options.json and not failed:
        _print_result(directory, max(checkpoint_steps(directory), default=0))
    return 128 + number if number else failed


def _join_processes(options: argparse.Namespace, experiment: config.Experiment) -> None:
    """Join the other processes of a distributed training, where there are any.

    Raises:
        UsageError: one of the options that say where they are is missing.
    """
    given = {"--coordinator": options.coordinator, "--processes": options.processes, "--process-id": options.process_id}
    missing = [name for name, value in given.items() if value is None]
    if 0 < len(missing) < len(given):
        there = " and ".join(name for name in given if name not in missing)
        raise UsageError(f"{there} needs {' and '.join(missing)} as well")
    if missing and not options.distributed:
        return
    place = () if missing else (options.coordinator, options.processes, options.process_id)
    if place:
        others = f"the other {options.processes - 1} at {options.coordinator}"
        print(f"process {options.process_id} waits for {others}, for five minutes at most", file=sys.stderr)
    distributed.start(*place, heartbeat=experiment.device.heartbeat)
    _keep_stdout_for_python()


def _keep_stdout_for_python() -> None:
    """Let what libraries below Python print, as Gloo does, go to stderr."""
    sys.stdout.flush()
    sys.stdout = os.fdopen(os.dup(1), "w", encoding=sys.stdout.encoding, errors=sys.stdout.errors, buffering=1)
    os.dup2(2, 1)
