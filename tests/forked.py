"""Commands in processes of their own, as a shell starts them: one start of Python, forked before jax starts threads.

Reads JSON from stdin, a list of [words of the command, stdin, stdout], and prints one of [exit code, stdout, stderr].
A stdout is `kept`, `full` (a full disk), `left` (a pipe that nobody reads any more) or `closed`.
"""

import importlib
import json
import os
import sys
import tempfile

from s2s_jax import cli

for _module in ("commands", *cli.MODULES):
    importlib.import_module(f"s2s_jax.cli.{_module}")


def redirect(stdin: str, stdout: str, out: int, err: int) -> None:
    """Make the streams of this process those that a shell would have given it."""
    os.dup2(os.open(stdin, os.O_RDONLY), 0)
    os.dup2(err, 2)
    sys.stdin, sys.stderr = os.fdopen(0, closefd=False), os.fdopen(2, "w", closefd=False)
    if stdout == "closed":
        os.close(1)
        sys.stdout = None
        return
    if stdout == "full":
        out = os.open("/dev/full", os.O_WRONLY)
    elif stdout == "left":
        reader, out = os.pipe()
        os.close(reader)
    os.dup2(out, 1)
    sys.stdout = os.fdopen(1, "w", closefd=False)


def run(words: list[str], stdin: str, stdout: str) -> tuple[int, str, str]:
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if child == 0:
            redirect(stdin, stdout, out.fileno(), err.fileno())
            sys.exit(cli.main(words))
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode())
        return code, *texts


if __name__ == "__main__":
    json.dump([run(*case) for case in json.load(sys.stdin)], sys.stdout)
