"""How does a setting say that its value makes no sense? In one line: setting, value, what was wanted, nearest name."""

import difflib
from collections.abc import Iterable
from typing import Any


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
        wanted = "zero or more" if least == 0 else "positive" if least == 1 else f"at least {least}"
        raise ValueError(f"{setting} must be {wanted}, got {value}")


class Told:
    """A number that jax traces, in a setting's place (`config.told`).

    It equals itself alone, no number: configs are compared, and tracers cannot be.
    """

    def __init__(self, traced: Any):
        self.traced = traced


def number(setting: Any) -> Any:
    """The number that a setting stands for, traced or not."""
    return setting.traced if isinstance(setting, Told) else setting


def share(setting: str, value: float) -> None:
    """Refuse a number outside [0, 1).

    Raises:
        ValueError: naming setting and value.
    """
    if not 0 <= value < 1:
        raise ValueError(f"{setting} must be at least 0 and below 1, got {value}")
