"""`s2s translate`: one output line per input line."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from s2s_jax.cli.arguments import Arguments, UsageError
from s2s_jax.cli.inputs import constrained_lines, load_run
from s2s_jax.cli.output import print_json, print_line, rounded
from s2s_jax.decode.translate import Translation
from s2s_jax.export.exported import Exported, load_exported
from s2s_jax.export.manifest import is_exported
from s2s_jax.training.devices import DeviceConfig, keep_freed_memory, use_compilation_cache

if TYPE_CHECKING:
    from s2s_jax.run import Run


def translate_command(arguments: Arguments) -> None:
    """Print the best translation of each line, its n best with their scores, or all about it as JSON."""
    options = arguments.options
    if options.n_best < 1:
        raise UsageError(f"--n-best must be positive, got {options.n_best}")
    exported = is_exported(Path(options.run))
    translator, settings = _exported(arguments) if exported else (_run(arguments), {})
    hypotheses = translator.search(**settings).hypotheses
    if options.n_best > hypotheses:
        raise UsageError(f"--n-best {options.n_best} exceeds the {hypotheses} hypotheses of the search; widen --beam")
    interactive = options.input is None and sys.stdin.isatty()  # a person waits for the answer to each line
    translations = translator.stream(constrained_lines(arguments), window=1 if interactive else 0, **settings)
    for number, translation in enumerate(translations, 1):
        if translation.unread:
            _warn(f"{options.input or 'stdin'}:{number}", translation)
        if options.json:
            print_json(_record(translation, options.n_best))
        elif options.n_best == 1:
            print_line(translation.text)
        else:
            _print_n_best(translation, options.n_best)


def _run(arguments: Arguments) -> "Run":
    """The run; without --beam, the beam is as wide as --n-best needs."""
    widened = arguments.options.n_best > 1 and arguments.options.beam is None
    return load_run(arguments, *([f"search.beam={arguments.options.n_best}"] if widened else []))


def _exported(arguments: Arguments) -> tuple[Exported, dict[str, Any]]:
    """The exported run, and the beam of the command line: no other setting can be changed after the export."""
    if arguments.overrides:
        name = arguments.overrides[0].split("=")[0]
        raise UsageError(f"{name} was settled when {arguments.options.run} was exported; set it in s2s export")
    keep_freed_memory()
    exported = load_exported(arguments.options.run)
    use_compilation_cache(DeviceConfig(**exported.manifest["config"]["device"]))
    beam = arguments.options.beam
    return exported, {} if beam is None else {"beam": beam}


def _warn(place: str, translation: Translation) -> None:
    read = len(translation.source_tokens) - 1
    counts = f"{read + translation.unread:,} tokens, only the first {read:,} were read"
    print(f"{place}: {counts} (search.max_source); cut the line into sentences.", file=sys.stderr)


def _print_n_best(translation: Translation, count: int) -> None:
    for hypothesis in translation.hypotheses[:count]:
        print_line(f"{hypothesis.score:.4f}\t{hypothesis.text}")
    if not translation.hypotheses:
        print_line("")


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
