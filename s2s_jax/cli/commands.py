"""What does each command show? It calls `s2s_jax.run` and prints; it decides nothing."""

import itertools
import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from s2s_jax import config, run
from s2s_jax.cli.arguments import Given, UsageError
from s2s_jax.cli.experiments import find
from s2s_jax.cli.inputs import input_lines, load_run
from s2s_jax.cli.output import number, rounded, show_json
from s2s_jax.evaluate.alignment import hard, to_pharaoh
from s2s_jax.text.sources import read_split
from s2s_jax.train.devices import keep_freed_memory


def train(given: Given) -> None:
    """Train, or say what can be set."""
    if given.options.experiment is None:
        if not given.options.help:
            raise UsageError("train needs an EXPERIMENT: a Python file with experiment(), its name, or a run")
        _show_train_help(None)
        return
    experiment, directory = find(given.options.experiment, given.options.run)
    experiment = config.override(experiment, *given.overrides)
    if given.options.help:
        _show_train_help(experiment)
        return
    console = Console(stderr=given.options.json, soft_wrap=True, highlight=False)
    profile = Path(given.options.profile) if given.options.profile else None
    keep_freed_memory()
    state = run.fit(experiment, directory, console, profile=profile)
    if given.options.json:
        last = {record.pop("kind"): record for record in run.newest_metrics(directory)}
        show_json({"run": str(directory), "step": int(state.step), **last})
    else:
        print(f"the run is {directory}; next: echo 'your line' | s2s translate {directory}")


def _show_train_help(experiment: Any) -> None:
    print("usage: s2s train EXPERIMENT [--run DIR] [--profile DIR] [--json] [--SETTING VALUE ...]\n")
    print("EXPERIMENT is a Python file with experiment(), the name of one in experiments/, or a run to go on with.")
    print("A run that exists is resumed. With an EXPERIMENT the values below are its own, else the defaults.\n")
    for setting in config.settings(experiment or config.Experiment()):
        print(f"  --{setting.name.replace('_', '-')} {json.dumps(setting.value)}\n        {setting.description}")


def evaluate(given: Given) -> None:
    """The numbers of a split."""
    trained = load_run(given)
    found = trained.evaluate(given.options.split)
    named = {"run": given.options.run, "step": trained.step, "split": given.options.split}
    more = {"averaged": trained.averaged, "with": given.options.ensemble}
    found = {**named, **{name: value for name, value in more.items() if value}, **found}
    if given.options.json:
        show_json(found)
        return
    for name, value in found.items():
        if name == "by_source_length":
            for row in value:
                print(
                    f"  {row['label']:>8} tokens: {row['sources']:6} sources, exact match {number(row['exact_match'])}"
                )
        elif value is not None:
            print(f"{name.replace('_', ' ')}: {number(value)}")


def align(given: Given) -> None:
    """A picture of alignments, and the same as JSON beside it."""
    options = given.options
    if options.count < 1:
        raise UsageError(f"--count must be positive, got {options.count}")
    trained = load_run(given)
    if trained.experiment.model.attention.score == "none":
        raise UsageError(f"{options.run} has no attention (model.attention.score=none), so there is nothing to draw")
    if options.input:
        pairs = run.own_pairs(trained, itertools.islice(input_lines(options.input), options.count))
    else:
        examples, _ = read_split(trained.experiment.data, options.split)
        pairs = list(trained.score(examples[: options.count]))
    if not pairs:
        raise UsageError("there is no line to draw; every line given is blank")
    path = run.draw(trained, pairs, Path(options.output or Path(options.run) / "alignment.png"))
    records = [
        {
            "source_tokens": pair.source_tokens,
            "target_tokens": pair.tokens,
            "alignment": rounded(pair.alignment),
            "pharaoh": to_pharaoh(hard(pair.alignment)),
        }
        for pair in pairs
    ]
    beside = path.with_suffix(".json")
    beside.write_text(json.dumps(records, ensure_ascii=False) + "\n", encoding="utf-8")
    found = {"picture": str(path), "alignments": str(beside), "aer": trained.alignment_error(pairs)}
    if options.json:
        show_json({**found, "pairs": records})
        return
    print(f"picture: {path}\nalignments: {beside}")
    print(f"try your own: echo '{pairs[0].example.source}' | s2s translate {options.run}")


def info(given: Given) -> None:
    """What a run is."""
    if given.overrides:
        raise UsageError(f"info takes no settings, got --{given.overrides[0]}")
    found = run.info(Path(given.options.run))
    if given.options.json:
        show_json(found)
        return
    for line in found["refused"]:
        print(f"refused: {line}", file=sys.stderr)
    for name in ("step", "best_step", "parameters", "parameters_digest", "checkpoints"):
        print(f"{name.replace('_', ' ')}: {number(found[name])}")
    for name, value in found["facts"].items():
        print(f"{name.replace('_', ' ')}: {value}")
