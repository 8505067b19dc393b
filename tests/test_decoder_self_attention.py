"""Does the decoder's look at its own past work wherever a state is carried: in long unrolls, rounded, in a beam?"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from s2s_jax.decode.beam.engine import beam
from s2s_jax.decode.score import score
from s2s_jax.model.attention.config import AttentionConfig
from s2s_jax.model.decoder.decoder import DecoderConfig
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


def told(model, params, *, stepwise):
    """All that an unroll over more steps than the past is long says, and the slope of its logits' weighted sum."""
    unroll = scan_of_step(model.step) if stepwise else model.unroll

    def tell(params):
        memory, state = model.encode(params, SOURCE)
        return oracles.weighed(unroll(params, memory, state, jnp.where(TARGET == PAD, BOS, TARGET))[1].logits)

    return oracles.compiled(jax.value_and_grad(tell))(params)


@pytest.fixture(scope="module")
def plain():
    """The fed decoder's scan of steps, to which every faster way is held."""
    model = build(config(), **SIZES)
    return drawn(model), told(model, drawn(model), stepwise=True)


def test_an_unroll_longer_than_the_past_is_the_scan_of_its_steps(plain):
    """In parts of four steps, each computed again on the way back."""
    params, wanted = plain
    oracles.same(told(build(config(remat_every=4), **SIZES), params, stepwise=False), wanted, tolerance=1e-5)


def test_all_steps_at_once_are_the_scan_of_steps():
    """Also for copying, whose gate sees what the readout sees."""
    model = build(config(input_feeding=False, copy="pointer", copy_slots=0), **SIZES)
    ways = [told(model, drawn(model), stepwise=stepwise) for stepwise in (False, True)]
    oracles.same(*ways, tolerance=1e-5)


def test_bfloat16_rounds_factors_and_nothing_else(plain):
    params, (wanted, slopes) = plain
    rounded, rounded_slopes = told(build(config(precision="bfloat16"), **SIZES), params, stepwise=False)
    assert {leaf.dtype for leaf in jax.tree.leaves((rounded, rounded_slopes))} == {jnp.dtype("float32")}
    oracles.same(rounded_slopes, slopes, tolerance=0.1)
    assert rounded != wanted  # it did round


def test_what_a_beam_finds_has_the_score_that_teacher_forcing_gives_it():
    """So the past of a hypothesis is its own, whichever slot its words came from."""
    model = build(config(self_attention_window=3), **SIZES)
    params = jax.tree.map(lambda leaf: 3 * leaf, drawn(model))
    find = functools.partial(beam, model, width=4, max_length=6)
    found = jax.device_get(oracles.compiled(find)(params, SOURCE))
    rows = Batch(jnp.repeat(SOURCE, 4, axis=0), jnp.asarray(found.tokens.reshape(8, -1)))
    again = jax.device_get(oracles.compiled(functools.partial(score, model))(params, rows)).log_probs
    np.testing.assert_allclose(found.log_probs.reshape(again.shape), again, atol=2e-5)
    assert len({tuple(row) for row in found.tokens[0]}) == 4


def test_wider_padding_and_another_order_of_the_batch_change_nothing(plain):
    params, _ = plain
    model = build(config(), **SIZES)
    wide = Batch(*(jnp.pad(side[::-1], ((0, 0), (0, 2))) for side in (SOURCE, TARGET)))
    one, other = oracles.compiled(
        lambda params: [unroll_targets(model, params, batch).logits for batch in (BATCH, wide)]
    )(params)
    real = np.asarray(TARGET != PAD)
    oracles.same(np.asarray(other)[::-1, : TARGET.shape[1]][real], np.asarray(one)[real], tolerance=1e-6)
