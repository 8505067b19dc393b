"""Sequence-to-sequence learning with attention in JAX: a toolkit for experiments.

`import s2s_jax as s2s` gives the names that `__init__.pyi` lists; each is imported from its module at first use, so
that the import itself is fast.
"""

import importlib
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

__version__ = "0.1.0"

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


class _Package(ModuleType):
    """The package, in which `train` is the function although there is a subpackage `s2s_jax.train` too."""

    @property
    def train(self) -> Any:
        return __getattr__("train")

    @train.setter
    def train(self, module: ModuleType) -> None:
        """Python binds a subpackage here when it is imported; `from s2s_jax.train import ...` does not read it."""


sys.modules[__name__].__class__ = _Package
