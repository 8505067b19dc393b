"""Synthetic tasks whose targets and alignments are known: copy, reverse, sort, addition, dates and inflection.

A task of your own is an object with the four methods of `Task`, put into `TASKS`: `TASKS["double"] = Double()` makes
`data.train=task:double` known.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from hashlib import blake2b
from itertools import product
from random import Random
from string import ascii_lowercase
from typing import Any, Protocol, runtime_checkable

from s2s_jax.text.dates import Dates
from s2s_jax.text.example import Example, Links
from s2s_jax.text.inflection import Inflection
from s2s_jax.validation import at_least, one_of

SPLIT_PERCENTILES = {"train": range(80), "validation": range(80, 90), "test": range(90, 100)}  # of the items' hashes
# draws in a row without a new item, after which the remaining items are listed; by chance alone: 0.9 ** 1000
MAX_MISSES = 1000


@runtime_checkable
class Task(Protocol):
    """What a task offers: random items, all items, and the example of one; only the task knows the type of its items.

    A task that is a dataclass with fields `minimum_length` and `maximum_length` takes `data.lengths`.
    """

    def draw(self, rng: Random) -> Any:
        """A random item."""
        ...

    def items(self) -> Iterator[Any]:
        """Every item that `draw` can give."""
        ...

    def split_key(self, item: Any) -> str:
        """The text whose hash decides the split of an item: items of one key are in one split."""
        ...

    def example(self, item: Any) -> Example:
        """The item as a source line, with its target and alignment."""
        ...


def _check_lengths(minimum: int, maximum: int) -> None:
    """Raise ValueError unless 1 <= minimum <= maximum."""
    at_least("minimum_length", minimum, 1)
    if maximum < minimum:
        raise ValueError(f"maximum_length must be at least minimum_length={minimum}, got {maximum}")


@dataclass(frozen=True, kw_only=True)
class Letters:
    """Lower-case letters, one space between them, to the same letters in another order."""

    order: Callable[[str], Sequence[int]]  # letters -> per target letter the index of its source letter
    minimum_length: int = 1  # letters
    maximum_length: int = 10  # letters

    def __post_init__(self):
        _check_lengths(self.minimum_length, self.maximum_length)

    def draw(self, rng: Random) -> str:
        """Random letters: every length as often as any other."""
        return "".join(rng.choices(ascii_lowercase, k=rng.randint(self.minimum_length, self.maximum_length)))

    def items(self) -> Iterator[str]:
        """All sequences of letters, the shortest first."""
        for length in range(self.minimum_length, self.maximum_length + 1):
            yield from map("".join, product(ascii_lowercase, repeat=length))

    def split_key(self, item: str) -> str:
        """The letters: a sequence is held out in copy, reverse and sort alike."""
        return item

    def example(self, item: str) -> Example:
        """The letters, the letters in their new order, and where each one went."""
        order = self.order(item)
        links = sorted((2 * source, 2 * target) for target, source in enumerate(order))
        return Example(" ".join(item), " ".join(item[source] for source in order), tuple(links))


@dataclass(frozen=True, kw_only=True)
class Addition:
    """Two numbers to their sum, as in "123+45=" to "168"; no leading zeros."""

    minimum_length: int = 1  # digits of each number
    maximum_length: int = 4  # digits of each number

    def __post_init__(self):
        _check_lengths(self.minimum_length, self.maximum_length)

    def draw(self, rng: Random) -> tuple[int, int]:
        """Two random numbers: every number of digits as often as any other."""
        lengths = [rng.randint(self.minimum_length, self.maximum_length) for _ in range(2)]
        first, second = (rng.randrange(_smallest(length), 10**length) for length in lengths)
        return first, second

    def items(self) -> Iterator[tuple[int, int]]:
        """All pairs of numbers, in both orders."""
        numbers = range(_smallest(self.minimum_length), 10**self.maximum_length)
        return ((first, second) for first in numbers for second in numbers)

    def split_key(self, item: tuple[int, int]) -> str:
        """The two numbers, smaller first: 1+2 and 2+1 are never in different splits."""
        return "{}+{}".format(*sorted(item))

    def example(self, item: tuple[int, int]) -> Example:
        """The sum, each of its digits linked with the digits of the same decimal place; a last carry has no links."""
        first, second = (str(number) for number in item)
        source, target = f"{first}+{second}=", str(sum(item))
        of_first = _by_place(len(first), source_end=len(first), target_end=len(target))
        of_second = _by_place(len(second), source_end=len(source) - 1, target_end=len(target))
        return Example(source, target, of_first + of_second)


def source_order(letters: str) -> Sequence[int]:
    """First to last, as in the source."""
    return range(len(letters))


def reverse_order(letters: str) -> Sequence[int]:
    """Last to first, the source backwards."""
    return range(len(letters))[::-1]


def alphabetical_order(letters: str) -> Sequence[int]:
    """Alphabetical; equal letters keep their order."""
    return sorted(range(len(letters)), key=letters.__getitem__)


TASKS: dict[str, Task] = {
    "copy": Letters(order=source_order),
    "reverse": Letters(order=reverse_order),
    "sort": Letters(order=alphabetical_order),
    "addition": Addition(),
    "dates": Dates(),
    "inflection": Inflection(),
    "inflection-in-line": Inflection(in_line=True),
}


def make_examples(
    name: str,
    *,
    split: str,
    count: int,
    seed: int = 0,
    minimum_length: int | None = None,
    maximum_length: int | None = None,
) -> list[Example]:
    """`count` examples of a task, no source (with its features) twice, the same for the same arguments.

    Args:
        name: a task of `TASKS`.
        split: "train", "validation" or "test". No item is in two of them, whatever the seed, count and lengths.
        count: how many examples, at least 1.
        seed: another seed draws other examples from the same split.
        minimum_length: letters, or digits of each number of an addition; None for the task's own. Dates take none.
        maximum_length: the same, included.

    Raises:
        ValueError: an unknown task or split, lengths that exclude each other or that the task does not take, or a
            count beyond the number of examples there are.
    """
    one_of("task", name, TASKS)
    one_of("split", split, SPLIT_PERCENTILES)
    at_least("count", count, 1)
    task = _with_lengths(name, minimum_length=minimum_length, maximum_length=maximum_length)
    examples = _distinct(task, split=split, count=count, rng=Random(f"{name} {split} {seed}"))
    if len(examples) < count:
        remedy = "lower count or raise maximum_length" if hasattr(task, "maximum_length") else "lower count"
        raise ValueError(f"task {name!r} has {len(examples)} examples in split {split!r}, got count={count}; {remedy}")
    return examples


def split_of(key: str) -> str:
    """The one split of the items with this key, by a hash that no run, machine or Python version changes."""
    percentile = int.from_bytes(blake2b(key.encode(), digest_size=8).digest(), "big") % 100
    return next(split for split, percentiles in SPLIT_PERCENTILES.items() if percentile in percentiles)


def _with_lengths(name: str, **lengths: int | None) -> Task:
    """The task with those of its fields changed for which there is a value.

    Raises:
        ValueError: it has no such field.
    """
    task: Any = TASKS[name]
    changes = {field: length for field, length in lengths.items() if length is not None}
    accepted = {field.name for field in fields(task)} if is_dataclass(TASKS[name]) else set()
    refused = sorted(changes.keys() - accepted)
    if refused:
        raise ValueError(f"task {name!r} has no {refused[0]}, got {changes[refused[0]]}; leave it out")
    return replace(task, **changes) if changes else task


def _distinct(task: Task, *, split: str, count: int, rng: Random) -> list[Example]:
    """`count` examples of the split, no source twice, or all there are if these are fewer."""
    found: dict[tuple[str, ...], Example] = {}
    misses = 0
    while len(found) < count and misses < MAX_MISSES:
        misses = 0 if _add_if_new(task, task.draw(rng), split=split, found=found) else misses + 1
    if len(found) < count:  # so much of the space is used up that listing it costs no more than drawing did
        remaining = [item for item in task.items() if split_of(task.split_key(item)) == split]
        rng.shuffle(remaining)
        for item in remaining:
            if len(found) < count:
                _add_if_new(task, item, split=split, found=found)
    return list(found.values())


def _add_if_new(task: Task, item: Any, *, split: str, found: dict[tuple[str, ...], Example]) -> bool:
    """Whether the item is of this split and new; if so, its example is added to `found`."""
    if split_of(task.split_key(item)) != split:
        return False
    example = task.example(item)
    return found.setdefault((example.source, *example.features), example) is example


def _smallest(digits: int) -> int:
    """The smallest number of so many digits; 0 has one."""
    return 0 if digits == 1 else 10 ** (digits - 1)


def _by_place(digits: int, *, source_end: int, target_end: int) -> Links:
    """Links between the last `digits` characters before the two ends: units with units, tens with tens."""
    return tuple((source_end - place, target_end - place) for place in range(digits, 0, -1))
