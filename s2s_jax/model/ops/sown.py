"""Values inside a model that its readers ask for, such as gates: sown while the model is traced, gathered by a reader.

Nothing is computed for them where nobody reads. Some values can also be replaced, to see what depends on them.
"""

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

_FIELD: ContextVar[list[tuple[str, Any]] | None] = ContextVar("sown", default=None)
_REPLACEMENTS: ContextVar[dict[str, Callable[[Any], Any]] | None] = ContextVar("replacements", default=None)


def sow(name: str, value: Any) -> None:
    """Let a reader have a value under a name; several may have one name, in the order in which they are computed."""
    field = _FIELD.get()
    if field is not None:
        field.append((name, value))


@contextlib.contextmanager
def reaping() -> Iterator[list[tuple[str, Any]]]:
    """Inside this context, all that is sown, as (name, value): it must be read in the trace in which it was sown."""
    with _field([]) as field:
        assert field is not None
        yield field


@contextlib.contextmanager
def fallow() -> Iterator[None]:
    """Inside this context nothing is sown: the body of a loop is another trace than what reads around it."""
    with _field(None):
        yield


def replaceable(name: str, value: Any) -> Any:
    """The value itself, or what stands in its place inside `replacing`."""
    replace = (_REPLACEMENTS.get() or {}).get(name)
    return value if replace is None else replace(value)


@contextlib.contextmanager
def replacing(name: str, replace: Callable[[Any], Any]) -> Iterator[None]:
    """Inside this context, a function of each replaceable value of a name takes that value's place."""
    token = _REPLACEMENTS.set({**(_REPLACEMENTS.get() or {}), name: replace})
    try:
        yield
    finally:
        _REPLACEMENTS.reset(token)


@contextlib.contextmanager
def _field(field: list[tuple[str, Any]] | None) -> Iterator[list[tuple[str, Any]] | None]:
    token = _FIELD.set(field)
    try:
        yield field
    finally:
        _FIELD.reset(token)
