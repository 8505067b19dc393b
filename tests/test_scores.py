"""Is each score the formula of its paper? Values and whole gradients against oracles, and what the formulas share."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from flax import nnx

from s2s_jax.model.attention_config import AttentionConfig
from s2s_jax.model.scores import SCORES

BATCH, SOURCE, QUERY, MEMORY = 2, 3, 4, 5
CONFIG = AttentionConfig(size=6)
ONE_SIZE = ("dot", "scaled-dot")  # the query must be as wide as the memory


def given_for(name, *, memory=None, seed=1):
    """The graph of a score; and drawn weights, query and memory."""
    memory = memory or (QUERY if name in ONE_SIZE else MEMORY)
    graph, weights = oracles.made(
        lambda rngs: SCORES[name](QUERY, memory, CONFIG, dtype=jnp.float32, rngs=rngs), seed=seed
    )
    arrays = {"query": np.zeros((BATCH, QUERY)), "memory": np.zeros((BATCH, SOURCE, memory))}
    return graph, {"weights": weights, **oracles.drawn(arrays, seed=2)}


def scored(graph, given):
    score = nnx.merge(graph, given["weights"])
    matrix = score.asking()
    return score(given["query"] if matrix is None else given["query"] @ matrix, score.prepare(given["memory"]))


def oracle(name, given):
    params = oracles.precise(nnx.to_pure_dict(given["weights"]))
    scores = np.zeros((BATCH, SOURCE))
    for row, token in np.ndindex(BATCH, SOURCE):
        scores[row, token] = oracles.SCORES[name](params, given["query"][row], given["memory"][row, token])
    return scores


def test_every_score_has_an_oracle():
    assert set(oracles.SCORES) == set(SCORES)


@pytest.mark.parametrize("name", sorted(oracles.SCORES))
def test_values_and_gradients_are_the_papers(name):
    graph, given = given_for(name)
    shares = np.array(oracles.drawn(np.zeros((BATCH, SOURCE)), seed=3))

    def weighed(given):
        scores = scored(graph, given)
        return (shares * scores).sum(), scores

    gradient, ours = oracles.compiled(jax.grad(weighed, has_aux=True))(given)
    oracles.same(ours, oracle(name, oracles.precise(given)), tolerance=1e-5)
    oracles.same(gradient, oracles.gradient(lambda given: (shares * oracle(name, given)).sum(), given), tolerance=1e-4)


def test_scaled_dot_is_dot_by_the_root_of_the_size():
    graph, given = given_for("dot")
    scaled, _ = given_for("scaled-dot")
    both = oracles.compiled(lambda given: (scored(graph, given) / np.float32(2.0), scored(scaled, given)))(given)
    oracles.same(*both, tolerance=1e-6)  # QUERY is 4


def test_general_with_the_identity_is_dot():
    dot, given = given_for("dot")
    general, of_general = given_for("general", memory=QUERY)
    of_general["weights"]["weight"].set_value(jnp.eye(QUERY))
    both = oracles.compiled(lambda *givens: (scored(general, givens[0]), scored(dot, givens[1])))(of_general, given)
    oracles.same(*both, tolerance=1e-6)


def test_concat_is_additive_with_both_maps_in_one():
    additive, given = given_for("additive")
    concat, of_concat = given_for("concat")
    weights = given["weights"]
    together = np.concatenate([weights["of_query"][...], weights["of_memory"][...]])
    of_concat["weights"]["weight"].set_value(jnp.asarray(together))
    of_concat["weights"]["vector"].set_value(weights["vector"][...])
    both = oracles.compiled(lambda *givens: (scored(concat, givens[0]), scored(additive, givens[1])))(of_concat, given)
    oracles.same(*both, tolerance=1e-6)


@pytest.mark.parametrize("name", ONE_SIZE)
def test_a_dot_product_of_different_sizes_is_refused(name):
    with pytest.raises(ValueError, match="score=") as refusal:
        given_for(name, memory=MEMORY)
    assert str(refusal.value) == (
        f"score='{name}' needs query and memory of one size, got query 4 and memory 5; "
        "use score='general', which learns the map between them."
    )


@pytest.mark.parametrize("name", sorted(SCORES))
def test_padding_of_the_memory_and_neighbours_change_no_score(name):
    graph, given = given_for(name)
    alone = {**given, "query": given["query"][:1], "memory": given["memory"][:1, :2]}
    whole, part = oracles.compiled(lambda *givens: [scored(graph, given) for given in givens])(given, alone)
    oracles.same(part, np.asarray(whole)[:1, :2], tolerance=1e-6)
