"""Sequence-to-sequence learning with attention in JAX: a toolkit for experiments."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from s2s_jax.export.exported import load_exported
    from s2s_jax.run import load

__version__ = "0.1.0"
__all__ = ["__version__", "load", "load_exported"]

HOMES = {"load": "s2s_jax.run", "load_exported": "s2s_jax.export.exported"}


def __getattr__(name: str) -> Any:
    """What the package offers, imported when it is asked for, since jax takes its second."""
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(HOMES[name]), name)
