"""Floating-point operations of the matrix products of a function."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax


def product_flops(function: Callable, *arguments: Any) -> int:
    """Two operations per multiplication of every matrix product, those in a scan once per iteration.

    Of several branches the largest counts: for bfloat16 there is one for CPUs and one for all else.
    Arguments may be arrays or shapes; nothing is computed. Operations other than products are not counted, and the
    body of a `while` loop, whose number of iterations is unknown, is counted once.
    """
    return _program_flops(jax.make_jaxpr(function)(*arguments).jaxpr)


def _program_flops(program: Any) -> int:
    total = 0
    for equation in program.eqns:
        if equation.primitive.name == "dot_general":
            total += _dot_general_flops(equation)
        inner = [_program_flops(program) for program in _inner_programs(equation.params)]
        times = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
        total += max(inner, default=0) if equation.primitive.name == "cond" else times * sum(inner)
    return total


def _dot_general_flops(equation: Any) -> int:
    (contracted, _), _ = equation.params["dimension_numbers"]
    shape = equation.invars[0].aval.shape
    return 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(shape[axis] for axis in contracted)


def _inner_programs(params: dict[str, Any]) -> Iterator[Any]:
    """The programs among the parameters of an equation."""
    for value in params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            inner = getattr(item, "jaxpr", item)
            if hasattr(inner, "eqns"):
                yield inner
