"""Are products and scans what they would be without their tricks? Values, gradients, precision, memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from jax import lax

from s2s_jax.model.ops.matmul import contract, matmul, matmul_transposed
from s2s_jax.model.ops.scan import scan

STEPS, BATCH, SIZE = 7, 3, 4


def body(weights, carry, x):
    """Two products per step, one of them of the other's result."""
    carry = jnp.tanh(matmul(jnp.concatenate([carry, x], -1), weights["cell"], jnp.float32))
    return carry, matmul(carry, weights["out"], jnp.float32)


def given():
    shapes = {
        "weights": {"cell": np.zeros((2 * SIZE, SIZE)), "out": np.zeros((SIZE, 5))},
        "carry": np.zeros((BATCH, SIZE)),
        "xs": np.zeros((STEPS, BATCH, SIZE)),
    }
    return oracles.drawn(shapes, seed=0)


def ours(given, chunk=0):
    return scan(lambda carry, x: body(given["weights"], carry, x), given["carry"], given["xs"], chunk=chunk)


def plain(given):
    return lax.scan(lambda carry, x: body(given["weights"], carry, x), given["carry"], given["xs"])


def judged(function, given):
    result = function(given)
    return oracles.weighed(result), result


@pytest.mark.parametrize("chunk", [0, 1, 3, 7, 9])
def test_a_scan_in_chunks_is_a_scan(chunk):
    """Chunks that divide the steps, that do not, of one step and of more than there are."""
    functions = [lambda given: ours(given, chunk), plain]
    one, other = (
        oracles.compiled(jax.value_and_grad(lambda at, function=function: judged(function, at), has_aux=True))
        for function in functions
    )
    oracles.same(one(given()), other(given()), tolerance=1e-5)


def carried(program, inside=()):
    """The shapes that the scans of a program carry from step to step."""
    for equation in program.eqns:
        if equation.primitive.name == "scan":  # what is stacked has one dimension more outside than inside
            pairs = zip(equation.outvars, equation.params["jaxpr"].jaxpr.outvars, strict=True)
            inside += tuple(out.aval.shape for out, of_step in pairs if out.aval.shape == of_step.aval.shape)
        for value in jax.tree.leaves(list(equation.params.values())):
            inner = getattr(value, "jaxpr", value)
            inside = carried(inner, inside) if hasattr(inner, "eqns") else inside
    return inside


def test_no_gradient_of_a_weight_is_added_up_inside_the_scan():

    def gradient(function):
        return jax.make_jaxpr(jax.grad(lambda at: judged(function, at)[0]))(given()).jaxpr

    assert (2 * SIZE, SIZE) in carried(gradient(plain))
    assert (2 * SIZE, SIZE) not in carried(gradient(ours))
    assert (SIZE, 5) not in carried(gradient(ours))


def kept(chunk):
    """Floats that the backward pass needs of the forward pass."""
    long = given() | {"xs": jnp.zeros((400, BATCH, SIZE))}
    pulled = jax.eval_shape(lambda at: jax.vjp(lambda carry: ours(at | {"carry": carry}, chunk), at["carry"])[1], long)
    return sum(leaf.size for leaf in jax.tree.leaves(pulled))


def test_a_scan_in_chunks_keeps_less():
    assert kept(20) < kept(0) / 2


def bf16(x):
    return np.asarray(jnp.asarray(x, jnp.bfloat16), np.float64)


FUNCTIONS = {
    "product": matmul,
    "matched": lambda x, weight, dtype: matmul_transposed(x, weight.T, dtype),
    "contracted": lambda x, weight, dtype: contract("bi,io->bo", x, weight, dtype),
}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_bfloat16_rounds_every_factor_and_no_sum(function):
    """Forward and backward: of x, of the weight, and of the cotangent; the gradients themselves are float32."""
    shapes = {"x": np.zeros((6, 50)), "weight": np.zeros((50, 8)), "cotangent": np.zeros((6, 8))}
    x, weight, cotangent = (oracles.drawn(shapes, seed=1)[name] for name in ("x", "weight", "cotangent"))
    y, pull = jax.vjp(lambda x, weight: FUNCTIONS[function](x, weight, jnp.bfloat16), x, weight)
    of_x, of_weight = pull(cotangent)
    oracles.same(y, bf16(x) @ bf16(weight), tolerance=1e-6)
    oracles.same(of_x, bf16(cotangent) @ bf16(weight).T, tolerance=1e-6)
    oracles.same(of_weight, bf16(x).T @ bf16(cotangent), tolerance=1e-6)
    assert {leaf.dtype for leaf in (y, of_x, of_weight)} == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_bfloat16_has_second_slopes(function):
    """Of the gradient's length, near those of float32."""
    inputs = oracles.drawn((np.zeros((3, 5)), np.zeros((5, 4))), seed=1)

    def second(dtype):
        value = lambda x, weight: jnp.tanh(FUNCTIONS[function](x, weight, dtype)).sum()  # noqa: E731
        first = jax.grad(value, argnums=(0, 1))
        return jax.grad(lambda *at: sum((leaf**2).sum() for leaf in first(*at)), argnums=(0, 1))(*inputs)

    oracles.same(second(jnp.bfloat16), second(jnp.float32), tolerance=0.05)


def test_a_product_in_a_scan_rounds_like_any_other():
    at = given()

    def rounded(weights, carry, x):
        carry = jnp.tanh(matmul(x, weights["cell"], jnp.bfloat16))
        return carry, matmul(carry, weights["out"], jnp.bfloat16)

    weights = {"cell": at["weights"]["cell"][:SIZE], "out": at["weights"]["out"]}
    scanned = lambda weights: scan(functools.partial(rounded, weights), at["carry"], at["xs"])  # noqa: E731
    direct = lambda weights: lax.scan(functools.partial(rounded, weights), at["carry"], at["xs"])  # noqa: E731
    one, other = (
        oracles.compiled(jax.value_and_grad(lambda at, function=function: judged(function, at), has_aux=True))(weights)
        for function in (scanned, direct)
    )
    oracles.same(one, other, tolerance=1e-5)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(one[1]))


def product(x, weight):
    return jnp.tanh(matmul(x, weight, jnp.float32))


def repeated(function):
    """The second call finds the function traced already."""
    return lambda x, weight: function(function(x, weight), weight)


def carried_along(x, weight):
    (x, _), _ = lax.scan(lambda at, _: ((product(*at), at[1]), ()), (x, weight), length=3)
    return x


JITTED = jax.jit(product)
BY_HEAD = jax.vmap(product, in_axes=(None, 0))
USES = {
    "twice": repeated(product),
    "never": lambda x, weight: x,
    "transposed": lambda x, weight: product(product(x, weight), weight.T),
    "of-one-row": lambda x, weight: x + product(x[:1], weight),
    "elementwise": lambda x, weight: product(x, weight) + weight[:1].sum(keepdims=True),
    "in-a-loop": carried_along,
    "in-a-branch": lambda x, weight: lax.cond(x[0, 0] > 0, lambda: product(x, weight), lambda: x),
    "in-a-jitted-function-twice": repeated(JITTED),
    "in-a-checkpoint-twice": repeated(jax.checkpoint(product)),
    "for-several-inputs": lambda x, weight: jax.vmap(product, in_axes=(0, None))(jnp.stack([x, -x]), weight).sum(0),
    "in-a-map": lambda x, weight: lax.map(lambda x: JITTED(x, weight), jnp.stack([x, -x])).sum(0),
    "by-heads": lambda x, weight: BY_HEAD(x, jnp.stack([weight, weight.T])).sum(0),
    "in-a-gradient": lambda x, weight: jax.grad(lambda x: product(x, weight).sum())(x),
}


@pytest.mark.parametrize("name", USES)
def test_a_weight_may_be_used_in_any_way_in_a_scan(name):
    """Its gradient is that of `lax.scan`, however it is used and how often, and so is the next derivative."""
    at = given()
    weight, carry, xs = at["weights"]["cell"][:SIZE], at["carry"], at["xs"]

    def summed(loop):
        return lambda weight: loop(lambda carry, x: (USES[name](carry, weight) + x, ()), carry, xs)[0].sum()

    oracles.same(jax.grad(summed(scan))(weight), jax.grad(summed(lax.scan))(weight), tolerance=1e-5)
    if name in ("twice", "by-heads"):
        again = [jax.grad(lambda at, loop=loop: (jax.grad(summed(loop))(at) ** 2).sum()) for loop in (scan, lax.scan)]
        oracles.same(*(function(weight) for function in again), tolerance=1e-4)


def hessian_vector_product(function, at):
    """d/dt of the gradient at `at + t v`, by differentiating the gradient backward once more."""
    direction = oracles.drawn(at, seed=5)
    gradient = jax.grad(lambda at: judged(function, at)[0])
    products = lambda at: sum(map(jnp.vdot, jax.tree.leaves(gradient(at)), jax.tree.leaves(direction)))  # noqa: E731
    return jax.grad(products)(at)


def test_the_gradient_may_be_differentiated_again():
    """Backward and forward."""
    oracles.same(hessian_vector_product(ours, given()), hessian_vector_product(plain, given()), tolerance=1e-5)
    forward = [
        jax.jvp(jax.grad(lambda at, function=function: judged(function, at)[0]), (given(),), (given(),))
        for function in (ours, plain)
    ]
    oracles.same(*forward, tolerance=1e-5)
