"""Which pairs stand in which batch, at every step of a training that may be interrupted anywhere?

A plan of global batches is a pure function of (seed, epoch): nothing about the data's position is ever saved but the
step. Few static shapes are chosen from the data's own lengths, so that little is padded and little is compiled.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import grain
import numpy as np
from jaxtyping import Int

from s2s_jax.choices import at_least
from s2s_jax.shapes import EOS, PAD, Batch

Shape = tuple[int, int]  # padded source and target lengths
DISTINCT = 256  # lengths told apart when shapes are chosen; more are grouped


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchConfig:
    """How pairs are grouped."""

    sentences: int = 64
    """Most pairs in a batch."""
    tokens: int = 16_384
    """Most positions in a batch, source and target, padding counted."""
    shapes: int = 6
    """Most shapes (source length x target length), each compiled once."""
    prefetch: int = 16
    """Batches made ahead on the host."""

    def __post_init__(self):
        for name in ("sentences", "tokens", "shapes", "prefetch"):
            at_least(f"batch.{name}", getattr(self, name), 1)


class Pairs(NamedTuple):
    """Encoded pairs; each side of each pair ends with EOS."""

    sources: list[Int[np.ndarray, " S"]]
    targets: list[Int[np.ndarray, " T"]]

    def lengths(self) -> Int[np.ndarray, "N 2"]:
        """Source and target lengths, EOS counted."""
        return np.array([(len(a), len(b)) for a, b in zip(self.sources, self.targets, strict=True)], np.int64)


def ended(ids: Sequence[int]) -> Int[np.ndarray, " S"]:
    """Ids with EOS behind them, as they stand in a batch."""
    return np.array([*ids, EOS], np.int32)


def choose_shapes(lengths: Int[np.ndarray, "N 2"], *, shapes: int) -> list[Shape]:
    """At most `shapes` shapes, smallest first, that waste the least on padding; every pair fits the last one.

    Pairs are ordered by source + target length and cut into runs; a run's shape is its longest source and longest
    target. The best cuts are found exactly, by dynamic programming over the distinct sums.
    """
    sums = lengths.sum(1)
    edges = np.unique(np.quantile(sums, np.linspace(0, 1, DISTINCT), method="higher"))
    group = np.searchsorted(edges, sums)
    count = np.bincount(group, minlength=len(edges))
    longest = np.zeros((len(edges), 2), np.int64)
    np.maximum.at(longest, group, lengths)
    cost = _cost_of_runs(count, longest)
    best, cut = cost[0], [np.zeros(len(edges), np.int64)]
    for _ in range(min(shapes, len(edges)) - 1):
        # total[i, j]: the groups before i at their best, and one run from i to j
        total = np.concatenate([np.zeros(1), best[:-1]])[:, None] + cost
        cut.append(total.argmin(0))
        best = total.min(0)
    starts, end = [], len(edges)
    for choice in reversed(cut):
        if end == 0:
            break
        starts.append(int(choice[end - 1]))
        end = starts[-1]
    ends = [*(start for start in reversed(starts) if start), len(edges)]
    tops = [longest[:end].max(0) for end in ends]  # running maxima: a larger shape fits whatever a smaller one fits
    return sorted({(int(source), int(target)) for source, target in tops})


def _cost_of_runs(count, longest) -> np.ndarray:
    """cost[i, j]: positions, padding counted, of the pairs of groups i..j in one shape; infinite for j < i."""
    groups = len(count)
    cost = np.full((groups, groups), np.inf)
    for first in range(groups):
        widest = np.maximum.accumulate(longest[first:], axis=0).sum(1)
        cost[first, first:] = widest * np.cumsum(count[first:])
    return cost


class Plan:
    """The batches of all epochs: `batch(step)` is a function of step, seed and the data, and of nothing else."""

    def __init__(self, pairs: Pairs, config: BatchConfig, *, seed: int):
        self.pairs, self.config, self.seed = pairs, config, seed
        lengths = pairs.lengths()
        self.shapes = choose_shapes(lengths, shapes=config.shapes)
        self.rows = [rows_of(shape, config) for shape in self.shapes]
        fits = (lengths[:, None, :] <= np.array(self.shapes)[None]).all(-1)
        self._members = [np.flatnonzero(fits.argmax(1) == number) for number in range(len(self.shapes))]
        self.per_epoch = sum(-(-len(one) // rows) for one, rows in zip(self._members, self.rows, strict=True))
        self.real_tokens = int(lengths.sum())
        self._epoch: tuple[int, list[tuple[int, np.ndarray]]] | None = None

    @property
    def waste(self) -> float:
        """Share of all positions that is padding, over one epoch, part-filled batches counted by their rows."""
        positions = sum(len(one) * sum(shape) for one, shape in zip(self._members, self.shapes, strict=True))
        return 1 - self.real_tokens / positions

    def batch(self, step: int) -> Batch:
        """The global batch of a step, padded to its shape; steps count from 0."""
        epoch, number = divmod(step, self.per_epoch)
        bucket, members = self._order(epoch)[number]
        return padded(
            [self.pairs.sources[member] for member in members],
            [self.pairs.targets[member] for member in members],
            rows=self.rows[bucket],
            shape=self.shapes[bucket],
        )

    def _order(self, epoch: int) -> list[tuple[int, np.ndarray]]:
        """All batches of an epoch in their order: bucket, and the pairs in it."""
        known = self._epoch
        if known is None or known[0] != epoch:
            known = self._epoch = (epoch, self._shuffled(epoch))
        return known[1]

    def _shuffled(self, epoch: int) -> list[tuple[int, np.ndarray]]:
        chance = np.random.default_rng([self.seed, epoch])
        batches = []
        for bucket, members in enumerate(self._members):
            members, rows = chance.permutation(members), self.rows[bucket]
            batches += [(bucket, members[start : start + rows]) for start in range(0, len(members), rows)]
        return [batches[place] for place in chance.permutation(len(batches))]

    def from_step(self, start: int, stop: int) -> Iterator[Batch]:
        """The batches of steps start..stop-1, made ahead by Grain."""
        ahead = grain.ReadOptions(num_threads=1, prefetch_buffer_size=self.config.prefetch)
        return iter(grain.MapDataset.source(_Steps(self, start, stop)).to_iter_dataset(ahead))

    def in_order(self) -> Iterator[Batch]:
        """Every pair once, unshuffled: for validation."""
        for bucket, members in enumerate(self._members):
            rows = self.rows[bucket]
            for start in range(0, len(members), rows):
                some = members[start : start + rows]
                sources, targets = [[side[member] for member in some] for side in self.pairs]
                yield padded(sources, targets, rows=rows, shape=self.shapes[bucket])


class _Steps:
    """Steps start..stop-1 as the random-access source that Grain reads."""

    def __init__(self, plan: Plan, start: int, stop: int):
        self.plan, self.start, self.stop = plan, start, stop

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, index) -> Batch:
        return self.plan.batch(self.start + int(index))


def rows_of(shape: Shape, config: BatchConfig) -> int:
    """How many pairs of a shape go into one batch, at least one."""
    return max(1, min(config.sentences, config.tokens // sum(shape)))


def padded(sources: Sequence[np.ndarray], targets: Sequence[np.ndarray], *, rows: int, shape: Shape) -> Batch:
    """A batch of exactly `rows` x `shape`; rows without a pair are padding through and through."""
    sides = []
    for lines, length in zip((sources, targets), shape, strict=True):
        ids = np.full((rows, length), PAD, np.int32)
        for row, line in enumerate(lines):
            ids[row, : len(line)] = line
        sides.append(ids)
    return Batch(*sides)
