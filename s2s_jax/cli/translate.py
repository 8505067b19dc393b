"""`s2s translate`: one output line per input line."""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from s2s_jax.cli.arguments import Arguments, UsageError
from s2s_jax.cli.inputs import constrained_lines, feature_columns, load_run, print_report, use_device
from s2s_jax.cli.output import print_json, print_line, warn_unread
from s2s_jax.cli.stdin import raw_input
from s2s_jax.cli.suggestions import flag
from s2s_jax.decode.json_records import translation_record
from s2s_jax.decode.search import SearchConfig
from s2s_jax.decode.translate import EMPTY_HYPOTHESIS, Hypothesis, Translation
from s2s_jax.export.exported import Exported, load_exported
from s2s_jax.export.manifest import is_exported
from s2s_jax.text.data_report import DataReport
from s2s_jax.text.sources import DataConfig
from s2s_jax.training.devices import DeviceConfig, keep_freed_memory

# options of `translate` that an exported run cannot honor, and what to do instead
NOT_EXPORTED = {
    "average": "average when exporting: s2s export RUN DIR --average N",
    "ensemble": "translate with the runs themselves",
    "ensemble_average": "translate with the runs themselves",
    "prefix": "translate with the run itself",
    "constraints": "translate with the run itself",
}


class Loaded(NamedTuple):
    """A run or an exported run, ready to translate."""

    stream: Callable[..., Iterator[Translation]]
    search: SearchConfig
    encoding_errors: str
    wider: Callable[[int], str]  # how to get so many hypotheses
    inputs: tuple[str, ...] = ()  # the names of source and features, where there are features


def translate_command(arguments: Arguments) -> None:
    """Print the best translation of each line, its n best with their scores, or all about it as JSON."""
    options = arguments.options
    for name in ("n_best", "window"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            raise UsageError(f"{flag(name)} must be positive, got {getattr(options, name)}")
    loaded = _exported(arguments) if is_exported(Path(options.run)) else _run(arguments)
    if (options.n_best or 1) > loaded.search.hypotheses:
        found = f"--n-best {options.n_best} is more than search finds for a line, {loaded.search.hypotheses}"
        raise UsageError(f"{found}; {loaded.wider(options.n_best)}")
    raw, name, ready = raw_input(options.input)
    report = DataReport()
    reading = {"features": loaded.inputs, "encoding_errors": loaded.encoding_errors, "report": report}
    lines = constrained_lines(arguments, raw, name, **reading)
    for number, translation in enumerate(loaded.stream(lines, window=options.window or 0, ready=ready)):
        if translation.unread:
            warn_unread(f"{name}:{number + 1}", read=len(translation.source_tokens) - 1, unread=translation.unread)
        _print(translation, number, arguments)
    print_report(report)


def _print(translation: Translation, number: int, arguments: Arguments) -> None:
    count = arguments.options.n_best
    if arguments.options.json:
        print_json({"line": number, **translation_record(translation, count or 1)})
    elif count is None:
        print_line(translation.text)
    else:
        for each in translation.hypotheses[:count] or (EMPTY_HYPOTHESIS,):
            print_line(f"{number} ||| {each.text} ||| {_ranked_by(each):.4f}")


def _ranked_by(hypothesis: Hypothesis) -> float:
    """The number that decides which hypothesis comes first."""
    return hypothesis.score if hypothesis.utility is None else hypothesis.utility


def _run(arguments: Arguments) -> Loaded:
    run = load_run(arguments)
    search = run.search()
    data = run.experiment.data
    wider = functools.partial(_wider, search)
    return Loaded(run.stream, search, data.encoding_errors, wider, feature_columns(data))


def _wider(search: SearchConfig, count: int) -> str:
    """The settings under which a search returns `count` hypotheses."""
    if search.method == "sample":
        return f"add --search.samples {count}"
    per_group = -(-count // search.groups)
    beam = max(search.beam, per_group * search.groups)
    return f"add --beam {beam}" + (f" --search.n-best {per_group}" if search.n_best else "")


def _exported(arguments: Arguments) -> Loaded:
    """An exported run: of the settings, only those of the input and the device can be changed after the export."""
    options = arguments.options
    for name, remedy in NOT_EXPORTED.items():
        if getattr(options, name):
            raise UsageError(f"{options.run} is an exported run, which has no {flag(name)}; {remedy}")
    fixed = [each.split("=")[0] for each in arguments.overrides if each.startswith("search.")]
    if fixed:
        raise UsageError(f"{flag(fixed[0])} was settled when {options.run} was exported; set it in s2s export")
    keep_freed_memory()
    exported = load_exported(options.run)
    values: dict[str, Any] = dict(each.split("=", 1) for each in arguments.overrides)
    stored = exported.manifest["config"]["data"]["encoding_errors"]
    data = DataConfig(encoding_errors=values.get("data.encoding_errors", stored))
    device = {name.removeprefix("device."): value for name, value in values.items() if name.startswith("device.")}
    use_device(arguments, DeviceConfig(**device))
    stream = functools.partial(exported.stream, beam=options.beam)
    wider = functools.partial(_wider_export, exported, options.run)
    return Loaded(stream, exported.search(beam=options.beam), data.encoding_errors, wider)


def _wider_export(exported: Exported, directory: str, count: int) -> str:
    """How to get `count` hypotheses of an exported run, each of whose searches has its own beam."""
    widths = [beam for beam in exported.translators if exported.search(beam=beam).hypotheses >= count]
    return (
        f"use --beam {min(widths)}" if widths else f"export the run again: s2s export RUN {directory}2 --beam {count}"
    )
