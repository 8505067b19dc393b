"""Do the weights of attention add up, leave padding out exactly, and stay finite where nothing is left?"""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from flax import nnx

from s2s_jax.model.attention.attention import Attention, NoAttention
from s2s_jax.model.attention.config import AttentionConfig
from s2s_jax.model.attention.heads import build_attention
from s2s_jax.model.attention.normalizers import softmax
from s2s_jax.model.attention.scores import SCORES

LENGTHS, SOURCE, WIDTH, SIZE = (4, 2, 0), 4, 3, 5
MASK = np.arange(SOURCE) < np.array(LENGTHS)[:, None]


def given_for(name):
    """The graph of an attention; and drawn weights, query and memory, whose padding is far from zero."""
    config = AttentionConfig(score=name, size=SIZE)
    graph, weights = oracles.made(
        lambda rngs: build_attention(config, WIDTH, WIDTH, dtype=jnp.float32, rngs=rngs), seed=1
    )
    arrays = {"query": np.zeros((len(LENGTHS), WIDTH)), "memory": np.zeros((len(LENGTHS), SOURCE, WIDTH))}
    return graph, {"weights": weights, **oracles.drawn(arrays, seed=2, scale=1.0)}


def attended(graph, given, mask=MASK):
    """Context and alignment."""
    attention, mask = nnx.merge(graph, given["weights"]), jnp.asarray(mask)
    keys = attention.prepare(given["memory"])
    state = attention.start(keys, mask)
    values = attention.values(given["memory"])
    found = attention.attend(attention.step_weights(), state, given["query"], keys, values, mask)
    return found.context, found.alignment


def weighed(graph, given, mask=MASK):
    """A number to differentiate that hangs on every context and every weight, and what it was made of."""
    context, alignment = attended(graph, given, mask)
    shares = jnp.arange(1.0, SOURCE + 1)[None]
    return (context**2).sum() + (shares * alignment).sum(), (context, alignment)


@pytest.fixture(scope="module", params=sorted(oracles.SCORES))
def looked(request):
    """A score, and value and gradient of attention by it as one compiled function of what is given and the mask."""
    graph, given = given_for(request.param)
    look = oracles.compiled(jax.value_and_grad(lambda given, mask: weighed(graph, given, mask), has_aux=True))
    return request.param, given, look


def looking(look, given, mask=MASK):
    (_, (context, alignment)), gradient = look(given, jnp.asarray(mask))
    return np.asarray(context), np.asarray(alignment), gradient


def test_the_context_is_the_weighted_average_of_real_tokens(looked):
    name, given, look = looked
    context, alignment, _ = looking(look, given)
    score = oracles.precise(nnx.to_pure_dict(given["weights"])).get("score", {})
    for row, length in enumerate(LENGTHS):
        query, memory = (np.asarray(given[part][row], np.float64) for part in ("query", "memory"))
        wanted, weights = oracles.attend(score, name, query, memory[:length])
        oracles.same((context[row], alignment[row, :length]), (wanted, weights), tolerance=1e-5)


def test_weights_sum_to_one_on_real_tokens_and_are_exactly_zero_on_padding(looked):
    _, given, look = looked
    _, alignment, _ = looking(look, given)
    np.testing.assert_allclose(alignment.sum(-1), [1, 1, 0], atol=1e-6)
    assert (alignment[MASK] > 0).all()
    np.testing.assert_array_equal(alignment[~MASK], 0.0)


def test_a_sentence_without_tokens_gives_zeros_forward_and_backward(looked):
    _, given, look = looked
    context, alignment, gradient = looking(look, given)
    np.testing.assert_array_equal(context[2], 0.0)
    np.testing.assert_array_equal(alignment[2], 0.0)
    for part in ("query", "memory"):
        np.testing.assert_array_equal(gradient[part][2], 0.0)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    assert np.abs(gradient["query"][:2]).max() > 1e-3


def test_what_stands_on_padding_reaches_neither_value_nor_gradient(looked):
    _, given, look = looked
    nonsense = {**given, "memory": jnp.where(MASK[..., None], given["memory"], 1e4)}
    oracles.same(looking(look, nonsense), looking(look, given), tolerance=0)
    *_, gradient = looking(look, nonsense)
    np.testing.assert_array_equal(np.asarray(gradient["memory"])[~MASK], 0.0)


def test_huge_scores_stay_finite(looked):
    name, given, look = looked
    score = nnx.to_pure_dict(given["weights"]).get("score", {})
    huge = {**given, "query": given["query"] * 1e4}  # q . k is as large as q
    if loud := score.keys() & {"vector", "gain", "temperature"}:  # v . tanh(...) is as large as v, or as its gain
        huge = {**given, "weights": jax.tree.map(jnp.copy, given["weights"])}
        for weight in loud:
            huge["weights"]["score"][weight].set_value(score[weight] * 1e4)
    context, alignment, gradient = looking(look, huge)
    np.testing.assert_allclose(alignment.sum(-1), [1, 1, 0], atol=1e-6)
    assert alignment.max() > 0.999 or name == "tanh-dot"  # the scores were huge indeed; tanh . tanh cannot be
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((context, gradient)))


def test_attention_follows_its_tokens_when_they_change_places(looked):
    name, given, look = looked
    if name == "location":
        pytest.skip("location looks at places, not at tokens")
    order = np.array([2, 0, 3, 1])
    context, alignment, _ = looking(look, given)
    turned = {**given, "memory": given["memory"][:, order]}
    oracles.same(looking(look, turned, MASK[:, order])[:2], (context, alignment[:, order]), tolerance=1e-6)


def test_softmax_by_hand():
    scores = jnp.array([[0.0, np.log(3.0), 50.0], [1e4, -1e4, 1e4], [-1e9, -1e9, 0.0], [7.0, 7.0, 7.0]], jnp.float32)
    mask = jnp.array([[True, True, False], [True, True, True], [True, True, False], [False, False, False]])
    wanted = [[0.25, 0.75, 0], [0.5, 0, 0.5], [0.5, 0.5, 0], [0, 0, 0]]
    oracles.same(oracles.compiled(softmax)(scores, mask), np.array(wanted), tolerance=1e-6)


def test_no_attention_sees_nothing():
    graph, given = given_for("none")
    assert isinstance(nnx.merge(graph, given["weights"]), NoAttention)
    assert not jax.tree.leaves(given["weights"])
    context, alignment = oracles.compiled(lambda given: attended(graph, given))(given)
    assert context.shape == (3, 0)
    np.testing.assert_array_equal(alignment, np.zeros((3, SOURCE)))


def test_every_score_can_be_asked_for_by_name():
    for name in sorted(oracles.SCORES):
        graph, given = given_for(name)
        attention = nnx.merge(graph, given["weights"])
        assert isinstance(attention, Attention)
        assert type(attention.score) is SCORES[name]
