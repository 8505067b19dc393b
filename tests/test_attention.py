"""Do attention weights sum to 1, leave out padding exactly, and stay finite without any token?"""

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
from s2s_jax.model.decoder.config import DecoderConfig
from s2s_jax.model.encoder import EncoderConfig
from s2s_jax.model.seq2seq import ModelConfig, build

LENGTHS, SOURCE, WIDTH, SIZE = (4, 2, 0), 4, 3, 5
MASK = np.arange(SOURCE) < np.array(LENGTHS)[:, None]


def inputs_for(name):
    """The graph of an attention; and drawn weights, query and memory, whose padding is far from zero."""
    config = AttentionConfig(score=name, size=SIZE)
    graph, weights = oracles.made(
        lambda rngs: build_attention(config, WIDTH, WIDTH, dtype=jnp.float32, rngs=rngs), seed=1
    )
    arrays = {"query": np.zeros((len(LENGTHS), WIDTH)), "memory": np.zeros((len(LENGTHS), SOURCE, WIDTH))}
    return graph, {"weights": weights, **oracles.drawn(arrays, seed=2, scale=1.0)}


def attended(graph, inputs, mask=MASK):
    """Context and alignment."""
    attention, mask = nnx.merge(graph, inputs["weights"]), jnp.asarray(mask)
    keys = attention.prepare(inputs["memory"])
    state = attention.start(keys, mask)
    values = attention.values(inputs["memory"])
    output = attention.attend(attention.step_weights(), state, inputs["query"], keys, values, mask)
    return output.context, output.alignment


def weighted_sum(graph, inputs, mask=MASK):
    """A number that depends on every context and every weight, and both."""
    context, alignment = attended(graph, inputs, mask)
    coefficients = jnp.arange(1.0, SOURCE + 1)[None]
    return (context**2).sum() + (coefficients * alignment).sum(), (context, alignment)


@pytest.fixture(scope="module", params=sorted(oracles.SCORES))
def case(request):
    """A score, its inputs, and value and gradient of attention with it as one compiled function of inputs and mask."""
    graph, inputs = inputs_for(request.param)
    compute = oracles.compiled(jax.value_and_grad(lambda inputs, mask: weighted_sum(graph, inputs, mask), has_aux=True))
    return request.param, inputs, compute


def run(compute, inputs, mask=MASK):
    (_, (context, alignment)), gradient = compute(inputs, jnp.asarray(mask))
    return np.asarray(context), np.asarray(alignment), gradient


def test_the_context_is_the_weighted_average_of_real_tokens(case):
    name, inputs, compute = case
    context, alignment, _ = run(compute, inputs)
    score = oracles.precise(nnx.to_pure_dict(inputs["weights"])).get("score", {})
    for row, length in enumerate(LENGTHS):
        query, memory = (np.asarray(inputs[part][row], np.float64) for part in ("query", "memory"))
        expected, weights = oracles.attend(score, name, query, memory[:length])
        oracles.same((context[row], alignment[row, :length]), (expected, weights), tolerance=1e-5)


def test_weights_sum_to_one_on_real_tokens_and_are_exactly_zero_on_padding(case):
    _, inputs, compute = case
    _, alignment, _ = run(compute, inputs)
    np.testing.assert_allclose(alignment.sum(-1), [1, 1, 0], atol=1e-6)
    assert (alignment[MASK] > 0).all()
    np.testing.assert_array_equal(alignment[~MASK], 0.0)


def test_a_sentence_without_tokens_gives_zeros_forward_and_backward(case):
    name, inputs, compute = case
    context, alignment, gradient = run(compute, inputs)
    np.testing.assert_array_equal(context[2], 0.0)
    np.testing.assert_array_equal(alignment[2], 0.0)
    for part in ("query", "memory"):
        np.testing.assert_array_equal(gradient[part][2], 0.0)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    assert np.abs(gradient["query"][:2]).max() > 1e-3 or name == "uniform"


def test_values_on_padding_affect_neither_result_nor_gradient(case):
    _, inputs, compute = case
    nonsense = {**inputs, "memory": jnp.where(MASK[..., None], inputs["memory"], 1e4)}
    oracles.same(run(compute, nonsense), run(compute, inputs), tolerance=0)
    *_, gradient = run(compute, nonsense)
    np.testing.assert_array_equal(np.asarray(gradient["memory"])[~MASK], 0.0)


def test_huge_scores_stay_finite(case):
    name, inputs, compute = case
    score = nnx.to_pure_dict(inputs["weights"]).get("score", {})
    large = {**inputs, "query": inputs["query"] * 1e4}  # q . k is as large as q
    if scaled := score.keys() & {"vector", "gain", "temperature"}:  # v . tanh(...) is as large as v, or as its gain
        large = {**inputs, "weights": jax.tree.map(jnp.copy, inputs["weights"])}
        for weight in scaled:
            large["weights"]["score"][weight].set_value(score[weight] * 1e4)
    context, alignment, gradient = run(compute, large)
    np.testing.assert_allclose(alignment.sum(-1), [1, 1, 0], atol=1e-6)
    assert alignment.max() > 0.999 or name in ("tanh-dot", "uniform")  # the scores were large indeed, or cannot be
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((context, gradient)))


def test_attention_is_equivariant_under_permutations_of_tokens(case):
    name, inputs, compute = case
    if name == "location":
        pytest.skip("location looks at positions, not at tokens")
    order = np.array([2, 0, 3, 1])
    context, alignment, _ = run(compute, inputs)
    permuted = {**inputs, "memory": inputs["memory"][:, order]}
    oracles.same(run(compute, permuted, MASK[:, order])[:2], (context, alignment[:, order]), tolerance=1e-6)


def test_softmax_by_hand():
    scores = jnp.array([[0.0, np.log(3.0), 50.0], [1e4, -1e4, 1e4], [-1e9, -1e9, 0.0], [7.0, 7.0, 7.0]], jnp.float32)
    mask = jnp.array([[True, True, False], [True, True, True], [True, True, False], [False, False, False]])
    expected = [[0.25, 0.75, 0], [0.5, 0, 0.5], [0.5, 0.5, 0], [0, 0, 0]]
    oracles.same(oracles.compiled(softmax)(scores, mask), np.array(expected), tolerance=1e-6)


def test_the_last_state_is_the_context_of_every_step():
    """That of the encoder's top layer, all directions: the backward one ends at the first token."""
    attention, decoder = AttentionConfig(score="last-state"), DecoderConfig(cell="gru", size=4, architecture="gnmt")
    config = ModelConfig(embedding=3, encoder=EncoderConfig(size=2), attention=attention, decoder=decoder)
    model = build(config, source_vocabulary=8, target_vocabulary=8)
    params = oracles.drawn(jax.eval_shape(model.init, jax.random.key(0)), seed=1)

    @oracles.compiled
    def outputs(params):
        memory, state = model.encode(params, jnp.array([[4, 5, 2], [6, 2, 0]]))
        return model.unroll(params, memory, state, jnp.array([[1, 4], [1, 7]]))[1]

    output = outputs(params)
    for row, source in enumerate(([4, 5, 2], [6, 2])):
        embedded = oracles.precise(params["embedding"])[source]
        _, ends = oracles.encode(oracles.precise(params["encoder"]), config.encoder, embedded)
        oracles.same(output.context[row], np.stack([ends[-1][0]] * 2), tolerance=1e-5)
    np.testing.assert_array_equal(output.alignment, 0.0)


def test_no_attention_has_an_empty_context():
    graph, inputs = inputs_for("none")
    assert isinstance(nnx.merge(graph, inputs["weights"]), NoAttention)
    assert not jax.tree.leaves(inputs["weights"])
    context, alignment = oracles.compiled(lambda inputs: attended(graph, inputs))(inputs)
    assert context.shape == (3, 0)
    np.testing.assert_array_equal(alignment, np.zeros((3, SOURCE)))


def test_every_score_can_be_built_by_name():
    for name in sorted(oracles.SCORES):
        graph, inputs = inputs_for(name)
        attention = nnx.merge(graph, inputs["weights"])
        assert isinstance(attention, Attention)
        assert type(attention.score) is SCORES[name]
