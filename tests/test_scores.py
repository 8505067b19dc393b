"""Is each score the formula of its paper? Values and whole gradients against oracles, and what the formulas share."""

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
ADDITIVE = ("additive", "concat", "additive-layer-norm")  # a bias inside the tanh, where it is asked for
STATELESS = sorted(name for name, score in SCORES.items() if not score.needs_history and not score.stateful)
OF_CONTENT = sorted(set(STATELESS) - {"location"})
CASES = [(name, CONFIG) for name in STATELESS] + [(name, BIASED) for name in ADDITIVE]
NAMES = [name + "+bias" * config.bias for name, config in CASES]


@functools.cache
def given_for(name, config=CONFIG, *, memory=None, dtype=jnp.float32):
    """Scores and their whole gradient as one compiled function of what is given; and drawn weights, query, memory."""
    memory = memory or (QUERY if name in ONE_SIZE else MEMORY)
    graph, weights = oracles.made(lambda rngs: SCORES[name](QUERY, memory, config, dtype=dtype, rngs=rngs), seed=1)
    arrays = {"query": np.zeros((BATCH, QUERY)), "memory": np.zeros((BATCH, SOURCE, memory))}
    shares = np.array(oracles.drawn(np.zeros((BATCH, SOURCE)), seed=3))

    def weighed(given):
        scores = scored(graph, given)
        return (shares[: len(scores), : scores.shape[1]] * scores).sum(), scores

    look = oracles.compiled(jax.grad(weighed, has_aux=True))
    return lambda given: look(given)[::-1], {"weights": weights, **oracles.drawn(arrays, seed=2)}


def scored(graph, given):
    score = nnx.merge(graph, given["weights"])
    keys, matrix = score.prepare(given["memory"]), score.query_projection()
    assert keys.shape[:2] == given["memory"].shape[:2]
    assert keys.ndim == 3
    scores = score(given["query"] if matrix is None else matmul(given["query"], matrix, score.dtype), keys)
    assert scores.dtype == jnp.float32
    return scores


def put(given, **weights):
    """What is given, with other weights; the drawn ones are left as they are."""
    changed = jax.tree.map(jnp.copy, given["weights"])
    for name, array in weights.items():
        assert changed[name].shape == np.shape(array)
        changed[name].set_value(jnp.asarray(array, jnp.float32))
    return {**given, "weights": changed}


def oracle(name, given):
    params = oracles.precise(nnx.to_pure_dict(given["weights"]))
    scores = np.zeros((BATCH, SOURCE))
    for row, token in np.ndindex(BATCH, SOURCE):
        scores[row, token] = oracles.SCORES[name](params, given["query"][row], given["memory"][row, token], token)
    return scores


def test_every_score_has_an_oracle():
    assert sorted(oracles.SCORES) == STATELESS


@pytest.mark.parametrize(("name", "config"), CASES, ids=NAMES)
def test_values_and_gradients_are_the_papers(name, config):
    look, given = given_for(name, config)
    shares = np.array(oracles.drawn(np.zeros((BATCH, SOURCE)), seed=3))
    scores, gradient = look(given)
    oracles.same(scores, oracle(name, oracles.precise(given)), tolerance=1e-5)
    oracles.same(gradient, oracles.gradient(lambda given: (shares * oracle(name, given)).sum(), given), tolerance=1e-4)


@pytest.mark.parametrize("name", ADDITIVE)
def test_a_bias_is_there_only_where_it_is_asked_for(name):
    (without, with_bias) = (set(given_for(name, config)[1]["weights"]) for config in (CONFIG, BIASED))
    assert with_bias - without == {"bias"}


def test_scores_start_where_their_papers_do():
    ones, zeros = np.ones(6), np.zeros(6)
    wanted = {
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

    # in one program and with nothing drawn: what is drawn is not asked for
    oracles.same(oracles.compiled(lambda: [start(*which) for which in wanted])(), list(wanted.values()), tolerance=1e-7)


def test_scaled_dot_is_dot_by_the_root_of_the_size():
    (look, given), (of_scaled, _) = given_for("dot"), given_for("scaled-dot")
    oracles.same(of_scaled(given)[0], look(given)[0] / 2.0, tolerance=1e-6)  # QUERY is 4


def test_general_with_the_identity_is_dot():
    (of_dot, given), (of_general, drawn) = given_for("dot"), given_for("general", memory=QUERY)
    oracles.same(of_general(put(drawn, weight=np.eye(QUERY)))[0], of_dot(given)[0], tolerance=1e-6)


def test_scaled_general_is_general_by_its_scale():
    (of_general, given), (of_scaled, drawn) = given_for("general"), given_for("scaled-general")
    weight, wanted = given["weights"]["weight"][...], of_general(given)[0]
    for gain in (1.0, -2.5):
        oracles.same(of_scaled(put(drawn, weight=weight, gain=gain))[0], gain * wanted, tolerance=1e-6)


def test_biaffine_without_its_linear_parts_is_general():
    (of_general, given), (of_biaffine, drawn) = given_for("general"), given_for("biaffine")
    bare = put(
        drawn,
        weight=given["weights"]["weight"][...],
        query_kernel=np.zeros(QUERY),
        memory_kernel=np.zeros(MEMORY),
        bias=0.0,
    )
    oracles.same(of_biaffine(bare)[0], of_general(given)[0], tolerance=1e-6)


def test_linear_with_its_products_alone_is_dot():
    (of_dot, given), (of_linear, drawn) = given_for("dot"), given_for("linear")
    products = np.repeat([0.0, 0.0, 1.0, 0.0], QUERY)
    oracles.same(of_linear(put(drawn, weight=products, bias=0.0))[0], of_dot(given)[0], tolerance=1e-6)


@pytest.mark.parametrize("config", [CONFIG, BIASED], ids=["", "+bias"])
def test_concat_is_additive_with_both_maps_in_one(config):
    (of_additive, given), (of_concat, drawn) = given_for("additive", config), given_for("concat", config)
    shared = {name: weight[...] for name, weight in given["weights"].items()}
    together = np.concatenate([shared.pop("query_kernel"), shared.pop("memory_kernel")])
    oracles.same(of_concat(put(drawn, weight=together, **shared))[0], of_additive(given)[0], tolerance=1e-6)


def test_normalized_additive_does_not_feel_the_length_of_its_vector():
    look, given = given_for("normalized-additive")
    vector = given["weights"]["vector"][...]
    oracles.same(look(put(given, vector=7 * vector))[0], look(given)[0], tolerance=1e-6)
    length = np.sqrt((np.asarray(vector) ** 2).sum())
    of_additive, drawn = given_for("additive", BIASED)
    shared = {name: given["weights"][name][...] for name in drawn["weights"]}
    plain = of_additive(put(drawn, **shared))[0]
    oracles.same(look(put(given, gain=length))[0], plain, tolerance=1e-5)


def test_layer_norm_does_not_feel_how_loud_either_share_is():
    look, given = given_for("additive-layer-norm")
    louder = {name: 7 * given["weights"][name][...] for name in ("query_kernel", "memory_kernel")}
    oracles.same(look(put(given, **louder))[0], look(given)[0], tolerance=1e-5)


def test_cosine_stays_within_its_temperature_and_reaches_it():
    look, given = given_for("cosine")
    along = given["query"][:, None] * np.array([1e-2, -3.0, 50.0], np.float32)[None, :, None]
    scores, _ = look({**put(given, temperature=10.0), "memory": along})
    oracles.same(scores, np.full((BATCH, SOURCE), [10.0, -10.0, 10.0]), tolerance=0.01)
    oracles.same(scores[:, 1:], np.full((BATCH, 2), [-10.0, 10.0]), tolerance=1e-5)
    for scale in (1e-3, 1.0, 1e4):
        scores, _ = look({**put(given, temperature=10.0), "query": scale * given["query"]})
        assert np.abs(scores).max() <= 10.0
    assert np.abs(look({**put(given, temperature=10.0), "memory": along})[0]).max() <= 10.0 * (1 + 1e-6)


@pytest.mark.parametrize("name", ONE_SIZE)
def test_a_dot_product_of_different_sizes_is_refused(name):
    with pytest.raises(ValueError, match="score=") as refusal:
        given_for(name, memory=MEMORY)
    assert str(refusal.value) == (
        f"score='{name}' needs query and memory of one size, got query 4 and memory 5; "
        "use score='general', which learns the map between them."
    )


def test_a_source_with_more_tokens_than_positions_is_refused():
    look, given = given_for("location")
    longest = {**given, "memory": jnp.zeros((BATCH, 5, MEMORY))}
    with pytest.raises(ValueError, match="model.attention.positions") as refusal:
        jax.eval_shape(look, longest)
    assert str(refusal.value) == (
        "model.attention.positions must be at least 5 for score='location' to read sources padded to 5 tokens, got 4; "
        "raise it, or leave longer sources out."
    )


@pytest.mark.parametrize("name", STATELESS)
def test_padding_of_the_memory_and_neighbors_change_no_score(name):
    look, given = given_for(name)
    alone = {**given, "query": given["query"][:1], "memory": given["memory"][:1, :2]}
    oracles.same(look(alone)[0], np.asarray(look(given)[0])[:1, :2], tolerance=1e-6)


@pytest.mark.parametrize("name", OF_CONTENT)
def test_scores_follow_their_tokens_when_they_change_places(name):
    look, given = given_for(name)
    order = np.array([2, 0, 1])
    scores, _ = look(given)
    assert np.abs(np.diff(scores)).min() > 1e-3  # or nothing would be seen to move
    oracles.same(look({**given, "memory": given["memory"][:, order]})[0], scores[:, order], tolerance=1e-6)


def test_location_does_not_hear_what_the_tokens_say():
    look, given = given_for("location")
    scores, gradient = look(given)
    np.testing.assert_array_equal(look({**given, "memory": 7 * given["memory"]})[0], scores)
    np.testing.assert_array_equal(gradient["memory"], 0.0)


@pytest.mark.parametrize("name", STATELESS)
def test_huge_queries_and_zero_vectors_stay_finite_with_their_gradients(name):
    look, given = given_for(name)
    query = given["query"] / np.linalg.norm(given["query"], axis=-1, keepdims=True)
    silent = {"query": query.at[0].set(0.0), "memory": given["memory"].at[:, 0].set(0.0)}
    for vectors in ({"query": 1e4 * query}, silent):
        hard = {**given, **vectors}
        said = look(hard)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(said))
        oracles.same(said[0], oracle(name, oracles.precise(hard)), tolerance=1e-5)


@pytest.mark.parametrize(("name", "config"), CASES, ids=NAMES)
def test_bfloat16_is_float32_to_its_precision(name, config):
    (exact, given), (rounded, _) = given_for(name, config), given_for(name, config, dtype=jnp.bfloat16)
    exact, rounded = exact(given), rounded(given)
    oracles.same(rounded, exact, tolerance=0.02)  # factors are off by 0.4 % at most
    assert np.abs(rounded[0] - exact[0]).max() > 1e-6  # rounded they were
