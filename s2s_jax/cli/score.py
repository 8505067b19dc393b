"""`s2s score`: the log-probability of each pair, or n-best lists reordered."""

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

from s2s_jax.cli.arguments import Arguments, UsageError
from s2s_jax.cli.inputs import load_run, print_report
from s2s_jax.cli.output import print_json, print_line, rounded
from s2s_jax.cli.stdin import raw_input
from s2s_jax.decode.forced_decoding import ScoredPair
from s2s_jax.text.data_report import DataReport
from s2s_jax.text.pairs import stream_pairs


def score_command(arguments: Arguments) -> None:
    """Print each pair with its log-probability in nats, or each n-best list ordered by the score of the search."""
    options = arguments.options
    if options.window is not None and options.window < 1:
        raise UsageError(f"--window must be positive, got {options.window}")
    if options.n_best and options.input:
        raise UsageError("--n-best and --input both name pairs; leave one of them out")
    run, name, report = load_run(arguments), options.n_best or options.input or "", DataReport()
    stdin, _, ready = ((), name, None) if name else raw_input(None)
    policy = run.experiment.data.encoding_errors
    examples = stream_pairs(name, stdin=stdin, encoding_errors=policy, report=report)
    pairs = run.score(examples, window=options.window or 0, ready=ready)
    for pair in _reranked(pairs) if options.n_best else pairs:
        if options.json:
            print_json(_record(pair))
        else:
            value = pair.score if options.n_best else pair.log_probability
            print_line(f"{value:.4f}\t{pair.example.source}\t{pair.example.target}")
    print_report(report)


def _reranked(pairs: Iterable[ScoredPair]) -> Iterator[ScoredPair]:
    """Successive pairs of one source, best first; pairs of equal score keep their order."""
    for _, group in itertools.groupby(pairs, key=lambda pair: pair.example.source):
        yield from sorted(group, key=lambda pair: -pair.score)


def _record(pair: ScoredPair) -> dict[str, Any]:
    return {
        "source": pair.example.source,
        "target": pair.example.target,
        "log_probability": pair.log_probability,
        "score": pair.score,
        "cross_entropy": -pair.log_probability / len(pair.tokens),
        "source_tokens": pair.source_tokens,
        "tokens": pair.tokens,
        "log_probs": pair.log_probs.tolist(),
        "alignment": rounded(pair.alignment),
    }
