"""The user's own code: files and modules that add to the tables of scores, cells, searches, metrics and the like.

An experiment records their names (`Experiment.imports`), and they are run only by whoever names them again: `--import`
on the command line, `import_code` in Python, `train` for the experiment that it is given. Loading a run runs nothing.
"""

import hashlib
import importlib
import importlib.util
import sys
import sysconfig
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType

# the tables that a user's file may add to, by the module each is in
TABLES = {
    "SCORES": "s2s_jax.model.attention.scores",
    "NORMALIZERS": "s2s_jax.model.attention.normalizers",
    "HISTORIES": "s2s_jax.model.attention.history",
    "CONSTRAINTS": "s2s_jax.model.attention.constraints",
    "CELLS": "s2s_jax.model.cells",
    "BRIDGES": "s2s_jax.model.bridge",
    "ARCHITECTURES": "s2s_jax.model.decoder.architectures",
    "MODELS": "s2s_jax.model.seq2seq",
    "SEARCHES": "s2s_jax.decode.search",
    "METRICS": "s2s_jax.evaluate.metrics",
    "OBJECTIVES": "s2s_jax.training.objectives",
    "OPTIMIZERS": "s2s_jax.training.optimizer",
    "SCHEDULES": "s2s_jax.training.optimizer",
    "SOURCES": "s2s_jax.text.sources",
    "TOKENIZERS": "s2s_jax.text.tokenizers",
    "TASKS": "s2s_jax.text.synthetic_tasks",
    "TRACKERS": "s2s_jax.training.trackers",
}
LOADED: dict[str, ModuleType] = {}  # the name as it was given -> the module
_extending: set[str] = set()  # the names whose import changed a table


def import_code(names: Iterable[str]) -> None:
    """Import files (`my_score.py`) or modules (`lab.scores`), each once per process.

    The folder of a file is put on `sys.path`, so that it can import its siblings, and the file is imported under its
    own name, so that a sibling that imports it gets the same module. A module is looked up in the current folder first.

    Raises:
        FileNotFoundError: no such file.
        ModuleNotFoundError: no such module.
    """
    for name in names:
        import_once(name)


def import_once(name: str) -> ModuleType:
    """The module of a file or of a module's name, imported at most once per process.

    An import that fails leaves the tables as they were.

    Raises:
        FileNotFoundError, ModuleNotFoundError: as `import_code`.
    """
    if name not in LOADED:
        before, loaded, modules = _entries(), dict(LOADED), set(sys.modules)
        try:
            LOADED[name] = _import_file(Path(name)) if is_file_name(name) else _import_module(name)
        except BaseException:
            _undo(before, loaded, modules)
            raise
        if _entries() != before:
            _extending.add(name)
    return LOADED[name]


def extends_tables(name: str) -> bool:
    """Import a file or module, and whether it added to a table: then a run that uses it must record its name."""
    import_once(name)
    return name in _extending


def is_file_name(name: str) -> bool:
    """Whether a name is that of a file and not of a module."""
    return name.endswith(".py") or "/" in name


def merged_names(recorded: Iterable[str], given: Iterable[str]) -> tuple[str, ...]:
    """The names that an experiment records and those given now; a file given now stands for one of the same base name.

    The path of a recorded file is relative to the folder in which it was given then.
    """
    given = tuple(given)
    files = {Path(name).name for name in given if is_file_name(name)}
    kept = [name for name in recorded if not (is_file_name(name) and Path(name).name in files)]
    return tuple(dict.fromkeys([*kept, *given]))


def missing_code(names: Iterable[str]) -> list[str]:
    """The names of files and modules that have not been imported in this process; a file is known by its own name."""
    files = {Path(name).name for name in LOADED if is_file_name(name)}
    return [name for name in names if not (_is_imported(name, files) if is_file_name(name) else name in sys.modules)]


def _is_imported(name: str, files: set[str]) -> bool:
    """Whether a file was imported by `import_code`, by a plain `import`, or is the script that runs."""
    modules = (sys.modules.get(module) for module in (Path(name).stem, "__main__"))
    origins = {Path(getattr(module, "__file__", None) or "").name for module in modules}
    return Path(name).name in files | origins


def _entries() -> dict[str, Mapping]:
    """A copy of each table."""
    return {name: dict(_table(name)) for name in TABLES}


def _table(name: str) -> dict:
    return getattr(importlib.import_module(TABLES[name]), name)


def _undo(entries: dict[str, Mapping], loaded: dict[str, ModuleType], modules: set[str]) -> None:
    """Take back what a failed import did: the tables, and the modules that a second try has to import once more."""
    for name, before in entries.items():
        table = _table(name)
        if table != before:
            table.clear()
            table.update(before)
    dropped = [LOADED.pop(name) for name in set(LOADED) - set(loaded)]
    _extending.intersection_update(LOADED)
    for name in set(sys.modules) - modules:
        if sys.modules[name] in dropped or _is_users(sys.modules[name]):
            del sys.modules[name]


def _is_users(module: ModuleType) -> bool:
    """Whether a module is neither ours nor of an installed library nor of Python itself."""
    file = Path(getattr(module, "__file__", None) or sys.executable)
    libraries = [Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")]
    if file == Path(sys.executable) or {"site-packages", "dist-packages"} & set(file.parts):
        return False
    return not any(file.is_relative_to(folder) for folder in [Path(__file__).parent, *libraries])


def _import_module(name: str) -> ModuleType:
    if str(Path.cwd()) not in sys.path:  # the script `s2s` has its own folder there instead
        sys.path.insert(0, str(Path.cwd()))
    return importlib.import_module(name)


def _import_file(path: Path) -> ModuleType:
    path = path.resolve()
    if not path.is_file():
        raise FileNotFoundError(f"--import {path}: there is no such file; give a Python file or the name of a module.")
    name = path.stem
    known = sys.modules.get(name)
    if known is not None and getattr(known, "__file__", None) == str(path):
        return known
    if known is not None:  # another module has this name
        name = f"{name}_{hashlib.blake2b(str(path).encode(), digest_size=4).hexdigest()}"
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"--import {path}: cannot be imported; give a Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
