"""What a step only reads rounded, rounded once before the loop.

In bfloat16 every product rounds its factors. XLA moves the rounding of a weight out of a loop on CPUs alone: on a GPU
each step would read all float32 weights, and launch a kernel per weight to round it.
"""

from typing import Any

import jax
import jax.numpy as jnp

from s2s_jax.model.interface import Memory, Model, Params, State, Token

_MOVES = {"slice", "reshape", "squeeze", "transpose"}  # they change no number
_CALLS = {"jit": "jaxpr", "pjit": "jaxpr", "custom_vjp_call": "call_jaxpr", "custom_jvp_call": "call_jaxpr"}


def round_once(model: Model, params: Params, memory: Memory, state: State, token: Token) -> tuple[Params, Memory]:
    """Parameters and memory for `model.step`, whose results keep every bit; `state` and `token` give shapes alone."""
    program = jax.make_jaxpr(model.step)(params, memory, state, token).jaxpr
    fixed, structure = jax.tree.flatten((params, memory))
    read = [_dtypes_read(program, variable) for variable in program.invars[: len(fixed)]]
    return jax.tree.unflatten(structure, [_rounded(*pair) for pair in zip(fixed, read, strict=True)])


def _rounded(leaf: Any, read: set) -> Any:
    if len(read) != 1 or None in read:
        return leaf
    (dtype,) = read
    floats = all(jnp.issubdtype(each, jnp.floating) for each in (leaf.dtype, dtype))
    return leaf.astype(dtype) if floats and dtype.itemsize < leaf.dtype.itemsize else leaf


def _dtypes_read(program: Any, variable: Any) -> set:
    """The dtypes that a program converts a variable to, with None among them where it uses the variable otherwise."""
    found = {None} if any(result is variable for result in program.outvars) else set()
    for equation in program.eqns:
        for place, operand in enumerate(equation.invars):
            if operand is variable:
                found |= _dtypes_read_by(program, equation, place)
    return found


def _dtypes_read_by(program: Any, equation: Any, place: int) -> set:
    if equation.primitive.name == "convert_element_type":
        return {equation.params["new_dtype"]}
    if equation.primitive.name in _MOVES:
        return _dtypes_read(program, equation.outvars[0])
    if equation.primitive.name in _CALLS:
        called = equation.params[_CALLS[equation.primitive.name]].jaxpr
        return _dtypes_read(called, called.invars[place])
    return {None}
