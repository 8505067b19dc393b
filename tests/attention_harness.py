"""Several steps of attention in tests: one compiled program per config, as a function of inputs and mask."""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import oracle_attention
import oracles
from flax import nnx

from s2s_jax.model.attention.config import AttentionConfig
from s2s_jax.model.attention.heads import build_attention
from s2s_jax.model.compatibility import attention_violations
from s2s_jax.model.ops.scan import scan

LENGTHS, STEPS, WIDTH = (5, 3, 1, 0), 3, 4  # query and memory of one width, for dot and its kin
SOURCE = max(LENGTHS)
MASK = np.arange(SOURCE) < np.array(LENGTHS)[:, None]
SMALL = {
    "size": 4,
    "mixtures": 2,
    "positions": 8,
    "coverage_size": 2,
    "filters": 2,
    "window": 1,
    "mocha_chunk": 2,
    "wait_k": 1,
    "top_k": 2,
    "fertility": 1.5,
}
NOISE = np.asarray(jax.random.key_data(jax.random.split(jax.random.key(7, impl="threefry2x32"), len(LENGTHS))))


class StepOutputs(NamedTuple):
    """The results of all steps, time first."""

    context: jax.Array
    alignment: jax.Array
    heads: jax.Array | tuple


def small_config(**choices):
    """The config of a small attention."""
    return AttentionConfig(**{**SMALL, **choices})


def legal_config(**choices):
    """A config with some choices and the remedies of all violations that leave those choices as they are."""
    config = small_config(**choices)
    for _ in range(4):
        violations = attention_violations(config)
        if not violations:
            return config
        remedies = [{name.split(".")[-1]: value for name, value in it.items()} for it in violations[0].remedies]
        remedy = next((it for it in remedies if not it.keys() & choices.keys()), None)
        assert remedy, violations
        config = dataclasses.replace(config, **remedy)
    raise AssertionError(f"the remedies do not end: {violations}")


def build(config, *, dtype=jnp.float32):
    """The graph of an attention and drawn weights."""
    return oracles.made(lambda rngs: build_attention(config, WIDTH, WIDTH, dtype=dtype, rngs=rngs), seed=1)


@functools.cache
def inputs_for(config):
    """Drawn weights, the queries of all steps, and a memory whose padding is far from zero."""
    arrays = {"queries": np.zeros((STEPS, len(LENGTHS), WIDTH)), "memory": np.zeros((len(LENGTHS), SOURCE, WIDTH))}
    return {"weights": build(config)[1], **oracles.drawn(arrays, seed=2, scale=1.0)}


def with_weights(inputs, **weights):
    """The inputs with other weights, named as in `score__bias`; the original ones are not changed."""
    changed = jax.tree.map(jnp.copy, inputs["weights"])
    for name, array in weights.items():
        part = functools.reduce(lambda tree, key: tree[key], name.split("__"), changed)
        part.set_value(jnp.broadcast_to(jnp.asarray(array, jnp.float32), part[...].shape))
    return {**inputs, "weights": changed}


def python_loop(attend, weights, state, queries, dtype):
    """A Python loop over the steps."""
    output = []
    for query in queries:
        state, outputs = attend(weights, state, query)
        output.append(outputs)
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *output)


def lax_scan(attend, weights, state, queries, dtype):
    """A scan by `lax.scan`."""
    return jax.lax.scan(lambda state, query: attend(weights, state, query), state, queries)[1]


def model_scan(attend, weights, state, queries, dtype):
    """A scan by `ops.scan`, as in the decoder."""
    return scan(lambda state, query: attend(weights, state, query), state, queries)[1]


def run_steps(graph, inputs, mask, noise=None, *, loop=model_scan, dtype=jnp.float32):
    """The outputs of all steps."""
    attention, mask = nnx.merge(graph, inputs["weights"]), jnp.asarray(mask)
    keys, values = attention.prepare(inputs["memory"]), attention.values(inputs["memory"])

    def attend(weights, state, query):
        output = attention.attend(weights, state, query, keys, values, mask, noise)
        return output.state, StepOutputs(output.context, output.alignment, output.heads)

    return loop(attend, attention.step_weights(), attention.start(keys, mask), inputs["queries"], dtype)


def weighted_sum(outputs):
    """A number that depends on every context and every weight, with a different coefficient for each."""
    return sum((coefficients(leaf.shape) * leaf).sum() for leaf in outputs[:2])


def coefficients(shape):
    """Fixed numbers; those of a larger array begin with those of a smaller one."""
    factors = np.array([1.7, 2.3, 3.1])
    return np.cos(1 + np.tensordot(factors, np.indices(shape), 1)).astype(np.float32)


@functools.cache
def forward_and_gradient(config, *, loop=model_scan, dtype=jnp.float32):
    """The outputs of all steps and the gradient of their weighted sum, compiled, of (inputs, mask, noise)."""
    graph, _ = build(config, dtype=dtype)

    def compute(inputs, mask, noise):
        outputs = run_steps(graph, inputs, mask, noise, loop=loop, dtype=dtype)
        return weighted_sum(outputs), outputs

    compiled = oracles.compiled(jax.grad(compute, has_aux=True))
    return lambda inputs, mask=MASK, noise=None: jax.tree.map(np.asarray, compiled(inputs, mask, noise)[::-1])


@functools.cache
def forward(config, *, dtype=jnp.float32):
    """The outputs of all steps, without a gradient, compiled."""
    graph, _ = build(config, dtype=dtype)
    compiled = oracles.compiled(lambda inputs, mask, noise: run_steps(graph, inputs, mask, noise, dtype=dtype))
    return lambda inputs, mask=MASK, noise=None: jax.tree.map(np.asarray, compiled(inputs, mask, noise))


@functools.cache
def trace_states(config):
    """The states before each step and after the last, the outputs of all steps, and the keys, compiled."""
    graph, _ = build(config)

    def trace(inputs, mask, noise):
        attention = nnx.merge(graph, inputs["weights"])
        keys, values, weights = (
            attention.prepare(inputs["memory"]),
            attention.values(inputs["memory"]),
            attention.step_weights(),
        )

        def attend(state, query):
            output = attention.attend(weights, state, query, keys, values, mask, noise)
            return output.state, (output.state, StepOutputs(output.context, output.alignment, output.heads))

        start = attention.start(keys, mask)
        _, (after, outputs) = jax.lax.scan(attend, start, inputs["queries"])
        return jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), start, after), outputs, keys

    compiled = oracles.compiled(trace)
    return lambda inputs, mask=MASK, noise=None: jax.tree.map(np.asarray, compiled(inputs, jnp.asarray(mask), noise))


def with_weights_from(config, inputs):
    """The inputs for another config: the weights that both have, and drawn ones for the rest."""
    theirs, known = nnx.to_pure_dict(inputs["weights"]), {}
    actual = nnx.to_pure_dict(inputs_for(config)["weights"])
    for path, leaf in jax.tree_util.tree_leaves_with_path(actual):
        names = [entry.key for entry in path]
        part = functools.reduce(lambda tree, name: tree.get(name, {}), names, theirs)
        if not isinstance(part, dict) and part.shape == leaf.shape:
            known["__".join(names)] = part
    return {**inputs, "weights": with_weights(inputs_for(config), **known)["weights"]}


def check_against_oracle(config, *, noise=None, attend=oracle_attention.attend, inputs=None):
    """Assert that values, and slopes along a drawn direction of each input array, are those of slow formulas.

    Returns:
        the outputs.
    """
    inputs = inputs or inputs_for(config)
    outputs, gradient = forward_and_gradient(config)(inputs, noise=noise)
    drawn = None if noise is None else noises(config)
    precise = {**oracles.precise(inputs), "weights": oracles.precise(nnx.to_pure_dict(inputs["weights"]))}
    slow = functools.partial(oracle_outputs, attend, config, drawn)
    expected = slow(precise)
    oracles.same((outputs.context, outputs.alignment), expected[:2], tolerance=2e-5)
    oracles.same(outputs.heads, expected[2], tolerance=2e-5)
    gradient = {**gradient, "weights": nnx.to_pure_dict(gradient["weights"])}
    along = oracles.precise(oracles.drawn(precise, seed=5, scale=1.0))
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(precise)]
    assert paths == [path for path, _ in jax.tree_util.tree_leaves_with_path(gradient)]
    for number, path in enumerate(paths):
        alone = only(along, number)
        slope = oracles.slope(lambda at: weighted_sum(slow(at)), precise, alone)
        actual = oracles.along_gradient(gradient, alone)
        assert abs(actual - slope) <= 2e-4 * max(1.0, abs(slope)), (jax.tree_util.keystr(path), actual, slope)
    return outputs


def only(tree, number):
    """The tree with zeros in all leaves but one."""
    leaves, shape = jax.tree.flatten(tree)
    return jax.tree.unflatten(shape, [leaf * (position == number) for position, leaf in enumerate(leaves)])


def noises(config):
    """The documented noise, from each row's own key and the number of the step: normal or Gumbel."""
    draw = jax.random.gumbel if config.normalizer == "gumbel-softmax" else jax.random.normal
    keys = [jax.random.wrap_key_data(jnp.asarray(key), impl="threefry2x32") for key in NOISE]
    drawn = [[draw(jax.random.fold_in(key, time), (SOURCE,)) for time in range(STEPS)] for key in keys]
    return np.asarray(drawn, np.float64)


def oracle_outputs(attend, config, drawn, inputs):
    """Contexts [T, B, V], alignments [T, B, S] and those of each head [T, B, N, S], zeros on padding."""
    rows, heads = [], []
    for row, length in enumerate(LENGTHS):
        noise = None if drawn is None else drawn[row, :, :length]
        queries, memory = inputs["queries"][:, row], inputs["memory"][row, :length]
        context, alignment = attend(inputs["weights"], config, queries, memory, noise) if length else (None, None)
        rows.append(context)
        heads.append(alignment)
    contexts = np.zeros((STEPS, len(LENGTHS), *rows[0].shape[1:]))
    alignments = np.zeros((STEPS, len(LENGTHS), *heads[0].shape[1:-1], SOURCE))
    for row, length in enumerate(LENGTHS):
        if length:
            contexts[:, row], alignments[:, row, ..., :length] = rows[row], heads[row]
    if alignments.ndim == 4:
        return contexts, alignments.mean(2), alignments
    return contexts, alignments, ()
