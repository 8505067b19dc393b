"""How does a sweep go from its plan to trained and scored cells, wherever they run?"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from s2s_jax.sweep.executors.local import run_local
from s2s_jax.sweep.plan import Plan, make_plan, units
from s2s_jax.sweep.sweep import Sweep
from s2s_jax.sweep.trial import TrialGroup, outcome
from s2s_jax.train.devices import gpus
from s2s_jax.train.lock import Lock
from s2s_jax.validation import one_of

EXECUTORS = ("local", "ray", "slurm")


class ExecutorConfig(NamedTuple):
    """Which machines run the cells."""

    on: str = "local"  # one of PLACES
    jobs: int = 0  # cells at a time; 0: as many as GPUs, else one (here), or as the cluster likes
    address: str = ""  # of a Ray cluster; empty for one on this machine
    options: dict[str, str] = {}  # noqa: RUF012 - of Slurm, such as partition


class Launched(NamedTuple):
    """How a sweep went."""

    plan: Plan
    failed: list[Path]  # folders of cells without numbers
    signal: int  # that asked for an end; 0 for none


def launch(sweep: Sweep, folder: Path, where: ExecutorConfig, say: Callable[[str], None]) -> Launched:
    """Run what is left of a sweep; cells that fail are tried again, then listed, and the others go on.

    Raises:
        ValueError: a cell cannot be trained, or was trained from something else.
        RunLockedError: another process runs this sweep.
    """
    one_of("executor", where.on, EXECUTORS)
    plan = make_plan(sweep, folder)
    left = units(sweep, plan.placed)
    say(f"{plan.done} of {len(plan.placed)} cells are done; {plan.allowed}")
    told = 0

    def tell(unit: TrialGroup, status: str) -> None:
        nonlocal told
        told += len(unit)
        for work in unit:
            found = outcome(work.folder)
            why = f": {found['error']}" if "error" in found else ""
            own = status if found["status"] == "waiting" else found["status"]
            say(f"{plan.done + told} of {len(plan.placed)}: {work.folder.name} {own}{why}")

    with Lock(folder):
        signal = _run(left, tell, where, sweep.retries) if left else 0
    failed = [one.folder for one in plan.placed if outcome(one.folder)["status"] in ("failed", "diverged")]
    return Launched(plan, failed, signal)


def _run(left: list[TrialGroup], tell: Callable[[TrialGroup, str], None], where: ExecutorConfig, retries: int) -> int:
    if where.on == "local":
        return run_local(left, tell, jobs=where.jobs or max(1, len(gpus())), retries=retries)
    if where.on == "ray":
        from s2s_jax.sweep.executors.ray import run_on_ray

        return run_on_ray(left, tell, address=where.address, jobs=where.jobs, retries=retries)
    from s2s_jax.sweep.executors.slurm import run_on_slurm

    return run_on_slurm(left, tell, options=where.options, jobs=where.jobs, retries=retries)
