"""`s2s explore`: the page of the explorer for fixed sentences, as one file."""

from collections.abc import Iterator
from pathlib import Path

from s2s_jax.cli.arguments import Arguments, UsageError
from s2s_jax.cli.inputs import lines_of, load_run
from s2s_jax.cli.output import errors_name, print_json, print_line
from s2s_jax.cli.stdin import raw_input
from s2s_jax.explore.explorer import Explorer
from s2s_jax.explore.page import offline_page
from s2s_jax.explore.record import record_answers
from s2s_jax.text.files import is_blank

MOST_LINES = 200  # a page with many more sentences is slow to open


def explore_command(arguments: Arguments) -> None:
    """Write the page."""
    options = arguments.options
    if not options.static:
        raise UsageError(f"give --static OUT.html for a file; to explore any sentence start s2s serve {options.run}")
    run = load_run(arguments)
    if run.experiment.data.features:
        raise UsageError(f"{options.run} reads features (data.features), which a file of lines lacks; use s2s serve")
    raw, name, _ = raw_input(options.lines)
    pairs = list(_pairs(lines_of(raw, name, encoding_errors=run.experiment.data.encoding_errors), name))
    if not pairs:
        raise UsageError(f"{name} has no line to show: every one is blank")
    page = offline_page(record_answers(Explorer(run), Path(options.run).resolve().name, pairs))
    with errors_name(options.static):
        Path(options.static).write_text(page, encoding="utf-8")
    if options.json:
        print_json({"page": options.static, "sentences": len(pairs)})
    else:
        print_line(f"page: {options.static} ({len(pairs)} sentences)")


def _pairs(lines: Iterator[str], name: str) -> Iterator[tuple[str, str]]:
    """The sentences that are not blank, each once, with their targets."""
    seen: set[str] = set()
    for number, line in enumerate(lines, 1):
        source, _, target = line.partition("\t")
        if "\t" in target:
            raise UsageError(f"{name}:{number}: a line is a sentence, or a sentence, a tab and its target")
        if is_blank(source) or source in seen:
            continue
        if len(seen) == MOST_LINES:
            raise UsageError(f"{name}:{number}: a page holds {MOST_LINES} sentences; make several pages")
        seen.add(source)
        yield source, target
