"""What is one pair of the data, before anything is cut into tokens?"""

from typing import NamedTuple

Links = tuple[tuple[int, int], ...]


class Example(NamedTuple):
    """A source line, its target line, and, where it is known, which characters belong together.

    `links` holds (source character, target character) pairs, 0-based code-point offsets: the gold alignment in a unit
    that does not depend on a tokeniser. None means unknown; an empty tuple means that nothing is aligned.
    """

    source: str
    target: str
    links: Links | None = None
