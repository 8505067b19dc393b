"""How do tests ask attention, several steps in a row? One compiled program a choice, of what is given and the mask."""

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
from s2s_jax.model.ops import matmul

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


class Said(NamedTuple):
    """What all steps found, time first."""

    context: jax.Array
    alignment: jax.Array
    heads: jax.Array | tuple


def chosen(**choices):
    """A small attention's config."""
    return AttentionConfig(**{**SMALL, **choices})


def fitted(**choices):
    """A config with some choices and the remedies of all violations that leave those choices as they are."""
    config = chosen(**choices)
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
def given_for(config):
    """Drawn weights, queries of all steps, and a memory whose padding is far from zero."""
    arrays = {"queries": np.zeros((STEPS, len(LENGTHS), WIDTH)), "memory": np.zeros((len(LENGTHS), SOURCE, WIDTH))}
    return {"weights": build(config)[1], **oracles.drawn(arrays, seed=2, scale=1.0)}


def put(given, **weights):
    """What is given, with other weights, named as in `score__bias`; the drawn ones are left as they are."""
    changed = jax.tree.map(jnp.copy, given["weights"])
    for name, array in weights.items():
        part = functools.reduce(lambda tree, key: tree[key], name.split("__"), changed)
        part.set_value(jnp.broadcast_to(jnp.asarray(array, jnp.float32), part[...].shape))
    return {**given, "weights": changed}


def by_loop(attend, inside, state, queries, dtype):
    """One step after the other."""
    found = []
    for query in queries:
        state, said = attend(inside, state, query)
        found.append(said)
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *found)


def by_scan(attend, inside, state, queries, dtype):
    """`lax.scan`."""
    return jax.lax.scan(lambda state, query: attend(inside, state, query), state, queries)[1]


def delayed(attend, inside, state, queries, dtype):
    """`matmul.scan`, as the decoder has it."""
    return matmul.scan(attend, inside, state, queries, rows=queries.shape[1:-1], dtype=dtype)[1]


def steps(graph, given, mask, noise=None, *, way=delayed, dtype=jnp.float32):
    """What all steps found."""
    attention, mask = nnx.merge(graph, given["weights"]), jnp.asarray(mask)
    keys, values = attention.prepare(given["memory"]), attention.values(given["memory"])

    def attend(inside, state, query):
        found = attention.attend(inside, state, query, keys, values, mask, noise)
        return found.state, Said(found.context, found.alignment, found.heads)

    return way(attend, attention.step_weights(), attention.start(keys, mask), given["queries"], dtype)


def weighed(said):
    """One number that hangs on every context and every weight, and slopes that no two of them share."""
    return sum((shares(leaf.shape) * leaf).sum() for leaf in (said.context, said.alignment))


def shares(shape):
    """Fixed numbers; those of a wider array begin with those of a narrower one."""
    factors = np.array([1.7, 2.3, 3.1])
    return np.cos(1 + np.tensordot(factors, np.indices(shape), 1)).astype(np.float32)


@functools.cache
def looker(config, *, way=delayed, dtype=jnp.float32):
    """All that the steps said and the gradient of one number of it, compiled, of (given, mask, noise)."""
    graph, _ = build(config, dtype=dtype)

    def look(given, mask, noise):
        said = steps(graph, given, mask, noise, way=way, dtype=dtype)
        return weighed(said), said

    compiled = oracles.compiled(jax.grad(look, has_aux=True))
    return lambda given, mask=MASK, noise=None: jax.tree.map(np.asarray, compiled(given, mask, noise)[::-1])


@functools.cache
def forward(config, *, dtype=jnp.float32):
    """All that the steps said, and no gradient, compiled."""
    graph, _ = build(config, dtype=dtype)
    compiled = oracles.compiled(lambda given, mask, noise: steps(graph, given, mask, noise, dtype=dtype))
    return lambda given, mask=MASK, noise=None: jax.tree.map(np.asarray, compiled(given, mask, noise))


@functools.cache
def followed(config):
    """What attention remembers before each step and after the last, and what all steps said, compiled."""
    graph, _ = build(config)

    def follow(given, mask, noise):
        attention = nnx.merge(graph, given["weights"])
        keys, values, inside = (
            attention.prepare(given["memory"]),
            attention.values(given["memory"]),
            attention.step_weights(),
        )

        def attend(state, query):
            found = attention.attend(inside, state, query, keys, values, mask, noise)
            return found.state, (found.state, Said(found.context, found.alignment, found.heads))

        start = attention.start(keys, mask)
        _, (after, said) = jax.lax.scan(attend, start, given["queries"])
        return jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), start, after), said, keys

    compiled = oracles.compiled(follow)
    return lambda given, mask=MASK, noise=None: jax.tree.map(np.asarray, compiled(given, jnp.asarray(mask), noise))


def with_weights_of(config, given):
    """What is given, for another config: the weights that both know, and drawn ones for the others."""
    theirs, known = nnx.to_pure_dict(given["weights"]), {}
    ours = nnx.to_pure_dict(given_for(config)["weights"])
    for path, leaf in jax.tree_util.tree_leaves_with_path(ours):
        names = [entry.key for entry in path]
        part = functools.reduce(lambda tree, name: tree.get(name, {}), names, theirs)
        if not isinstance(part, dict) and part.shape == leaf.shape:
            known["__".join(names)] = part
    return {**given, "weights": put(given_for(config), **known)["weights"]}


def agrees(config, *, noise=None, attend=oracle_attention.attend, given=None):
    """Assert that values, and slopes along a drawn direction of each array given, are those of slow formulas.

    Returns:
        what was said.
    """
    given = given or given_for(config)
    said, gradient = looker(config)(given, noise=noise)
    drawn = None if noise is None else noises(config)
    precise = {**oracles.precise(given), "weights": oracles.precise(nnx.to_pure_dict(given["weights"]))}
    slow = functools.partial(slowly, attend, config, drawn)
    wanted = slow(precise)
    oracles.same((said.context, said.alignment), wanted[:2], tolerance=2e-5)
    oracles.same(said.heads, wanted[2], tolerance=2e-5)
    gradient = {**gradient, "weights": nnx.to_pure_dict(gradient["weights"])}
    along = oracles.precise(oracles.drawn(precise, seed=5, scale=1.0))
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(precise)]
    assert paths == [path for path, _ in jax.tree_util.tree_leaves_with_path(gradient)]
    for number, path in enumerate(paths):
        alone = only(along, number)
        slope = oracles.slope(lambda at: number_of(slow(at)), precise, alone)
        ours = oracles.along_gradient(gradient, alone)
        assert abs(ours - slope) <= 2e-4 * max(1.0, abs(slope)), (jax.tree_util.keystr(path), ours, slope)
    return said


def only(tree, number):
    """A tree with zeros in all leaves but one."""
    leaves, shape = jax.tree.flatten(tree)
    return jax.tree.unflatten(shape, [leaf * (place == number) for place, leaf in enumerate(leaves)])


def number_of(said):
    return sum((shares(leaf.shape) * leaf).sum() for leaf in said[:2])


def noises(config):
    """What the code documents to draw: a row's own key and the step's number say it, normal or Gumbel."""
    draw = jax.random.gumbel if config.normalizer == "gumbel-softmax" else jax.random.normal
    keys = [jax.random.wrap_key_data(jnp.asarray(key), impl="threefry2x32") for key in NOISE]
    drawn = [[draw(jax.random.fold_in(key, time), (SOURCE,)) for time in range(STEPS)] for key in keys]
    return np.asarray(drawn, np.float64)


def slowly(attend, config, drawn, given):
    """Contexts [T, B, V], alignments [T, B, S] and those of each head [T, B, N, S], zeros on padding."""
    rows, heads = [], []
    for row, length in enumerate(LENGTHS):
        noise = None if drawn is None else drawn[row, :, :length]
        queries, memory = given["queries"][:, row], given["memory"][row, :length]
        context, alignment = attend(given["weights"], config, queries, memory, noise) if length else (None, None)
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
