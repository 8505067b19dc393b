"""What does `s2s sweep` show? It finds the sweep's file, calls `s2s_jax.sweep`, and prints."""

import dataclasses
import difflib
import json
import runpy
import shlex
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.live import Live

from s2s_jax.cli.arguments import Given, UsageError
from s2s_jax.cli.experiments import SHIPPED
from s2s_jax.config import override
from s2s_jax.sweep.launch import ExecutorConfig, launch
from s2s_jax.sweep.plan import make_plan, units
from s2s_jax.sweep.report import write_report
from s2s_jax.sweep.results import study
from s2s_jax.sweep.status import Row, rows, summary, table
from s2s_jax.sweep.sweep import Sweep
from s2s_jax.sweep.tune import Tuning, tune
from s2s_jax.sweep.verify import verify

FOLDER = "claims"  # where the shipped sweeps lie, below experiments/


class Named(NamedTuple):
    """A sweep as the user named it."""

    sweep: Any  # a Sweep or a Tuning
    folder: Path
    name: str
    claim: str
    command: str


def sweep(given: Given) -> int:
    """Plan, run, watch, report or verify a sweep; or run a tuning."""
    named = _find(given)
    if isinstance(named.sweep, Tuning):
        return _tune(named.sweep, named.folder, given)
    return ACTIONS[given.options.action](named, given)


def _tune(tuning: Tuning, folder: Path, given: Given) -> int:
    options = given.options
    if options.action != "run":
        raise UsageError(f"a tuning can be run, and not {options.action}; its trials are in {folder}")
    console = Console(stderr=options.json, soft_wrap=True, highlight=False, markup=False)
    tuned = tune(tuning, folder, console.print)
    if tuned.signal:
        console.print("stopped; the same command goes on from there")
        return 128 + tuned.signal
    if options.json:
        print(json.dumps({"trials": tuned.trials, "settings": tuned.settings, "value": tuned.value}))
    elif tuned.value is None:
        print(f"none of {tuned.trials} trials came to its end; see the log.txt of each in {folder / 'cells'}")
    else:
        changes = " ".join(f"--{name} {value}" for name, value in tuned.settings.items())
        print(f"best {tuning.base.validation.metric} {tuned.value:.4f}: {changes}")
    return 0 if tuned.value is not None else 1


def _plan(named: Named, given: Given) -> int:
    plan = make_plan(named.sweep, named.folder)
    record = {
        "cells": [str(one.folder) for one in plan.placed],
        "done": plan.done,
        "failed": plan.failed,
        "seconds": plan.seconds,
        "megabytes": plan.megabytes,
        "seeds": plan.allowed,
    }
    if given.options.json:
        print(json.dumps(record))
        return 0
    for one in plan.placed:
        print(one.folder)
    print(f"{len(plan.placed)} cells: {plan.done} done, {plan.failed} failed; each was built and its step traced")
    left = "unknown until a cell is done" if plan.seconds is None else f"{plan.seconds / 60:.0f} minutes one by one"
    print(f"still to come: {left}; up to {plan.megabytes:.0f} MB of checkpoints")
    print(plan.allowed)
    return 0


def _run(named: Named, given: Given) -> int:
    options = given.options
    console = Console(stderr=options.json, soft_wrap=True, highlight=False, markup=False)
    slurm = dict(pair.split("=", 1) for pair in options.slurm)
    where = ExecutorConfig(on=options.executor, jobs=options.jobs, address=options.address, options=slurm)
    launched = launch(named.sweep, named.folder, where, console.print)
    if launched.signal:
        console.print("stopped; the same command goes on from there")
        return 128 + launched.signal
    _write_report(named, launched.plan.placed)
    if options.json:
        print(json.dumps({"sweep": str(named.folder), "cells": len(launched.plan.placed),
                          "failed": [str(folder) for folder in launched.failed]}))  # fmt: skip
    for folder in launched.failed:
        print(f"s2s: no numbers from {folder}; see its log.txt", file=sys.stderr)
    console.print(f"report: {named.folder / 'report' / 'report.html'}")
    return 1 if launched.failed else 0


def _status(named: Named, given: Given) -> int:
    placed = make_plan(named.sweep, named.folder).placed
    metric = named.sweep.metrics[0]
    found = rows(placed, metric)
    if given.options.json:
        print(json.dumps([row._asdict() for row in found]))
        return 0
    console = Console(highlight=False)
    if given.options.watch and console.is_terminal:
        found = _watched(placed, metric, console)
    console.print(table(found, metric))
    print(summary(found))
    return 0


def _watched(placed: list, metric: str, console: Console) -> list[Row]:
    """The table, made anew every two seconds until nothing waits or runs, or until Ctrl-C."""
    found = rows(placed, metric)
    with Live(console=console, transient=True, auto_refresh=False) as live:
        while any(row.status in ("waiting", "running") for row in found):
            live.update(table(found, metric), refresh=True)
            time.sleep(2)
            found = rows(placed, metric)
    return found


def _report(named: Named, given: Given) -> int:
    folder = _write_report(named, make_plan(named.sweep, named.folder).placed)
    print(json.dumps({"report": str(folder)}) if given.options.json else f"report: {folder / 'report.html'}")
    return 0


def _write_report(named: Named, placed: list) -> Path:
    folder = named.folder / "report"
    write_report(study(named.sweep, placed, name=named.name, claim=named.claim, command=named.command), folder)
    return folder


def _verify(named: Named, given: Given) -> int:
    placed = make_plan(named.sweep, named.folder).placed
    chosen = [one for one in placed if given.options.cell in ("", one.folder.name)]
    if not chosen:
        near = difflib.get_close_matches(given.options.cell, [one.folder.name for one in placed], n=1)
        raise UsageError(f"no cell {given.options.cell!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
    everything = dataclasses.replace(named.sweep, replicas=False)
    work = units(everything, chosen, also_done=True)[0][0]
    found = verify(work)
    if given.options.json:
        print(json.dumps({"cell": work.folder.name, "same": found.same, **found._asdict()}))
    elif found.same:
        print(f"{work.folder.name}: the same bits again (parameters {found.digests[0][:16]}) and the same numbers")
    else:
        print(f"{work.folder.name}: parameters {found.digests[0][:16]} before, {found.digests[1][:16]} now")
        for name, (before, now) in found.metrics.items():
            print(f"  {name}: {before} before, {now} now")
    return 0 if found.same else 1


ACTIONS = {"plan": _plan, "run": _run, "status": _status, "report": _report, "verify": _verify}


def _find(given: Given) -> Named:
    """The sweep that a file or a name stands for.

    Raises:
        UsageError: there is none.
    """
    options = given.options
    path = Path(options.file)
    if path.suffix != ".py":
        path = _named(options.file)
    if not path.is_file():
        raise UsageError(
            f"no sweep {path}; give a Python file with {options.function}(), or one of {', '.join(_known())}"
        )
    try:
        names = runpy.run_path(str(path))
    except SyntaxError as error:
        raise UsageError(f"{path}:{error.lineno}: {error.msg}") from None
    made: Any = names.get(options.function)
    if made is None:
        raise UsageError(f"{path} has no function {options.function}(){_forms(names)}; write one that returns a Sweep")
    found = made()
    if not isinstance(found, Sweep | Tuning):
        raise UsageError(
            f"{options.function}() in {path} returned {type(found).__name__}, a Sweep or a Tuning is wanted"
        )
    found = dataclasses.replace(found, base=override(found.base, *given.overrides))
    if options.replicas:
        if isinstance(found, Tuning):
            raise UsageError("a tuning tries one setting at a time; leave out --replicas")
        found = dataclasses.replace(found, replicas=True)
    if options.seeds:
        found = _first_seeds(found, options.seeds)
    name = path.stem if options.function == "sweep" else f"{path.stem}-{options.function}"
    settings = [
        part for change in given.overrides for part in (f"--{change.split('=', 1)[0]}", change.split("=", 1)[1])
    ]
    form = [] if options.function == "sweep" else ["--function", options.function]
    form += ["--seeds", str(options.seeds)] if options.seeds else []
    command = shlex.join(["s2s", "sweep", "run", options.file, *form, *(["--replicas"] * options.replicas), *settings])
    folder = Path(options.out) if options.out else Path("runs") / "sweeps" / name
    claimed = (names.get("__doc__") or "").split("\nCommand:")[0].strip().split("\n\n")
    paragraphs = (" ".join(paragraph.removeprefix("Claim: ").split()) for paragraph in claimed)
    claim = "\n\n".join(paragraph[:1].upper() + paragraph[1:] for paragraph in paragraphs)
    return Named(found, folder, name, claim, command)


def _forms(names: dict[str, Any]) -> str:
    """What a file has instead: its functions that say that they return a sweep and want nothing for it."""
    notes = {name: getattr(made, "__annotations__", {}) for name, made in names.items()}
    forms = sorted(name for name, note in notes.items() if note in ({"return": Sweep}, {"return": Tuning}))
    return f" (there are {', '.join(forms)})" if forms else ""


def _first_seeds(found: Any, count: int) -> Sweep:
    """The same sweep with its first so many seeds; its cells are those of the whole sweep."""
    if isinstance(found, Tuning):
        raise UsageError("a tuning has no seeds to choose from; leave out --seeds")
    seeds = tuple(found.seeds)
    if not 0 < count <= len(seeds):
        raise UsageError(f"--seeds must be from 1 to {len(seeds)}, the seeds of the sweep, got {count}")
    return dataclasses.replace(found, seeds=seeds[:count])


def _named(name: str) -> Path:
    for folder in (Path("experiments"), SHIPPED):
        if (folder / FOLDER / f"{name}.py").is_file():
            return folder / FOLDER / f"{name}.py"
    near = difflib.get_close_matches(name, _known(), n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise UsageError(f"no sweep {name!r}{hint} (there are {', '.join(_known())}, or give a Python file)")


def _known() -> list[str]:
    files = (path for folder in (Path("experiments"), SHIPPED) for path in (folder / FOLDER).glob("*.py"))
    return sorted({path.stem for path in files if "\ndef sweep(" in path.read_text(encoding="utf-8")})
