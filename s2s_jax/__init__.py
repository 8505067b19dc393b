"""Sequence-to-sequence learning with attention in JAX: a toolkit for experiments.

`import s2s_jax as s2s` gives the names that `__init__.pyi` lists; each is imported from its module at first use, so
that the import itself is fast.
"""

import importlib
import re
from pathlib import Path
from typing import Any

__version__ = "0.2.0"

_stub = Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8")
_HOMES = {name: module for module, name in re.findall(r"^from (\S+) import \w+ as (\w+)$", _stub, re.MULTILINE)}
__all__ = ["__version__", *sorted(_HOMES)]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    """A public name, imported at first use."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """The public names."""
    return __all__
