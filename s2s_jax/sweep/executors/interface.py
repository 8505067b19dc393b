"""The one interface of executors: groups of trials in, their statuses out, and the settings of where they run."""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol, get_args

from s2s_jax.sweep.trial import TrialGroup
from s2s_jax.sweep.trial_files import read_outcome
from s2s_jax.validation import at_least, one_of

ExecutorName = Literal["local", "ray", "slurm"]
ENDED = ("done", "diverged", "stopped")  # statuses of groups that are not tried again


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExecutorConfig:
    """Which machines run the trials of a sweep, and what each trial takes of them."""

    name: ExecutorName = "local"
    """local (this machine), ray or slurm."""
    jobs: int = 0
    """Trials at a time; 0 for one per device of this machine, or as many as a cluster has room for."""
    per_device: int = 1
    """local: trials that share a GPU and its memory."""
    cores: int = 0
    """CPU cores per trial; 0 for an equal part on this machine, and 1 on a cluster."""
    address: str = ""
    """ray: address of the cluster; empty for one on this machine."""
    resources: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """ray: what a trial takes, such as GPU=0.25, TPU=4 or a resource of your own; else one GPU, or TPU chip, if any."""
    runtime_env: str = ""
    """ray: environment of the workers, as JSON or the name of a JSON file, such as {"working_dir": ".", "pip": []}."""
    minutes: int = 60 * 24
    """slurm: time limit of a trial's job, in minutes; a job that reaches it is requeued and resumes."""
    partition: str = ""
    """slurm: partition of the jobs; empty for the default one."""
    account: str = ""
    """slurm: account that the jobs are charged to; empty for the default one."""
    array_size: int = 1000
    """slurm: most jobs in one array; at most the MaxArraySize of the cluster."""
    options: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """slurm: further parameters of submitit, such as gpus_per_node=1, mem_gb=16 or slurm_qos=high."""

    def __post_init__(self):
        one_of("--executor", self.name, get_args(ExecutorName))
        for name, least in (("jobs", 0), ("per_device", 1), ("cores", 0), ("minutes", 1), ("array_size", 1)):
            at_least(f"--{name.replace('_', '-')}", getattr(self, name), least)
        for name, amount in self.resources.items():
            at_least(f"--resources {name}", amount, 0)
        self.environment()

    def environment(self) -> dict[str, Any]:
        """The runtime environment of Ray's workers.

        Raises:
            ValueError: it is no JSON object.
        """
        text = self.runtime_env.strip()
        if not text:
            return {}
        if not text.startswith("{"):
            try:
                with open(text, encoding="utf-8") as file:
                    text = file.read()
            except OSError as error:
                raise ValueError(f"--runtime-env {text}: {error.strerror}; give JSON, or a file of it.") from None
        try:
            return dict(json.loads(text))
        except (TypeError, ValueError) as error:
            raise ValueError(f"--runtime-env is no JSON object ({error}); got {text[:80]!r}.") from None


class Progress(NamedTuple):
    """What an executor calls while it runs."""

    finished: Callable[[TrialGroup, str], None]  # with a group that has ended, and its status
    note: Callable[[str], None]  # with one line: a placement, a machine that died


class Executor(Protocol):
    """Runs groups of trials."""

    def __call__(
        self, groups: Sequence[TrialGroup], progress: Progress, config: ExecutorConfig, *, retries: int
    ) -> int:
        """Run all groups, and report each one that ends.

        Args:
            retries: times that a group is tried again that has failed.

        Returns:
            The signal that asked for an end, or 0; groups that were running have saved their state.
        """
        ...


def names(group: TrialGroup) -> str:
    """A group of trials as text."""
    first, *others = (spec.folder.name for spec in group)
    return f"{first} and {len(others)} more" if others else first


def to_retry(group: TrialGroup) -> TrialGroup:
    """The trials of a group that have neither scores nor diverged."""
    return tuple(spec for spec in group if read_outcome(spec.folder)["status"] not in ("done", "diverged"))
