"""What a command reads: a run with its settings, and lines."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from s2s_jax.cli.arguments import Arguments, UsageError
from s2s_jax.cli.suggestions import flag
from s2s_jax.decode.lexical_constraints import ConstrainedLine
from s2s_jax.export.manifest import is_exported
from s2s_jax.text.data_report import DataReport
from s2s_jax.text.files import raw_lines, stream_lines
from s2s_jax.text.pairs import is_blank_record, is_json, parse_inputs
from s2s_jax.text.sources import DataConfig

if TYPE_CHECKING:
    from s2s_jax.run import Run
    from s2s_jax.training.devices import DeviceConfig


def load_run(arguments: Arguments) -> "Run":
    """The run of a command with the settings of the command line."""
    options = arguments.options
    check_trained_run(options.run, *getattr(options, "ensemble", ()))
    beam = getattr(options, "beam", None)
    for name in ("beam", "max_length"):
        if getattr(options, name, None) is not None and f"search.{name}" in _overridden(arguments):
            raise UsageError(f"{flag(name)} and {flag(f'search.{name}')} are one setting; leave one of them out")
    if getattr(options, "ensemble_average", None) and not options.ensemble:
        raise UsageError("--ensemble-average is for an ensemble; add --ensemble RUN")
    from s2s_jax import load  # only now: an exported run is translated without flax
    from s2s_jax.training.devices import keep_freed_memory

    keep_freed_memory()
    changes = [*([] if beam is None else [f"search.beam={beam}"]), *arguments.overrides]
    combine = {
        name: value for name in ("average", "ensemble", "ensemble_average") if (value := getattr(options, name, None))
    }
    run = load(options.run, changes=changes, **combine)
    use_device(arguments, run.experiment.device)
    if run.averaged:
        print(f"averaged: steps {', '.join(map(str, run.averaged))}", file=sys.stderr)
    for line in run.refused:
        print(f"refused: {line}; step {run.step} is used", file=sys.stderr)
    return run


def check_trained_run(*directories: str) -> None:
    """Refuse an exported run, or a file, where a trained run is wanted.

    Raises:
        UsageError: with what to do instead.
    """
    for directory in directories:
        check_not_a_file(directory)
        check_not_exported(directory)


def check_not_a_file(directory: str) -> None:
    """Refuse a file where the directory of a run is wanted.

    Raises:
        UsageError: with what to do instead.
    """
    if Path(directory).is_file():
        raise UsageError(f"{directory} is a file; give the directory of a trained run")


def check_not_exported(directory: str) -> None:
    """Refuse an exported run where a trained one is wanted.

    Raises:
        UsageError: with what to do instead.
    """
    if is_exported(Path(directory)):
        raise UsageError(
            f"{directory} is an exported run, which only s2s translate and s2s serve read; give the "
            "run that was exported"
        )


def _overridden(arguments: Arguments) -> list[str]:
    return [each.partition("=")[0] for each in arguments.overrides]


def use_device(arguments: Arguments, config: "DeviceConfig") -> None:
    """Use the compilation cache; refuse a platform other than --device.platform, and warn where a GPU is left idle."""
    from s2s_jax.training.devices import accelerator_left_idle, check_platform, use_compilation_cache

    if "device.platform" in _overridden(arguments):  # not what a run was trained with
        check_platform(config)
    use_compilation_cache(config)
    if warning := accelerator_left_idle():
        print(f"warning: {warning}", file=sys.stderr)


def lines_of(
    raw: Iterable[bytes], name: str, *, encoding_errors: str = "strict", report: DataReport | None = None
) -> Iterator[str]:
    """Lines of text without their ends; a line that is not UTF-8 and is skipped is blank, and keeps its place."""
    lines = stream_lines(raw, name, encoding_errors=encoding_errors, report=report)
    return (line or "" for line in lines)


def feature_columns(data: DataConfig) -> tuple[str, ...]:
    """The names of source and features of a run's input lines; () for lines without features."""
    return (data.source or "source", *data.features) if data.features else ()


def with_features(lines: Iterable[str], name: str, columns: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """The source of each line and its features, where `columns` names them: columns of TSV, or fields of JSON.

    Raises:
        ValueError: with file and line, where a line has others.
    """
    for number, line in enumerate(lines, 1):
        if columns and not is_blank_record(line):
            yield tuple(parse_inputs(line, f"{name}:{number}", columns, is_json=is_json(Path(name))))
        else:
            yield (line,)


def constrained_lines(
    arguments: Arguments,
    raw: Iterable[bytes],
    name: str,
    *,
    features: Sequence[str] = (),
    encoding_errors: str,
    report: DataReport,
) -> Iterator[ConstrainedLine]:
    """Each input line with its line of the files of prefixes and of constraints.

    Args:
        features: the names of source and features, which then are columns of each line, or fields of JSON.

    Raises:
        UsageError: such a file has fewer or more lines than the input.
    """
    decoding = {"encoding_errors": encoding_errors, "report": report}
    files = {"--prefix": arguments.options.prefix, "--constraints": arguments.options.constraints}
    beside = {option: list(lines_of(raw_lines(Path(path)), path, **decoding)) for option, path in files.items() if path}
    number = 0
    inputs = with_features(lines_of(raw, name, **decoding), name, features)
    for number, (line, *texts) in enumerate(inputs, 1):
        for option, lines in beside.items():
            if number > len(lines):
                raise _uneven(f"{option} {files[option]}", len(lines), f"{number} or more")
        prefix, phrases = (beside[option][number - 1] if option in beside else "" for option in files)
        yield ConstrainedLine(line, prefix, tuple(phrases.split("\t")), tuple(texts))
    for option, lines in beside.items():
        if number < len(lines):
            raise _uneven(f"{option} {files[option]}", len(lines), str(number))


def _uneven(file: str, lines: int, wanted: str) -> UsageError:
    return UsageError(f"{file} has {lines} lines, the input has {wanted}; give one line per input line, blank for none")


def print_report(report: DataReport) -> None:
    """Print to stderr what was done about the lines of the input."""
    for line in report.lines()[1:]:
        print(line, file=sys.stderr)
