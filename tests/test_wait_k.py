"""Does a wait-k model know no more of the source than it has read?"""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from s2s_jax.model.attention.config import AttentionConfig
from s2s_jax.model.decoder.config import DecoderConfig
from s2s_jax.model.encoder import EncoderConfig
from s2s_jax.model.interface import shift_right
from s2s_jax.model.seq2seq import ModelConfig, build
from s2s_jax.shapes import EOS

K, VOCABULARY = 2, 9
SOURCE = np.array([[4, 5, 6, 7, 5, EOS], [7, 7, 4, 8, 6, EOS]])
TARGET = np.array([[4, 5, 6, EOS], [8, 7, 3, EOS]])
STEPS, TOKENS = TARGET.shape[1], SOURCE.shape[1]

MODELS = {
    "luong": ({}, {"self_attention_window": 2}),
    "bahdanau": ({"score": "additive", "history": "previous-and-coverage"}, {"architecture": "bahdanau", "layers": 2}),
    "conditional": ({"heads": 2, "history": "coverage-gru"}, {"architecture": "conditional", "copy": "pointer"}),
    "gnmt": ({"score": "dynamic-convolution", "history": "previous"}, {"architecture": "gnmt", "layers": 2}),
    "unfed": ({"normalizer": "sparsemax", "history": "intra-temporal"}, {"input_feeding": False}),
}


def config(attention=(), decoder=(), **encoder):
    return ModelConfig(
        embedding=3,
        encoder=EncoderConfig(**{"cell": "gru", "size": 4, "bidirectional": False, **encoder}),
        attention=AttentionConfig(**{"constraint": "wait-k", "wait_k": K, "size": 4, **dict(attention)}),
        decoder=DecoderConfig(**{"cell": "gru", "size": 4, "bridge": "zero", "copy_slots": 2, **dict(decoder)}),
    )


@pytest.mark.parametrize("name", MODELS)
def test_target_t_depends_on_the_source_before_t_plus_k_alone(name):
    """By the gradient of each step's logits, and by what changes when the rest of the source is another or missing."""
    model = build(config(*MODELS[name]), source_vocabulary=VOCABULARY, target_vocabulary=VOCABULARY)
    params = oracles.drawn(jax.eval_shape(model.init, jax.random.key(0)), seed=4)
    fed = shift_right(jnp.asarray(TARGET))

    def logits(source, embedded):
        memory, state = model.encode_embedded(params, source, embedded)
        return model.unroll(params, memory, state, fed)[1].logits[..., :VOCABULARY]

    @oracles.compiled
    def compute(source):
        embedded = model.embed(params, source)
        weights = oracles.drawn(jnp.zeros((len(TARGET), STEPS, VOCABULARY)), seed=2)
        found, pull = jax.vjp(lambda embedded: logits(source, embedded), embedded)
        one_step = jnp.eye(STEPS)[:, None, :, None] * weights[None]
        return found, jax.vmap(lambda part: pull(part)[0])(one_step)

    whole, gradient = compute(jnp.asarray(SOURCE))
    reached = np.abs(gradient).max(-1) > 0  # [steps, sentences, tokens]
    for time in range(STEPS):
        assert not reached[time, :, time + K :].any()
        assert reached[time, :, : time + K].any(0).all()
    for time in range(STEPS):
        other = np.where(np.arange(TOKENS) < time + K, SOURCE, SOURCE[::-1, ::-1])
        cut = np.where(np.arange(TOKENS) < time + K, SOURCE, 0)
        for source in (other, cut):
            found, _ = compute(jnp.asarray(source))
            np.testing.assert_allclose(found[:, : time + 1], whole[:, : time + 1], atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"bidirectional": True},
            "model.attention.constraint=wait-k translates while the source arrives, but "
            "model.encoder.bidirectional=true reads the source from its end too; use "
            "--model.encoder.bidirectional false or --model.attention.constraint none.",
        ),
        ({"reversed": True}, "model.encoder.reversed=true reads the source from its end; use"),
        ({"decoder": {"bridge": "mean"}}, "model.decoder.bridge=mean makes the first state of the whole source; use"),
        ({"decoder": {"bridge": "last"}}, "--model.decoder.bridge zero or --model.decoder.bridge learned or --model"),
        ({"decoder": {"bridge": "projected"}}, "model.decoder.bridge=projected makes the first state"),
        ({"decoder": {"copy": "copynet"}}, "model.decoder.copy=copynet scores all tokens of the source; use"),
    ],
)
def test_what_reads_the_rest_of_the_source_is_refused(settings, message):
    with pytest.raises(ValueError, match="wait-k translates while the source arrives") as refused:
        config(**settings)
    assert message in str(refused.value)
