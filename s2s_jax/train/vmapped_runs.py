"""How are many runs trained in one compiled program? `vmap` over their states; each has its own folder and files.

Replicas go in step: one batch each at a time, padded to the largest of them. What a replica learns is what its own run
would have learned, up to rounding: it sees that run's batches, coins and dropout, and is told that run's numbers.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from s2s_jax.shapes import PAD, Batch
from s2s_jax.train import loop
from s2s_jax.train.signals import Interrupted, SignalGuard
from s2s_jax.train.step import Metrics, TrainState

TracedStep = Callable[[dict[str, Any], TrainState, Batch], tuple[TrainState, Metrics]]


class Replica(NamedTuple):
    """One run among the others."""

    job: loop.TrainerContext
    standing: loop.TrainProgress


def train(
    replicas: Sequence[Replica],
    states: Sequence[TrainState],
    numbers: dict[str, np.ndarray],
    step: TracedStep,
    lay: Callable[[Any], Any],
) -> list[str | None]:
    """Train all to their last step.

    Args:
        replicas: their jobs agree in everything but seed, numbers and folders, and have no patience and no budget.
        states: all of one step.
        numbers: settings in which they differ, with each one's value, [R].
        step: the step of one of them, told its numbers.
        lay: puts stacked arrays on the devices, along the replicas.

    Returns:
        for each replica None, or why it stopped: the step that could not be taken. Such a replica keeps its last
        checkpoint; the others go on.

    Raises:
        Interrupted: a signal asked for an end; all states are saved.
    """
    jobs = [one.job for one in replicas]
    standings = [one.standing for one in replicas]
    first, end = int(states[0].step), jobs[0].end
    stacked = lay(jax.tree.map(lambda *leaves: jnp.stack(leaves), *states))
    together = jax.jit(jax.vmap(step), donate_argnums=1)
    numbers = lay({name: np.asarray(values, np.float32) for name, values in numbers.items()})
    lost: list[str | None] = [None] * len(jobs)
    spent = [standing.seconds for standing in standings]
    shapes: set[tuple[int, ...]] = set()
    pending: tuple[int, Metrics, list[Batch]] | None = None

    def alive() -> Iterator[int]:
        return (place for place in range(len(jobs)) if lost[place] is None)

    def read() -> None:
        """Tell of the step before, one replica after the other; drop those whose step could not be taken."""
        if pending is None:
            return
        number, metrics, batches = pending
        found = jax.device_get(metrics)
        for place in list(alive()):
            own = jax.tree.map(lambda leaf, place=place: leaf[place], found)
            try:
                loop.tell(jobs[place], (number, own, batches[place]))
            except loop.NotFinite as error:
                lost[place] = str(error)

    def save(number: int, losses: dict[int, float]) -> None:
        for place in alive():
            state = jax.tree.map(lambda leaf, place=place: leaf[place], stacked)
            loop.save(jobs[place], state, number, standings[place], losses.get(place))

    with SignalGuard() as interrupt:
        iterators = [job.batches(first, end.steps) for job in jobs]
        for number, batches in enumerate(zip(*iterators, strict=True), first + 1):
            batch = common(batches)
            compiling = batch.source.shape + batch.target.shape not in shapes
            if compiling:
                shapes.add(batch.source.shape + batch.target.shape)
                for job in jobs:
                    job.recorder.compiling(batch.source.shape[1:] + batch.target.shape[2:])
            stacked, metrics = together(numbers, stacked, lay(batch))
            if compiling:
                jax.block_until_ready(metrics.finite)
                for job in jobs:
                    job.recorder.compiled()
            read()
            pending = (number, metrics, list(batches))
            for place, own in enumerate(batches):
                took = spent[place] + jobs[place].recorder.seconds / len(jobs)  # each its share
                tokens = standings[place].tokens + int((own.target != PAD).sum())
                standings[place] = standings[place]._replace(tokens=tokens, seconds=took)
            measuring = end.is_measured(number, standings[0])
            if not (measuring or number % jobs[0].checkpoint_every == 0 or interrupt.number):
                continue
            read()
            pending = None
            losses = {}
            if measuring and not interrupt.number:
                for place in alive():
                    state = jax.tree.map(lambda leaf, place=place: leaf[place], stacked)
                    standings[place], _, losses[place] = loop.measure(jobs[place], state, number, standings[place])
            save(number, losses)
            if interrupt.number:
                for job in jobs:
                    job.checkpoints.wait()
                raise Interrupted(interrupt.number, number)
    for place in alive():
        taken = standings[place]
        jobs[place].recorder.end(end.steps, tokens=taken.tokens, seconds=taken.seconds, reason="all steps are taken")
    return lost


def common(batches: Sequence[Batch]) -> Batch:
    """Batches as one, its leaves [R, ...], each padded to the largest."""

    def stacked(*arrays: np.ndarray) -> np.ndarray:
        largest = np.max([array.shape for array in arrays], axis=0)
        return np.stack([np.pad(one, [(0, int(more)) for more in largest - one.shape]) for one in arrays])

    return jax.tree.map(stacked, *batches)
