"""Which experiment does a name mean, and where does its run live?"""

import difflib
import runpy
from pathlib import Path

from s2s_jax import run
from s2s_jax.cli.arguments import UsageError
from s2s_jax.config import Experiment

SHIPPED = Path(__file__).parent.parent.parent / "experiments"


def find(name: str, directory: str | None) -> tuple[Experiment, Path]:
    """The experiment that a file, a name or a run stands for, and the folder of its run.

    Raises:
        UsageError: there is none.
    """
    path = Path(name)
    if (path / "config.json").exists():
        return run.read_experiment(path), Path(directory or path)
    if path.suffix != ".py":
        path = _named(name)
    if not path.is_file():
        raise UsageError(f"no experiment {path}; give a Python file with experiment(), or one of {', '.join(_known())}")
    return _from_file(path), Path(directory or Path("runs") / path.stem)


def _named(name: str) -> Path:
    for folder in (Path("experiments"), SHIPPED):
        if (folder / f"{name}.py").is_file():
            return folder / f"{name}.py"
    near = difflib.get_close_matches(name, _known(), n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise UsageError(f"no experiment {name!r}{hint} (there are {', '.join(_known())}, or give a Python file or a run)")


def _known() -> list[str]:
    return sorted({path.stem for folder in (Path("experiments"), SHIPPED) for path in folder.glob("*.py")})


def _from_file(path: Path) -> Experiment:
    try:
        made = runpy.run_path(str(path)).get("experiment")
    except SyntaxError as error:
        raise UsageError(f"{path}:{error.lineno}: {error.msg}") from None
    if made is None:
        raise UsageError(f"{path} has no function experiment(); write one that returns an Experiment")
    experiment = made()
    if not isinstance(experiment, Experiment):
        raise UsageError(f"experiment() in {path} returned {type(experiment).__name__}, an Experiment is wanted")
    return experiment
