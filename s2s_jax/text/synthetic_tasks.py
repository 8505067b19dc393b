"""Which made-up tasks are there, whose right answer and right alignment are known beforehand?"""

import difflib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from hashlib import blake2b
from itertools import product
from random import Random
from string import ascii_lowercase
from typing import Any, Protocol, runtime_checkable

from s2s_jax.text.dates import Dates
from s2s_jax.text.example import Example, Links

SPLITS = {"train": range(80), "validation": range(80, 90), "test": range(90, 100)}  # per cent of all items
PATIENCE = 1000  # draws in a row without anything new, after which what is left is listed: by chance alone 0.9 ** 1000


@runtime_checkable
class Task(Protocol):
    """What a task offers: pieces by chance, all pieces, and what to make of one; only the task knows a piece's type."""

    def draw(self, chance: Random) -> Any:
        """One piece by chance."""
        ...

    def every(self) -> Iterator[Any]:
        """All pieces that `draw` can give."""
        ...

    def item(self, piece: Any) -> str:
        """What must not be in two splits."""
        ...

    def example(self, piece: Any) -> Example:
        """The piece as a source, with its answer and alignment."""
        ...


def _check_lengths(minimum: int, maximum: int) -> None:
    """Raises ValueError unless 1 <= minimum <= maximum."""
    if minimum < 1:
        raise ValueError(f"minimum_length must be at least 1, got {minimum}")
    if maximum < minimum:
        raise ValueError(f"maximum_length must be at least minimum_length={minimum}, got {maximum}")


@dataclass(frozen=True, kw_only=True)
class Letters:
    """Lower-case letters, one space between them, to the same letters in another order."""

    order: Callable[[str], Sequence[int]]  # letters -> for each target letter the index of the source letter
    minimum_length: int = 1  # letters
    maximum_length: int = 10  # letters

    def __post_init__(self):
        _check_lengths(self.minimum_length, self.maximum_length)

    def draw(self, chance: Random) -> str:
        """Letters by chance: every length as often as any other."""
        return "".join(chance.choices(ascii_lowercase, k=chance.randint(self.minimum_length, self.maximum_length)))

    def every(self) -> Iterator[str]:
        """All that `draw` can give."""
        for length in range(self.minimum_length, self.maximum_length + 1):
            yield from map("".join, product(ascii_lowercase, repeat=length))

    def item(self, piece: str) -> str:
        """The letters: a sequence is held out in copy, reverse and sort alike."""
        return piece

    def example(self, piece: str) -> Example:
        """The letters, the letters in order, and where each one went."""
        order = self.order(piece)
        links = sorted((2 * source, 2 * target) for target, source in enumerate(order))
        return Example(" ".join(piece), " ".join(piece[source] for source in order), tuple(links))


@dataclass(frozen=True, kw_only=True)
class Addition:
    """Two numbers to their sum, as in "123+45=" to "168"; no leading zeros."""

    minimum_length: int = 1  # digits of each number
    maximum_length: int = 4  # digits of each number

    def __post_init__(self):
        _check_lengths(self.minimum_length, self.maximum_length)

    def draw(self, chance: Random) -> tuple[int, int]:
        """Two numbers by chance: every number of digits as often as any other."""
        lengths = [chance.randint(self.minimum_length, self.maximum_length) for _ in range(2)]
        first, second = (chance.randrange(_smallest(length), 10**length) for length in lengths)
        return first, second

    def every(self) -> Iterator[tuple[int, int]]:
        """All that `draw` can give."""
        numbers = range(_smallest(self.minimum_length), 10**self.maximum_length)
        return ((first, second) for first in numbers for second in numbers)

    def item(self, piece: tuple[int, int]) -> str:
        """The two numbers, smaller first: 1+2 and 2+1 are never in different splits."""
        return "{}+{}".format(*sorted(piece))

    def example(self, piece: tuple[int, int]) -> Example:
        """The sum, each of its digits linked with the digits of the same decimal place; a last carry has no links."""
        first, second = (str(number) for number in piece)
        source, target = f"{first}+{second}=", str(sum(piece))
        of_first = _by_place(len(first), source_end=len(first), target_end=len(target))
        of_second = _by_place(len(second), source_end=len(source) - 1, target_end=len(target))
        return Example(source, target, of_first + of_second)


def copied(letters: str) -> Sequence[int]:
    """The order of the source."""
    return range(len(letters))


def reversed_(letters: str) -> Sequence[int]:
    """Last to first."""
    return range(len(letters))[::-1]


def sorted_(letters: str) -> Sequence[int]:
    """By alphabet; equal letters keep their order."""
    return sorted(range(len(letters)), key=letters.__getitem__)


TASKS: dict[str, Letters | Addition | Dates] = {
    "copy": Letters(order=copied),
    "reverse": Letters(order=reversed_),
    "sort": Letters(order=sorted_),
    "addition": Addition(),
    "dates": Dates(),
}


def make(
    name: str,
    *,
    split: str,
    count: int,
    seed: int = 0,
    minimum_length: int | None = None,
    maximum_length: int | None = None,
) -> list[Example]:
    """`count` examples of a task, no source twice, the same for the same arguments.

    Args:
        name: a task of `TASKS`.
        split: "train", "validation" or "test". What is in one is in no other, whatever the seed, count and lengths.
        count: how many examples, at least 1.
        seed: another seed draws other examples from the same split.
        minimum_length: letters, or digits of each number of an addition; None for the task's own. Dates take none.
        maximum_length: the same, included.

    Raises:
        ValueError: an unknown task or split, lengths that make no sense or that the task has not, or a count beyond
            what there is.
    """
    _check_known("task", name, TASKS)
    _check_known("split", split, SPLITS)
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    given = {"minimum_length": minimum_length, "maximum_length": maximum_length}
    lengths: dict[str, Any] = {setting: length for setting, length in given.items() if length is not None}
    task = TASKS[name]
    refused = sorted(lengths.keys() - {field.name for field in fields(task)})
    if refused:
        raise ValueError(f"task {name!r} has no {refused[0]}, got {lengths[refused[0]]}; leave it out")
    chance = Random(f"{name} {split} {seed}")
    examples = _distinct(replace(task, **lengths), split=split, count=count, chance=chance)
    if len(examples) < count:
        cure = "lower count or raise maximum_length" if hasattr(task, "maximum_length") else "lower count"
        raise ValueError(f"task {name!r} has {len(examples)} examples in split {split!r}, got count={count}; {cure}")
    return examples


def split_of(item: str) -> str:
    """The one split that `item` belongs to, by a hash that no run, machine or Python version changes."""
    percent = int.from_bytes(blake2b(item.encode(), digest_size=8).digest(), "big") % 100
    return next(split for split, percents in SPLITS.items() if percent in percents)


def _distinct(task: Task, *, split: str, count: int, chance: Random) -> list[Example]:
    """`count` examples of the split, no source twice, or all there are if these are fewer."""
    found: dict[str, Example] = {}
    misses = 0
    while len(found) < count and misses < PATIENCE:
        misses = 0 if _keep(task, task.draw(chance), split=split, found=found) else misses + 1
    if len(found) < count:  # so much of the space is used up that listing it costs no more than drawing did
        rest = [piece for piece in task.every() if split_of(task.item(piece)) == split]
        chance.shuffle(rest)
        for piece in rest:
            if len(found) < count:
                _keep(task, piece, split=split, found=found)
    return list(found.values())


def _keep(task: Task, piece: Any, *, split: str, found: dict[str, Example]) -> bool:
    """Whether the piece is of this split and new; if so its example is in `found` now."""
    if split_of(task.item(piece)) != split:
        return False
    example = task.example(piece)
    return found.setdefault(example.source, example) is example


def _smallest(digits: int) -> int:
    """The smallest number of so many digits; 0 has one."""
    return 0 if digits == 1 else 10 ** (digits - 1)


def _by_place(digits: int, *, source_end: int, target_end: int) -> Links:
    """Links between the last `digits` characters before the two ends: units with units, tens with tens."""
    return tuple((source_end - place, target_end - place) for place in range(digits, 0, -1))


def _check_known(what: str, name: str, known: Iterable[str]) -> None:
    """Raises ValueError, with the nearest name, unless `name` is one of `known`."""
    if name not in known:
        near = difflib.get_close_matches(name, list(known), n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
        raise ValueError(f"no {what} {name!r}; {hint}")
