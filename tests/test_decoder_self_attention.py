"""Does the decoder's self-attention work wherever a state is carried: in long unrolls, in bfloat16, in a beam?"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from s2s_jax.decode.beam.engine import beam
from s2s_jax.decode.forced_decoding import forced_decoding
from s2s_jax.model.attention.config import AttentionConfig
from s2s_jax.model.decoder.config import DecoderConfig
from s2s_jax.model.encoder import EncoderConfig
from s2s_jax.model.interface import scan_of_step, unroll_targets
from s2s_jax.model.seq2seq import ModelConfig, build
from s2s_jax.shapes import BOS, EOS, PAD, Batch

SOURCE = jnp.array([[4, 5, 6, 7, EOS], [7, 4, EOS, PAD, PAD]])
TARGET = jnp.array([[4, 5, 6, 4, 7, EOS], [8, 7, 6, EOS, PAD, PAD]])
BATCH = Batch(SOURCE, TARGET)
SIZES = {"source_vocabulary": 9, "target_vocabulary": 9}


def config(*, precision="float32", remat=0, **settings):
    return ModelConfig(
        embedding=3,
        precision=precision,
        remat_every=remat,
        encoder=EncoderConfig(cell="gru", size=2),
        attention=AttentionConfig(score="general"),
        decoder=DecoderConfig(**{"cell": "gru", "size": 4, "self_attention_window": 2, **settings}),
    )


def drawn(model):
    return oracles.drawn(jax.eval_shape(model.init, jax.random.key(0)), seed=1)


def value_and_gradient(model, params, *, stepwise):
    """The weighted sum of the logits of an unroll with more steps than the window, and its gradient."""
    unroll = scan_of_step(model.step) if stepwise else model.unroll

    def objective(params):
        memory, state = model.encode(params, SOURCE)
        return oracles.weighed(unroll(params, memory, state, jnp.where(TARGET == PAD, BOS, TARGET))[1].logits)

    return oracles.compiled(jax.value_and_grad(objective))(params)


@pytest.fixture(scope="module")
def plain():
    """The scan of steps of a decoder with input feeding, to which every faster computation is compared."""
    model = build(config(), **SIZES)
    return drawn(model), value_and_gradient(model, drawn(model), stepwise=True)


def test_an_unroll_longer_than_the_window_is_the_scan_of_its_steps(plain):
    """In segments of four steps, each recomputed in the backward pass."""
    params, expected = plain
    oracles.same(value_and_gradient(build(config(remat=4), **SIZES), params, stepwise=False), expected, tolerance=1e-5)


def test_all_steps_at_once_are_the_scan_of_steps():
    """Also with copying, whose gate reads what the readout reads."""
    model = build(config(input_feeding=False, copy="pointer", copy_slots=0), **SIZES)
    both = [value_and_gradient(model, drawn(model), stepwise=stepwise) for stepwise in (False, True)]
    oracles.same(*both, tolerance=1e-5)


def test_bfloat16_rounds_factors_and_nothing_else(plain):
    params, (expected, slopes) = plain
    rounded, rounded_slopes = value_and_gradient(build(config(precision="bfloat16"), **SIZES), params, stepwise=False)
    assert {leaf.dtype for leaf in jax.tree.leaves((rounded, rounded_slopes))} == {jnp.dtype("float32")}
    oracles.same(rounded_slopes, slopes, tolerance=0.1)
    assert rounded != expected  # it did round


def test_hypotheses_of_a_beam_have_the_scores_of_teacher_forcing():
    """So each hypothesis attends to its own states, whichever slot its tokens came from."""
    model = build(config(self_attention_window=3), **SIZES)
    params = jax.tree.map(lambda leaf: 2 * leaf, drawn(model))
    search = functools.partial(beam, model, width=4, max_length=6)
    result = jax.device_get(oracles.compiled(search)(params, SOURCE))
    rows = Batch(jnp.repeat(SOURCE, 4, axis=0), jnp.asarray(result.tokens.reshape(8, -1)))
    again = jax.device_get(oracles.compiled(functools.partial(forced_decoding, model))(params, rows)).log_probs
    np.testing.assert_allclose(result.log_probs.reshape(again.shape), again, atol=2e-5)
    assert len({tuple(row) for row in result.tokens[0]}) == 4


def test_padding_and_the_order_of_the_batch_change_nothing(plain):
    params, _ = plain
    model = build(config(), **SIZES)
    wide = Batch(*(jnp.pad(side[::-1], ((0, 0), (0, 2))) for side in (SOURCE, TARGET)))
    logits, padded = oracles.compiled(
        lambda params: [unroll_targets(model, params, batch).logits for batch in (BATCH, wide)]
    )(params)
    real = np.asarray(TARGET != PAD)
    oracles.same(np.asarray(padded)[::-1, : TARGET.shape[1]][real], np.asarray(logits)[real], tolerance=1e-6)
