"""What does `s2s translate` show? A line of output for each line of input, in order."""

import sys
from pathlib import Path
from typing import Any

from s2s_jax.cli.arguments import Given, UsageError
from s2s_jax.cli.inputs import load_run, wanted_lines
from s2s_jax.cli.output import rounded, show_json, show_line
from s2s_jax.decode.translate import Translation
from s2s_jax.export.exported import load_exported
from s2s_jax.export.manifest import is_exported


def translate(given: Given) -> None:
    """A line of output for each line of input; with n-best, or as JSON, all that is known of it."""
    options = given.options
    if options.n_best < 1:
        raise UsageError(f"--n-best must be positive, got {options.n_best}")
    exported = is_exported(Path(options.run))
    ready, settings = _exported(given) if exported else (_run(given), {})
    found = ready.search(**settings).hypotheses
    if options.n_best > found:
        raise UsageError(
            f"--n-best {options.n_best} needs as many hypotheses, but the search gives {found}; widen --beam"
        )
    typed = options.input is None and sys.stdin.isatty()  # a person waits for the answer to each line
    answers = ready.stream(wanted_lines(given), window=1 if typed else 0, **settings)
    for number, translation in enumerate(answers, 1):
        if translation.unread:
            _warn(f"{options.input or 'stdin'}:{number}", translation)
        if options.json:
            show_json(_record(translation, options.n_best))
        elif options.n_best == 1:
            show_line(translation.text)
        else:
            _show_n_best(translation, options.n_best)


def _run(given: Given):
    widened = given.options.n_best > 1 and given.options.beam is None
    return load_run(given, *([f"search.beam={given.options.n_best}"] if widened else []))


def _exported(given: Given):
    """What was exported, and the beam that was asked for: nothing else of it can be set any more."""
    if given.overrides:
        name = given.overrides[0].split("=")[0]
        raise UsageError(f"{name} was settled when {given.options.run} was exported; set it in s2s export")
    beam = given.options.beam
    return load_exported(given.options.run), {} if beam is None else {"beam": beam}


def _warn(place: str, translation: Translation) -> None:
    read = len(translation.source_tokens) - 1
    counts = f"{read + translation.unread:,} tokens, only the first {read:,} were read"
    print(f"{place}: {counts} (search.max_source); cut the line into sentences.", file=sys.stderr)


def _show_n_best(translation: Translation, count: int) -> None:
    for hypothesis in translation.hypotheses[:count]:
        show_line(f"{hypothesis.score:.4f}\t{hypothesis.text}")
    if not translation.hypotheses:
        show_line("")


def _record(translation: Translation, count: int) -> dict[str, Any]:
    return {
        "source": translation.source,
        "translation": translation.text,
        "source_tokens": translation.source_tokens,
        "hypotheses": [
            {**hypothesis._asdict(), "alignment": rounded(hypothesis.alignment)}
            for hypothesis in translation.hypotheses[:count]
        ],
    }
