"""What the commands and the server tell of a translation, or of a scored pair, in JSON."""

from collections.abc import Collection, Iterable
from typing import Any

from s2s_jax.decode.forced_decoding import ScoredPair
from s2s_jax.decode.translate import Translation


def translation_record(translation: Translation, count: int, *, without: Collection[str] = ()) -> dict[str, Any]:
    """All about a translation, with its `count` best hypotheses.

    Args:
        without: entries of a hypothesis to leave out.
    """
    return {
        "source": translation.source,
        "translation": translation.text,
        "source_tokens": translation.source_tokens,
        "hypotheses": [
            _left(
                {
                    **each._asdict(),
                    "log_probability": each.log_probability,
                    "alignment": () if "alignment" in without else rounded(each.alignment),
                },
                without,
            )
            for each in translation.hypotheses[:count]
        ],
    }


def pair_record(pair: ScoredPair, *, without: Collection[str] = ()) -> dict[str, Any]:
    """All about a pair under forced decoding.

    Args:
        without: entries to leave out.
    """
    record = {
        "source": pair.example.source,
        "target": pair.example.target,
        "log_probability": pair.log_probability,
        "score": pair.score,
        "cross_entropy": -pair.log_probability / len(pair.tokens),
        "source_tokens": pair.source_tokens,
        "tokens": pair.tokens,
        "log_probs": pair.log_probs.tolist(),
        "alignment": () if "alignment" in without else rounded(pair.alignment),
    }
    return _left(record, without)


def _left(record: dict[str, Any], without: Collection[str]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in without}


def rounded(alignment: Iterable) -> list[list[float]]:
    """An alignment for JSON, to five decimals."""
    return [[round(float(weight), 5) for weight in row] for row in alignment]
