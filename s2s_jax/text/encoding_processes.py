"""Lines become ids in several processes: Python runs one thread at a time, so that threads would gain nothing.

Each process is a new Python that knows the tokenizers by their JSON state and reads blocks of lines from a pipe.
Nothing of the caller's memory or main script is in it: it starts alike in a script, a notebook and beside threads.
"""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

import numpy as np

from s2s_jax import imports
from s2s_jax.text.copy_vocabulary import PairTokenizer
from s2s_jax.text.corpus import unpack_lines
from s2s_jax.text.features import FeatureTokenizers
from s2s_jax.text.ragged import Rows
from s2s_jax.text.tagged_tokenizer import untagged
from s2s_jax.text.tokenizers import GIVEN, TOKENIZERS, Tokenizer, tokenizer_fingerprint, tokenizer_of

PROGRAM = "import sys, json; sys.path[:] = json.loads(sys.argv[1]); from {module} import serve; serve()"


class CannotStart(Exception):  # noqa: N818  the caller goes on without
    """Why no other process can tokenize."""


class EncodingProcesses:
    """Processes that tokenize, ended when the context is left, and by themselves when this process is gone.

    Raises:
        CannotStart: a new process does not know the tokenizers.
    """

    def __init__(self, tokenizers: PairTokenizer, count: int):
        self._tokenizers = tokenizers
        program = PROGRAM.format(module=__name__)
        command = [sys.executable, "-c", program, json.dumps(sys.path)]
        # a group of their own: Ctrl-C in a terminal reaches this process alone, which ends them
        self._processes = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0)  # noqa: S603
            for _ in range(count)
        ]

    def __enter__(self) -> "EncodingProcesses":
        try:
            for process in self._processes:
                self._send(process, json.dumps(_described(self._tokenizers)).encode())
            for process in self._processes:
                if problem := self._receive(process).decode():
                    raise CannotStart(problem)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
            for pipe in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):
                    pipe.close()  # type: ignore[union-attr]
            process.wait()

    def encode(self, blocks: Iterable[bytes]) -> Iterator[tuple[Rows, ...]]:
        """The ids of the lines of blocks (`pack_lines`), in their order.

        Each process has one block at a time, so that neither side waits for the other with a full pipe.
        """
        count, pending = len(self._processes), [b""] * len(self._processes)
        number = -1
        for number, block in enumerate(blocks):
            place = number % count
            if number >= count:
                yield self._answer(place, pending[place])
            self._send(self._processes[place], block)
            pending[place] = block
        for late in range(max(0, number + 1 - count), number + 1):
            yield self._answer(late % count, pending[late % count])

    def _answer(self, place: int, block: bytes) -> tuple[Rows, ...]:
        answer = self._receive(self._processes[place])
        if not answer:  # the same here, where the error of a user's tokenizer has its file and line
            return _encode(self._tokenizers, block)
        return _unpack_ids(answer, len(self._tokenizers.sides))

    def _send(self, process: subprocess.Popen, message: bytes) -> None:
        try:
            _write(process.stdin, message)  # type: ignore[arg-type]
        except OSError:
            raise _died(process) from None

    def _receive(self, process: subprocess.Popen) -> bytes:
        message = _read(process.stdout)  # type: ignore[arg-type]
        if message is None:
            raise _died(process)
        return message


def _died(process: subprocess.Popen) -> OSError:
    code = process.wait()
    return OSError(
        f"a process that tokenizes has died ({f'signal {-code}' if code < 0 else f'exit code {code}'}); for lack of "
        "memory? Set data.workers=1 to tokenize in this process."
    )


def _described(tokenizers: PairTokenizer) -> dict[str, Any]:
    """What a new process needs to know."""
    sides = tokenizers.sides
    return {
        "imports": [] if all(map(is_built_in, sides.values())) else [*imports.LOADED],
        "states": {side: each.state() for side, each in sides.items()},
        "fingerprints": {side: tokenizer_fingerprint(each) for side, each in sides.items()},
        "slots": tokenizers.slots,
        "reverses_target": tokenizers.reverses_target,
        "separator": tokenizers.features.separator,
    }


def _encode(tokenizers: PairTokenizer, block: bytes) -> tuple[Rows, ...]:
    """The ids of the lines of a block."""
    return tokenizers.encode_pairs(*unpack_lines(block, len(tokenizers.sides)))


def is_built_in(tokenizer: Tokenizer) -> bool:
    """Whether a tokenizer is one of this package: its ids are known by its state alone."""
    return type(untagged(tokenizer)).__module__.startswith("s2s_jax.")


def _write(pipe: BinaryIO, message: bytes) -> None:
    pipe.write(len(message).to_bytes(8, "little") + message)
    pipe.flush()


def _read(pipe: BinaryIO) -> bytes | None:
    """The next message; None at the end."""
    head = pipe.read(8)
    size = int.from_bytes(head, "little")
    message = pipe.read(size) if len(head) == 8 else b""
    return message if len(head) == 8 and len(message) == size else None


def _pack_ids(sides: Iterable[Rows]) -> bytes:
    return b"".join(
        part
        for rows in sides
        for part in (
            np.array([len(rows.lengths), len(rows.flat)], np.int64).tobytes(),
            rows.lengths.astype(np.int32).tobytes(),
            rows.flat.astype(np.int32).tobytes(),
        )
    )


def _unpack_ids(packed: bytes, count: int) -> tuple[Rows, ...]:
    sides, start = [], 0
    for _ in range(count):
        lines, tokens = np.frombuffer(packed, np.int64, 2, offset=start).tolist()
        lengths = np.frombuffer(packed, np.int32, lines, offset=start + 16)
        flat = np.frombuffer(packed, np.int32, tokens, offset=start + 16 + 4 * lines)
        start += 16 + 4 * (lines + tokens)
        sides.append(Rows(flat, lengths))
    return tuple(sides)


def serve() -> None:
    """Answer blocks of lines from stdin with ids on stdout, until stdin ends."""
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a user's module prints is no answer
    tokenizers, problem = None, ""
    try:
        tokenizers = _tokenizers_of(json.loads(_read(requests) or b"{}"))
    except Exception as error:  # the caller tokenizes itself and says why
        problem = " ".join(f"{type(error).__name__}: {error}".split())
    with contextlib.suppress(BrokenPipeError):  # the caller is gone
        _write(answers, problem.encode())
        while tokenizers and (block := _read(requests)) is not None:
            try:
                answer = _pack_ids(_encode(tokenizers, block))
            except Exception:  # the caller tries it too, and has the same error
                answer = b""
            _write(answers, answer)


def _tokenizers_of(description: dict[str, Any]) -> PairTokenizer:
    """The tokenizers that a caller described.

    Raises:
        ValueError: they are not known here, or not the same.
    """
    imports.import_code(description["imports"])
    sides = {}
    for side, state in description["states"].items():
        kind = state.get("tokenizer", state)["type"]
        if kind not in {**TOKENIZERS, **GIVEN}:
            raise ValueError(f"the type {kind!r} of a tokenizer is known only to files that --import names")
        sides[side] = tokenizer_of(state)
        if tokenizer_fingerprint(sides[side]) != description["fingerprints"][side]:
            raise ValueError(f"the {side} tokenizer has another state there")
    source, target, *features = sides.values()
    own = FeatureTokenizers(tuple(features), description["separator"])
    options = {"slots": description["slots"], "reverses_target": description["reverses_target"]}
    return PairTokenizer(source, target, **options, features=own)
