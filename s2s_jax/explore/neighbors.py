"""The training sentences in which the decoder was in the most similar states."""

import itertools
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from s2s_jax.text.example import Example

if TYPE_CHECKING:
    from s2s_jax.run import Run

MOST_STATES = 50_000  # of the index; with a decoder of size 512 they take 100 MB
MOST_PAIRS = 5_000  # that are read for it, the first ones
WINDOW = 256  # pairs whose states are computed at a time


class Neighbor(NamedTuple):
    """A step of a training sentence."""

    source: str
    target: str
    tokens: tuple[str, ...]  # of the target
    step: int  # the place of the token that the state predicted
    distance: float  # Euclidean, between states


class NeighborIndex(NamedTuple):
    """The states of the decoder's top layer at each step of some pairs."""

    states: Float[np.ndarray, "N H"]
    squares: Float[np.ndarray, " N"]
    pair: Int[np.ndarray, " N"]  # the number of the pair of each state
    step: Int[np.ndarray, " N"]
    examples: list[Example]
    tokens: list[tuple[str, ...]]

    def nearest(self, state: Float[np.ndarray, " H"], count: int) -> list[Neighbor]:
        """The nearest states, nearest first, one per pair; the same sentence twice in the data counts once."""
        squared = np.maximum(self.squares - 2 * (self.states @ state) + state @ state, 0.0)
        found: dict[tuple[str, str], Neighbor] = {}
        for place in np.argsort(squared, kind="stable"):
            example, tokens = self.examples[self.pair[place]], self.tokens[self.pair[place]]
            distance = float(np.sqrt(squared[place]))
            neighbor = Neighbor(example.source, example.target, tokens, int(self.step[place]), distance)
            found.setdefault((example.source, example.target), neighbor)
            if len(found) == count:
                break
        return list(found.values())


def top_states(states: Any) -> Float[np.ndarray, "T H"]:
    """The states of the top layer after each step, of `PairStates`.

    Raises:
        ValueError: the model's states are no layers.
    """
    try:
        top = np.asarray(states.decoder[-1][0])
    except (TypeError, IndexError, KeyError):
        top = np.zeros(0)
    if top.ndim != 2:
        raise ValueError(
            "neighbors need a decoder of stacked layers, and this model carries other states; leave it out"
        )
    return top


def build_index(run: "Run", pairs: Iterable[Example], *, most: int = MOST_STATES) -> NeighborIndex:
    """The index of the first pairs, as many as have `most` states together.

    Raises:
        ValueError: there is no pair.
    """
    parts, numbers, steps, examples, tokens, count = [], [], [], [], [], 0
    for found in _windows(run, itertools.islice(pairs, MOST_PAIRS)):
        top = top_states(found)[: most - count]
        parts.append(top.astype(np.float32))
        numbers.append(np.full(len(top), len(examples), np.int32))
        steps.append(np.arange(len(top), dtype=np.int32))
        examples.append(found.example)
        tokens.append(found.tokens)
        count += len(top)
        if count >= most:
            break
    if not parts:
        raise ValueError("neighbors need training pairs, and the run's data (data.train) has none that can be read")
    states = np.concatenate(parts)
    return NeighborIndex(
        states, np.square(states).sum(-1), np.concatenate(numbers), np.concatenate(steps), examples, tokens
    )


def _windows(run: "Run", pairs: Iterator[Example]) -> Iterator[Any]:
    while window := list(itertools.islice(pairs, WINDOW)):
        yield from run.states(window)
