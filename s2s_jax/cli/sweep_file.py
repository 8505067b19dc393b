"""The sweep or tuning that a file or a name on the command line stands for, with the options that change it."""

import dataclasses
import shlex
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from s2s_jax.cli.arguments import Arguments, UsageError
from s2s_jax.cli.experiments import FOLDERS, named_file
from s2s_jax.cli.suggestions import did_you_mean
from s2s_jax.config import override
from s2s_jax.imports import extends_tables, import_once, merged_names
from s2s_jax.sweep.sweep import Sweep
from s2s_jax.sweep.tuning import Tuning

CLAIMS = "claims"  # the folder below experiments/ whose sweeps are named without it
PUBLISHED = "published"


class NamedSweep(NamedTuple):
    """A sweep or a tuning, with its folder and what its report says about it."""

    sweep: Sweep | Tuning
    folder: Path
    name: str
    claim: str
    command: str


def find_sweep(arguments: Arguments) -> NamedSweep:
    """The sweep that a file or a name stands for, with overrides and options applied.

    Raises:
        UsageError: there is none.
    """
    options = arguments.options
    path = Path(options.file)
    if path.suffix != ".py":
        path = _shipped_file(options.file)
    if not path.is_file():
        raise UsageError(
            f"no sweep {path}; give a Python file with {options.function}(), or one of {', '.join(_shipped_names())}"
        )
    module = import_once(str(path))
    sweep = _change(_call(module, path, options.function), arguments)
    imports = [*merged_names(sweep.base.imports, options.imports), *[str(path)] * extends_tables(str(path))]
    base = dataclasses.replace(sweep.base, imports=tuple(dict.fromkeys(imports)))
    sweep = dataclasses.replace(sweep, base=base)
    name = path.stem if options.function == "sweep" else f"{path.stem}-{options.function}"
    folder = Path(options.out) if options.out else Path("runs") / "sweeps" / name
    return NamedSweep(sweep, folder, name, _claim(module), _command(arguments))


def _call(module: ModuleType, path: Path, function: str) -> Sweep | Tuning:
    make = getattr(module, function, None)
    if make is None:
        raise UsageError(f"{path} has no function {function}(){_functions(module)}; write one that returns a Sweep")
    sweep = make()
    if not isinstance(sweep, Sweep | Tuning):
        raise UsageError(f"{function}() in {path} returned {type(sweep).__name__}, a Sweep or a Tuning is wanted")
    return sweep


def _functions(module: ModuleType) -> str:
    """The functions of a file that are annotated to return a sweep and take no argument, for an error."""
    annotations = {name: getattr(value, "__annotations__", {}) for name, value in vars(module).items()}
    names = sorted(name for name, found in annotations.items() if found in ({"return": Sweep}, {"return": Tuning}))
    return f" (there are {', '.join(names)})" if names else ""


def _change(sweep: Sweep | Tuning, arguments: Arguments) -> Sweep | Tuning:
    """The sweep with the settings and options of the command line."""
    options = arguments.options
    sweep = dataclasses.replace(sweep, base=override(sweep.base, *arguments.overrides))
    if isinstance(sweep, Tuning):
        if options.replicas:
            raise UsageError("a tuning tries one setting at a time; leave out --replicas")
        if options.seeds:
            raise UsageError("a tuning has no seeds to choose from; leave out --seeds")
        return sweep
    if options.replicas:
        sweep = dataclasses.replace(sweep, replicas=True)
    if not options.seeds:
        return sweep
    if not 0 < options.seeds <= len(sweep.seeds):
        raise UsageError(f"--seeds must be from 1 to {len(sweep.seeds)}, the seeds of the sweep, got {options.seeds}")
    return dataclasses.replace(sweep, seeds=sweep.seeds[: options.seeds])


def _claim(module: ModuleType) -> str:
    """The paragraphs of a file's docstring that stand before its command."""
    paragraphs = (module.__doc__ or "").split("\nCommand:")[0].strip().split("\n\n")
    claims = (" ".join(paragraph.removeprefix("Claim: ").split()) for paragraph in paragraphs)
    return "\n\n".join(claim[:1].upper() + claim[1:] for claim in claims)


def _command(arguments: Arguments) -> str:
    """The command that runs the sweep as it was named."""
    options = arguments.options
    words = ["s2s", "sweep", "run", options.file]
    words += [] if options.function == "sweep" else ["--function", options.function]
    words += ["--seeds", str(options.seeds)] if options.seeds else []
    words += ["--replicas"] * options.replicas
    words += [word for name in options.imports for word in ("--import", name)]
    for change in arguments.overrides:
        name, _, value = change.partition("=")
        words += [f"--{name}", value]
    return shlex.join(words)


def _shipped_file(name: str) -> Path:
    if path := named_file(name if "/" in name else f"{CLAIMS}/{name}"):
        return path
    known = _shipped_names()
    raise UsageError(
        f"no sweep {name!r}{did_you_mean(name, known)} (there are {', '.join(known)}, or give a Python file)"
    )


def _shipped_names() -> list[str]:
    kinds = {CLAIMS: "", PUBLISHED: f"{PUBLISHED}/"}
    files = (
        (prefix, path) for folder in FOLDERS for kind, prefix in kinds.items() for path in (folder / kind).glob("*.py")
    )
    return sorted({prefix + path.stem for prefix, path in files if "\ndef sweep(" in path.read_text(encoding="utf-8")})
