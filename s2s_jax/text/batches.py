"""Batches of encoded pairs by length bucket: which pairs are in the batch of each step.

The plan of an epoch's batches is a pure function of (seed, epoch), so the step is all that a checkpoint has to hold of
the position in the data. A few buckets are chosen from the data's own lengths: little padding, few compilations.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from s2s_jax.shapes import EOS, UNK, Batch, map_arrays
from s2s_jax.text.corpora import Mixture
from s2s_jax.text.ragged import Ragged, RaggedWriter, Rows
from s2s_jax.text.token_dropout import TokenDropout
from s2s_jax.validation import at_least, check_fields

Bucket = tuple[int, int]  # padded source and target lengths
Noise = tuple[TokenDropout | None, TokenDropout | None]  # of sources and targets
GRID = 32  # lengths of a side that buckets are chosen from
MAX_ROUNDS = 10  # of moving buckets; three or four are usual


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchConfig:
    """How pairs are grouped."""

    size: int = 64
    """Most pairs in a batch."""
    tokens: int = 16_384
    """Most positions in a batch, source, target and features, padding included."""
    buckets: int = 8
    """Most buckets (padded source length x padded target length); the training step is compiled once per bucket."""
    prefetch: int = 16
    """Batches prepared ahead on the host."""

    def __post_init__(self):
        check_fields(self, "batch")
        for name in ("size", "tokens", "buckets", "prefetch"):
            at_least(f"batch.{name}", getattr(self, name), 1)


class Pairs(NamedTuple):
    """Encoded pairs; each side of each pair ends with EOS."""

    sources: Ragged
    targets: Ragged
    links: Ragged | None = None  # rows of (source token, target token); None where no loss needs them
    fed: Ragged | None = None  # the targets as the decoder reads them; None where that is as they are
    features: tuple[Ragged, ...] = ()  # of the sources, each ending with EOS too

    @classmethod
    def of(cls, sources: Ragged, targets: Ragged, *features: Ragged) -> "Pairs":
        """The pairs of what `encode_corpus` returns."""
        return cls(sources, targets, features=features)

    def lengths(self) -> Int[np.ndarray, "N 2"]:
        """Source and target lengths, EOS included."""
        return np.stack([self.sources.lengths, self.targets.lengths], axis=1)

    def select(self, indices: Int[np.ndarray, " M"]) -> "Pairs":
        """The pairs with these indices, in their order."""
        links, fed = (side if side is None else side.select(indices) for side in (self.links, self.fed))
        features = tuple(feature.select(indices) for feature in self.features)
        return Pairs(self.sources.select(indices), self.targets.select(indices), links, fed, features)

    def feature_lengths(self, members: Int[np.ndarray, " M"]) -> tuple[int, ...]:
        """The longest of each feature of some pairs, EOS included."""
        return tuple(int(feature.lengths[members].max()) for feature in self.features)

    def truncate(self, longest: int, *, reverses_target: bool = False, folder: Path | None = None) -> "Pairs":
        """The first `longest` tokens of each side, with EOS appended, and the links between them; features are kept.

        Args:
            reverses_target: whether the first tokens of a target are the last of its row.
            folder: as in `RaggedWriter`.
        """
        over = np.maximum(self.targets.lengths - 1 - longest, 0) if reverses_target else 0 * self.targets.lengths
        return self._replace(
            sources=_truncated(self.sources, longest, folder),
            targets=_truncated(self.targets.without_first(over), longest, folder),
            links=_links_within(self.links, longest, over, folder) if self.links else None,
        )


def _truncated(side: Ragged, longest: int, folder: Path | None) -> Ragged:
    """The first `longest` tokens of each row, which may have an EOS more, and EOS."""
    writer = RaggedWriter(side.flat.dtype, folder)
    for part in side.parts():
        cut = part.shortened(longest + 1)
        ids = cut.numbers()
        ids[np.cumsum(cut.lengths) - 1] = EOS
        writer.write(Rows(ids, cut.lengths))
    return writer.finish()


def _links_within(links: Ragged, longest: int, skipped: Int[np.ndarray, " N"], folder: Path | None) -> Ragged:
    """The links between the first `longest` tokens of both sides, where so many of each target are left out before."""
    writer, start = RaggedWriter(links.flat.dtype, folder, columns=(2,)), 0
    for part in links.parts():
        ends, rows = part.numbers(), part.row_numbers()
        ends[:, 1] -= skipped[start + rows]
        kept = ((ends >= 0) & (ends < longest)).all(1)
        writer.write(Rows(ends[kept], np.bincount(rows[kept], minlength=len(part))))
        start += len(part)
    return writer.finish()


def choose_buckets(lengths: Int[np.ndarray, "N 2"], *, count: int) -> list[Bucket]:
    """At most `count` buckets, smallest first, that need little padding; every pair fits one of them.

    Each pair costs the size of the smallest bucket that it fits. The first bucket fits all pairs; further ones are
    added one at a time where each saves most, then moved one at a time to where it saves most, until a whole round
    saves nothing. Costs are whole numbers, so every machine makes the same choice. (The best cuts of the pairs sorted
    by length waste more, 17 instead of 12 %, where target lengths differ from source lengths by about a fifth.)
    """
    grid = [_candidate_lengths(side) for side in lengths.T]
    histogram = np.zeros([len(edges) for edges in grid], np.int64)
    np.add.at(histogram, tuple(np.searchsorted(*side) for side in zip(grid, lengths.T, strict=True)), 1)
    cells, corners = np.argwhere(histogram), np.argwhere(histogram >= 0)
    sources, targets = (edges[index] for edges, index in zip(grid, corners.T, strict=True))
    sizes, pairs = sources + targets, histogram[histogram > 0]
    fits = (cells[:, None] <= corners).all(-1)
    cost = np.where(fits, sizes, sizes[-1])  # a pair that does not fit goes to the first bucket
    chosen, total = [len(corners) - 1], None
    for _ in range(MAX_ROUNDS):
        before = total
        for index in range(1, count):
            without = cost[:, chosen[:index] + chosen[index + 1 :]].min(1)
            totals = pairs @ np.minimum(cost, without[:, None])
            chosen[index : index + 1] = [int(totals.argmin())]
            total = int(totals.min())
        if total == before:
            break
    return _tightened(lengths, [(int(sources[corner]), int(targets[corner])) for corner in chosen])


def _candidate_lengths(lengths: Int[np.ndarray, " N"]) -> Int[np.ndarray, " G"]:
    """The lengths that a bucket may have: all that occur, or `GRID` of them, denser where pairs are."""
    values, count = np.unique(lengths, return_counts=True)
    if len(values) <= GRID:
        return values
    mass = np.cumsum(np.sqrt(count))  # the square root loses least by rounding up: rare lengths are far apart
    return values[np.unique(np.searchsorted(mass, np.linspace(0, mass[-1], GRID + 1)[1:]))]


def _tightened(lengths: Int[np.ndarray, "N 2"], buckets: list[Bucket]) -> list[Bucket]:
    """The buckets, each no longer than the longest of its pairs on either side, smallest first."""
    assigned = smallest_fit(lengths, sorted(buckets, key=sum))
    longest = [lengths[assigned == number].max(0) for number in np.unique(assigned)]
    return sorted({(int(source), int(target)) for source, target in longest}, key=lambda bucket: (sum(bucket), bucket))


def smallest_fit(lengths: Int[np.ndarray, "N 2"], buckets: Sequence[Bucket]) -> Int[np.ndarray, " N"]:
    """The index of the first of the buckets, smallest first, that each pair fits."""
    first = np.zeros(len(lengths), np.int32)
    for number, bucket in reversed([*enumerate(buckets)]):
        first[(lengths <= bucket).all(-1)] = number
    return first


class BatchPlan:
    """The batches of all epochs: `batch(step)` is a function of step, seed and the data, and of nothing else."""

    def __init__(
        self,
        pairs: Pairs,
        config: BatchConfig,
        *,
        seed: int,
        own: Callable[[int], slice] = lambda rows: slice(0, rows),
        mixture: Mixture | None = None,
        noise: Noise = (None, None),
    ):
        """`own` says which of so many rows of a batch this process is to read; of the others it knows the lengths.

        Args:
            mixture: of the corpora that the pairs are from; None for one corpus.
            noise: of the tokens of both sides.
        """
        if not pairs.sources:
            raise ValueError("there are no pairs to make batches of.")
        self.pairs, self.config, self.seed, self._own = pairs, config, seed, own
        self._mixture, self._noise = mixture, noise
        lengths = self._lengths_with_noise()
        self.buckets = choose_buckets(lengths, count=config.buckets)
        assigned = smallest_fit(lengths, self.buckets)
        numbers = range(len(self.buckets))
        self._members = [np.flatnonzero(assigned == number).astype(np.int32) for number in numbers]
        self._features = [pairs.feature_lengths(members) for members in self._members]  # padded, in each bucket
        shapes = zip(self.buckets, self._features, strict=True)
        self.rows = [batch_rows((*bucket, *features), config) for bucket, features in shapes]
        counts = [sum(mixture.counts(members)) if mixture else len(members) for members in self._members]
        self.per_epoch = sum(-(-count // rows) for count, rows in zip(counts, self.rows, strict=True))
        self.real_tokens = int(pairs.lengths().sum())
        self._order: tuple[int, list[tuple[int, np.ndarray]]] | None = None  # of the epoch used last

    @property
    def padding_fraction(self) -> float:
        """Share of the positions of all pairs that is padding; the empty rows of a bucket's last batch do not count."""
        positions = sum(len(members) * sum(bucket) for members, bucket in zip(self._members, self.buckets, strict=True))
        return 1 - self.real_tokens / positions

    def batch(self, step: int) -> Batch:
        """The global batch of a step, padded to its bucket; steps count from 0."""
        epoch, number = divmod(step, self.per_epoch)
        if self._order is None or self._order[0] != epoch:
            self._order = (epoch, self._shuffled(epoch))
        bucket, members = self._order[1][number]
        pairs = self._drawn(self.pairs.select(members), step, self.buckets[bucket])
        return self._read(pairs, bucket)

    def _lengths_with_noise(self) -> Int[np.ndarray, "N 2"]:
        """Lengths of both sides with room for what noise makes of them, as far as a batch has the positions."""
        plain, (source, target) = self.pairs.lengths(), self._noise
        lengths = plain.copy()
        for side, rows, noise in ((0, self.pairs.sources, source), (1, self.pairs.targets, target)):
            if noise is not None:
                lengths[:, side] = noise.lengths(rows)
        return np.where(lengths.sum(1, keepdims=True) <= self.config.tokens, lengths, plain)

    def _drawn(self, pairs: Pairs, step: int, bucket: Bucket) -> Pairs:
        """The pairs of a step with the noise of both sides."""
        source, target = self._noise
        sources, targets, fed = pairs.sources, pairs.targets, None
        if source is not None:
            rng = np.random.default_rng([self.seed, step, 0])
            sources = source.hidden(source.segmented(sources, rng, longest=bucket[0]), rng)
        if target is not None:
            rng = np.random.default_rng([self.seed, step, 1])
            targets = target.segmented(targets, rng, longest=bucket[1])
            fed = target.hidden(targets, rng) if target.rate else None
        return pairs._replace(sources=sources, targets=targets, fed=fed)

    def _padded(self, pairs: Pairs, bucket: int, *, rows: int | None = None) -> Batch:
        """The batch of some pairs in the shape of a bucket, by its number."""
        rows, features = self.rows[bucket] if rows is None else rows, self._features[bucket]
        return padded_batch(pairs, rows=rows, bucket=self.buckets[bucket], features=features)

    def _read(self, pairs: Pairs, bucket: int) -> Batch:
        """The batch of some pairs; a row of another process has a target of its length, and nothing else."""
        rows = self.rows[bucket]
        own = self._own(rows)
        part = self._padded(pairs.select(np.arange(len(pairs.sources))[own]), bucket, rows=own.stop - own.start)
        if own == slice(0, rows):
            return part
        around = own.start, rows - own.stop
        batch = map_arrays(lambda side: np.pad(side, (around, *[(0, 0)] * (side.ndim - 1))), part)
        elsewhere = np.arange(self.buckets[bucket][1]) < pairs.targets.lengths[:, None]
        elsewhere[own] = False
        batch.target[: len(elsewhere)][elsewhere] = UNK
        return batch

    def _shuffled(self, epoch: int) -> list[tuple[int, np.ndarray]]:
        """All batches of an epoch in their order: the bucket's index, and the indices of the pairs."""
        rng = np.random.default_rng([self.seed, epoch])
        batches = []
        for bucket, members in enumerate(self._members):
            if self._mixture:
                members = self._mixture.draw(members, seed=self.seed, epoch=epoch, bucket=bucket)
            members, rows = rng.permutation(members), self.rows[bucket]
            batches += [(bucket, members[start : start + rows]) for start in range(0, len(members), rows)]
        return [batches[index] for index in rng.permutation(len(batches))]

    def from_step(self, start: int, stop: int) -> Iterator[Batch]:
        """The batches of steps start..stop-1, prepared ahead by Grain."""
        import grain  # takes a second, and only training needs it

        ahead = grain.ReadOptions(num_threads=1, prefetch_buffer_size=self.config.prefetch)
        return iter(grain.MapDataset.source(_Steps(self, start, stop)).to_iter_dataset(ahead))

    def largest(self) -> Batch:
        """A batch of the bucket with the most positions, with a single pair: its shape needs the most memory."""
        widths = [(*bucket, *features) for bucket, features in zip(self.buckets, self._features, strict=True)]
        number = max(range(len(widths)), key=lambda bucket: self.rows[bucket] * sum(widths[bucket]))
        pairs = self._drawn(self.pairs.select(self._members[number][:1]), 0, self.buckets[number])
        return self._padded(pairs, number)

    def in_order(self) -> Iterator[Batch]:
        """Every pair once, unshuffled: for validation."""
        for bucket, members in enumerate(self._members):
            rows = self.rows[bucket]
            for start in range(0, len(members), rows):
                yield self._padded(self.pairs.select(members[start : start + rows]), bucket)


class _Steps:
    """Steps start..stop-1 as the random-access source that Grain reads."""

    def __init__(self, plan: BatchPlan, start: int, stop: int):
        self.plan, self.start, self.stop = plan, start, stop

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, index) -> Batch:
        return self.plan.batch(self.start + int(index))


def batch_rows(lengths: tuple[int, ...], config: BatchConfig) -> int:
    """How many pairs of these lengths (a bucket, and features if there are any) go into one batch, at least one."""
    return max(1, min(config.size, config.tokens // sum(lengths)))


def padded_batch(pairs: Pairs, *, rows: int, bucket: Bucket, features: tuple[int, ...] = ()) -> Batch:
    """A batch of exactly `rows` rows with the bucket's lengths; a row without a pair is padding from end to end.

    Args:
        features: the padded length of each feature.
    """
    source, target, *others = (
        side.padded(rows, length)
        for side, length in zip((pairs.sources, pairs.targets, *pairs.features), (*bucket, *features), strict=True)
    )
    links = _link_matrix(pairs.links, rows, bucket) if pairs.links is not None else ()
    fed = pairs.fed.padded(rows, bucket[1]) if pairs.fed is not None else ()
    return Batch(source, target, links, fed, tuple(others))


def _link_matrix(links: Ragged, rows: int, bucket: Bucket) -> Bool[np.ndarray, "B T S"]:
    """True where a target token is linked with a source token."""
    linked = np.zeros((rows, *bucket[::-1]), bool)
    sources, targets = links.numbers().T
    linked[links.row_numbers(), targets, sources] = True
    return linked
