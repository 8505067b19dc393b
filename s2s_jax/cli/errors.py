"""Whose mistake an exception is: the user's (one line, exit code 2) or ours (a traceback, exit code 1)."""

import functools
import sysconfig
import traceback
from pathlib import Path
from typing import NamedTuple

from s2s_jax.cli.arguments import UsageError
from s2s_jax.training.signals import Interrupted

DONE, INTERNAL_ERROR, USAGE_ERROR, INTERRUPTED = 0, 1, 2, 130
PACKAGE = Path(__file__).parent.parent
SHIPPED_EXPERIMENTS = PACKAGE / "experiments"  # in an installed package: experiment files like a user's own
DELIBERATE = (ValueError, TypeError, OSError, ImportError)


class Explanation(NamedTuple):
    """What the command says about an exception, and its exit code."""

    message: str
    code: int


def explain(error: Exception) -> Explanation | None:
    """The message and exit code of an exception; None for an internal error, which deserves its traceback.

    Exceptions that our own code raises with a `raise` statement are messages to the user, and so are the errors of
    the operating system. The message of an exception that comes out of a file of the user's has that file and line.
    """
    if isinstance(error, Interrupted):
        return Explanation(_message(error), error.code)
    if isinstance(error, ArithmeticError) and _raised_by_us(error):  # training that diverged
        return Explanation(_message(error), INTERNAL_ERROR)
    if isinstance(error, UsageError):
        return Explanation(_message(error), USAGE_ERROR)
    if isinstance(error, SyntaxError):
        return Explanation(f"{_shown(Path(error.filename or ''))}:{error.lineno}: {error.msg}", USAGE_ERROR)
    place = users_line(error)
    if isinstance(error, DELIBERATE) and _raised_by_us(error):
        return Explanation(f"{place}: {_message(error)}" if place else _message(error), USAGE_ERROR)
    if place and _innermost_owner(error) == "user":
        return Explanation(f"{place}: {type(error).__name__}: {_message(error)}".rstrip(": "), USAGE_ERROR)
    if isinstance(error, OSError):
        return Explanation(_message(error), USAGE_ERROR)
    return None


def _message(error: BaseException) -> str:
    """The message of an exception, without line breaks.

    An error of the operating system, `[Errno 28] No space left on device: 'x'` in Python, has its file first.
    """
    text = str(error)
    if isinstance(error, OSError) and error.strerror and text.startswith("[Errno"):
        files = [str(file) for file in (error.filename, error.filename2) if file is not None]
        text = ": ".join([*files[:1], error.strerror[0].lower() + error.strerror[1:], *files[1:]])
    return " ".join(text.split())


def users_line(error: BaseException) -> str | None:
    """File and line, as `my_score.py:12`, of the innermost frame that is in a file of the user's."""
    for frame in reversed(_frames(error)):
        if _owner(frame.filename) == "user":
            return f"{_shown(Path(frame.filename))}:{frame.lineno}"
    return None


def _frames(error: BaseException) -> traceback.StackSummary:
    return traceback.extract_tb(error.__traceback__)


def _raised_by_us(error: BaseException) -> bool:
    """Whether a `raise` statement of ours raised it, and not an operation that failed in our code or below it."""
    innermost = _frames(error)[-1]
    return _owner(innermost.filename) == "package" and (innermost.line or "").startswith("raise")


def _innermost_owner(error: BaseException) -> str:
    """Whose code, ours or the user's, was running, be it by way of a library."""
    owners = [_owner(frame.filename) for frame in _frames(error)]
    return next((owner for owner in reversed(owners) if owner != "library"), "library")


@functools.cache
def _owner(filename: str) -> str:
    """`package`, `user` or `library`, which includes code without a file."""
    path = Path(filename)
    if path.is_relative_to(PACKAGE) and not path.is_relative_to(SHIPPED_EXPERIMENTS):
        return "package"
    standard = (sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"))
    if {"site-packages", "dist-packages"} & set(path.parts) and not path.is_relative_to(PACKAGE):
        return "library"
    if not path.is_file() or any(path.is_relative_to(folder) for folder in standard):
        return "library"
    return "user"


def _shown(path: Path) -> Path:
    """The path as a user would type it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
