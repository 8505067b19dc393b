"""The experiment that a name stands for, and the directory of its run."""

import dataclasses
import sys
from pathlib import Path
from typing import Any

from s2s_jax import run
from s2s_jax.cli.arguments import UsageError
from s2s_jax.cli.suggestions import did_you_mean
from s2s_jax.config import Experiment
from s2s_jax.imports import extends_tables, import_once
from s2s_jax.shipped import EXPERIMENTS

FOLDERS = (Path("experiments"), EXPERIMENTS)  # where names are looked up, the user's own first


def find(name: str, directory: str | None) -> tuple[Experiment, Path]:
    """The experiment that a file, a name or a run stands for, and the directory of its run.

    Raises:
        UsageError: there is none.
    """
    path = Path(name)
    if (path / "config.json").exists():
        return run.read_experiment(path), Path(directory or path)
    if path.suffix != ".py":
        path = _named(name)
    if not path.is_file():
        known = ", ".join(known_experiments())
        raise UsageError(f"no experiment {path}; give a Python file with experiment(), or one of {known}")
    return _from_file(path), Path(directory or Path("runs") / path.stem)


def settings_alone(name: str, directory: Path) -> str:
    """A warning where a run stands for an experiment and another directory is trained; else nothing."""
    if not (Path(name) / "config.json").exists() or Path(name).resolve() == directory.resolve():
        return ""
    return (
        f"warning: {name} gives its settings alone, not its parameters: {directory} is a run of its own, which starts "
        f"from new parameters; --from {name} takes those of the run"
    )


def is_experiment(name: str) -> bool:
    """Whether `find` would find something of this name."""
    return name in known_experiments() or name.endswith(".py") or Path(name, "config.json").exists()


def known_experiments() -> list[str]:
    """The names of the experiments in `experiments/` and of those that ship with the package."""
    return sorted({path.stem for folder in FOLDERS for path in folder.glob("[!_]*.py")})


def named_file(name: str) -> Path | None:
    """The file of a name such as `dates`; one in your own `experiments/` hiding a shipped one is named on stderr."""
    own, shipped = (folder / f"{name}.py" for folder in FOLDERS)
    if not own.is_file():
        return shipped if shipped.is_file() else None
    if shipped.is_file() and not own.samefile(shipped):
        print(f"{name} is your {own}, and not the shipped {shipped}", file=sys.stderr)
    return own


def _named(name: str) -> Path:
    if path := named_file(name):
        return path
    known = known_experiments()
    names = f"there are {', '.join(known)}, or give a Python file or a run"
    raise UsageError(f"no experiment {name!r}{did_you_mean(name, known)} ({names})")


def _from_file(path: Path) -> Experiment:
    """The experiment of a file; a file that adds to a table is recorded as an import of the experiment."""
    make: Any = getattr(import_once(str(path)), "experiment", None)
    if make is None:
        raise UsageError(f"{path} has no function experiment(); write one that returns an Experiment")
    experiment = make()
    if not isinstance(experiment, Experiment):
        raise UsageError(f"experiment() in {path} returned {type(experiment).__name__}, an Experiment is wanted")
    if not extends_tables(str(path)):
        return experiment
    return dataclasses.replace(experiment, imports=tuple(dict.fromkeys([*experiment.imports, str(path)])))
