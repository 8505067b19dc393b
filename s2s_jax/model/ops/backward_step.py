"""A step of a backward scan: which of its results are added up in the loop, and which are computed after it."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from s2s_jax.model.ops.jaxprs import (
    LINEAR,
    MOVES,
    Leaves,
    Variable,
    call,
    definitions,
    hoisted,
    least_to_keep,
    rebuilding,
    size,
    unique,
)
from s2s_jax.model.ops.packing import Packing


class BackwardStep:
    """A program of constants of the loop, slices of stacks and cotangents of the carry.

    It returns the cotangents of constants, which are added up over all steps, of the carry before, and of inputs.

    Args:
        of_consts: the number of cotangents of constants.
        fixed: the number of leaves that are the same in every step.
        stacks: the number of leaves of which each step reads a slice.
        carries: the number of cotangents of the carry.
    """

    def __init__(
        self, closed: core.ClosedJaxpr, of_consts: int, fixed: int, stacks: int, carries: int, *, few_kernels: bool
    ):
        self.jaxpr, self.literals, self.few_kernels = closed.jaxpr, closed.consts, few_kernels
        self.defined = definitions(self.jaxpr)
        inputs, outputs = self.jaxpr.invars, self.jaxpr.outvars
        self.once, self.each = [*self.jaxpr.constvars, *inputs[:fixed]], inputs[fixed : fixed + stacks]
        self.of_consts, self.of_carry = outputs[:of_consts], outputs[of_consts : of_consts + carries]
        self.of_xs = outputs[of_consts + carries :]

    def run(self, fixed: Leaves, stacks: Leaves, start: Leaves) -> tuple[list, list, list]:
        """The cotangents of the wanted constants, of the first carry, and of the wanted inputs."""
        of_xs = [atom for atom in self.of_xs if not self._is_zero(atom)]
        terms = self._terms(self.of_consts)
        late = self._computed_after(terms, of_xs)
        early = [term for term in terms if term not in late]
        after = [*of_xs, *(operand for term in late for operand in self.defined[term].invars)]
        emitted = self._emitted(after)
        program = self.jaxpr.replace(outvars=[*self.of_carry, *early, *emitted])
        program, hoisted_values = hoisted(program, program.invars[: len(fixed)], fixed)
        packing = Packing.of_alike([variable.aval for variable in emitted], together=self.few_kernels)

        def step(carry, slices):
            of_carry, totals = carry
            outputs = iter(call(program, self.literals, [*hoisted_values, *fixed, *slices, *of_carry]))
            of_carry, added = ([next(outputs) for _ in group] for group in (of_carry, totals))
            return (of_carry, jax.tree.map(jnp.add, totals, added)), packing.pack(list(outputs))

        zeros = [jnp.zeros(term.aval.shape, term.aval.dtype) for term in early]
        (of_carry, totals), packed = jax.lax.scan(step, (list(start), zeros), list(stacks), reverse=True)
        rebuild = rebuilding(self.jaxpr, [*self.once, *self.each, *emitted], after)
        rebuild_all = jax.vmap(lambda each: call(rebuild, [], [*self.literals, *fixed, *each]))
        values = iter(rebuild_all([*stacks, *packing.unpack(packed)]))
        of_xs = [None if self._is_zero(atom) else next(values) for atom in self.of_xs]
        sums = [_of_all_steps(self.defined[term], values) for term in late]
        finish = rebuilding(self.jaxpr, [*early, *late], self.of_consts)
        return call(finish, [], [*totals, *sums]), of_carry, of_xs

    def _emitted(self, wanted: Iterable[Variable]) -> list[Variable]:
        """What each step has to write so that the wanted variables can be had after the loop."""
        return least_to_keep(self.jaxpr, wanted, {*self.once, *self.each}, MOVES)

    def _is_zero(self, atom: Variable) -> bool:
        """Whether it is 0 whatever the inputs are."""
        if isinstance(atom, core.Literal):
            return bool(np.all(atom.val == 0))
        equation = self.defined.get(atom)
        if equation is None or equation.primitive.name not in MOVES or not equation.invars:
            return False
        return all(map(self._is_zero, equation.invars))

    def _terms(self, atoms: Iterable[Variable]) -> list[Variable]:
        """The variables of whose sums over all steps the sums of cotangents are made, each once."""
        terms, seen, pending = [], set(), list(atoms)[::-1]
        while pending:
            atom = pending.pop()
            if self._is_zero(atom) or atom in seen:
                continue
            seen.add(atom)
            equation = self.defined.get(atom)
            only_reshapes = self._is_sum(atom) and size(self.defined[atom].invars[0]) == size(atom)
            if equation is not None and (equation.primitive.name in LINEAR or only_reshapes):
                pending += equation.invars[::-1]
            else:
                terms.append(atom)
        return terms

    def _computed_after(self, terms: Sequence[Variable], of_xs: Sequence[Variable]) -> list[Variable]:
        """The terms that cost less to compute after the loop, from what is then written, than to add up in it."""

        def bytes_written(variables: Iterable[Variable]) -> int:
            return sum(map(size, self._emitted(variables)))

        late, wanted = [], list(of_xs)
        written = bytes_written(wanted)
        for term in sorted(terms, key=self._is_sum):  # products first: their factors are often what is summed, too
            equation = self.defined.get(term)
            if equation is None or not {*self.once}.isdisjoint(unique(equation.invars)):
                continue
            if equation.primitive.name == "dot_general":
                most = size(term)  # which adding up would read and write
            elif self._is_sum(term) and self.few_kernels:
                most = size(equation.invars[0]) // 2  # a product writes its operand anyway, or that rounded to half
            else:
                continue
            with_term = bytes_written([*wanted, *equation.invars])
            if with_term - written <= most:
                late.append(term)
                wanted += equation.invars
                written = with_term
        return late

    def _is_sum(self, variable: Variable) -> bool:
        return variable in self.defined and self.defined[variable].primitive.name == "reduce_sum"


def _of_all_steps(equation: core.JaxprEqn, operands: Iterator[Any]) -> Any:
    """The sum over all steps of a product or a sum, whose operands have the axis of the steps in front."""
    params = equation.params
    if equation.primitive.name == "reduce_sum":
        return jnp.sum(next(operands), axis=(0, *(axis + 1 for axis in params["axes"])))
    (left, right), (left_batch, right_batch) = params["dimension_numbers"]
    contracted = (0, *(axis + 1 for axis in left)), (0, *(axis + 1 for axis in right))
    batch = [axis + 1 for axis in left_batch], [axis + 1 for axis in right_batch]
    options = {name: params[name] for name in ("precision", "preferred_element_type")}
    return jax.lax.dot_general(next(operands), next(operands), (contracted, batch), **options)
