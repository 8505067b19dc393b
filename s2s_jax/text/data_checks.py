"""Shares of pairs that make results misleading: duplicates, copies, odd lengths, held-out pairs seen in training."""

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Int

from s2s_jax.text.example import Example

EXTREME_RATIO = 9  # as in the clean-corpus script of Moses, there of words, here of characters
LONG_ENOUGH = 30  # characters of the longer side: the ratio of short ones says little


def training_shares(examples: Sequence[Example]) -> dict[str, float]:
    """Fractions of the training pairs: repetitions of an earlier pair, equal sides, and sides of odd lengths."""
    pairs = _hashes(examples)
    return {
        "duplicates": 1 - len(np.unique(pairs)) / len(pairs),
        "with source = target": _share(bool(source.strip()) and source == target for source, target, _ in examples),
        f"with one side over {EXTREME_RATIO} times as long": _share(
            _is_extreme(len(source), len(target)) for source, target, _ in examples
        ),
    }


def overlap_shares(examples: Sequence[Example], training: Sequence[Example]) -> dict[str, float]:
    """Fractions of held-out pairs that are in the training data, as a pair and by their source alone."""
    known = np.isin(_hashes(examples), _hashes(training))
    held_out, seen = (np.fromiter((hash(one.source) for one in each), np.int64) for each in (examples, training))
    return {
        "of the pairs in the training data": float(known.mean()),
        "of the sources in the training data": float((np.isin(held_out, seen) & (held_out != hash(""))).mean()),
    }


def _hashes(examples: Sequence[Example]) -> Int[np.ndarray, " N"]:
    """A number of 64 bits per pair, equal for equal pairs: Python's own hash, which is faster than any digest."""
    return np.fromiter((hash((source, target)) for source, target, _ in examples), np.int64, len(examples))


def _is_extreme(left: int, right: int) -> bool:
    short, long = sorted((left, right))
    return short > 0 and long >= LONG_ENOUGH and long > EXTREME_RATIO * short  # blank sides are reported as such


def _share(holds: Iterable[bool]) -> float:
    return float(np.fromiter(holds, bool).mean())
