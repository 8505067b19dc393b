"""`s2s sweep`: plans, runs, watches, reports or verifies the sweep of a file, or runs a tuning."""

import argparse
import dataclasses
import json
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.live import Live

from s2s_jax.cli.arguments import Arguments, UsageError
from s2s_jax.cli.console import OutputConsole
from s2s_jax.cli.executor import executor_config
from s2s_jax.cli.suggestions import did_you_mean
from s2s_jax.cli.sweep_file import NamedSweep, find_sweep
from s2s_jax.sweep.fingerprint import TrialDir
from s2s_jax.sweep.launch import launch
from s2s_jax.sweep.plan import count_comparisons, find_trials, make_plan, trial_groups
from s2s_jax.sweep.report import write_report
from s2s_jax.sweep.report.join import join_results, read_folder
from s2s_jax.sweep.report.simulation import describe_effect, simulate
from s2s_jax.sweep.results import collect_results, scores_by_point
from s2s_jax.sweep.status import StatusReader, StatusRow, status_screen, status_summary, status_table
from s2s_jax.sweep.sweep import Sweep
from s2s_jax.sweep.tune import tune
from s2s_jax.sweep.tuning import Tuning
from s2s_jax.sweep.verify import verify_trial
from s2s_jax.training.console import training_console


def sweep_command(arguments: Arguments) -> int:
    """Run the command; returns its exit code."""
    options = arguments.options
    if options.others and options.action != "report":
        raise UsageError(f"sweep {options.action} takes one sweep, got {options.file} and {' '.join(options.others)}")
    named = find_sweep(arguments)
    if isinstance(named.sweep, Tuning):
        return _tune(named.sweep, named.folder, arguments)
    return ACTIONS[arguments.options.action](named.sweep, named, arguments)


def _tune(tuning: Tuning, folder: Path, arguments: Arguments) -> int:
    options = arguments.options
    if options.action != "run":
        raise UsageError(f"a tuning has no {options.action}, only run; its trials are in {folder}")
    console = _console(arguments)
    tuned = tune(tuning, folder, console.print, executor_config(options))
    if tuned.signal:
        return _stopped(console, tuned.signal)
    if options.json:
        print(json.dumps({name: value for name, value in tuned._asdict().items() if name != "signal"}))
    elif tuned.value is None:
        print(f"none of {tuned.trials} trials is done; see the log.txt of each in {folder / 'trials'}")
    else:
        changes = " ".join(f"--{name} {value}" for name, value in tuned.settings.items())
        print(f"{tuned.trials} trials: {tuned.pruned} pruned, {tuned.failed} failed")
        print(f"best {tuning.base.validation.metric} {tuned.value:.4f}: {changes}")
    return 0 if tuned.value is not None else 1


def _console(arguments: Arguments) -> Console:
    """Where progress is shown; that nobody can read it any more never ends a sweep."""
    return training_console(stderr=arguments.options.json, markup=False)


def _stopped(console: Console, signal: int) -> int:
    console.print("stopped; the same command continues from here")
    return 128 + signal


def _plan(sweep: Sweep, named: NamedSweep, arguments: Arguments) -> int:
    plan = make_plan(sweep, named.folder)
    if arguments.options.effect:
        plan = plan._replace(power=f"{plan.power} {_power(sweep, plan.trial_dirs, arguments.options.effect)}")
    folders = [str(trial_dir.folder) for trial_dir in plan.trial_dirs]
    if arguments.options.json:
        record = {name: getattr(plan, name) for name in ("done", "failed", "seconds", "megabytes", "power")}
        lists = {"identical": [group._asdict() for group in plan.identical], "damaged": list(map(str, plan.damaged))}
        print(json.dumps({"trials": folders, **record, **lists}))
        return 0
    print("\n".join(folders))
    print(f"{len(folders)} trials: {plan.done} done, {plan.failed} failed; every model was built and its step traced")
    left = "unknown until a trial is done" if plan.seconds is None else f"{plan.seconds / 60:.0f} minutes, one by one"
    print(f"time left: {left}; up to {plan.megabytes:.0f} MB of checkpoints")
    damaged = [f"{path} is missing, damaged or was changed by hand; run makes it again" for path in plan.damaged]
    print("\n".join([*map(str, plan.identical), *damaged, plan.power]))
    return 0


def _power(sweep: Sweep, trial_dirs: list[TrialDir], effect: str) -> str:
    metric = sweep.metrics[0]
    scores = scores_by_point(trial_dirs, metric)
    return describe_effect(effect, metric, scores, comparisons=count_comparisons(sweep), seeds=len(sweep.seeds))


def _simulate(sweep: Sweep, named: NamedSweep, arguments: Arguments) -> int:
    """Print how often the tests of the sweep's report are wrong, and how often they find an effect."""
    comparisons, repeats = count_comparisons(sweep), arguments.options.repeats
    if not comparisons or repeats < 1:
        raise UsageError("simulate needs a compared axis of two values or more, and --repeats of at least 1")
    rows = []
    for row in simulate(comparisons, repeats):
        rows.append({"kind": type(row).__name__, **row._asdict()})
        if not arguments.options.json:
            print(row, flush=True)
    if arguments.options.json:
        print(json.dumps({"comparisons": comparisons, "repeats": repeats, "rows": rows}))
    return 0


def _run(sweep: Sweep, named: NamedSweep, arguments: Arguments) -> int:
    options, folder = arguments.options, named.folder
    console = _console(arguments)
    executor = executor_config(options)
    outcome = launch(sweep, folder, executor, console.print, retry_diverged=options.retry_diverged)
    if outcome.signal:
        return _stopped(console, outcome.signal)
    _write_report(sweep, named, outcome.plan.trial_dirs)
    if options.json:
        failed = [str(each) for each in outcome.failed]
        print(json.dumps({"sweep": str(folder), "trials": len(outcome.plan.trial_dirs), "failed": failed}))
    for each in outcome.failed:
        print(f"s2s: no scores from {each}; see its log.txt", file=sys.stderr)
    console.print(f"report: {folder / 'report' / 'report.html'}")
    return 1 if outcome.failed else 0


def _status(sweep: Sweep, named: NamedSweep, arguments: Arguments) -> int:
    metric = sweep.metrics[0]
    reader = StatusReader(find_trials(sweep, named.folder), metric)
    rows = reader.rows()
    if arguments.options.json:
        print(json.dumps({"trials": [row._asdict() for row in rows]}))
        return 0
    console = OutputConsole(highlight=False)
    if arguments.options.watch and console.is_terminal:
        rows = _watch(reader, metric, console)
    console.print(status_table(rows, metric))
    print(status_summary(rows))
    return 0


def _watch(reader: StatusReader, metric: str, console: Console) -> list[StatusRow]:
    """Show the trials, refreshed every two seconds, until none waits or runs, or until Ctrl-C."""
    rows = reader.rows()
    with Live(console=console, transient=True, auto_refresh=False) as live:
        while any(row.status in ("waiting", "running") for row in rows):
            live.update(status_screen(rows, metric, height=console.height), refresh=True)
            time.sleep(2)
            rows = reader.rows()
    return rows


def _report(sweep: Sweep, named: NamedSweep, arguments: Arguments) -> int:
    trial_dirs = make_plan(sweep, named.folder).trial_dirs
    if arguments.options.others:
        folder = _write_joined(sweep, named, trial_dirs, arguments)
    else:
        folder = _write_report(sweep, named, trial_dirs)
    print(json.dumps({"report": str(folder)}) if arguments.options.json else f"report: {folder / 'report.html'}")
    return 0


def _write_joined(sweep: Sweep, named: NamedSweep, trial_dirs: list[TrialDir], arguments: Arguments) -> Path:
    """The report of a sweep with others, beside the folder of the first."""
    first = collect_results(sweep, trial_dirs, name=named.name, claim=named.claim, command=named.command)
    results = [first]
    for other in arguments.options.others:
        folder = Path(other)
        if not (folder / "trials").is_dir():
            options = argparse.Namespace(**{**vars(arguments.options), "file": other, "out": None})
            folder = find_sweep(dataclasses.replace(arguments, options=options)).folder
        results.append(read_folder(folder, first, name=folder.name))
    folder = named.folder.parent / "+".join(each.name for each in results) / "report"
    write_report(join_results(results), folder)
    return folder


def _write_report(sweep: Sweep, named: NamedSweep, trial_dirs: list[TrialDir]) -> Path:
    folder = named.folder / "report"
    results = collect_results(sweep, trial_dirs, name=named.name, claim=named.claim, command=named.command)
    write_report(results, folder)
    return folder


def _verify(sweep: Sweep, named: NamedSweep, arguments: Arguments) -> int:
    trial_dirs = find_trials(sweep, named.folder)
    name = arguments.options.trial
    selected = [trial_dir for trial_dir in trial_dirs if name in ("", trial_dir.folder.name)]
    if not selected:
        raise UsageError(f"no trial {name!r}{did_you_mean(name, [trial_dir.folder.name for trial_dir in trial_dirs])}")
    single = dataclasses.replace(sweep, replicas=False)
    spec = trial_groups(single, selected, also_done=True)[0][0]
    verification = verify_trial(spec)
    if arguments.options.json:
        print(json.dumps({"trial": spec.folder.name, "same": verification.same, **verification._asdict()}))
    elif verification.same:
        print(f"{spec.folder.name}: the same bits again (parameters {verification.digests[0][:16]}), the same metrics")
    else:
        before, now = verification.digests
        print(f"{spec.folder.name}: parameters {before[:16]} before, {now[:16]} now")
        for metric, (before, now) in verification.metrics.items():
            print(f"  {metric}: {before} before, {now} now")
    return 0 if verification.same else 1


ACTIONS = {
    "plan": _plan,
    "run": _run,
    "status": _status,
    "report": _report,
    "verify": _verify,
    "simulate": _simulate,
}
