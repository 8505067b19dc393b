"""The run-time checker of shapes and types that `conftest.py` hooks into every module; an int is welcome as a float.

Configs check their own fields (`validation.check_fields`), with messages for users, so their constructors are left
alone; and a `Literal` of names is checked as text, since users add names to the tables.
"""

import typing

from beartype import BeartypeConf, beartype

CONFIGS = ("Experiment", "LogitsRules", "Sampling", "Sweep", "Tuning")
_checked = beartype(conf=BeartypeConf(is_pep484_tower=True))


def check(function):
    """The function with its arguments and result checked."""
    owner, _, name = getattr(function, "__qualname__", "").rpartition(".")
    if name == "__init__" and (owner.endswith("Config") or owner in CONFIGS):
        return function
    annotations = getattr(function, "__annotations__", {})
    for argument, annotation in annotations.items():
        if typing.get_origin(annotation) is typing.Literal and all(
            isinstance(value, str) for value in typing.get_args(annotation)
        ):
            annotations[argument] = str
    return _checked(function)
