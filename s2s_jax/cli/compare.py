"""`s2s compare`: what makes runs differ, by how much, and whether that can be chance."""

import argparse
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from s2s_jax.cli.arguments import Arguments, UsageError
from s2s_jax.cli.inputs import load_run
from s2s_jax.cli.output import print_json, print_text
from s2s_jax.evaluate.metrics import METRICS
from s2s_jax.sweep.compare_runs import RunComparison, System, compare
from s2s_jax.sweep.report import numbers


def compare_command(arguments: Arguments) -> None:
    """Print the systems that the runs are, their metrics, and their differences from the first."""
    names = arguments.options.runs
    if len(names) < 2:
        raise UsageError("compare needs two runs or more: s2s compare RUN RUN")
    if len({Path(name).resolve() for name in names}) < len(names):
        raise UsageError("compare was given a run twice; name each once")
    found = compare(
        [load_run(_with_run(arguments, name)) for name in names],
        split=arguments.options.split,
        metric=arguments.options.metric,
    )
    if arguments.options.json:
        print_json(_record(found))
    else:
        print_text("\n".join(_text(found)))


def _with_run(arguments: Arguments, name: str) -> Arguments:
    options = argparse.Namespace(**vars(arguments.options), run=name)
    return dataclasses.replace(arguments, options=options)


def _record(found: RunComparison) -> dict[str, Any]:
    def plain(value: Any) -> Any:
        """Named tuples as objects."""
        if hasattr(value, "_asdict"):
            return {name: plain(each) for name, each in value._asdict().items()}
        if isinstance(value, dict):
            return {name: plain(each) for name, each in value.items()}
        return [plain(each) for each in value] if isinstance(value, list | tuple) else value

    return plain(found)


def _text(found: RunComparison) -> Iterator[str]:
    labels = [system.label for system in found.systems]
    for system in found.systems:
        seeds = f"seed{'s' * (len(system.seeds) > 1)} {', '.join(map(str, system.seeds))}"
        yield f"{system.label}: {', '.join(system.runs)} ({seeds}; {system.parameters:,} parameters)"
    yield ""
    yield "settings that differ"
    rows = [[name, *(_value(values[label]) for label in labels)] for name, values in found.settings.items()]
    yield from _table([["", *labels], *rows]) if rows else ["  none"]
    yield ""
    yield f"{found.split}: {found.sources:,} sources"
    base = found.systems[0]
    head = ["", *labels, *(f"{label}-{base.label} [95 %]" for label in labels[1:])]
    shown = [name for name in base.metrics if not _repeats(found, name)]
    yield from _table([head, *(_metric_row(found, name) for name in shown)])
    yield ""
    title = METRICS[found.metric].title
    for system in found.systems[1:]:
        yield _verdict(system, base, found.metric, title)
    yield f"p is for {found.population}" + ("; corrected for several systems" if len(labels) > 2 else "")
    yield ""
    yield f"{title} by source length, in tokens of {base.label}"
    lengths = [
        [row.label, f"{row.sources:,}", *(_number(row.values[label]) for label in labels)] for row in found.by_length
    ]
    yield from _table([["tokens", "sources", *labels], *lengths])


def _repeats(found: RunComparison, name: str) -> bool:
    """Whether a metric per reference says what the one per source says: no source has several references."""
    other = name.removesuffix("_per_line")
    return other != name and all(system.metrics[name] == system.metrics.get(other) for system in found.systems)


def _metric_row(found: RunComparison, name: str) -> list[str]:
    cells = [METRICS[name].title, *(_number(system.metrics[name]) for system in found.systems)]
    for system in found.systems[1:]:
        gap = system.differences[name]
        interval = f" {numbers.range_of(gap.interval.low, gap.interval.high, 4)}" if gap.interval else ""
        cells.append(numbers.signed(gap.mean, 4) + interval)
    return cells


def _verdict(system: System, base: System, metric: str, title: str) -> str:
    """One line: which system is better by the tested metric, on how many sentences, and p."""
    gap = system.differences[metric]
    wins, interval = gap.wins, gap.interval
    if gap.mean is None or wins is None:
        return f"{system.label} against {base.label}: {title} has no value on a side"
    better = (gap.mean > 0) == bool(METRICS[metric].higher_is_better)
    word = "equal to" if gap.mean == 0 else "better than" if better else "worse than"
    _, _, population = gap.verdict.partition(" ")
    claim = f" {population}" if gap.verdict.startswith(("better", "worse")) else ", which may be chance"
    over = f", interval over {interval.over}" if interval else ""
    return (
        f"{system.label} is {word} {base.label} by {title}{claim}: p {numbers.p_value(gap.p)}{over}; "
        f"sentences better {wins.better:,}, equal {wins.equal:,}, worse {wins.worse:,}"
    )


def _number(value: float | None) -> str:
    return numbers.plain(value, 4)


def _value(value: Any) -> str:
    return "-" if value is None else str(value)


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """The rows with their columns aligned: the first to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *rest in rows:
        cells = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))]
        yield "  " + "  ".join(cells).rstrip()
