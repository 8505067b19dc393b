"""How is the toolkit used from a shell? Reads arguments, shows results, turns errors into one line and an exit code."""

import errno
import importlib
import io
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from s2s_jax.cli.arguments import UsageError, parse

DONE, OURS, YOURS, INTERRUPTED = 0, 1, 2, 130
OWN_FILE = ("translate", "score", "export", "sweep", "attention", "bench")  # the other commands stand together
PACKAGE = Path(__file__).parent.parent


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code: 0 done, 2 the user's mistake, 1 ours, 130 Ctrl-C, 143 SIGTERM."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")  # whatever the locale says
    try:
        given = parse(sys.argv[1:] if arguments is None else list(arguments))
        # only now: jax is not needed to say what is wrong with the arguments, nor flax for what was exported
        file = given.command if given.command in OWN_FILE else "commands"
        code = getattr(importlib.import_module(f"s2s_jax.cli.{file}"), given.command)(given)
        sys.stdout.flush()
    except UsageError as error:
        return _fail(error, YOURS)
    except BrokenPipeError:  # whoever read our output has heard enough
        _close_output()
        return DONE
    except KeyboardInterrupt:
        return INTERRUPTED
    except (ValueError, TypeError, OSError) as error:
        if not _raised_on_purpose(error):
            raise
        if getattr(error, "errno", None) == errno.ENOSPC:
            _close_output()
        return _fail(error, YOURS)
    except Exception as error:
        code = getattr(error, "code", None)  # training that was asked to stop
        if code is None and not isinstance(error, ArithmeticError):
            raise
        return _fail(error, code or OURS)
    return code or DONE


def _close_output() -> None:
    """Let the interpreter flush what is left into nothing, instead of failing once more at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(error: Exception, code: int) -> int:
    print(f"s2s: {' '.join(str(error).split())}", file=sys.stderr)
    return code


def _raised_on_purpose(error: BaseException) -> bool:
    """Whether our own line raised it (a message to the user), and not something below us (a defect)."""
    innermost = traceback.extract_tb(error.__traceback__)[-1].filename
    return Path(innermost).is_relative_to(PACKAGE) or not Path(innermost).exists() or innermost.endswith("_gzip.py")
