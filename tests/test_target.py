"""Does a model written for a GPU compute what the same model written for a CPU does?"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from s2s_jax.model.attention.config import AttentionConfig
from s2s_jax.model.decoder.config import DecoderConfig
from s2s_jax.model.encoder import EncoderConfig
from s2s_jax.model.ops.target import built_for, launches_cost
from s2s_jax.model.seq2seq import ModelConfig, build
from s2s_jax.shapes import Batch
from s2s_jax.training.objectives import LossConfig, make_loss
from s2s_jax.training.scheduled_sampling import ScheduledSamplingConfig

BATCH = Batch(
    jnp.array([[4, 5, 6, 7, 2], [7, 2, 0, 0, 0], [8, 4, 2, 0, 0]], jnp.int32),
    jnp.array([[5, 6, 7, 2], [4, 2, 0, 0], [9, 8, 2, 0]], jnp.int32),
)
SAMPLED = ScheduledSamplingConfig(schedule="constant", start=0.5)
MODELS = {
    "luong": (
        ModelConfig(
            embedding=3,
            encoder=EncoderConfig(cell="lstm", size=2),
            attention=AttentionConfig(score="general"),
            decoder=DecoderConfig(cell="lstm", size=4),
        ),
        ScheduledSamplingConfig(),
    ),
    "deep": (
        ModelConfig(
            embedding=4,
            encoder=EncoderConfig(cell="gru", size=2, dropout=0.3, recurrent_dropout=0.2),
            attention=AttentionConfig(score="additive", size=4, heads=2, history="coverage"),
            decoder=DecoderConfig(
                cell="layer-norm-lstm", size=4, layers=2, residual_from=2, dropout=0.3, recurrent_dropout=0.2
            ),
            remat_every=3,
        ),
        ScheduledSamplingConfig(),
    ),
    "sampled": (
        ModelConfig(
            embedding=3,
            encoder=EncoderConfig(cell="lstm", size=2),
            attention=AttentionConfig(score="dot"),
            decoder=DecoderConfig(cell="gru", size=4, architecture="bahdanau"),
        ),
        SAMPLED,
    ),
    "parallel": (
        ModelConfig(
            embedding=3,
            encoder=EncoderConfig(cell="rnn", size=4, bidirectional=False),
            attention=AttentionConfig(score="scaled-dot", normalizer="sparsemax"),
            decoder=DecoderConfig(cell="gru-reset-before", size=4, input_feeding=False, self_attention_window=2),
        ),
        ScheduledSamplingConfig(),
    ),
    "copying": (
        ModelConfig(
            embedding=3,
            encoder=EncoderConfig(cell="gru", size=2),
            attention=AttentionConfig(score="general"),
            decoder=DecoderConfig(cell="lstm", size=4, copy="pointer", copy_slots=2),
        ),
        ScheduledSamplingConfig(),
    ),
    "gnmt": (
        ModelConfig(
            embedding=4,
            encoder=EncoderConfig(cell="lstm", size=2, layers=2, residual_from=2),
            attention=AttentionConfig(score="additive", size=4),
            decoder=DecoderConfig(cell="lstm", size=4, layers=2, architecture="gnmt"),
        ),
        ScheduledSamplingConfig(),
    ),
}


WIDE = [pytest.param(name, "float32", marks=pytest.mark.wide) for name in MODELS if name != "luong"]


@pytest.mark.parametrize(("name", "precision"), [("luong", "float32"), ("luong", "bfloat16"), *WIDE])
def test_loss_and_gradient_are_those_of_a_cpu(name, precision):
    """All sums of the loss, and the gradient of all parameters; only their order differs."""
    config, sampling = MODELS[name]
    config = dataclasses.replace(config, precision=precision)
    model = build(config, source_vocabulary=11, target_vocabulary=11)
    params = oracles.drawn(jax.eval_shape(model.init, jax.random.key(0)), seed=1)
    loss = make_loss(model, LossConfig(label_smoothing=0.1), sampling)

    def gradient(platform):
        def objective(params):
            sums = loss(params, BATCH, jnp.array(3), jax.random.key(1))
            return sums.objective, sums

        with built_for(platform):
            assert launches_cost() == (platform != "cpu")
            return jax.jit(jax.grad(objective, has_aux=True))(params)

    (cpu, cpu_sums), (gpu, gpu_sums) = gradient("cpu"), gradient("gpu")
    tolerance = 2e-5 if precision == "float32" else 2e-2
    np.testing.assert_allclose(gpu_sums[:4], cpu_sums[:4], rtol=tolerance)
    jax.tree.map(
        lambda got, want: np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance * np.abs(want).max()),
        gpu,
        cpu,
    )


def test_the_context_ends():
    """Nested contexts give way to each other, and without any it is the platform of jax."""
    assert not launches_cost()
    with built_for("gpu"):
        with built_for("cpu"):
            assert not launches_cost()
        assert launches_cost()
    assert not launches_cost()
