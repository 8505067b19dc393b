"""What does `s2s score` show? How likely a run finds each given pair; or the pairs of each source, best first."""

import itertools
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from s2s_jax.cli.arguments import Given
from s2s_jax.cli.inputs import load_run
from s2s_jax.cli.output import rounded, show_json, show_line
from s2s_jax.decode.forced_decoding import ScoredPair
from s2s_jax.text.pairs import stream_pairs


def score(given: Given) -> None:
    """The log-probability of each pair, in nats, before it; of an n-best list the score that it is ordered by."""
    options = given.options
    trained = load_run(given)
    pairs = trained.score(stream_pairs(options.n_best or options.input or "", stdin=sys.stdin.buffer))
    for pair in _ranked(pairs) if options.n_best else pairs:
        if options.json:
            show_json(_record(pair))
        else:
            first = pair.score if options.n_best else pair.log_probability
            show_line(f"{first:.4f}\t{pair.example.source}\t{pair.example.target}")


def _ranked(pairs: Iterable[ScoredPair]) -> Iterator[ScoredPair]:
    """The pairs of one source that stand behind one another, best first; of equals the first stays the first."""
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
