"""A sparse distribution over the vocabulary: its probabilities and its loss are the paper's, in training and search."""

import dataclasses
import functools
import re
import typing

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
import tiny

from s2s_jax.decode.forced_decoding import PairScorer
from s2s_jax.decode.logits_rules import LogitsRules
from s2s_jax.decode.search import SearchConfig, compiled_search
from s2s_jax.decode.translate import Translator
from s2s_jax.model.attention.config import AttentionConfig
from s2s_jax.model.decoder.config import DecoderConfig
from s2s_jax.model.encoder import EncoderConfig
from s2s_jax.model.interface import scan_of_step, unroll_targets
from s2s_jax.model.ops.logits import IMPOSSIBLE
from s2s_jax.model.output_distribution import SPARSE_OUTPUTS, OutputName, entmax_loss, log_probabilities
from s2s_jax.model.seq2seq import ModelConfig, build
from s2s_jax.run.check import check_experiment
from s2s_jax.shapes import BOS, EOS, PAD, Batch
from s2s_jax.text.copy_vocabulary import PairTokenizer
from s2s_jax.text.example import Example
from s2s_jax.text.symbol_tokenizers import Words
from s2s_jax.training.objectives import LossConfig, batch_sums

ALPHAS = {"entmax-1.5": 1.5, "sparsemax": 2.0}
BATCH = Batch(jnp.array([[4, 5, EOS], [6, EOS, PAD]]), jnp.array([[4, 6, EOS], [5, EOS, PAD]]))


def entmax(scores, alpha):
    """Peters et al. 2019, eq. 4: [(alpha - 1) z - t]_+^(1 / (alpha - 1)), with t by bisection."""
    low, high = (alpha - 1) * scores.max() - 1, (alpha - 1) * scores.max()
    for _ in range(80):
        middle = (low + high) / 2
        total = sum(max((alpha - 1) * z - middle, 0) ** (1 / (alpha - 1)) for z in scores)
        low, high = (middle, high) if total >= 1 else (low, middle)
    return np.array([max((alpha - 1) * z - low, 0) ** (1 / (alpha - 1)) for z in scores])


def loss(scores, token, alpha):
    """The largest q . z + H(q) over distributions q, which is reached at p, minus z_y. Peters et al. 2019, eq. 8."""
    p = entmax(scores, alpha)
    return p @ scores + sum(one - one**alpha for one in p) / (alpha * (alpha - 1)) - scores[token]


@functools.cache
def models(name):
    """The model with a sparse output, the same with softmax, and drawn parameters."""
    plain = ModelConfig(
        embedding=3,
        encoder=EncoderConfig(cell="rnn", size=2),
        attention=AttentionConfig(score="general"),
        decoder=DecoderConfig(cell="rnn", size=4, input_feeding=False),
    )
    sparse = dataclasses.replace(plain, decoder=dataclasses.replace(plain.decoder, output=name))
    made = [build(config, source_vocabulary=8, target_vocabulary=8) for config in (sparse, plain)]
    params = oracles.drawn(jax.eval_shape(made[0].init, jax.random.key(0)), seed=1, scale=1.5)
    return *made, params


@pytest.mark.parametrize("name", sorted(ALPHAS))
def test_probabilities_loss_and_gradient_are_the_papers(name):
    scores, target = np.random.default_rng(0).normal(size=(20, 9)).astype(np.float32) * 3, jnp.arange(20) % 9
    certain = jnp.array([[0.0, 50.0, 1.0]])

    @oracles.compiled
    def compute(scores):
        losses, pull = jax.vjp(lambda scores: entmax_loss(name, scores, target), scores)
        sure = entmax_loss(name, certain, jnp.array([1]))
        return log_probabilities(name, scores), losses, pull(jnp.ones(20))[0], sure

    log_probs, losses, slopes, sure = map(np.asarray, compute(scores))
    for row, token in enumerate(np.asarray(target)):
        p = entmax(scores[row].astype(np.float64), ALPHAS[name])
        np.testing.assert_allclose(np.exp(log_probs[row]), p, atol=1e-5)
        assert ((log_probs[row] <= IMPOSSIBLE) == (p < 1e-9)).all()
        assert (np.diff(log_probs[row][np.argsort(scores[row])]) >= 0).all()  # the impossible ones have an order too
        assert losses[row] == pytest.approx(loss(scores[row].astype(np.float64), token, ALPHAS[name]), abs=1e-4)
        np.testing.assert_allclose(slopes[row], p - np.eye(9)[token], atol=1e-5)
    assert losses.min() >= -1e-6
    np.testing.assert_allclose(sure, 0.0, atol=1e-5)


def test_a_model_is_trained_and_searched_by_them():
    """In the unroll, step by step, and with the scores of a few tokens at a time."""
    name = "entmax-1.5"
    sparse, plain, params = models(name)

    @oracles.compiled
    def compute(params):
        outputs = unroll_targets(sparse, params, BATCH)
        memory, state = sparse.encode(params, BATCH.source)
        fed = jnp.array([[BOS, 4, 6], [BOS, 5, EOS]])
        stepped = scan_of_step(sparse.step)(params, memory, state, fed)[1]
        in_steps = dataclasses.replace(sparse, unroll=scan_of_step(sparse.step))

        def nats(bias, model, chunk):
            biased = {**params, "decoder": {**params["decoder"], "output_bias": bias}}
            return batch_sums(model, biased, BATCH, config=LossConfig(vocabulary_chunk=chunk)).objective

        bias = params["decoder"]["output_bias"]
        sums = [
            jax.value_and_grad(nats)(bias, model, chunk) for model, chunk in ((sparse, 0), (sparse, 2), (in_steps, 2))
        ]
        return outputs, stepped, sums, unroll_targets(plain, params, BATCH).logits

    outputs, stepped, sums, scores = jax.tree.map(np.asarray, compute(params))
    oracles.same(outputs.scores, scores, tolerance=1e-6)
    oracles.same(stepped.scores, outputs.scores, tolerance=1e-5)
    rows, wanted, slope = np.asarray(scores, np.float64), 0.0, np.zeros(8)
    for row, time in np.ndindex(2, 3):
        p = entmax(rows[row, time], ALPHAS[name])
        for log_probs in (outputs.logits[row, time], stepped.logits[row, time]):
            np.testing.assert_allclose(np.exp(log_probs), p, atol=1e-4)
        token = int(BATCH.target[row, time])
        if token != PAD:
            wanted += loss(rows[row, time], token, ALPHAS[name])
            slope += p - np.eye(8)[token]
    for nats, gradient in sums:
        assert nats == pytest.approx(wanted, rel=1e-4)
        np.testing.assert_allclose(gradient, slope, atol=1e-4)


def test_a_search_leaves_out_what_is_impossible_unless_its_rules_leave_nothing_else():
    sparse, _, params = models("sparsemax")
    words = Words(list("abcd"))
    pair, lines = PairTokenizer(words, words), ["a b", "c"]
    beam = SearchConfig(beam=5)
    found = list(Translator(compiled_search(sparse, beam, 4), pair, beam).translate(params, lines))
    scorer = PairScorer(sparse, pair, beam)
    for translation in found:
        assert 1 <= len(translation.hypotheses) <= 5
        for hypothesis in translation.hypotheses:
            assert min(hypothesis.log_probs) > IMPOSSIBLE / 2
            if not hypothesis.truncated:
                (scored,) = scorer.score(params, [Example(translation.source, hypothesis.text)])
                np.testing.assert_allclose(scored.log_probs, hypothesis.log_probs, atol=1e-4)
    assert min(len(translation.hypotheses) for translation in found) < 5
    banned = SearchConfig(rules=LogitsRules(banned=(4, 5, 6), min_length=4, unknown=False))
    for translation in Translator(compiled_search(sparse, banned, 3), pair, banned).translate(params, lines):
        assert translation.text == "d d d"
        assert min(translation.log_probs) < IMPOSSIBLE / 2


def test_what_is_not_defined_for_a_sparse_output_is_refused():
    wanted = re.escape(
        "loss.label_smoothing=0.1 is not defined; set loss.label_smoothing=0.0, or model.decoder.output="
    )
    with pytest.raises(ValueError, match=wanted):
        check_experiment(tiny.experiment("model.decoder.output=entmax-1.5", "loss.label_smoothing=0.1"))
    assert typing.get_args(OutputName) == ("softmax", *SPARSE_OUTPUTS)
