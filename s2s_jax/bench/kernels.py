"""The kernels that a compiled GPU program launches, counted in its HLO text."""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

# they launch nothing themselves; what a loop, a branch or a call contains is counted where it is
_STRUCTURE = {"while", "conditional", "call", "parameter", "constant", "tuple", "get-tuple-element", "bitcast"}
_NO_KERNEL = _STRUCTURE | {"after-all", "opt-barrier", "add-dependency", "partition-id", "copy-done", "async-done"}
_BYTES = {"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "bf16": 2, "f16": 2, "s64": 8, "u64": 8, "f64": 8}
_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?[\w.\-]+ = (\S+|\(.*?\)) ([\w\-]+)\((.*)$")


class Loop(NamedTuple):
    """A loop of a program."""

    name: str  # where it stands, as jax names it
    kernels: int  # per turn; with those of the condition where the number of turns is not known in advance
    turns: int


class ProgramKernels(NamedTuple):
    """What one execution of a program launches."""

    kernels: int
    copies: int  # kernels among them that only copy
    copied_bytes: int
    loops: list[Loop]  # outermost first


class _Instruction(NamedTuple):
    opcode: str
    shape: str
    rest: str  # of its line


def read_program(text: str, *, unknown_turns: int = 1) -> ProgramKernels:
    """The kernels of a program whose compiled HLO text is given.

    Of the branches of a conditional, the one with the most kernels that do not only copy counts.

    Args:
        unknown_turns: how often a loop runs whose number of turns the text does not say.
    """
    computations, entry = _computations(text)
    return _count(computations, entry, unknown_turns)


def _computations(text: str) -> tuple[dict[str, list[_Instruction]], str]:
    """The instructions of each computation, and the name of the first one that runs."""
    found: dict[str, list[_Instruction]] = {}
    current, entry = [], ""
    for line in text.splitlines():
        if head := _HEAD.match(line):
            current = found[head[2]] = []
            entry = head[2] if head[1] else entry
        elif match := _INSTRUCTION.match(line):
            current.append(_Instruction(match[2], match[1], match[3]))
    return found, entry


def _count(computations: dict[str, list[_Instruction]], name: str, unknown_turns: int) -> ProgramKernels:
    total = ProgramKernels(0, 0, 0, [])
    for instruction in computations[name]:
        if instruction.opcode == "while":
            part = _count_loop(computations, instruction, unknown_turns)
        elif instruction.opcode in ("conditional", "call"):
            branches = [_count(computations, branch, unknown_turns) for branch in _branches(instruction)]
            part = max(branches, key=lambda branch: branch.kernels - branch.copies)
        elif instruction.opcode in ("copy", "copy-start"):
            part = ProgramKernels(1, 1, _size(instruction.shape), [])
        else:
            part = ProgramKernels(int(instruction.opcode not in _NO_KERNEL), 0, 0, [])
        total = _sum(total, part)
    return total


def _sum(first: ProgramKernels, second: ProgramKernels) -> ProgramKernels:
    return ProgramKernels(
        first.kernels + second.kernels,
        first.copies + second.copies,
        first.copied_bytes + second.copied_bytes,
        first.loops + second.loops,
    )


def _count_loop(computations: dict[str, list[_Instruction]], loop: _Instruction, unknown_turns: int) -> ProgramKernels:
    turn = _count(computations, _named(loop, "body"), unknown_turns)
    known = re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.rest)
    if not known:  # the condition is computed before each turn
        condition = _count(computations, _named(loop, "condition"), unknown_turns)
        turn = _sum(turn, condition._replace(loops=[]))
    turns = int(known[1]) if known else unknown_turns
    loops = [Loop(_place(loop), turn.kernels, turns), *turn.loops]
    return ProgramKernels(turns * turn.kernels, turns * turn.copies, turns * turn.copied_bytes, loops)


def _branches(instruction: _Instruction) -> Iterator[str]:
    if instruction.opcode == "call":
        yield _named(instruction, "to_apply")
    elif several := re.search(r"branch_computations=\{([^}]*)\}", instruction.rest):
        yield from (name.strip().removeprefix("%") for name in several[1].split(","))
    else:
        yield from (_named(instruction, f"{value}_computation") for value in ("true", "false"))


def _named(instruction: _Instruction, role: str) -> str:
    match = re.search(rf"\b{role}=%?([\w.\-]+)", instruction.rest)
    if match is None:
        raise ValueError(f"no {role} in the HLO instruction {instruction.opcode}({instruction.rest}")
    return match[1]


def _place(loop: _Instruction) -> str:
    """Where a loop stands, such as `transpose(jvp(decoder))`; in no named part, the name of the program."""
    match = re.search(r'op_name="jit\((\w+)\)/([^"]*)"', loop.rest)
    if match is None:
        return "loop"
    return "/".join(part for part in match[2].split("/") if part not in ("while", "body")) or match[1]


def _size(shape: str) -> int:
    """Bytes of an array, or of the first of a tuple, which is what copy-start writes."""
    match = re.match(r"\(?(\w+)\[([\d,]*)\]", shape)
    if match is None:
        return 0
    return _BYTES.get(match[1], 4) * math.prod(int(axis) for axis in match[2].split(",") if axis)
