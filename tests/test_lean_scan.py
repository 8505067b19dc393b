"""Is the lean scan `lax.scan`, forward and backward, and does it keep as little as can be?"""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core

from s2s_jax.model.attention.normalizers import softmax
from s2s_jax.model.ops.jaxprs import ARITHMETIC, MOVES, definitions, least_to_keep, rebuilding, size, trace
from s2s_jax.model.ops.lean_scan import lean_scan

STEPS, ROWS, WIDTH, SOURCE = 5, 2, 4, 3
MASK = jnp.array([[True, True, True], [True, True, False]])


def drawn(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


CONSTANTS = {
    "weight": drawn(2 * WIDTH, 3 * WIDTH, seed=1),
    "keys": drawn(ROWS, SOURCE, WIDTH, seed=2),
    "bias": drawn(3 * WIDTH, seed=3),
    "unused": drawn(2, seed=4),
}
START = {"state": drawn(ROWS, WIDTH, seed=5), "fed": drawn(ROWS, WIDTH, seed=6)}
XS = {"x": drawn(STEPS, ROWS, WIDTH, seed=7), "other": drawn(STEPS, ROWS, seed=8)}


def attending(constants, carry, x):
    """A gated cell with attention: products, a softmax, sums over rows, a carry that is fed back."""
    joined = jnp.concatenate([carry["fed"], carry["state"]], axis=-1)
    gates = joined @ constants["weight"] + constants["bias"][None]
    entry, forget, candidate = jnp.split(gates, 3, axis=-1)
    state = jax.nn.sigmoid(forget) * carry["state"] + jax.nn.sigmoid(entry) * jnp.tanh(candidate + x["x"])
    scores = jnp.einsum("bq,bsq->bs", state, constants["keys"])
    context = jnp.einsum("bs,bsq->bq", softmax(scores, MASK), constants["keys"])
    return {"state": state, "fed": jnp.tanh(context + state)}, {"context": context, "scores": scores}


def twice(constants, carry, x):
    """A weight used twice, once transposed."""
    hidden = jnp.tanh(carry["state"] @ constants["weight"][:WIDTH])
    return {**carry, "state": jnp.sin(hidden @ constants["weight"][:WIDTH].T) + x["x"]}, hidden


def delayed(constants, carry, x):
    """Carries that are an input, another carry, or never change; an output that is a carry."""
    return {"state": x["x"], "fed": carry["state"] * constants["bias"][None, :WIDTH]}, carry["fed"] * carry["state"]


def constant(constants, carry, x):
    """A carry that is the same from the first step on, and an output that no input changes."""
    return {"state": jnp.ones_like(carry["state"]), "fed": carry["fed"] + carry["state"]}, jnp.zeros(3)


def choosing(constants, carry, x):
    """A branch, and rows picked by whole numbers that are outputs too."""
    best = jnp.argmax(carry["state"], axis=-1)
    state = jax.lax.cond(x["other"][0] > 0, jnp.sin, lambda state: state * 2, carry["state"] + x["x"])
    return {**carry, "state": state}, (best, constants["weight"][best])


BODIES = [attending, twice, delayed, constant, choosing]


def total(scan, body, constants, start, xs):
    """A number that depends on everything that a scan returns."""
    leaves = jax.tree.leaves(scan(functools.partial(body, constants), start, xs))
    return sum(jnp.sum(jnp.sin(leaf) * (1 + index)) for index, leaf in enumerate(leaves))


@pytest.mark.parametrize("few_kernels", [False, True])
@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.__name__)
def test_the_lean_scan_is_laxs(body, few_kernels):
    """Value and gradients of constants, first carry and inputs; compiled, recomputed and mapped."""
    lean, every = functools.partial(lean_scan, few_kernels=few_kernels), (0, 1, 2)
    # small weights, so that no rounding grows from step to step
    arguments = constants, start, xs = jax.tree.map(lambda leaf: leaf / 3, (CONSTANTS, START, XS))
    value, slopes = jax.value_and_grad(functools.partial(total, jax.lax.scan, body), every)(*arguments)
    ours = functools.partial(total, lean, body)
    for function in (jax.jit(ours), jax.checkpoint(ours)):
        got, got_slopes = jax.value_and_grad(function, every)(*arguments)
        np.testing.assert_allclose(got, value, rtol=1e-5)
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=2e-4, atol=1e-5), got_slopes, slopes)
    pair = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf / 2]), constants)
    mapped = jax.vmap(jax.grad(ours), in_axes=(0, None, None))(pair, start, xs)
    jax.tree.map(lambda leaf, want: np.testing.assert_allclose(leaf[0], want, rtol=2e-4, atol=1e-5), mapped, slopes[0])


def doubling(constants, carry, x):
    """A constant added to itself many times: the terms of its gradient are one, not two to that power."""
    whole = constants["bias"]
    for _ in range(40):
        whole = (whole + whole) / 2
    return {**carry, "state": jnp.tanh(carry["state"] + whole[None, :WIDTH] + x["x"])}, ()


def test_odd_bodies_and_lengths():
    """Many uses of one constant, no steps at all, and a carry that changes its structure."""
    for few_kernels in (False, True):
        lean = functools.partial(lean_scan, few_kernels=few_kernels)
        for body, steps in ((doubling, STEPS), (attending, 0), (attending, 1)):
            xs = jax.tree.map(lambda leaf, steps=steps: leaf[:steps], XS)
            got, want = (
                jax.grad(functools.partial(total, scan, body))(CONSTANTS, START, xs) for scan in (lean, jax.lax.scan)
            )
            jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=2e-4, atol=1e-5), got, want)
        with pytest.raises(TypeError, match="the body of a scan returns a carry of structure"):
            lean(lambda carry, x: ((carry, carry), ()), START, XS)


def test_an_output_that_nobody_reads_has_no_part_in_the_gradient():
    """The slope of its square root is infinite, and zero times that would be no number."""
    for few_kernels in (False, True):
        lean = functools.partial(lean_scan, few_kernels=few_kernels)
        body = lambda carry, x: (carry * x, (jnp.sqrt(carry), jnp.argmax(carry)))  # noqa: E731
        slopes = jax.grad(lambda start, lean=lean, body=body: lean(body, start, jnp.ones((3, 4)))[0].sum())(
            jnp.zeros(4)
        )
        np.testing.assert_array_equal(slopes, 1)


def test_gradients_of_some_arguments_alone():
    """What is not asked for is not differentiated, and whole numbers are none of it."""
    for few_kernels in (False, True):
        lean = functools.partial(lean_scan, few_kernels=few_kernels)
        got = jax.grad(lambda start, lean=lean: total(lean, attending, CONSTANTS, start, XS))(START)
        want = jax.grad(lambda start: total(jax.lax.scan, attending, CONSTANTS, start, XS))(START)
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=2e-4, atol=1e-5), got, want)


def loops(program):
    """The scans of a program, also those inside its calls."""
    for equation in program.eqns:
        if equation.primitive.name == "scan":
            yield equation
        else:
            for inner in core.jaxprs_in_params(equation.params):
                yield from loops(inner)


def outputs(equation):
    """The outputs of a scan that somebody reads: what it carries, and what it stacks."""
    of_step = equation.params["jaxpr"].jaxpr.outvars
    read = [pair for pair in zip(equation.outvars, of_step, strict=True) if not isinstance(pair[0], core.DropVar)]
    carried = [whole for whole, each in read if whole.aval.shape == each.aval.shape]
    return carried, [whole for whole, each in read if whole.aval.shape != each.aval.shape]


def test_where_launches_cost_a_step_writes_once():
    """Forward what is kept and the outputs, backward the factors of all gradients: one stack each."""
    lean = functools.partial(lean_scan, few_kernels=True)
    gradient = jax.grad(functools.partial(total, lean, attending))
    forward, backward = loops(jax.make_jaxpr(gradient)(CONSTANTS, START, XS).jaxpr)
    (stack,) = outputs(forward)[1]
    # outputs, weights, the carry and the gates: nothing that sums and functions make of them
    assert stack.aval.shape == (STEPS, ROWS, (WIDTH + SOURCE) + SOURCE + 2 * WIDTH + 3 * WIDTH)
    assert len(outputs(backward)[1]) == 1


def test_no_gradient_of_a_matrix_is_added_up_in_the_loop():
    """Their products are computed after it; only vectors are added up."""
    for few_kernels in (False, True):
        lean = functools.partial(lean_scan, few_kernels=few_kernels)
        program = jax.make_jaxpr(jax.grad(functools.partial(total, lean, attending)))(CONSTANTS, START, XS)
        _, backward = loops(program.jaxpr)
        sums = [
            variable.aval.shape for variable in outputs(backward)[0] if variable.aval.shape[0] != ROWS
        ]  # the others are carries
        assert sums == ([] if few_kernels else [(3 * WIDTH,)])


def programs():
    """Small programs of cheap and of expensive operations, with what is wanted of each."""
    x, y = drawn(3), drawn(3, 2)

    def chain(x, y):
        a = jnp.exp(x)
        b = a * 2
        return [b, b + a, jnp.sum(y), jnp.sin(x)]

    def parts(x, y):
        whole = jnp.sin(jnp.concatenate([x, x, x]))
        first, second, third = jnp.split(whole, 3)
        return [first, second, third * third, whole * 3]

    def wide(x, y):
        small = jnp.exp(x)
        large = small[:, None] * jnp.sin(y)
        return [large + 1, large * 2, small]

    return [trace(function, x, y).jaxpr for function in (chain, parts, wide)]


@pytest.mark.parametrize("jaxpr", programs(), ids=["chain", "parts", "wide"])
@pytest.mark.parametrize("free", [(), (0,), (0, 1)], ids=str)
def test_what_is_kept_is_the_least_that_suffices(jaxpr, free):
    """Every set of variables is tried."""
    cheap, given = MOVES | ARITHMETIC, {jaxpr.invars[index] for index in free}
    defined = definitions(jaxpr)
    variables = [*jaxpr.invars, *defined]

    def suffices(kept):
        def known(variable):
            if isinstance(variable, core.Literal) or variable in kept or variable in given:
                return True
            equation = defined.get(variable)
            return equation is not None and equation.primitive.name in cheap and all(map(known, equation.invars))

        return all(map(known, jaxpr.outvars))

    sets = itertools.chain.from_iterable(itertools.combinations(variables, count) for count in range(5))
    least = min((sum(map(size, kept)) for kept in sets if suffices(set(kept))), default=math.inf)
    kept = least_to_keep(jaxpr, jaxpr.outvars, given, cheap)
    assert suffices(set(kept))
    assert sum(map(size, kept)) == least
    # and from it the program that rebuilds the rest runs
    assert len(rebuilding(jaxpr, [*kept, *given - set(kept)], jaxpr.outvars).outvars) == len(jaxpr.outvars)
