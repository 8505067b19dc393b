"""A scan whose backward pass is given as little as possible.

Reverse differentiation of `lax.scan` stacks every number that the backward pass reads, each by a store of its own in
every step, and adds up the gradients of the loop's constants in every step. Here, of each step

* as little as possible is kept (`least_to_keep`): not what is there anyway (constants, inputs, outputs), and not what
  cheap operations rebuild;
* the carry is kept when it is written, and read one step later: no copy of the old one is needed;
* a gradient that is one of the kept numbers is not written again;
* a constant's gradient that is a product of two small factors is computed after the loop, as one product of all steps.
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero
from jax.extend import core
from jax.interpreters import ad
from jaxtyping import PyTree

from s2s_jax.model.ops.backward_step import BackwardStep
from s2s_jax.model.ops.jaxprs import (
    ARITHMETIC,
    MOVES,
    TRANSCENDENTAL,
    Leaves,
    Variable,
    call,
    elements,
    hoisted,
    least_to_keep,
    rebuilding,
    shape,
    size,
    trace,
    unique,
)
from s2s_jax.model.ops.packing import Packing


def lean_scan(
    body: Callable[[Any, Any], tuple[Any, Any]], carry: PyTree, xs: PyTree, *, few_kernels: bool
) -> tuple[PyTree, PyTree]:
    """`lax.scan(body, carry, xs)`, with a backward pass that is given little.

    It is for reverse derivatives of any order: `jax.jvp` and `jax.linearize` of it are refused, of its gradient not.

    Args:
        few_kernels: for devices on which every operation of a step costs a launch: what is kept of a step is stored at
            once, concatenated along the last axis, and functions such as tanh are computed again. On a CPU that would
            be one more copy, and time that costs more than memory. Carries that the body concatenates are held as one
            array, so that the concatenation is a part of what computes them, and so is its gradient.
    """
    (carry_leaves, carry_tree), (x_leaves, x_tree) = jax.tree.flatten(carry), jax.tree.flatten(xs)
    carry_leaves = [jnp.asarray(leaf) for leaf in carry_leaves]
    y_trees: list[Any] = []

    def flat_body(carry, x):
        carry, y = body(jax.tree.unflatten(carry_tree, carry), jax.tree.unflatten(x_tree, x))
        y_leaves, y_tree = jax.tree.flatten(y)
        y_trees.append(y_tree)
        leaves, tree = jax.tree.flatten(carry)
        if tree != carry_tree:
            raise TypeError(f"the body of a scan returns a carry of structure {tree}, and was given {carry_tree}")
        return leaves, y_leaves

    closed = jax.make_jaxpr(flat_body)(carry_leaves, _slices(x_leaves))
    groups = _concatenated(closed.jaxpr, len(carry_leaves)) if few_kernels else [[i] for i in range(len(carry_leaves))]
    joining = Packing([leaf.shape for leaf in carry_leaves], groups)
    program = _Body(closed.jaxpr, joining, few_kernels)
    result: Any = _scan(program, closed.consts, joining.pack(carry_leaves), x_leaves)
    carry_leaves, ys = result
    return jax.tree.unflatten(carry_tree, joining.unpack(carry_leaves)), jax.tree.unflatten(y_trees[0], ys)


def _concatenated(jaxpr: core.Jaxpr, carries: int) -> list[list[int]]:
    """The carries in groups: those that the body concatenates, and each of the others by itself."""
    carry = {variable: index for index, variable in enumerate(jaxpr.invars[:carries])}
    groups: list[list[int]] = []
    taken: set[int] = set()
    for equation in jaxpr.eqns:
        if equation.primitive.name != "concatenate" or not all(
            variable in carry for variable in unique(equation.invars)
        ):
            continue
        group = [carry[variable] for variable in unique(equation.invars)]
        joins_last = equation.params["dimension"] == len(shape(equation.invars[0])) - 1
        if joins_last and len(group) == len(equation.invars) and taken.isdisjoint(group):
            groups.append(group)
            taken.update(group)
    return [*groups, *([index] for index in range(carries) if index not in taken)]


class _Body(NamedTuple):
    """The body of a scan as a program of its constants, carry and inputs."""

    jaxpr: core.Jaxpr
    joining: Packing  # of the carry
    few_kernels: bool

    def step(self, consts: Leaves, carry: Leaves, x: Leaves) -> tuple[list, list]:
        """The next carry and the outputs."""
        separate = self.joining.unpack(carry)
        outputs = call(self.jaxpr, consts, [*separate, *x])
        return self.joining.pack(outputs[: len(separate)]), outputs[len(separate) :]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _scan(body: _Body, consts: Leaves, carry: Leaves, xs: Leaves) -> tuple[list, list]:
    flat = lambda consts, carry, x: jax.tree.leaves(body.step(consts, carry, x))  # noqa: E731
    closed = trace(flat, consts, carry, _slices(xs), differentiable=False)
    jaxpr, early = hoisted(closed.jaxpr, closed.jaxpr.invars[: len(consts)], consts)

    def step(carry, x):
        outputs = call(jaxpr, closed.consts, [*early, *consts, *carry, *x])
        return outputs[: len(carry)], outputs[len(carry) :]

    return jax.lax.scan(step, list(carry), list(xs))


def _scan_forward(body, consts, carry, xs):
    """The result of the scan, and a function of its cotangents that computes those of its arguments."""
    wanted = [[argument.perturbed for argument in group] for group in (consts, carry, xs)]
    consts, carry, xs = ([argument.value for argument in group] for group in (consts, carry, xs))
    wanted[1] = [_is_float(leaf) for leaf in carry]  # what is constant at first may not stay so
    forward = _Forward(body, wanted, consts, carry, xs)
    last, ys, packed = forward.run(consts, carry, xs)
    return (last, ys), jax.tree_util.Partial(functools.partial(_backward, forward), consts, carry, xs, packed)


def _scan_backward(body, backward, cotangents):
    return backward(cotangents)


_scan.defvjp(_scan_forward, _scan_backward, symbolic_zeros=True)


class _Forward:
    """The forward pass, and what it leaves for the backward pass.

    Attributes:
        jaxpr: a step, which returns carry, outputs and residuals.
        pull_back: the tree of the step's function from cotangents to cotangents, whose leaves are the residuals.
        outputs: the shapes of carry and outputs.
        stored: the variables that are stacked: the outputs, and what is kept.
        places: the variables from which the residuals are rebuilt, and where the backward pass finds each.
        after: for each carry that is kept, the stored variable that is its value one step later.
    """

    pull_back: Any
    outputs: list[Any]

    def __init__(self, body: _Body, wanted: list[list[bool]], consts: Leaves, carry: Leaves, xs: Leaves):
        self.wanted, self.few_kernels, self.carries = wanted, body.few_kernels, len(carry)

        def linearized(consts, carry, x):
            groups = [consts, carry, x]
            (carry, y), pull_back = jax.vjp(
                lambda chosen: body.step(*_merged(groups, wanted, chosen)), _chosen(groups, wanted)
            )
            residuals, self.pull_back = jax.tree.flatten(pull_back)
            self.outputs = [jax.typeof(leaf) for leaf in (*carry, *y)]
            return [*carry, *y, *residuals]

        closed = trace(linearized, consts, carry, _slices(xs))
        self.jaxpr, self.literals = closed.jaxpr, closed.consts
        count = len(self.outputs)
        self.residuals = self.jaxpr.outvars[count:]
        self._choose(len(consts), self.jaxpr.outvars[: self.carries], self.jaxpr.outvars[self.carries : count])

    def _choose(self, consts: int, carry: list[Variable], ys: list[Variable]) -> None:
        """What is stored, and the places in which the backward pass finds the sources of the residuals."""
        inputs, split = self.jaxpr.invars, consts + self.carries
        outputs = _numbered("stored", ys)
        free = {**outputs, **_numbered("x", inputs[split:])}
        free |= {**_numbered("literal", self.jaxpr.constvars), **_numbered("const", inputs[:consts])}
        cheap = MOVES | ARITHMETIC | (TRANSCENDENTAL if self.few_kernels else frozenset())
        cost = elements if self.few_kernels else size  # numbers of one type are stored at once
        chosen = least_to_keep(self.jaxpr, self.residuals, free, cheap, cost=cost)
        before = _numbered("before", inputs[consts:split]) if self.few_kernels else {}
        before = {v: at for v, at in before.items() if v in chosen and not isinstance(carry[at[1]], core.Literal)}
        kept = dict.fromkeys(carry[before[variable][1]] if variable in before else variable for variable in chosen)
        self.stored = [*ys, *(variable for variable in kept if variable not in outputs)]
        stored = _numbered("stored", self.stored)
        self.after = {place: stored[carry[place]][1] for _, place in before.values()}
        self.places = {**stored, **free, **before}

    def run(self, consts: Leaves, carry: Leaves, xs: Leaves) -> tuple[list, list, list]:
        """The last carry, the outputs, and all that is stored."""
        jaxpr = self.jaxpr.replace(outvars=[*self.jaxpr.outvars[: self.carries], *self.stored])
        jaxpr, early = hoisted(jaxpr, jaxpr.invars[: len(consts)], consts)
        self.packing = Packing.of_alike([atom.aval for atom in self.stored], together=self.few_kernels)

        def step(carry, x):
            outputs = call(jaxpr, self.literals, [*early, *consts, *carry, *x])
            return outputs[: self.carries], self.packing.pack(outputs[self.carries :])

        carry, packed = jax.lax.scan(step, list(carry), list(xs))
        return carry, self.packing.unpack(packed)[: len(self.outputs) - self.carries], packed


def _backward(forward: _Forward, consts, carry, xs, packed, cotangents):
    """The cotangents of constants, first carry and inputs."""
    last, of_ys = ([None if isinstance(leaf, SymbolicZero) else leaf for leaf in leaves] for leaves in cotangents)
    carry_outputs, y_outputs = forward.outputs[: forward.carries], forward.outputs[forward.carries :]
    start = [leaf if _is_float(leaf) else None for leaf in _instantiated(last, carry_outputs)]
    stored = forward.packing.unpack(packed)
    before = {}
    for place, after in forward.after.items():  # one step later; of no steps there is none
        before[place] = jnp.concatenate([carry[place][None], stored[after]])[: len(stored[after])]
    residuals = [atom for atom in forward.residuals if not isinstance(atom, core.Literal)]
    rebuild = rebuilding(forward.jaxpr, list(forward.places), residuals)

    def pull(fixed, stacks, of_carry):
        consts, literals = fixed
        xs, packed, before, of_y = stacks
        found = {"const": consts, "literal": literals, "x": xs, "before": before}
        found["stored"] = forward.packing.unpack(packed)
        values = iter(call(rebuild, [], [found[kind][place] for kind, place in forward.places.values()]))
        leaves = [atom.val if isinstance(atom, core.Literal) else next(values) for atom in forward.residuals]
        pull_back = jax.tree.unflatten(forward.pull_back, leaves)
        # an output that nobody reads has no cotangent: zeros would be multiplied, and with infinity become NaN
        of_y = [ad.Zero(output) if leaf is None else leaf for leaf, output in zip(of_y, y_outputs, strict=True)]
        ((of_consts, of_carry, of_x),) = pull_back((_instantiated(of_carry, carry_outputs), of_y))
        return [*of_consts, *of_carry, *of_x]

    fixed, stacks = (consts, forward.literals), (xs, packed, before, of_ys)
    closed = trace(pull, fixed, jax.tree.map(lambda stack: _slices([stack])[0], stacks), start)
    arguments = [jax.tree.leaves(group) for group in (fixed, stacks, start)]
    step = BackwardStep(closed, sum(forward.wanted[0]), *map(len, arguments), few_kernels=forward.few_kernels)
    of_consts, of_carry, of_xs = step.run(*arguments)
    return (
        _spread(of_consts, forward.wanted[0]),
        _spread(of_carry, forward.wanted[1]),
        _spread(of_xs, forward.wanted[2]),
    )


def _numbered(kind: str, variables: Sequence[Variable]) -> dict[Variable, tuple[str, int]]:
    """Each variable's place among those of a kind; the first of equal ones."""
    places: dict[Variable, tuple[str, int]] = {}
    for index, variable in enumerate(variables):
        if not isinstance(variable, core.Literal):
            places.setdefault(variable, (kind, index))
    return places


def _slices(xs: Leaves) -> list[jax.ShapeDtypeStruct]:
    """The shapes of one step of each array."""
    return [jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for x in xs]


def _is_float(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jnp.floating)


def _chosen(groups: Sequence[Leaves], wanted: Sequence[Sequence[bool]]) -> list[list]:
    return [list(itertools.compress(group, wants)) for group, wants in zip(groups, wanted, strict=True)]


def _merged(groups: Sequence[Leaves], wanted: Sequence[Sequence[bool]], chosen: Sequence[Leaves]) -> list[list]:
    """The groups with their wanted leaves replaced by the chosen ones."""
    iterators = [iter(leaves) for leaves in chosen]
    return [
        [next(iterator) if want else leaf for leaf, want in zip(group, wants, strict=True)]
        for group, wants, iterator in zip(groups, wanted, iterators, strict=True)
    ]


def _spread(cotangents: Leaves, wanted: Sequence[bool]) -> list:
    """Cotangents of the wanted leaves, and None for the others."""
    iterator = iter(cotangents)
    return [next(iterator) if want else None for want in wanted]


def _instantiated(cotangents: Leaves, outputs: Leaves) -> list:
    """A cotangent for every output: zero where it is None, and one without a value for whole numbers."""
    whole = []
    for cotangent, output in zip(cotangents, outputs, strict=True):
        if not _is_float(output):
            whole.append(np.zeros(output.shape, jax.dtypes.float0))
        else:
            whole.append(jnp.zeros(output.shape, output.dtype) if cotangent is None else cotangent)
    return whole
