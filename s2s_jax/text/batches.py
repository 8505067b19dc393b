"""Which pairs stand in which batch, at every step of a training that may be interrupted anywhere?

A plan of global batches is a pure function of (seed, epoch): nothing about the data's position is ever saved but the
step. Few static shapes are chosen from the data's own lengths, so that little is padded and little is compiled.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from s2s_jax.shapes import PAD, Batch
from s2s_jax.text.tokenizers import ended
from s2s_jax.validation import at_least, check_fields

Shape = tuple[int, int]  # padded source and target lengths
GRID = 32  # lengths of a side that shapes are chosen from
ROUNDS = 10  # of moving shapes; three or four are usual


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchConfig:
    """How pairs are grouped."""

    size: int = 64
    """Most pairs in a batch."""
    tokens: int = 16_384
    """Most positions in a batch, source and target, padding counted."""
    parts: int = 1
    """A batch is computed in so many parts, one after the other, and their gradients added: less memory."""
    buckets: int = 8
    """Most shapes (source length x target length), each compiled once."""
    prefetch: int = 16
    """Batches made ahead on the host."""

    def __post_init__(self):
        check_fields(self, "batch")
        for name in ("size", "tokens", "parts", "buckets", "prefetch"):
            at_least(f"batch.{name}", getattr(self, name), 1)


class Pairs(NamedTuple):
    """Encoded pairs; each side of each pair ends with EOS."""

    sources: list[Int[np.ndarray, " S"]]
    targets: list[Int[np.ndarray, " T"]]
    links: Sequence[Int[np.ndarray, "_ 2"]] = ()  # (source token, target token); () where nobody asked for them

    def lengths(self) -> Int[np.ndarray, "N 2"]:
        """Source and target lengths, EOS counted."""
        return np.array([(len(a), len(b)) for a, b in zip(self.sources, self.targets, strict=True)], np.int64)

    def chosen(self, members: Int[np.ndarray, " M"]) -> "Pairs":
        """Some of the pairs."""
        sources, targets, links = ([side[member] for member in members] if side else [] for side in self)
        return Pairs(sources, targets, links)

    def cut(self, longest: int) -> "Pairs":
        """The first tokens of each side, EOS behind them, and the links between what is left."""
        sides = ([ended(ids[:-1][:longest]) for ids in side] for side in (self.sources, self.targets))
        return Pairs(*sides, links=[links[(links < longest).all(1)] for links in self.links])


def choose_buckets(lengths: Int[np.ndarray, "N 2"], *, shapes: int) -> list[Shape]:
    """At most `shapes` shapes, smallest first, that waste little on padding; every pair fits one of them.

    Each pair costs the smallest shape that it fits. The first shape fits all; the others are added one by one where
    they save most, then moved one by one to where they save most, until a whole round saves nothing. Costs are
    whole numbers, so every machine chooses alike. (The best cuts of the pairs in order of their length waste more,
    17 instead of 12 %, where a target is as long as its source give or take a fifth.)
    """
    grid = [_edges(side) for side in lengths.T]
    count = np.zeros([len(edges) for edges in grid], np.int64)
    np.add.at(count, tuple(np.searchsorted(*one) for one in zip(grid, lengths.T, strict=True)), 1)
    cells, corners = np.argwhere(count), np.argwhere(count >= 0)
    sources, targets = (edges[index] for edges, index in zip(grid, corners.T, strict=True))
    sizes, pairs = sources + targets, count[count > 0]
    fits = (cells[:, None] <= corners).all(-1)
    cost = np.where(fits, sizes, sizes[-1])  # who does not fit goes to the first shape
    chosen, total = [len(corners) - 1], None
    for _ in range(ROUNDS):
        before = total
        for place in range(1, shapes):
            others = cost[:, chosen[:place] + chosen[place + 1 :]].min(1)
            totals = pairs @ np.minimum(cost, others[:, None])
            chosen[place : place + 1] = [int(totals.argmin())]
            total = int(totals.min())
        if total == before:
            break
    return _fitted(lengths, [(int(sources[corner]), int(targets[corner])) for corner in chosen])


def _edges(lengths: Int[np.ndarray, " N"]) -> Int[np.ndarray, " G"]:
    """The lengths that a shape may have: all there are, or `GRID` of them, denser where pairs are."""
    values, count = np.unique(lengths, return_counts=True)
    if len(values) <= GRID:
        return values
    mass = np.cumsum(np.sqrt(count))  # the square root loses least by rounding up: rare lengths are far apart
    return values[np.unique(np.searchsorted(mass, np.linspace(0, mass[-1], GRID + 1)[1:]))]


def _fitted(lengths: Int[np.ndarray, "N 2"], shapes: list[Shape]) -> list[Shape]:
    """The shapes without what none of their pairs needs, smallest first."""
    own = smallest_fit(lengths, sorted(shapes, key=sum))
    needed = [lengths[own == number].max(0) for number in np.unique(own)]
    return sorted({(int(source), int(target)) for source, target in needed}, key=lambda shape: (sum(shape), shape))


def smallest_fit(lengths: Int[np.ndarray, "N 2"], shapes: Sequence[Shape]) -> Int[np.ndarray, " N"]:
    """The first of the shapes, smallest first, that each pair fits."""
    return (lengths[:, None] <= np.array(shapes)).all(-1).argmax(1)


class Plan:
    """The batches of all epochs: `batch(step)` is a function of step, seed and the data, and of nothing else."""

    def __init__(self, pairs: Pairs, config: BatchConfig, *, seed: int):
        if not pairs.sources:
            raise ValueError("there are no pairs to make batches of.")
        self.pairs, self.config, self.seed = pairs, config, seed
        lengths = pairs.lengths()
        self.shapes = choose_buckets(lengths, shapes=config.buckets)
        self.rows = [rows_of(shape, config) for shape in self.shapes]
        own = smallest_fit(lengths, self.shapes)
        self._members = [np.flatnonzero(own == number) for number in range(len(self.shapes))]
        self.per_epoch = sum(-(-len(one) // rows) for one, rows in zip(self._members, self.rows, strict=True))
        self.real_tokens = int(lengths.sum())
        self._epoch: tuple[int, list[tuple[int, np.ndarray]]] | None = None

    @property
    def waste(self) -> float:
        """Share of the positions of all pairs that is padding; rows that a last batch lacks do not count."""
        positions = sum(len(one) * sum(shape) for one, shape in zip(self._members, self.shapes, strict=True))
        return 1 - self.real_tokens / positions

    def batch(self, step: int) -> Batch:
        """The global batch of a step, padded to its shape; steps count from 0."""
        epoch, number = divmod(step, self.per_epoch)
        bucket, members = self._order(epoch)[number]
        return padded(self.pairs.chosen(members), rows=self.rows[bucket], shape=self.shapes[bucket])

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
        import grain  # takes a second, and only training needs it

        ahead = grain.ReadOptions(num_threads=1, prefetch_buffer_size=self.config.prefetch)
        return iter(grain.MapDataset.source(_Steps(self, start, stop)).to_iter_dataset(ahead))

    def in_order(self) -> Iterator[Batch]:
        """Every pair once, unshuffled: for validation."""
        for bucket, members in enumerate(self._members):
            rows = self.rows[bucket]
            for start in range(0, len(members), rows):
                yield padded(self.pairs.chosen(members[start : start + rows]), rows=rows, shape=self.shapes[bucket])


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
    return max(1, min(config.size, config.tokens // sum(shape)))


def padded(pairs: Pairs, *, rows: int, shape: Shape) -> Batch:
    """A batch of exactly `rows` x `shape`; rows without a pair are padding through and through."""
    sides = []
    for lines, length in zip((pairs.sources, pairs.targets), shape, strict=True):
        ids = np.full((rows, length), PAD, np.int32)
        for row, line in enumerate(lines):
            ids[row, : len(line)] = line
        sides.append(ids)
    return Batch(*sides, links=_table(pairs.links, rows, shape) if pairs.links else ())


def _table(links: Sequence[Int[np.ndarray, "_ 2"]], rows: int, shape: Shape) -> Bool[np.ndarray, "B T S"]:
    """True where a target token is linked with a source token."""
    linked = np.zeros((rows, *shape[::-1]), bool)
    for row, (sources, targets) in enumerate(one.T for one in links):
        linked[row, targets, sources] = True
    return linked
