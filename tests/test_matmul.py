"""Are products and scans what they would be without their tricks? Values, gradients, precision, memory."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from jax import lax

from s2s_jax.model.ops.matmul import matmul, matmul_transposed, scan

STEPS, BATCH, SIZE = 7, 3, 4


def body(weights, carry, x):
    """Two products a step, one of them of the other's result."""
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
    return scan(body, given["weights"], given["carry"], given["xs"], rows=(BATCH,), dtype=jnp.float32, chunk=chunk)


def plain(given):
    return lax.scan(lambda carry, x: body(given["weights"], carry, x), given["carry"], given["xs"])


def judged(way, given):
    said = way(given)
    return oracles.weighed(said), said


@pytest.mark.parametrize("chunk", [0, 1, 3, 7, 9])
def test_a_scan_with_delayed_gradients_is_a_scan(chunk):
    """Chunks that divide the steps, that do not, of one step and of more than there are."""
    ways = [lambda given: ours(given, chunk), plain]
    one, other = (
        oracles.compiled(jax.value_and_grad(lambda at, way=way: judged(way, at), has_aux=True)) for way in ways
    )
    oracles.same(one(given()), other(given()), tolerance=1e-5)


def carried(program, inside=()):
    """The shapes that the scans of a program carry from step to step."""
    for equation in program.eqns:
        if equation.primitive.name == "scan":
            count = equation.params["num_carry"]
            inside += tuple(out.aval.shape for out in equation.outvars[:count])
        for value in jax.tree.leaves(list(equation.params.values())):
            inner = getattr(value, "jaxpr", value)
            inside = carried(inner, inside) if hasattr(inner, "eqns") else inside
    return inside


def test_no_gradient_of_a_weight_is_added_up_inside_the_scan():
    gradient = lambda way: jax.make_jaxpr(jax.grad(lambda at: judged(way, at)[0]))(given()).jaxpr  # noqa: E731
    assert (2 * SIZE, SIZE) in carried(gradient(plain))
    assert (2 * SIZE, SIZE) not in carried(gradient(ours))
    assert (SIZE, 5) not in carried(gradient(ours))


def kept(chunk):
    """Floats that the way back needs of the way there."""
    long = given() | {"xs": jnp.zeros((400, BATCH, SIZE))}
    pulled = jax.eval_shape(lambda at: jax.vjp(lambda carry: ours(at | {"carry": carry}, chunk), at["carry"])[1], long)
    return sum(leaf.size for leaf in jax.tree.leaves(pulled))


def test_a_scan_in_chunks_keeps_less():
    assert kept(20) < kept(0) / 2


def bf16(x):
    return np.asarray(jnp.asarray(x, jnp.bfloat16), np.float64)


@pytest.mark.parametrize("way", ["product", "matched"])
def test_bfloat16_rounds_every_factor_and_no_sum(way):
    """Forward and backward: of x, of the weight, and of the cotangent; the gradients themselves are float32."""
    shapes = {"x": np.zeros((6, 50)), "weight": np.zeros((50, 8)), "cotangent": np.zeros((6, 8))}
    x, weight, cotangent = (oracles.drawn(shapes, seed=1)[name] for name in ("x", "weight", "cotangent"))
    ways = {"product": matmul, "matched": lambda x, weight, dtype: matmul_transposed(x, weight.T, dtype)}
    y, pull = jax.vjp(lambda x, weight: ways[way](x, weight, jnp.bfloat16), x, weight)
    of_x, of_weight = pull(cotangent)
    oracles.same(y, bf16(x) @ bf16(weight), tolerance=1e-6)
    oracles.same(of_x, bf16(cotangent) @ bf16(weight).T, tolerance=1e-6)
    oracles.same(of_weight, bf16(x).T @ bf16(cotangent), tolerance=1e-6)
    assert {leaf.dtype for leaf in (y, of_x, of_weight)} == {jnp.dtype(jnp.float32)}


def test_a_delayed_product_rounds_like_any_other():
    at = given()

    def rounded(weights, carry, x):
        carry = jnp.tanh(matmul(x, weights["cell"], jnp.bfloat16))
        return carry, matmul(carry, weights["out"], jnp.bfloat16)

    weights = {"cell": at["weights"]["cell"][:SIZE], "out": at["weights"]["out"]}
    delayed = lambda weights: scan(rounded, weights, at["carry"], at["xs"], rows=(BATCH,), dtype=jnp.bfloat16)  # noqa: E731
    direct = lambda weights: lax.scan(lambda carry, x: rounded(weights, carry, x), at["carry"], at["xs"])  # noqa: E731
    one, other = (
        oracles.compiled(jax.value_and_grad(lambda at, way=way: judged(way, at), has_aux=True))(weights)
        for way in (delayed, direct)
    )
    oracles.same(one, other, tolerance=1e-5)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(one[1]))
