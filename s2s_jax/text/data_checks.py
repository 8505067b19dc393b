"""Shares of pairs that make results misleading: duplicates, copies, odd lengths, held-out pairs seen in training."""

import array
import operator
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from s2s_jax.text.example import Example

EXTREME_RATIO = 9  # as in the clean-corpus script of Moses, there of words, here of characters
LONG_ENOUGH = 30  # characters of the longer side: the ratio of short ones says little


class TrainingPairs:
    """What is known of training pairs that were read: two hashes per pair, and counts of odd ones."""

    def __init__(self):
        self._pairs, self._sources = array.array("q"), array.array("q")
        self._copies = self._extreme = 0

    def add(self, sources: Sequence[str], targets: Sequence[str], features: Sequence[tuple[str, ...]] = ()) -> None:
        """Count some pairs; sources are equal where their features are, too."""
        inputs = _inputs(sources, features)
        self._pairs.extend(_hashes(inputs, targets))
        self._sources.extend(map(hash, inputs))
        equal = [source for source, same in zip(sources, map(operator.eq, sources, targets), strict=True) if same]
        self._copies += sum(bool(source.strip()) for source in equal)
        lengths = np.array([[*map(len, side)] for side in (sources, targets)])
        short, long = lengths.min(0), lengths.max(0)  # blank sides are reported as such
        self._extreme += int(((short > 0) & (long >= LONG_ENOUGH) & (long > EXTREME_RATIO * short)).sum())

    def shares(self) -> dict[str, float]:
        """Fractions of the pairs: repetitions of an earlier pair, equal sides, and sides of odd lengths."""
        count, ordered = len(self._pairs), np.sort(np.frombuffer(self._pairs, np.int64))
        distinct = 1 + int((ordered[1:] != ordered[:-1]).sum())
        return {
            "duplicates": 1 - distinct / count,
            "with source = target": self._copies / count,
            f"with one side over {EXTREME_RATIO} times as long": self._extreme / count,
        }

    def overlap_shares(self, examples: Sequence[Example]) -> dict[str, float]:
        """Fractions of held-out pairs that are among these, as a pair and by their source alone."""
        sources, targets, features = (
            [getattr(one, part) for one in examples] for part in ("source", "target", "features")
        )
        sources = _inputs(sources, features)
        pairs = np.fromiter(_hashes(sources, targets), np.int64)
        held_out = np.fromiter(map(hash, sources), np.int64)
        seen = _are_among(held_out, self._sources) & (held_out != hash(""))
        return {
            "of the pairs in the training data": float(_are_among(pairs, self._pairs).mean()),
            "of the sources in the training data": float(seen.mean()),
        }


def _inputs(sources: Sequence[str], features: Sequence[tuple[str, ...]]) -> Sequence[Any]:
    """The sources, with their features where there are any."""
    return [*zip(sources, features, strict=True)] if any(features) else sources


def _hashes(sources: Iterable[Any], targets: Iterable[str]) -> Iterable[int]:
    """A number of 64 bits per pair, equal for equal pairs: Python's own hash, which is faster than any digest."""
    return map(hash, zip(sources, targets, strict=True))


def _are_among(numbers: Int[np.ndarray, " N"], many: array.array) -> np.ndarray:
    """Whether each number is among many others, which are neither sorted nor copied."""
    wanted = np.unique(numbers)
    places = np.searchsorted(wanted, np.frombuffer(many, np.int64)).clip(max=len(wanted) - 1)
    found = np.zeros(len(wanted), bool)
    found[places[wanted[places] == np.frombuffer(many, np.int64)]] = True
    return found[np.searchsorted(wanted, numbers)]
