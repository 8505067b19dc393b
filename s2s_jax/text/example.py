"""One pair of the data before tokenization: a source line, a target line, links between their characters, features."""

import dataclasses
from collections.abc import Collection, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int


@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class WordLinks(Collection[tuple[int, int]]):
    """Links between words, as a collection of links between all of their characters.

    Words are what is stored: a corpus of a million sentences has billions of linked pairs of characters.
    """

    words: Int[np.ndarray, "N 4"]  # first source character, one past the last, the same of the target
    sure: Bool[np.ndarray, " N"]  # the others are possible: an alignment without them is no error

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((i, j) for a, b, c, d in self.words.tolist() for i in range(a, b) for j in range(c, d))

    def __len__(self) -> int:
        return int(((self.words[:, 1] - self.words[:, 0]) * (self.words[:, 3] - self.words[:, 2])).sum())

    def __contains__(self, link: object) -> bool:
        return any(link == member for member in self)


Links = tuple[tuple[int, int], ...]


class Example(NamedTuple):
    """A source line, its target line, and, where the alignment is known, the characters that are aligned.

    `links` holds (source character, target character) pairs, 0-based code-point offsets: the gold alignment in a unit
    that does not depend on a tokenizer. None means unknown; no pair means that nothing is aligned. `features` are the
    further texts of the source that `data.features` names.
    """

    source: str
    target: str
    links: Links | WordLinks | None = None
    features: tuple[str, ...] = ()
