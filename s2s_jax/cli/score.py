"""`s2s score`: the log-probability of each pair, or n-best lists reordered."""

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from s2s_jax.cli.arguments import Arguments, UsageError
from s2s_jax.cli.inputs import load_run, print_report
from s2s_jax.cli.output import print_json, print_line, warn_unread
from s2s_jax.cli.stdin import raw_input
from s2s_jax.cli.suggestions import flag
from s2s_jax.decode.forced_decoding import ScoredPair
from s2s_jax.decode.json_records import pair_record
from s2s_jax.text.data_report import DataReport
from s2s_jax.text.pairs import is_json, stream_pairs
from s2s_jax.text.sources import DataConfig

# the settings of a search that change the score of a given translation, or how it is computed; see `Run.score`
SCORE_SETTINGS = (
    *("search.length_normalization", "search.length_penalty", "search.coverage_penalty"),
    *("search.language_model", "search.language_weight", "search.rules.repetition_penalty"),
    *("search.max_source", "search.batch_size", "search.batch_tokens", "search.batch_invariant"),
)


def score_command(arguments: Arguments) -> None:
    """Print each pair with its log-probability in nats, or each n-best list ordered by the score of the search."""
    options = arguments.options
    if options.window is not None and options.window < 1:
        raise UsageError(f"--window must be positive, got {options.window}")
    if options.n_best and options.input:
        raise UsageError("--n-best and --input both name pairs; leave one of them out")
    for setting in _given(arguments):
        if setting.startswith("search.") and setting not in SCORE_SETTINGS:
            effect = "decides which translations a search finds, and changes no score of a given one"
            raise UsageError(f"{flag(setting)} {effect}; leave it out")
    run, name, report = load_run(arguments), options.n_best or options.input or "", DataReport()
    stdin, _, ready = ((), name, None) if name else raw_input(None)
    policy = run.experiment.data.encoding_errors
    fields = _fields(arguments, run.experiment.data, name)
    examples = stream_pairs(name, stdin=stdin, encoding_errors=policy, report=report, **fields)
    pairs = _warning(run.score(examples, window=options.window or 0, ready=ready), name or "stdin")
    for pair in _reranked(pairs) if options.n_best else pairs:
        if options.json:
            print_json(pair_record(pair))
        else:
            value = pair.score if options.n_best else pair.log_probability
            print_line(f"{value:.4f}\t{pair.example.source}\t{pair.example.target}")
    print_report(report)


def _given(arguments: Arguments) -> list[str]:
    """The names of the settings on the command line."""
    return [assignment.partition("=")[0] for assignment in arguments.overrides]


def _fields(arguments: Arguments, data: DataConfig, name: str) -> dict[str, Any]:
    """`data.source`, `data.target` and `data.features`: those of the command line, and those that fit such a file.

    A run that learned from JSON lines or from TFDS has names of fields, which no TSV file has, and the other way round.
    """
    fields = {"source": data.source, "target": data.target}
    if {"data.source", "data.target"}.isdisjoint(_given(arguments)):
        by_name = bool(name) and is_json(Path(name))
        fields = {side: "" if value.isdecimal() == by_name else value for side, value in fields.items()}
    if data.features and not is_json(Path(name or "")) and not all(map(str.isdecimal, data.features)):
        columns = range(3, 3 + len(data.features))  # names of fields, or of nothing: behind source and target
        return {**fields, "features": tuple(map(str, columns))}
    return {**fields, "features": data.features}


def _warning(pairs: Iterable[ScoredPair], name: str) -> Iterator[ScoredPair]:
    """The same pairs; a source that was not read to its end is named on stderr."""
    for number, pair in enumerate(pairs, 1):
        if pair.unread:
            warn_unread(f"{name}: pair {number}", read=len(pair.source_tokens) - 1, unread=pair.unread)
        yield pair


def _reranked(pairs: Iterable[ScoredPair]) -> Iterator[ScoredPair]:
    """Successive pairs of one source, best first; pairs of equal score keep their order."""
    for _, group in itertools.groupby(pairs, key=lambda pair: pair.example.source):
        yield from sorted(group, key=lambda pair: -pair.score)
