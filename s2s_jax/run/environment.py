"""Where and with what a run was trained: command, machine, versions and commit of each of its starts."""

import os
import platform
import shlex
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

import s2s_jax
from s2s_jax.run.run_dir import read_json, write_json

ENVIRONMENT_FILE = "environment.json"
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def record_start(directory: Path, step: int) -> None:
    """Add a start of the run, at a step, to environment.json."""
    write_json(directory / ENVIRONMENT_FILE, {"starts": [*read_starts(directory), start(step)]})


def read_starts(directory: Path) -> list[dict[str, Any]]:
    """The starts of a run, oldest first; none where they are not known."""
    path = directory / ENVIRONMENT_FILE
    try:
        starts = read_json(path).get("starts", [])
    except (OSError, ValueError):  # it describes the run, and decides nothing
        return []
    return starts if isinstance(starts, list) else []


def start(step: int) -> dict[str, Any]:
    """What is to be known of a training that starts here and now."""
    devices = jax.devices()
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "step": step,
        "command": shlex.join(sys.argv),
        "folder": str(Path.cwd()),
        "commit": commit(Path.cwd()),
        "s2s_jax": s2s_jax.__version__,
        "s2s_jax_commit": commit(Path(s2s_jax.__file__).parent),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "host": platform.node(),
        "system": platform.platform(),
        "processors": os.cpu_count(),
        "devices": f"{len(devices)} x {devices[0].device_kind}",
        "processes": jax.process_count(),
    }


def commit(folder: Path) -> str | None:
    """The git commit of a folder, with `+changes` where files differ from it; None outside of a repository."""
    head = _git(folder, "rev-parse", "HEAD")
    if head is None:
        return None
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no", "--", ".")
    return head + ("+changes" if changed else "")


def _git(folder: Path, *words: str) -> str | None:
    """The output of a git command; None where it fails, takes long or is not installed."""
    try:
        done = subprocess.run(  # noqa: S603
            ["git", "-C", str(folder), *words],  # noqa: S607
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
