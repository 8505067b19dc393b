"""How many floating-point operations do the matrix products of a function need?"""

import math
from collections.abc import Callable
from typing import Any

import jax


def multiplied(function: Callable, *arguments: Any) -> int:
    """Two for each multiplication of every matrix product, products inside a scan as often as it runs.

    Arguments may be arrays or shapes; nothing is computed. What is not a product is not counted, and a `while` loop,
    whose length nobody knows, is counted once.
    """
    return _counted(jax.make_jaxpr(function)(*arguments).jaxpr)


def _counted(program: Any) -> int:
    total = 0
    for equation in program.eqns:
        if equation.primitive.name == "dot_general":
            total += _product(equation)
        times = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
        total += times * sum(_counted(inner) for inner in _inside(equation.params))
    return total


def _product(equation: Any) -> int:
    (contracted, _), _ = equation.params["dimension_numbers"]
    shape = equation.invars[0].aval.shape
    return 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(shape[axis] for axis in contracted)


def _inside(params: dict[str, Any]):
    """The programs that an equation runs."""
    for value in params.values():
        for one in value if isinstance(value, tuple | list) else (value,):
            inner = getattr(one, "jaxpr", one)
            if hasattr(inner, "eqns"):
                yield inner
