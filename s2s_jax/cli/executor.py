"""The flags that say where the trials of a sweep run, and the `ExecutorConfig` that they make."""

import argparse
from collections.abc import Sequence

from s2s_jax.cli.arguments import UsageError
from s2s_jax.sweep.executors.interface import ExecutorConfig

# flag -> the executors that read it; the others refuse it
USED_BY = {
    "per_device": ("local",),
    "cores": ("local", "ray", "slurm"),
    "address": ("ray",),
    "resources": ("ray",),
    "runtime_env": ("ray",),
    "minutes": ("slurm",),
    "partition": ("slurm",),
    "account": ("slurm",),
    "array_size": ("slurm",),
    "slurm": ("slurm",),
}


def executor_config(options: argparse.Namespace) -> ExecutorConfig:
    """The executor of a command line.

    Raises:
        UsageError, ValueError: a flag has no use with this executor, or a wrong value.
    """
    given = {name: getattr(options, name) for name in USED_BY if getattr(options, name) not in (None, [])}
    for name in given:
        if options.executor not in USED_BY[name]:
            flag = f"--{name.replace('_', '-')}"
            raise UsageError(f"{flag} has no effect with --executor {options.executor}; leave one of them out")
    if "slurm" in given:
        given["options"] = _pairs("--slurm", given.pop("slurm"), example="gpus_per_node=1")
    if "resources" in given:
        texts = _pairs("--resources", given["resources"], example="GPU=0.25")
        given["resources"] = {name: _amount(name, text) for name, text in texts.items()}
    return ExecutorConfig(name=options.executor, jobs=options.jobs, **given)


def _pairs(flag: str, words: Sequence[str], *, example: str) -> dict[str, str]:
    """Words NAME=VALUE as a dict."""
    for word in words:
        if not word.partition("=")[0] or "=" not in word:
            raise UsageError(f"{flag} needs NAME=VALUE, such as {example}, got {word!r}")
    return dict(word.split("=", 1) for word in words)


def _amount(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"--resources {name}={text}: the amount must be a number") from None
