"""The user's own code: files and modules that add to the tables of scores, cells, searches, metrics and the like.

An experiment records their names (`Experiment.imports`); only who names them anew (`--import`, `import_code`) runs them.
"""

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

LOADED: dict[str, ModuleType] = {}  # the name as it was given -> the module


def import_code(names: Iterable[str]) -> None:
    """Import files (`my_score.py`) or modules (`lab.scores`), each once per process.

    The folder of a file is put on `sys.path`, so that it can import its siblings, and the file is imported under its
    own name, so that a sibling that imports it gets the same module.

    Raises:
        FileNotFoundError: no such file.
        ModuleNotFoundError: no such module.
    """
    for name in names:
        if name not in LOADED:
            LOADED[name] = _import_file(Path(name)) if is_file_name(name) else importlib.import_module(name)


def is_file_name(name: str) -> bool:
    """Whether a name means a file and not a module."""
    return name.endswith(".py") or "/" in name


def missing_code(names: Iterable[str]) -> list[str]:
    """Those of the names that nobody has imported in this process, by the name of the file or module."""
    known = {_stem(name) for name in LOADED} | set(sys.modules)
    return [name for name in names if _stem(name) not in known]


def _stem(name: str) -> str:
    return Path(name).stem if is_file_name(name) else name


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
