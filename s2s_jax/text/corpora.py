"""Several training corpora: how often an epoch has each pair of each of them, and the tags before their sources.

An epoch has as many pairs as all corpora together, divided among the corpora by weight. Of each corpus, in each length
bucket, it has whole copies of all pairs, and of the rest a random selection in which no pair occurs twice; selections
go through all pairs before they begin again. So the number of batches is that of every epoch, and which pairs they have
is a function of (seed, epoch).
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from s2s_jax.text.ragged import Ragged, RaggedWriter, Rows


class Mixture(NamedTuple):
    """How corpora, which lie one after another, are mixed."""

    sizes: tuple[int, ...]  # pairs of each corpus
    shares: tuple[float, ...]  # of each corpus in an epoch

    @property
    def copies(self) -> tuple[float, ...]:
        """How often an epoch has each pair of a corpus, on average."""
        total = sum(self.sizes)
        return tuple(share * total / size for share, size in zip(self.shares, self.sizes, strict=True))

    def counts(self, members: Int[np.ndarray, " N"]) -> list[int]:
        """How many pairs of each corpus an epoch has from a bucket with these members: at least one where it has any.

        Args:
            members: indices of pairs, in their order.
        """
        parts = zip(self._parts(members), self.copies, strict=True)
        return [max(1, round(copies * len(part))) if len(part) else 0 for part, copies in parts]

    def draw(self, members: Int[np.ndarray, " N"], *, seed: int, epoch: int, bucket: int) -> Int[np.ndarray, " M"]:
        """The pairs that an epoch has from a bucket with these members, some of them several times."""
        drawn = []
        for corpus, (part, count) in enumerate(zip(self._parts(members), self.counts(members), strict=True)):
            copies, rest = divmod(count, max(1, len(part)))
            turns = len(part) // max(1, rest)  # epochs whose selections have no pair in common
            turn, place = divmod(epoch, max(1, turns))
            order = np.random.default_rng([seed, turn, bucket, corpus]).permutation(part) if rest else part
            drawn += [np.tile(part, copies), order[place * rest :][:rest]]
        return np.concatenate([members[:0], *drawn])

    def _parts(self, members: Int[np.ndarray, " N"]) -> list[Int[np.ndarray, " M"]]:
        """The members of each corpus."""
        return np.split(members, np.searchsorted(members, np.cumsum(self.sizes)[:-1]))


def mixture(sizes: Sequence[int], *, weights: Sequence[float] = (), temperature: float = 1.0) -> Mixture:
    """The mixture of corpora of these sizes: by weight where weights are given, else by size^(1/temperature).

    Arivazhagan et al. 2019, arXiv:1907.05019, section 4.1.
    """
    largest = max(sizes)
    parts = np.array(weights or [(size / largest) ** (1 / temperature) for size in sizes])
    return Mixture(tuple(sizes), tuple((parts / parts.sum()).tolist()))


def listed(train: str) -> tuple[str, ...]:
    """The specs of a JSON list; the text itself where it is none, such as a file whose name starts with a bracket.

    Raises:
        ValueError: the list is empty, or has something else in it.
    """
    try:
        specs = json.loads(train) if train.startswith("[") else [train] * bool(train)
    except ValueError:
        specs = [train]
    if train and not (specs and all(isinstance(spec, str) and spec for spec in specs)):
        raise ValueError(f"data.train must be the name of a source or a JSON list of such names, got {train}")
    return tuple(specs)


def check_corpora(
    corpora: Sequence[str], *, weights: Sequence[float], temperature: float, tags: Sequence[str], alignment: str
) -> None:
    """Refuse settings of `data` that do not fit these corpora.

    Raises:
        ValueError: naming the setting, its value and what was wanted.
    """
    for name, values in (("weights", weights), ("tags", tags)):
        if values and len(values) != len(corpora):
            raise ValueError(f"data.{name} must have one entry per corpus of data.train ({len(corpora)}), got {values}")
    if not all(weight > 0 for weight in weights):
        raise ValueError(f"data.weights must be positive, got {weights}; to use no pair of a corpus, leave it out.")
    if not temperature > 0:
        raise ValueError(f"data.temperature must be positive, got {temperature}")
    if weights and temperature != 1:
        raise ValueError(
            f"data.temperature={temperature} makes weights of sizes, and data.weights={weights} are given; set "
            "data.temperature=1."
        )
    if spaced := [tag for tag in tags if tag.split() != [tag] * bool(tag)]:
        raise ValueError(f"data.tags must be texts without spaces, got {spaced[0]!r}")
    if alignment and len(corpora) > 1:
        raise ValueError(
            f"data.alignment={alignment} belongs to one corpus, and data.train has {len(corpora)}; leave it empty, and "
            "give pairs with alignments as JSON lines (field 'alignment')."
        )


def with_first(rows: Ragged, first: Int[np.ndarray, " N"], folder: Path | None, dtype: np.dtype) -> Ragged:
    """Rows of ids, each with an id before it where `first` is not 0.

    Args:
        folder: as in `RaggedWriter`.
        dtype: of the ids.
    """
    writer, start = RaggedWriter(dtype, folder), 0
    for part in rows.parts():
        added = first[start : start + len(part)]
        begins, has = np.cumsum(part.lengths) - part.lengths, added != 0
        writer.write(Rows(np.insert(part.numbers(), begins[has], added[has]), part.lengths + has))
        start += len(part)
    return writer.finish()


def shifted(links: Ragged, moved: Bool[np.ndarray, " N"], folder: Path | None) -> Ragged:
    """Links whose source tokens are one further to the right in the rows that are moved."""
    writer, start = RaggedWriter(links.flat.dtype, folder, columns=(2,)), 0
    for part in links.parts():
        ends = part.numbers()
        ends[:, 0] += moved[start : start + len(part)][part.row_numbers()]
        writer.write(Rows(ends, part.lengths))
        start += len(part)
    return writer.finish()
