"""Is each score the formula of its paper? Values and whole gradients against oracles, and identities."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from flax import nnx

from s2s_jax.model.attention.config import AttentionConfig
from s2s_jax.model.attention.scores import SCORES
from s2s_jax.model.ops.matmul import matmul

BATCH, SOURCE, QUERY, MEMORY = 2, 3, 4, 5
CONFIG = AttentionConfig(size=6, positions=4)
BIASED = dataclasses.replace(CONFIG, bias=True)
ONE_SIZE = ("dot", "scaled-dot", "cosine", "linear")  # the query must be as wide as the memory
ADDITIVE = ("additive", "concat", "additive-layer-norm")  # a bias inside the tanh, where it is configured
STATELESS = sorted(name for name, score in SCORES.items() if not score.needs_history and not score.stateful)
OF_CONTENT = sorted(set(STATELESS) - {"location", "uniform"})
CASES = [(name, CONFIG) for name in STATELESS] + [(name, BIASED) for name in ADDITIVE]
NAMES = [name + "+bias" * config.bias for name, config in CASES]


@functools.cache
def inputs_for(name, config=CONFIG, *, memory=None, dtype=jnp.float32):
    """Scores and their whole gradient as one compiled function of the inputs; and drawn weights, query, memory."""
    memory = memory or (QUERY if name in ONE_SIZE else MEMORY)
    graph, weights = oracles.made(lambda rngs: SCORES[name](QUERY, memory, config, dtype=dtype, rngs=rngs), seed=1)
    arrays = {"query": np.zeros((BATCH, QUERY)), "memory": np.zeros((BATCH, SOURCE, memory))}
    coefficients = np.array(oracles.drawn(np.zeros((BATCH, SOURCE)), seed=3))

    def weighted_sum(inputs):
        scores = scored(graph, inputs)
        return (coefficients[: len(scores), : scores.shape[1]] * scores).sum(), scores

    compute = oracles.compiled(jax.grad(weighted_sum, has_aux=True))
    return lambda inputs: compute(inputs)[::-1], {"weights": weights, **oracles.drawn(arrays, seed=2)}


def scored(graph, inputs):
    score = nnx.merge(graph, inputs["weights"])
    keys, matrix = score.prepare(inputs["memory"]), score.query_projection()
    assert keys.shape[:2] == inputs["memory"].shape[:2]
    assert keys.ndim == 3
    scores = score(inputs["query"] if matrix is None else matmul(inputs["query"], matrix, score.dtype), keys)
    assert scores.dtype == jnp.float32
    return scores


def with_weights(inputs, **weights):
    """The inputs with other weights; the original ones are not changed."""
    changed = jax.tree.map(jnp.copy, inputs["weights"])
    for name, array in weights.items():
        assert changed[name].shape == np.shape(array)
        changed[name].set_value(jnp.asarray(array, jnp.float32))
    return {**inputs, "weights": changed}


def oracle(name, inputs):
    params = oracles.precise(nnx.to_pure_dict(inputs["weights"]))
    scores = np.zeros((BATCH, SOURCE))
    for row, token in np.ndindex(BATCH, SOURCE):
        scores[row, token] = oracles.SCORES[name](params, inputs["query"][row], inputs["memory"][row, token], token)
    return scores


def test_every_score_has_an_oracle():
    assert sorted(oracles.SCORES) == STATELESS


@pytest.mark.parametrize(("name", "config"), CASES, ids=NAMES)
def test_values_and_gradients_are_the_papers(name, config):
    compute, inputs = inputs_for(name, config)
    coefficients = np.array(oracles.drawn(np.zeros((BATCH, SOURCE)), seed=3))
    scores, gradient = compute(inputs)
    oracles.same(scores, oracle(name, oracles.precise(inputs)), tolerance=1e-5)
    oracles.same(
        gradient, oracles.gradient(lambda inputs: (coefficients * oracle(name, inputs)).sum(), inputs), tolerance=1e-4
    )


@pytest.mark.parametrize("name", ADDITIVE)
def test_a_bias_exists_only_where_it_is_configured(name):
    (without, with_bias) = (set(inputs_for(name, config)[1]["weights"]) for config in (CONFIG, BIASED))
    assert with_bias - without == {"bias"}


def test_scores_start_where_their_papers_do():
    ones, zeros = np.ones(6), np.zeros(6)
    expected = {
        ("cosine", "temperature"): 10.0,
        ("scaled-general", "gain"): 1.0,
        ("normalized-additive", "gain"): np.sqrt(1 / 6),
        ("additive-layer-norm", "query_gain"): ones,
        ("additive-layer-norm", "memory_gain"): ones,
        ("biaffine", "bias"): 0.0,
        ("linear", "bias"): 0.0,
        ("tanh-dot", "query_bias"): zeros,
        ("tanh-dot", "memory_bias"): zeros,
        ("normalized-additive", "bias"): zeros,
        **{(name, "bias"): zeros for name in ADDITIVE},
    }

    def start(name, weight):
        return getattr(SCORES[name](QUERY, QUERY, BIASED, dtype=jnp.float32, rngs=oracles.OneKey()), weight)[...]

    # in one program and with nothing drawn, since drawn values are not compared
    oracles.same(
        oracles.compiled(lambda: [start(*which) for which in expected])(), list(expected.values()), tolerance=1e-7
    )


def test_scaled_dot_is_dot_by_the_root_of_the_size():
    (compute, inputs), (of_scaled, _) = inputs_for("dot"), inputs_for("scaled-dot")
    oracles.same(of_scaled(inputs)[0], compute(inputs)[0] / 2.0, tolerance=1e-6)  # QUERY is 4


def test_general_with_the_identity_is_dot():
    (of_dot, inputs), (of_general, drawn) = inputs_for("dot"), inputs_for("general", memory=QUERY)
    oracles.same(of_general(with_weights(drawn, weight=np.eye(QUERY)))[0], of_dot(inputs)[0], tolerance=1e-6)


def test_scaled_general_is_general_by_its_scale():
    (of_general, inputs), (of_scaled, drawn) = inputs_for("general"), inputs_for("scaled-general")
    weight, expected = inputs["weights"]["weight"][...], of_general(inputs)[0]
    for gain in (1.0, -2.5):
        oracles.same(of_scaled(with_weights(drawn, weight=weight, gain=gain))[0], gain * expected, tolerance=1e-6)


def test_biaffine_without_its_linear_parts_is_general():
    (of_general, inputs), (of_biaffine, drawn) = inputs_for("general"), inputs_for("biaffine")
    bare = with_weights(
        drawn,
        weight=inputs["weights"]["weight"][...],
        query_kernel=np.zeros(QUERY),
        memory_kernel=np.zeros(MEMORY),
        bias=0.0,
    )
    oracles.same(of_biaffine(bare)[0], of_general(inputs)[0], tolerance=1e-6)


def test_linear_with_its_products_alone_is_dot():
    (of_dot, inputs), (of_linear, drawn) = inputs_for("dot"), inputs_for("linear")
    products = np.repeat([0.0, 0.0, 1.0, 0.0], QUERY)
    oracles.same(of_linear(with_weights(drawn, weight=products, bias=0.0))[0], of_dot(inputs)[0], tolerance=1e-6)


@pytest.mark.parametrize("config", [CONFIG, BIASED], ids=["", "+bias"])
def test_concat_is_additive_with_both_maps_in_one(config):
    (of_additive, inputs), (of_concat, drawn) = inputs_for("additive", config), inputs_for("concat", config)
    shared = {name: weight[...] for name, weight in inputs["weights"].items()}
    together = np.concatenate([shared.pop("query_kernel"), shared.pop("memory_kernel")])
    oracles.same(of_concat(with_weights(drawn, weight=together, **shared))[0], of_additive(inputs)[0], tolerance=1e-6)


def test_normalized_additive_does_not_depend_on_the_length_of_its_vector():
    compute, inputs = inputs_for("normalized-additive")
    vector = inputs["weights"]["vector"][...]
    oracles.same(compute(with_weights(inputs, vector=7 * vector))[0], compute(inputs)[0], tolerance=1e-6)
    length = np.sqrt((np.asarray(vector) ** 2).sum())
    of_additive, drawn = inputs_for("additive", BIASED)
    shared = {name: inputs["weights"][name][...] for name in drawn["weights"]}
    plain = of_additive(with_weights(drawn, **shared))[0]
    oracles.same(compute(with_weights(inputs, gain=length))[0], plain, tolerance=1e-5)


def test_layer_norm_does_not_depend_on_the_scale_of_either_projection():
    compute, inputs = inputs_for("additive-layer-norm")
    scaled = {name: 7 * inputs["weights"][name][...] for name in ("query_kernel", "memory_kernel")}
    oracles.same(compute(with_weights(inputs, **scaled))[0], compute(inputs)[0], tolerance=1e-5)


def test_cosine_stays_within_its_temperature_and_reaches_it():
    compute, inputs = inputs_for("cosine")
    along = inputs["query"][:, None] * np.array([1e-2, -3.0, 50.0], np.float32)[None, :, None]
    scores, _ = compute({**with_weights(inputs, temperature=10.0), "memory": along})
    oracles.same(scores, np.full((BATCH, SOURCE), [10.0, -10.0, 10.0]), tolerance=0.01)
    oracles.same(scores[:, 1:], np.full((BATCH, 2), [-10.0, 10.0]), tolerance=1e-5)
    for scale in (1e-3, 1.0, 1e4):
        scores, _ = compute({**with_weights(inputs, temperature=10.0), "query": scale * inputs["query"]})
        assert np.abs(scores).max() <= 10.0
    assert np.abs(compute({**with_weights(inputs, temperature=10.0), "memory": along})[0]).max() <= 10.0 * (1 + 1e-6)


def test_a_source_with_more_tokens_than_positions_is_refused():
    compute, inputs = inputs_for("location")
    longest = {**inputs, "memory": jnp.zeros((BATCH, 5, MEMORY))}
    with pytest.raises(ValueError, match="model.attention.positions") as refusal:
        jax.eval_shape(compute, longest)
    assert str(refusal.value) == (
        "model.attention.positions must be at least 5, because model.attention.score=location reads sources padded to "
        "5 tokens, got 4; use --model.attention.positions 5, or leave longer sources out."
    )


@pytest.mark.parametrize("name", STATELESS)
def test_padding_of_the_memory_and_neighbors_change_no_score(name):
    compute, inputs = inputs_for(name)
    alone = {**inputs, "query": inputs["query"][:1], "memory": inputs["memory"][:1, :2]}
    oracles.same(compute(alone)[0], np.asarray(compute(inputs)[0])[:1, :2], tolerance=1e-6)


@pytest.mark.parametrize("name", OF_CONTENT)
def test_scores_are_equivariant_under_permutations_of_tokens(name):
    compute, inputs = inputs_for(name)
    order = np.array([2, 0, 1])
    scores, _ = compute(inputs)
    assert np.abs(np.diff(scores)).min() > 1e-3  # or nothing would be seen to move
    oracles.same(compute({**inputs, "memory": inputs["memory"][:, order]})[0], scores[:, order], tolerance=1e-6)


def test_location_ignores_the_content_of_the_tokens():
    compute, inputs = inputs_for("location")
    scores, gradient = compute(inputs)
    np.testing.assert_array_equal(compute({**inputs, "memory": 7 * inputs["memory"]})[0], scores)
    np.testing.assert_array_equal(gradient["memory"], 0.0)


@pytest.mark.parametrize("name", STATELESS)
def test_huge_queries_and_zero_vectors_stay_finite_with_their_gradients(name):
    compute, inputs = inputs_for(name)
    query = inputs["query"] / np.linalg.norm(inputs["query"], axis=-1, keepdims=True)
    silent = {"query": query.at[0].set(0.0), "memory": inputs["memory"].at[:, 0].set(0.0)}
    for vectors in ({"query": 1e4 * query}, silent):
        hard = {**inputs, **vectors}
        outputs = compute(hard)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(outputs))
        oracles.same(outputs[0], oracle(name, oracles.precise(hard)), tolerance=1e-5)


@pytest.mark.parametrize(("name", "config"), CASES, ids=NAMES)
def test_bfloat16_is_float32_to_its_precision(name, config):
    (exact, inputs), (rounded, _) = inputs_for(name, config), inputs_for(name, config, dtype=jnp.bfloat16)
    exact, rounded = exact(inputs), rounded(inputs)
    oracles.same(rounded, exact, tolerance=0.02)  # factors are off by 0.4 % at most
    assert np.abs(rounded[0] - exact[0]).max() > 1e-6 or name == "uniform"  # rounded they were
