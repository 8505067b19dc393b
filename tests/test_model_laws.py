"""What must hold for the whole model, whatever it is made of?"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from s2s_jax.model.attention.config import AttentionConfig
from s2s_jax.model.decoder.config import DecoderConfig
from s2s_jax.model.encoder import EncoderConfig
from s2s_jax.model.interface import scan_of_step, unroll_targets
from s2s_jax.model.ops.dropout import keep_words, word_keys
from s2s_jax.model.seq2seq import ModelConfig, build
from s2s_jax.shapes import BOS, EOS, PAD, Batch, real
from s2s_jax.training.objectives import token_losses

SIZES = {"source_vocabulary": 8, "target_vocabulary": 9}
SOURCE = np.array([[4, 5, 6, EOS], [7, EOS, PAD, PAD]])
TARGET = np.array([[4, 5, 6, EOS], [8, 7, 3, EOS]])
FED = np.array([[BOS, 4, 5, 6], [BOS, 8, 7, 3]])  # no token twice in a sentence: a row of the embedding is a time
BATCH = Batch(jnp.asarray(SOURCE), jnp.asarray(TARGET))
STEPS, RATE, STATE_RATE = FED.shape[1], 0.5, 0.2
DROPPED = {"dropout": RATE, "recurrent_dropout": STATE_RATE}

MODELS = {
    "luong": ModelConfig(
        embedding=3,
        encoder=EncoderConfig(cell="lstm", size=2, **DROPPED),
        attention=AttentionConfig(score="general"),
        decoder=DecoderConfig(cell="gru", size=4, layers=2, bridge="projected", **DROPPED),
    ),
    "bahdanau": ModelConfig(
        embedding=3,
        encoder=EncoderConfig(cell="gru", size=2, **DROPPED),
        attention=AttentionConfig(score="additive", size=5),
        decoder=DecoderConfig(
            cell="lstm", size=4, architecture="bahdanau", bridge="mean", zoneout=0.25, cell_zoneout=0.5, **DROPPED
        ),
    ),
    "unfed": ModelConfig(
        embedding=3,
        encoder=EncoderConfig(cell="rnn", size=4, bidirectional=False, **DROPPED),
        attention=AttentionConfig(score="dot"),
        decoder=DecoderConfig(cell="rnn", size=4, input_feeding=False, bridge="last", zoneout=0.25, **DROPPED),
    ),
}


def drawn_for(model, *, seed=1):
    return oracles.drawn(jax.eval_shape(model.init, jax.random.key(0)), seed=seed)


@pytest.fixture(scope="module", params=MODELS)
def results(request):
    """A model and all that is compared of it, from one compilation.

    `plain` is teacher forcing without a key, `noise` what a key draws. `noisy` and `pulled` are, with that noise, the
    logits [2, B, T, V] of `unroll` and of the scan of `step`, and the gradient [2, T, ...] of a drawn sum of the logits
    of each step alone.
    """
    config = MODELS[request.param]
    model = build(config, **SIZES)
    params, fed = drawn_for(model), jnp.asarray(FED)
    shares = np.array(oracles.drawn(np.zeros((len(FED), STEPS, SIZES["target_vocabulary"])), seed=2))
    one_by_one = np.einsum("btv,tu,wx->xuwbtv", shares, np.eye(STEPS), np.eye(2)).astype(np.float32)

    def compute(params, key):
        def both(decoder, memory, state):
            memory, state = memory._replace(mask=mask, noise=noise), state._replace(time=time)
            functions = (model.unroll, scan_of_step(model.step))
            return jnp.stack(
                [unroll({**params, "decoder": decoder}, memory, state, fed)[1].logits for unroll in functions]
            )

        memory, state = model.encode(params, BATCH.source)
        _, plain = model.unroll(params, memory, state, fed)
        mask, noise, time = memory.mask, model.encode(params, BATCH.source, key)[0].noise, state.time
        noisy, pull = jax.vjp(both, params["decoder"], memory._replace(mask=None), state._replace(time=None))
        pulled = jax.vmap(jax.vmap(pull))(jnp.asarray(one_by_one))
        return {"plain": plain, "noise": noise, "noisy": noisy, "pulled": pulled}

    return config, params, jax.tree.map(np.asarray, oracles.compiled(compute)(params, jax.random.key(3)))


def oracle(config, params):
    """Logits, alignments and contexts of teacher forcing, from the papers."""
    params, rows = oracles.precise(params), []
    for source, target in zip(SOURCE, TARGET, strict=True):
        embedded = params["embedding"][[token for token in source if token != PAD]]
        memory, ends = oracles.encode(params["encoder"], config.encoder, embedded)
        start = oracles.decoder_start(params["decoder"], config.decoder, memory, ends)
        _, (logits, alignments, contexts) = oracles.decoder_steps(
            params["decoder"], config.decoder, config.attention.score, memory, start, [BOS, *target[:-1]]
        )
        rows.append((logits, np.pad(alignments, ((0, 0), (0, len(source) - len(memory)))), contexts))
    return tuple(np.array(part) for part in zip(*rows, strict=True))


def test_teacher_forcing_is_the_papers_from_token_to_logits(results):
    config, params, result = results
    oracles.same(tuple(result["plain"][:3]), oracle(config, params), tolerance=1e-5)


def test_unroll_is_the_scan_of_step_in_value_and_gradient(results):
    *_, result = results
    oracles.same(result["noisy"][0], result["noisy"][1], tolerance=1e-5)
    unrolled, stepped = (jax.tree.map(lambda leaf, index=index: leaf[index], result["pulled"]) for index in range(2))
    oracles.same(unrolled, stepped, tolerance=1e-5)


def test_no_gradient_comes_from_the_future(results):
    *_, result = results
    of_decoder, *_ = result["pulled"]
    by_token = np.abs(of_decoder["embedding"]).sum(-1)  # [2, T, V]
    for index, step in np.ndindex(2, STEPS):
        np.testing.assert_array_equal(by_token[index, step, FED[:, step + 1 :]], 0.0)
        assert by_token[index, step, FED[:, : step + 1]].max(0).all()  # from every step up to now, in some sentence


def test_a_key_draws_the_masks_that_the_rates_ask_for(results):
    *_, result = results
    noise = result["noise"]
    for masks, rate in ((noise.inputs, RATE), (noise.states, STATE_RATE), ((noise.readout,), RATE)):
        seen = np.concatenate([np.ravel(mask) for mask in masks])
        assert set(np.round(seen, 5)) <= {0.0, round(1 / (1 - rate), 5)}
        assert seen.any()
    assert np.abs(result["noisy"][0] - result["plain"].logits).max() > 0.01
    assert (noise.inputs[0][0] != noise.inputs[0][1]).any() or (noise.readout[0] != noise.readout[1]).any()


def test_a_word_is_dropped_at_all_of_its_positions_or_at_none():
    keys, words = word_keys(jax.random.key(0), 2), jnp.tile(jnp.arange(200), 3)
    kept = np.asarray(keep_words(keys, jnp.stack([words, words], axis=1), RATE)).reshape(3, 200, 2)
    np.testing.assert_array_equal(kept, kept[:1].repeat(3, axis=0))
    assert set(np.unique(kept)) == {0.0, 1 / (1 - RATE)}
    assert (kept[0, :, 0] != kept[0, :, 1]).any()  # each sentence has its own
    np.testing.assert_allclose(kept.mean(), 1.0, atol=0.15)


def test_embedding_dropout_reaches_both_sides_and_soft_inputs_as_tokens():
    config = dataclasses.replace(
        MODELS["unfed"],
        embedding_dropout=0.5,
        encoder=EncoderConfig(cell="rnn", size=4, bidirectional=False),
        decoder=DecoderConfig(cell="rnn", size=4, input_feeding=False, bridge="last"),
    )
    model = build(config, **SIZES)
    params, fed = drawn_for(model), jnp.asarray(FED)

    def compute(params, key, tokens):
        memory, state = model.encode(params, BATCH.source, key)
        soft = jax.nn.one_hot(tokens, SIZES["target_vocabulary"])
        unrolls = ((model.unroll, tokens), (model.unroll, soft), (scan_of_step(model.step), tokens))
        return memory.values, *(unroll(params, memory, state, inputs)[1].logits for unroll, inputs in unrolls)

    run = oracles.compiled(compute)
    (values, logits, soft, stepped), (of_other, *_) = (run(params, jax.random.key(seed), fed) for seed in (1, 2))
    oracles.same((soft, stepped), (logits, logits), tolerance=1e-5)
    assert np.abs(values - of_other).max() > 1e-3
    with_source_dropped = oracles.compiled(
        lambda params, key: (
            model.unroll(params, *_without_noise(*model.encode(params, BATCH.source, key)), fed)[1].logits
        )
    )(params, jax.random.key(1))
    assert np.abs(with_source_dropped - logits).max() > 1e-3


def _without_noise(memory, state):
    return memory._replace(noise=()), state


def test_a_model_with_dropout_and_no_key_is_a_model_without_dropout():
    config = MODELS["luong"]
    calm = dataclasses.replace(
        config,
        encoder=dataclasses.replace(config.encoder, dropout=0.0, recurrent_dropout=0.0),
        decoder=dataclasses.replace(config.decoder, dropout=0.0, recurrent_dropout=0.0),
    )
    models = [build(one, **SIZES) for one in (config, calm)]
    params = drawn_for(models[0])
    ours = oracles.compiled(lambda params: [model.encode(params, BATCH.source) for model in models])(params)
    oracles.same(*ours, tolerance=0)


def test_two_seeds_at_once_are_one_after_the_other():
    model = build(MODELS["luong"], **SIZES)
    seeds = [drawn_for(model, seed=seed) for seed in (1, 2)]
    stacked = jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *seeds)
    one = lambda params: unroll_targets(model, params, BATCH)[:3]  # noqa: E731
    together = oracles.compiled(jax.vmap(one))(stacked)
    alone = [oracle(MODELS["luong"], params) for params in seeds]
    oracles.same(together, jax.tree.map(lambda *leaves: np.stack(leaves), *alone), tolerance=1e-5)


@pytest.mark.parametrize("name", ["luong", "bahdanau"])
def test_bfloat16_rounds_factors_and_nothing_else(name):
    config = dataclasses.replace(MODELS[name], precision="bfloat16")
    model = build(config, **SIZES)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
    params = drawn_for(model)
    rounded = oracles.compiled(lambda params: unroll_targets(model, params, BATCH)[:3])(params)
    assert {leaf.dtype for leaf in rounded} == {jnp.dtype("float32")}
    exact = oracle(MODELS[name], params)
    oracles.same(rounded, exact, tolerance=3e-2)
    assert np.abs(rounded[0] - exact[0]).max() > 1e-4  # it did round


def test_wider_padding_and_another_order_of_the_batch_change_nothing():
    """Where the input of the first layer is added to its output, padding must not bring its embedding along."""
    config = ModelConfig(
        embedding=4,
        encoder=EncoderConfig(cell="gru", size=2, residual_from=1),
        attention=AttentionConfig(score="additive", size=5),
        decoder=DecoderConfig(cell="gru", size=4, bridge="mean"),
    )
    model = build(config, **SIZES)
    params = drawn_for(model)
    wider = np.pad(SOURCE[::-1], ((0, 0), (0, 2)))
    (memory, state), (wide_memory, wide_state) = oracles.compiled(
        lambda params: [model.encode(params, jnp.asarray(source)) for source in (SOURCE, wider)]
    )(params)
    oracles.same(jax.tree.map(lambda leaf: leaf[::-1], wide_state), state, tolerance=1e-6)
    np.testing.assert_array_equal(np.asarray(memory.values)[SOURCE == PAD], 0.0)
    np.testing.assert_array_equal(np.asarray(wide_memory.values)[wider == PAD], 0.0)
    oracles.same(wide_memory.values[::-1, : SOURCE.shape[1]], memory.values, tolerance=1e-6)
    np.testing.assert_array_equal(wide_memory.mask[::-1, : SOURCE.shape[1]], memory.mask)


@pytest.mark.parametrize("name", ["luong", "unfed"])
def test_padding_of_every_kind_changes_no_sum_and_no_gradient_and_a_batch_of_padding_has_none(name):
    """More columns on either side, rows without tokens, and nothing but those."""
    model = build(MODELS[name], **SIZES)
    params = drawn_for(model)

    @oracles.compiled
    def compute(params, batch):
        def nats(params):
            losses = token_losses(unroll_targets(model, params, batch).logits, batch.target).nats
            return jnp.where(real(batch.target), losses, 0.0).sum()

        return jax.value_and_grad(nats)(params)

    padded = Batch(*(jnp.pad(ids, ((0, 2), (0, wider))) for ids, wider in zip(BATCH[:2], (3, 1), strict=True)))
    oracles.same(compute(params, padded), compute(params, BATCH), tolerance=5e-6)  # sums in another order
    nothing = jax.tree.map(jnp.zeros_like, padded)
    assert all((np.asarray(leaf) == 0).all() for leaf in jax.tree.leaves(compute(params, nothing)))


def test_tied_embeddings_are_one_matrix_whose_gradient_is_the_sum_of_all_its_uses():
    """Source with target, and both with the output, against a model with three matrices of the same values."""
    separate = dataclasses.replace(
        MODELS["unfed"], decoder=dataclasses.replace(MODELS["unfed"].decoder, readout=3, dropout=0.0)
    )
    shared = dataclasses.replace(separate, shared_embeddings=True)
    all_three = dataclasses.replace(shared, decoder=dataclasses.replace(shared.decoder, tied_embeddings=True))
    configs = separate, shared, all_three
    models = [build(config, source_vocabulary=9, target_vocabulary=9) for config in configs]
    params = drawn_for(models[0])
    values, decoder = params["decoder"]["embedding"], params["decoder"]
    untied = {**params, "embedding": values, "decoder": {**decoder, "output": values}}
    tied = {name: leaf for name, leaf in params.items() if name != "embedding"}
    tied = tied | {"decoder": {name: leaf for name, leaf in decoder.items() if name != "output"}}
    given = untied, tied | {"decoder": {**decoder, "output": values}}, tied
    for model, leaves in zip(models, given, strict=True):
        assert jax.tree.structure(jax.eval_shape(model.init, jax.random.key(0))) == jax.tree.structure(leaves)

    def nats(model, params):
        output = unroll_targets(model, params, BATCH)
        return oracles.weighed(output.logits), output.logits

    slopes, logits = zip(
        *oracles.compiled(
            lambda *given: [
                jax.grad(functools.partial(nats, model), has_aux=True)(one)
                for model, one in zip(models, given, strict=True)
            ]
        )(*given),
        strict=True,
    )
    oracles.same(logits[1:], logits[:1] * 2, tolerance=1e-6)
    apart = slopes[0]["embedding"], slopes[0]["decoder"]["embedding"], slopes[0]["decoder"]["output"]
    oracles.same(slopes[1]["decoder"]["embedding"], sum(apart[:2]), tolerance=1e-5)
    oracles.same(slopes[2]["decoder"]["embedding"], sum(apart), tolerance=1e-5)


def test_embeddings_of_two_vocabularies_cannot_be_one():
    with pytest.raises(ValueError, match="model.shared_embeddings=true needs one vocabulary on both sides, got 8 sou"):
        build(dataclasses.replace(MODELS["unfed"], shared_embeddings=True), **SIZES)
