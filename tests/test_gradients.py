"""Are the gradients by the source tokens those of small changes, and is what is taken away what is missed?"""

import dataclasses
import functools

import fake
import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from scipy.stats import kendalltau

from s2s_jax.decode.forced_decoding import forced_decoding
from s2s_jax.evaluate.attention_agreement import measure_agreement
from s2s_jax.evaluate.gradients import QUANTITIES, gradient_norms, log_odds, occlusion, saliency
from s2s_jax.model.attention.config import AttentionConfig
from s2s_jax.model.decoder.config import DecoderConfig
from s2s_jax.model.encoder import EncoderConfig
from s2s_jax.model.interface import unroll_targets
from s2s_jax.model.seq2seq import ModelConfig, build
from s2s_jax.shapes import EOS, PAD, UNK, Batch

BATCH = Batch(jnp.array([[4, 5, 6, EOS], [7, EOS, PAD, PAD]]), jnp.array([[4, 5, EOS], [8, EOS, PAD]]))
REAL = np.asarray(BATCH.target != PAD)[:, :, None] & np.asarray(BATCH.source != PAD)[:, None]
CONFIG = ModelConfig(
    embedding=3,
    encoder=EncoderConfig(cell="gru", size=2, bidirectional=False),
    attention=AttentionConfig(score="general"),
    decoder=DecoderConfig(cell="gru", size=3, input_feeding=False),
)


@pytest.fixture(scope="module")
def results():
    """A drawn model, and all matrices of it from one compilation."""
    model = build(CONFIG, source_vocabulary=8, target_vocabulary=9)
    params = oracles.drawn(jax.eval_shape(model.init, jax.random.key(0)), seed=1)

    def tell(params):
        gradients = {
            (of, by.__name__): by(model, params, BATCH, of=of) for of in QUANTITIES for by in (gradient_norms, saliency)
        }
        falls = {
            replacement: occlusion(model, params, BATCH, replacement=replacement) for replacement in ("unknown", "zero")
        }
        return gradients, falls

    return model, params, *jax.tree.map(np.asarray, oracles.compiled(tell)(params))


def numbers(model, params, embedded, of):
    """[B, T] with other embeddings read."""
    encode = lambda params, source, key=None: model.encode_embedded(params, source, embedded, key)  # noqa: E731
    return QUANTITIES[of](unroll_targets(dataclasses.replace(model, encode=encode), params, BATCH).logits, BATCH.target)


@pytest.mark.parametrize("of", sorted(QUANTITIES))
def test_gradients_are_those_of_small_changes(results, of):
    model, params, gradients, _ = results
    embedded, step = np.asarray(model.embed(params, BATCH.source)), 5e-3
    shifts = step * np.eye(embedded[0].size, dtype=np.float32).reshape(-1, 1, *embedded[0].shape)
    changed = oracles.compiled(jax.vmap(lambda shift: numbers(model, params, embedded + shift, of)))
    by_entry = (np.asarray(changed(shifts), np.float64) - np.asarray(changed(-shifts), np.float64)) / (2 * step)
    by_entry = np.moveaxis(by_entry.reshape(*embedded[0].shape, *BATCH.target.shape), (0, 1), (2, 3))  # [B, T, S, E]
    oracles.same(gradients[of, "gradient_norms"], np.linalg.norm(by_entry, axis=-1) * REAL, tolerance=1e-3)
    weighed = np.linalg.norm(by_entry * embedded[:, None], axis=-1)
    oracles.same(gradients[of, "saliency"], weighed * REAL, tolerance=1e-3)


def test_gradients_are_zero_on_padding_and_nowhere_else(results):
    _, _, gradients, falls = results
    for matrix in (*gradients.values(), *falls.values()):
        np.testing.assert_array_equal(matrix[~REAL], 0.0)
        assert (matrix[REAL] != 0).all()


def test_log_odds_are_those_of_the_right_token():
    logits = np.array(oracles.drawn(np.zeros((4, 5)), seed=3))
    shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    right = np.array([0, 1, 4, 2])
    wanted = np.log(shares[np.arange(4), right] / (1 - shares[np.arange(4), right]))
    np.testing.assert_allclose(log_odds(jnp.asarray(logits), jnp.asarray(right)), wanted, rtol=1e-5)


@pytest.mark.parametrize("replacement", ["unknown", "zero"])
def test_occlusion_is_the_decrease_in_log_probability(results, replacement):
    model, params, _, falls = results
    plain = jax.jit(functools.partial(forced_decoding, model))
    there = plain(params, BATCH).log_probs
    for place in range(BATCH.source.shape[1]):
        if replacement == "unknown":
            source = np.array(BATCH.source)
            source[:, place] = np.where(source[:, place] == PAD, PAD, UNK)
            without = plain(params, BATCH._replace(source=jnp.asarray(source))).log_probs
        else:
            embedded = np.array(model.embed(params, BATCH.source))
            embedded[:, place] = 0
            without = np.asarray(numbers(model, params, jnp.asarray(embedded), "loss")) * np.asarray(
                BATCH.target != PAD
            )
        oracles.same(falls[replacement][:, :, place], np.asarray(there - without) * REAL[:, :, place], tolerance=1e-5)


def test_occlusion_by_the_unknown_token_needs_no_more_than_three_functions():
    """The fake model's answers hang on the first source token, odd or even, and on no other."""
    source, target = jnp.array([[4, 4, EOS]]), jnp.array([[4, EOS]])
    falls = occlusion(fake.MODEL, fake.table(), Batch(source, target))
    assert (np.asarray(falls)[0, :, 0] != 0).all()
    np.testing.assert_array_equal(np.asarray(falls)[0, :, 1:], 0.0)


def test_unsupported_quantities_are_refused():
    with pytest.raises(ValueError, match="gradients with respect to source tokens need Model.embed, which this"):
        gradient_norms(fake.MODEL, fake.table(), BATCH)
    with pytest.raises(ValueError, match="of must be one of log-odds, loss, got 'los'; did you mean 'loss'?"):
        saliency(fake.MODEL, fake.table(), BATCH, of="los")
    with pytest.raises(ValueError, match="replacement must be one of unknown, zero, got 'zeros'; did you mean 'zero'?"):
        occlusion(fake.MODEL, fake.table(), BATCH, replacement="zeros")


def test_agreement_counts_pairs_in_one_order_and_equal_tops():
    one = np.array([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2], [0.0, 0.0, 0.0], [0.6, 0.2, 0.2]])
    other = np.array([[1.0, 9.0, 2.0], [-3.0, 0.0, 4.0], [1.0, 2.0, 3.0], [0.3, 0.2, 0.1]])
    found = measure_agreement(one, other)
    np.testing.assert_allclose(found.tau[[0, 1]], [1.0, -1.0])
    assert np.isnan(found.tau[2])
    assert 0 < found.tau[3] < 1  # a tie
    assert found.tau[3] == pytest.approx(kendalltau(one[3], other[3]).statistic)
    assert found.top.tolist() == [True, False, False, True]
