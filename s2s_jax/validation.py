"""Checks of settings. Each raises one line that names the setting, its value and what is allowed."""

import dataclasses
import difflib
import functools
import math
import numbers
import sys
import typing
from collections.abc import Iterable
from typing import Any, Literal

WANTED = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
LARGEST = {int: 2**63 - 1, float: sys.float_info.max}


def one_of(setting: str, value: str, choices: Iterable[str]) -> None:
    """Refuse a name that is not among the choices.

    Raises:
        ValueError: with the nearest choice where one is near.
    """
    choices = sorted(choices)
    if value not in choices:
        near = difflib.get_close_matches(str(value), choices, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        raise ValueError(f"{setting} must be one of {', '.join(choices)}, got {value!r}{hint}")


def at_least(setting: str, value: float, least: float) -> None:
    """Refuse a number below `least`.

    Raises:
        ValueError: naming setting and value.
    """
    if not value >= least:
        positive = least == 1 and isinstance(value, int)  # of a number such as 0.5 the same would be wrong
        wanted = "zero or more" if least == 0 else "positive" if positive else f"at least {least:g}"
        raise ValueError(f"{setting} must be {wanted}, got {value}")


def fraction(setting: str, value: float) -> None:
    """Refuse a number outside [0, 1).

    Raises:
        ValueError: naming setting and value.
    """
    if not 0 <= value < 1:
        raise ValueError(f"{setting} must be at least 0 and below 1, got {value}")


class Traced:
    """A number that jax traces, in the place of a setting's value (`config.with_traced`).

    It equals itself alone: configs are compared, and tracers cannot be.
    """

    def __init__(self, traced: Any):
        self.traced = traced


def traced_value(setting: Any) -> Any:
    """The number that a setting holds, traced or not."""
    return setting.traced if isinstance(setting, Traced) else setting


def check_fields(config: Any, group: str) -> None:
    """Check every field of a frozen dataclass against its annotation, and bring its value into that type.

    A whole number is welcome as a float, a list as a tuple, a NumPy number as a Python one. `Literal` fields are
    checked as text: which names there are is a matter of their table (`one_of`), which users extend.

    Args:
        group: the dotted name of the config in an experiment, such as `model.decoder`; empty for the experiment.

    Raises:
        ValueError: naming the setting, what is allowed and the value.
    """
    for name, kind in field_types(type(config)).items():
        value = getattr(config, name)
        checked = checked_value(f"{group}.{name}" if group else name, value, kind)
        if checked is not value:
            object.__setattr__(config, name, checked)


@functools.cache
def field_types(kind: type) -> dict[str, Any]:
    """The annotation of each field of a dataclass, in order."""
    hints = typing.get_type_hints(kind, vars(sys.modules[kind.__module__]))
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def checked_value(setting: str, value: Any, kind: Any) -> Any:
    """The value in the type of its field.

    Raises:
        ValueError: it is of another type, too large a number for it, or infinite or NaN.
    """
    if typing.get_origin(kind) is Literal:
        kind = str
    if typing.get_origin(kind) is tuple:
        inner = typing.get_args(kind)
        if isinstance(value, list | tuple) and (inner[-1] is Ellipsis or len(value) == len(inner)):
            kinds = [inner[0]] * len(value) if inner[-1] is Ellipsis else inner
            items = tuple(checked_value(setting, item, of) for item, of in zip(value, kinds, strict=True))
            return value if items == value and isinstance(value, tuple) else items
    elif kind is float and isinstance(value, Traced):
        return value
    elif kind in (int, float) and isinstance(value, numbers.Real) and not isinstance(value, bool):
        largest = LARGEST[kind]
        if (kind is int or isinstance(value, int)) and (value > largest or value < -largest):
            raise ValueError(f"{setting} must be at most {largest} in magnitude, got a larger number")
        number = float(value)
        if kind is float and math.isfinite(number):
            return number
        if kind is float:
            raise ValueError(f"{setting} must be a finite number, got {number}")
        if number.is_integer():
            return int(value)  # type: ignore[call-overload]
    elif kind in (bool, str):
        if type(value) is kind:
            return value
    elif dataclasses.is_dataclass(kind) and isinstance(value, typing.cast(type, kind)):
        return value
    raise ValueError(f"{setting} must be {_wanted(kind)}, got {value!r}")


def _wanted(kind: Any) -> str:
    if dataclasses.is_dataclass(kind):
        return f"a {typing.cast(type, kind).__name__}"
    return WANTED.get(kind, "a list")
