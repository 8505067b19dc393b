"""Are products and scans what they would be without their tricks? Values, gradients, precision, memory."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from jax import lax

from s2s_jax.model.ops.matmul import contract, matmul, matmul_transposed
from s2s_jax.model.ops.scan import plain_gradients, scan

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
    return scan(body, given["weights"], given["carry"], given["xs"], rows=(BATCH,), dtype=jnp.float32, chunk=chunk)


def plain(given):
    return lax.scan(lambda carry, x: body(given["weights"], carry, x), given["carry"], given["xs"])


def judged(function, given):
    result = function(given)
    return oracles.weighed(result), result


@pytest.mark.parametrize("chunk", [0, 1, 3, 7, 9])
def test_a_scan_with_delayed_gradients_is_a_scan(chunk):
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


def test_a_delayed_product_rounds_like_any_other():
    at = given()

    def rounded(weights, carry, x):
        carry = jnp.tanh(matmul(x, weights["cell"], jnp.bfloat16))
        return carry, matmul(carry, weights["out"], jnp.bfloat16)

    weights = {"cell": at["weights"]["cell"][:SIZE], "out": at["weights"]["out"]}
    delayed = lambda weights: scan(rounded, weights, at["carry"], at["xs"], rows=(BATCH,), dtype=jnp.bfloat16)  # noqa: E731
    direct = lambda weights: lax.scan(lambda carry, x: rounded(weights, carry, x), at["carry"], at["xs"])  # noqa: E731
    one, other = (
        oracles.compiled(jax.value_and_grad(lambda at, function=function: judged(function, at), has_aux=True))(weights)
        for function in (delayed, direct)
    )
    oracles.same(one, other, tolerance=1e-5)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(one[1]))


def one_weight():
    return given()["weights"]["cell"][:SIZE], given()["carry"], given()["xs"]


def product(x, weight):
    return jnp.tanh(matmul(x, weight, jnp.float32))


def repeated(function):
    """The second call finds the function traced already."""
    return lambda x, weight: function(function(x, weight), weight)


def carried_along(x, weight):
    (x, _), _ = lax.scan(lambda at, _: ((product(*at), at[1]), ()), (x, weight), length=3)
    return x


INSIDE = "multiplied inside another loop, branch or transformation of the scan's body"
JITTED = jax.jit(product)
BY_HEAD = jax.vmap(product, in_axes=(None, 0))
MISUSES = {
    "twice": (
        lambda x, weight: matmul(matmul(x, weight, jnp.float32), weight, jnp.float32),
        "multiplied twice in one step",
    ),
    "never": (lambda x, weight: x, "used in no ops.matmul, so its gradient would be zero"),
    "in-a-loop": (
        lambda x, weight: lax.fori_loop(0, 3, lambda _, x: jnp.tanh(matmul(x, weight, jnp.float32)), x),
        INSIDE,
    ),
    "in-a-jitted-function-twice": (repeated(JITTED), INSIDE),
    "in-a-checkpoint-twice": (repeated(jax.checkpoint(product)), INSIDE),
    "for-several-inputs": (
        lambda x, weight: jax.vmap(product, in_axes=(0, None))(jnp.stack([x, -x]), weight).sum(0),
        INSIDE,
    ),
    "carried-by-a-scan": (carried_along, INSIDE),
    "carried-by-a-loop": (
        lambda x, weight: lax.fori_loop(0, 3, lambda _, at: (product(*at), at[1]), (x, weight))[0],
        INSIDE,
    ),
    "in-a-map-of-a-jitted-function": (
        lambda x, weight: lax.map(lambda x: JITTED(x, weight), jnp.stack([x, -x])).sum(0),
        INSIDE,
    ),
    "of-another-shape": (lambda x, weight: matmul(x[None], weight, jnp.float32)[0], "instead of (3, 4)"),
    "of-one-row": (lambda x, weight: matmul(x[:1], weight, jnp.float32), "by an input (1, 4) instead of (3, 4)"),
}


@pytest.mark.parametrize("name", MISUSES)
def test_a_weight_that_is_not_used_exactly_once_per_step_is_refused(name):
    """Used twice or in a loop it had a wrong gradient, unused a gradient of zero, all without an error."""
    use, message = MISUSES[name]
    weight, carry, xs = one_weight()
    body = lambda weights, carry, x: (use(carry, weights["cell"]) + x, ())  # noqa: E731
    with pytest.raises(ValueError, match="each weight that step_weights") as refusal:
        scan(body, {"cell": weight}, carry, xs, rows=(BATCH,), dtype=jnp.float32)
    assert message in str(refusal.value)
    assert "the weight ['cell'] (4, 4) of a scan" in str(refusal.value)


def test_a_weight_that_is_returned_once_per_product_may_have_several():
    weight, carry, xs = one_weight()

    def twice(weights, carry, x):
        first, second = weights
        return jnp.tanh(matmul(matmul(carry, first, jnp.float32), second, jnp.float32) + x), ()

    delayed = lambda weight: scan(twice, (weight, weight), carry, xs, rows=(BATCH,), dtype=jnp.float32)[0].sum()  # noqa: E731
    direct = lambda weight: lax.scan(lambda carry, x: twice((weight, weight), carry, x), carry, xs)[0].sum()  # noqa: E731
    oracles.same(jax.grad(delayed)(weight), jax.grad(direct)(weight), tolerance=1e-5)


def test_a_weight_may_be_passed_on_by_vmap():
    """As several attention heads do, which have one matrix each."""
    _, carry, xs = one_weight()
    heads = oracles.drawn(np.zeros((2, SIZE, SIZE)), seed=3)

    def body(weights, carry, x):
        each = jax.vmap(lambda weight, x: matmul(x, weight, jnp.float32), in_axes=(0, None))(weights[0], carry)
        return jnp.tanh(each.sum(0) + x), ()

    delayed = lambda weight: scan(body, (weight,), carry, xs, rows=(BATCH,), dtype=jnp.float32)[0].sum()  # noqa: E731
    direct = lambda weight: lax.scan(lambda carry, x: body((weight,), carry, x), carry, xs)[0].sum()  # noqa: E731
    oracles.same(jax.grad(delayed)(heads), jax.grad(direct)(heads), tolerance=1e-5)


def for_several_inputs(x, weight):
    each = jax.vmap(product, in_axes=(0, None))
    return jax.vmap(each, in_axes=(None, 0))(jnp.stack([x, -x]), weight).sum((0, 1))


def differentiated(x, weight):
    slope = jax.grad(lambda x, weight: product(x, weight).sum())
    return jax.vmap(slope, in_axes=(None, 0))(x, weight).sum(0)


HEAD_MISUSES = {
    "jitted-inside-twice": repeated(lambda x, weight: jax.vmap(JITTED, in_axes=(None, 0))(x, weight).sum(0)),
    "jitted-outside-twice": repeated(jax.jit(lambda x, weight: BY_HEAD(x, weight).sum(0))),
    "for-several-inputs": lambda x, weight: jax.vmap(BY_HEAD, in_axes=(0, None))(x[None], weight).sum((0, 1)),
    "for-several-inputs-per-head": for_several_inputs,
    "carried-by-a-loop": lambda x, weight: lax.fori_loop(0, 3, lambda _, at: (BY_HEAD(*at)[0], at[1]), (x, weight))[0],
    "in-a-gradient": differentiated,
}


@pytest.mark.parametrize("name", HEAD_MISUSES)
def test_a_weight_of_heads_is_refused_in_anything_but_a_vmap_over_it(name):
    """The gradients were wrong, without an error."""
    _, carry, xs = one_weight()
    heads = oracles.drawn(np.zeros((2, SIZE, SIZE)), seed=3)
    body = lambda weights, carry, x: (HEAD_MISUSES[name](carry, weights[0]) + x, ())  # noqa: E731
    with pytest.raises(ValueError, match="each weight that step_weights"):
        scan(body, (heads,), carry, xs, rows=(BATCH,), dtype=jnp.float32)


def hessian_vector_product(function, at):
    """d/dt of the gradient at `at + t v`, by differentiating the gradient backward once more."""
    direction = oracles.drawn(at, seed=5)
    gradient = jax.grad(lambda at: judged(function, at)[0])
    products = lambda at: sum(map(jnp.vdot, jax.tree.leaves(gradient(at)), jax.tree.leaves(direction)))  # noqa: E731
    return jax.grad(products)(at)


def test_differentiating_the_gradient_again_is_refused_or_right():
    """Backward and forward: both were wrong without an error, since the weights are constants in the backward scan."""
    with pytest.raises(ValueError, match="cannot be differentiated again.*plain_gradients"):
        hessian_vector_product(ours, given())
    with pytest.raises(ValueError, match="cannot be differentiated again.*plain_gradients"):
        jax.jvp(jax.grad(lambda at: judged(ours, at)[0]), (given(),), (given(),))
    with plain_gradients():
        product = hessian_vector_product(ours, given())
    oracles.same(product, hessian_vector_product(plain, given()), tolerance=1e-5)
