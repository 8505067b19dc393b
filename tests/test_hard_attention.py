"""Is exact hard attention exact? Every sum over alignments is compared with the sum over all of them, one by one."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from s2s_jax.decode.forced_decoding import forced_decoding
from s2s_jax.model import hard_attention
from s2s_jax.model.attention.config import AttentionConfig
from s2s_jax.model.decoder.config import DecoderConfig
from s2s_jax.model.encoder import EncoderConfig
from s2s_jax.model.interface import scan_of_step, unroll_targets
from s2s_jax.model.seq2seq import ModelConfig, build
from s2s_jax.shapes import BOS, EOS, PAD, Batch, real
from s2s_jax.training.objectives import LossConfig, batch_sums

SIZES = {"source_vocabulary": 8, "target_vocabulary": 7}
SOURCE = np.array([[4, 5, 6, EOS], [7, EOS, PAD, PAD], [PAD] * 4])
TARGET = np.array([[4, 6, 5, EOS], [5, EOS, PAD, PAD], [PAD] * 4])
BATCH = Batch(jnp.asarray(SOURCE), jnp.asarray(TARGET))


def model_config(architecture, *, score="general", window=1, **decoder):
    """The smallest model of an architecture; with a bound of its own on distances."""
    return ModelConfig(
        embedding=3,
        encoder=EncoderConfig(cell="gru", size=2, dropout=0.3),
        attention=AttentionConfig(score=score, size=3, window=window),
        decoder=DecoderConfig(architecture=architecture, **{"cell": "gru", "size": 4, "dropout": 0.3, **decoder}),
    )


CASES = {
    "hard": model_config("hard", score="additive", layers=2),
    "hard-first-order": model_config("hard-first-order", cell="lstm", self_attention_window=2),
    "hard-monotonic": model_config("hard-monotonic", tied_embeddings=True, window=2),
}


def drawn_for(model):
    return oracles.drawn(jax.eval_shape(model.init, jax.random.key(0)), seed=1, scale=1.5)


def log_softmax(x):
    return x - np.log(np.exp(x - x.max(-1, keepdims=True)).sum(-1, keepdims=True)) - x.max(-1, keepdims=True)


def steps_of(config, params, source, target):
    """For each step: log p(a_t = i | a_{t-1} = j) at [j, i] and log p(v | a_t = i) at [i, v], of one sentence."""
    decoder, kind = params["decoder"], config.decoder.architecture
    memory, ends = oracles.encode(params["encoder"], config.encoder, params["embedding"][source])
    (carries, _, before, _), steps = oracles.decoder_start(decoder, config.decoder, memory, ends), []
    output = (decoder["embedding"] if config.decoder.tied_embeddings else decoder["output"]).T
    for token in [BOS, *target[:-1]]:
        embedded = decoder["embedding"][token]
        carries, state = oracles.stack(decoder["cells"], config.decoder, carries, embedded, np.zeros(0), None)
        seen = state
        if window := config.decoder.self_attention_window:
            past = oracles.own_past(decoder["self_attention"]["weight"], state, before[-window:])
            seen, before = np.concatenate([state, past]), [*before, state]
        score = oracles.SCORES[config.attention.score]
        scores = np.array([score(decoder["attention"]["score"], state, h, i) for i, h in enumerate(memory)])
        transition = np.full((len(memory), len(memory)), -np.inf)
        for j, i in np.ndindex(transition.shape):
            transition[j, i] = scores[i]
            if kind != "hard":
                lowest = 0 if kind == "hard-monotonic" else -config.attention.window
                row = min(max(i - j, lowest), config.attention.window) - lowest
                says = seen @ decoder["state_jumps"] + memory[j] @ decoder["source_jumps"] + decoder["jump_bias"]
                transition[j, i] += says[row]
            if kind == "hard-monotonic" and i < j:
                transition[j, i] = -np.inf
        vectors = [np.tanh(np.concatenate([h, seen]) @ decoder["readout"]["weight"]) for h in memory]
        steps.append((log_softmax(transition), log_softmax(np.array(vectors) @ output + decoder["output_bias"])))
    return steps


def enumerated(config, params, source, target):
    """log p(v | y_<t) [T, V], p(a_t | y_<t) and p(a_t | y) [T, S], by the sum over all alignments."""
    steps, places = steps_of(config, params, source, target), range(len(source))
    logits, priors = [], []
    for t in range(len(target)):
        joint, prior = np.zeros(SIZES["target_vocabulary"]), np.zeros(len(source))
        posterior = np.zeros((len(target), len(source)))
        for alignment in itertools.product(places, repeat=t + 1):
            before = (0, *alignment)  # the position before the first is the first
            chance = sum(steps[u][0][before[u], before[u + 1]] for u in range(t + 1))
            chance = np.exp(chance + sum(steps[u][1][alignment[u], target[u]] for u in range(t)))
            prior[alignment[t]] += chance
            joint += chance * np.exp(steps[t][1][alignment[t]])
            for u in range(t + 1):
                posterior[u, alignment[u]] += chance * np.exp(steps[t][1][alignment[t], target[t]])
        logits.append(np.log(joint / prior.sum()))
        priors.append(prior / prior.sum())
    return np.array(logits), np.array(priors), posterior / posterior.sum(-1, keepdims=True)


def nats(config, params):
    """The negative marginal log-likelihood of the batch."""
    return -sum(
        enumerated(config, params, source[real(source)], target[real(target)])[0][
            np.arange(real(target).sum()), target[real(target)]
        ].sum()
        for source, target in zip(SOURCE[:2], TARGET[:2], strict=True)
    )


@pytest.fixture(scope="module", params=CASES)
def results(request):
    """A model, and what its unroll, its loss in chunks or whole, and forced decoding compute; one compilation."""
    config = CASES[request.param]
    model, params = build(config, **SIZES), drawn_for(build(config, **SIZES))
    loss = LossConfig(vocabulary_chunk=0 if request.param == "hard-first-order" else 24)

    def compute(params):
        return {
            "plain": unroll_targets(model, params, BATCH),
            "forced": forced_decoding(model, params, BATCH),
            "loss": jax.value_and_grad(lambda params: batch_sums(model, params, BATCH, config=loss).nats)(params),
        }

    return config, params, jax.tree.map(np.asarray, oracles.compiled(compute)(params))


def test_every_step_and_the_posterior_are_sums_over_all_alignments(results):
    config, params, result = results
    plain, forced, precise = result["plain"], result["forced"], oracles.precise(params)
    for row in range(2):
        source, target = SOURCE[row][real(SOURCE[row])], TARGET[row][real(TARGET[row])]
        logits, prior, posterior = enumerated(config, precise, source, target)
        steps, places = len(target), len(source)
        oracles.same(plain.logits[row, :steps], logits, tolerance=1e-5)
        oracles.same(plain.alignment[row, :steps, :places], prior, tolerance=1e-5)
        oracles.same(forced.log_probs[row, :steps], logits[np.arange(steps), target], tolerance=1e-5)
        oracles.same(forced.alignment[row, :steps, :places], posterior, tolerance=1e-5)
        assert np.abs(posterior - prior).max() > 1e-3
    for alignment, targets in ((plain.alignment, TARGET >= 0), (forced.alignment, real(TARGET))):
        np.testing.assert_array_equal(alignment[~(targets[:, :, None] & real(SOURCE)[:, None])], 0.0)
    oracles.same(jax.nn.logsumexp(plain.logits, axis=-1), np.zeros(TARGET.shape), tolerance=1e-5)


def test_the_loss_and_its_gradient_are_those_of_the_marginal_likelihood(results):
    config, params, result = results
    value, gradient = result["loss"]
    along = oracles.drawn(params, seed=4)
    assert value == pytest.approx(nats(config, oracles.precise(params)), abs=1e-4)
    wanted = oracles.slope(lambda params: nats(config, oracles.precise(params)), params, along)
    assert oracles.along_gradient(gradient, along) == pytest.approx(float(wanted), rel=2e-4, abs=2e-4)


def unroll_and_steps(config, params, *, pull):
    """The outputs of unroll and of the scan of step with dropout, and of a drawn sum of each the gradient."""
    model = build(config, **SIZES)
    stepwise = dataclasses.replace(model, unroll=scan_of_step(model.step))

    def outputs(params):
        return [unroll_targets(one, params, BATCH, jax.random.key(3))[:3] for one in (model, stepwise)]

    def compute(params):
        if not pull:
            return outputs(params)
        both, pull_back = jax.vjp(outputs, params)
        weights = oracles.drawn(jax.eval_shape(lambda: both[0]), seed=9)
        zero = jax.tree.map(jnp.zeros_like, weights)
        return both, [pull_back(pair)[0] for pair in ([weights, zero], [zero, weights])]

    return oracles.compiled(compute)(params)


def test_unroll_is_the_scan_of_step_in_value_and_gradient_with_dropout():
    config = CASES["hard-first-order"]
    params = drawn_for(build(config, **SIZES))
    both, pulled = unroll_and_steps(config, params, pull=True)
    oracles.same(*both, tolerance=1e-5)
    oracles.same(*pulled, tolerance=1e-4)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(pulled))


@pytest.mark.parametrize("name", ["hard", pytest.param("hard-monotonic", marks=pytest.mark.wide)])
def test_unroll_is_the_scan_of_step(name):
    config = CASES[name]
    oracles.same(*unroll_and_steps(config, drawn_for(build(config, **SIZES)), pull=False), tolerance=1e-5)


def test_all_weight_on_one_token_is_that_token():
    """Soft predictions of scheduled sampling: the emission of a mixture of tokens is the mixture of their emissions."""
    model = build(CASES["hard-first-order"], **SIZES)
    token, count = BATCH.target[:, 1], SIZES["target_vocabulary"]

    def compute(params):
        memory, state = model.encode(params, BATCH.source)
        state, _ = model.step(params, memory, state, BATCH.target[:, 0])
        return [model.step(params, memory, state, one)[1] for one in (token, jax.nn.one_hot(token, count))]

    oracles.same(*oracles.compiled(compute)(drawn_for(model)), tolerance=1e-5)


def test_without_potentials_of_distances_order_1_is_order_0_and_a_window_of_0():
    """The rows of U at 0: the alignment does not depend on the one before, or only by never going back."""
    names = (("hard-first-order", "hard", 1), ("hard-monotonic", "hard-monotonic", 0))
    configs = [(model_config(first), model_config(other, window=window)) for first, other, window in names]
    pairs = [[build(config, **SIZES) for config in pair] for pair in configs]

    def compute(*params):
        each = itertools.chain(*(zip(*pair, strict=True) for pair in zip(pairs, params, strict=True)))
        first, other, third, fourth = (unroll_targets(one, given, BATCH)[:3] for one, given in each)
        return (first, other), (third, fourth)

    jumps, given = ("state_jumps", "source_jumps", "jump_bias"), []
    for first, other in pairs:
        params = drawn_for(first)
        decoder = {name: jnp.zeros_like(leaf) if name in jumps else leaf for name, leaf in params["decoder"].items()}
        plain = {name: leaf for name, leaf in decoder.items() if name not in jumps}
        assert jax.tree.structure(drawn_for(other)) == jax.tree.structure({**params, "decoder": plain})
        given.append(({**params, "decoder": decoder}, {**params, "decoder": plain}))
    for ours, wanted in oracles.compiled(compute)(*given):
        oracles.same(ours, wanted, tolerance=1e-5)


def test_an_impossible_alignment_has_exactly_no_probability_and_gradients_are_finite():
    """Monotonic, and the second token can only come from the third place: the third one never from an earlier place."""
    mask = jnp.array([[True] * 4 + [False]])
    emissions = np.zeros((3, 1, 5), np.float32)
    emissions[1, 0, [0, 1, 3]] = -1e9
    chain = hard_attention.Chain(mask, jnp.zeros((1, 5, 2)), monotonic=True)
    potentials = hard_attention.Potentials(jnp.full((3, 1, 5), 40.0).at[:, :, 0].set(300.0), jnp.zeros((3, 1, 2)))

    def log_likelihood(emissions, potentials):
        prior = hard_attention.all_priors(hard_attention.first_position(mask), potentials, emissions, chain)
        return jax.nn.logsumexp(prior + emissions, axis=-1).sum()

    value, (posterior, gradient) = jax.value_and_grad(log_likelihood, argnums=(0, 1))(
        jnp.asarray(emissions), potentials
    )
    assert np.isfinite(value)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    np.testing.assert_allclose(posterior.sum(-1), 1.0, rtol=1e-5)
    np.testing.assert_array_equal(posterior[1, 0], [0, 0, 1, 0, 0])
    np.testing.assert_array_equal(posterior[2, 0, :2], 0)
    np.testing.assert_array_equal(posterior[0, 0, 3:], 0)
    np.testing.assert_allclose(posterior[2, 0, 2:4], 0.5)  # equal scores
