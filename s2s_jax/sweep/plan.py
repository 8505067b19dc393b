"""What will a sweep do, what has it done already, and would every cell of it train? Asked first."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from s2s_jax.config import Experiment, without_vmappable
from s2s_jax.run.trainer import check_trainable
from s2s_jax.sweep.fingerprint import TrialDir, place
from s2s_jax.sweep.statistics import what_seeds_allow
from s2s_jax.sweep.sweep import Sweep, trials
from s2s_jax.sweep.trial import TrialGroup, TrialSpec, is_complete, launch_mode, outcome


class Plan(NamedTuple):
    """A sweep, laid out."""

    placed: list[TrialDir]
    done: int
    failed: int
    allowed: str  # what so many seeds can show
    seconds: float | None  # still to come, one cell after the other; None while no cell is done
    megabytes: float  # of disk, for the cells still to come


def make_plan(sweep: Sweep, folder: Path) -> Plan:
    """The plan of a sweep; every configuration is built, and its training step traced, without any array.

    Raises:
        ValueError: a cell that could not be trained, or one that was trained from something else.
    """
    placed = place(list(trials(sweep)), folder)
    sizes = [size for one in placed if one.cell.seed == sweep.seeds[0] for size in [_size(one)]]
    outcomes = [outcome(one.folder) for one in placed]
    seconds = [found["seconds"] for found in outcomes if found["status"] == "done"]
    failed = sum(found["status"] in ("failed", "diverged") for found in outcomes)
    left = len(_left(sweep, placed))
    compared = len(sweep.labels()[sweep.compare]) - 1
    allowed = what_seeds_allow(compared, seeds=len(sweep.seeds)) if compared else "Nothing is compared."
    each = float(np.mean(seconds)) if seconds else None
    share = left / len(placed)
    return Plan(
        placed,
        len(placed) - left,
        failed,
        allowed,
        None if each is None else each * left,
        sum(sizes) * len(sweep.seeds) * share,
    )


def _size(placed: TrialDir) -> float:
    """Megabytes of a cell's checkpoints; its step is traced on the way."""
    experiment = placed.cell.experiment
    try:
        state = check_trainable(experiment)
    except ValueError as error:
        raise ValueError(f"{placed.cell.title}: {error}") from None
    numbers = sum(leaf.size for leaf in jax.tree.leaves(state))
    return numbers * 4e-6 * (experiment.checkpoint.keep + experiment.checkpoint.best)


def units(sweep: Sweep, placed: Sequence[TrialDir], *, also_done: bool = False) -> list[TrialGroup]:
    """What is left to do, as the workers get it: a cell each, or all together that one program can train."""
    works = [_work(sweep, one) for one in placed] if also_done else _left(sweep, placed)
    if not sweep.replicas:
        return [(work,) for work in works]
    together: dict[Experiment | Path, list[TrialSpec]] = {}
    for work in works:
        alone = launch_mode(work.folder) == "single"
        together.setdefault(work.folder if alone else without_vmappable(work.experiment), []).append(work)
    return [tuple(group) for group in together.values()]


def _left(sweep: Sweep, placed: Sequence[TrialDir]) -> list[TrialSpec]:
    """What is not done, or was done by other settings of search or evaluation."""
    return [work for work in (_work(sweep, one) for one in placed) if not is_complete(work)]


def _work(sweep: Sweep, placed: TrialDir) -> TrialSpec:
    return TrialSpec(
        folder=placed.folder,
        experiment=placed.cell.experiment,
        point=placed.cell.point,
        identity=placed.identity,
        split=sweep.split,
        sentences=sweep.sentences,
        gallery=sweep.gallery,
    )
