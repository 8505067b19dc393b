"""Scoring gives a translation the score that the search gave it, whatever the search, in bounded memory."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
import tiny
from fake import MODEL, table

from s2s_jax.decode import forced_decoding as module
from s2s_jax.decode.forced_decoding import PairScorer, forced_decoding
from s2s_jax.decode.logits_rules import LogitsRules
from s2s_jax.decode.search import SearchConfig, compiled_search
from s2s_jax.model.attention.config import AttentionConfig
from s2s_jax.model.decoder.config import DecoderConfig
from s2s_jax.model.encoder import EncoderConfig
from s2s_jax.model.fusion import fuse
from s2s_jax.model.seq2seq import ModelConfig, build
from s2s_jax.shapes import Batch
from s2s_jax.text.copy_vocabulary import PairTokenizer
from s2s_jax.text.example import Example
from s2s_jax.text.tokenizers import Characters

SOURCE = jnp.array([[4, 2, 0], [3, 4, 2], [4, 3, 2]], jnp.int32)
RANKED = {"length_normalization": "average", "length_penalty": 0.8, "coverage_penalty": 0.2}
PENALTY = {"rules": LogitsRules(repetition_penalty=1.5, unknown=False, min_length=3)}
SEARCHES = {
    "greedy": {**RANKED, **PENALTY},
    "beam": {"beam": 3, **RANKED, **PENALTY},
    "groups": {"beam": 4, "groups": 2, "group_penalty": 0.5, "sibling_penalty": 0.3, **RANKED},
    "sample": {"method": "sample", "samples": 3, **RANKED, **PENALTY},
    "stochastic": {"method": "stochastic", "beam": 3, **RANKED, "rules": LogitsRules(unknown=False, min_length=3)},
}


def check_scores(model, params, config: SearchConfig) -> None:
    """The score and the log-probabilities of each complete hypothesis are those of the same string when it is given."""
    find = compiled_search(model, config, 6)
    options = {"scoring": config.scoring(), "repetition_penalty": config.rules.repetition_penalty}
    score = jax.jit(lambda params, batch: forced_decoding(model, params, batch, **options))
    found = jax.device_get(find(params, SOURCE, jnp.arange(3)))
    compared = 0
    for slot in range(found.tokens.shape[1]):
        given = jax.device_get(score(params, Batch(SOURCE, jnp.array(found.tokens[:, slot]))))
        for row in range(3):
            if np.isfinite(found.scores[row, slot]) and not found.truncated[row, slot]:
                np.testing.assert_allclose(found.log_probs[row, slot], given.log_probs[row], atol=1e-5)
                assert found.scores[row, slot] == pytest.approx(given.scores[row], abs=1e-5)
                compared += 1
    assert compared > 1


@pytest.mark.parametrize("name", sorted(SEARCHES))
def test_a_translation_has_the_score_that_the_search_gave_it(name):
    check_scores(MODEL, table(), SearchConfig(**SEARCHES[name]))


def test_with_a_latent_alignment_too():
    """A beam carries the distribution over source positions of each hypothesis."""
    decoder = DecoderConfig(cell="gru", size=4, architecture="hard-first-order")
    sizes, attention = EncoderConfig(cell="gru", size=2), AttentionConfig(window=1)
    config = ModelConfig(embedding=3, encoder=sizes, attention=attention, decoder=decoder)
    model = build(config, source_vocabulary=5, target_vocabulary=5)
    params = oracles.drawn(jax.eval_shape(model.init, jax.random.key(0)), seed=1, scale=1.5)
    check_scores(model, params, SearchConfig(**SEARCHES["beam"]))


def test_with_a_language_model_too():
    """Its weighted log-probabilities are added, and the sum is not normalized again."""
    check_scores(fuse(MODEL, MODEL, weight=0.7), (table(), table(2)), SearchConfig(**SEARCHES["beam"]))


LETTERS = Characters(["a"])
PAIRS = [Example("ab", "aab"), Example("a" * 9, "ab" * 20), Example("", "b"), Example("b", "")]


def scores_of(model, params, search: SearchConfig, language=None) -> list:
    return list(PairScorer(model, PairTokenizer(LETTERS, LETTERS), search, language).score(params, PAIRS))


def test_the_language_model_of_a_search_counts_in_the_score_alone():
    search = SearchConfig(language_model="another run", language_weight=0.7, **RANKED)
    plain = scores_of(MODEL, table(), SearchConfig(**RANKED))
    fused = scores_of(MODEL, table(), search, (MODEL, table(2)))
    for one, other in zip(plain, fused, strict=True):
        np.testing.assert_array_equal(one.log_probs, other.log_probs)
        assert other.score < one.score


@pytest.fixture(scope="module")
def model():
    config = tiny.experiment("model.attention.score=additive").model
    model = build(config, source_vocabulary=LETTERS.size, target_vocabulary=LETTERS.size)
    return model, model.init(jax.random.key(0))


@pytest.mark.parametrize("bound", ["MOST_LOGITS", "MOST_POSITION_PAIRS"])
def test_long_pairs_have_the_same_scores_in_less_memory(model, monkeypatch, bound):
    """The logits of a few tokens at once, and one step after another."""
    expected = scores_of(model[0], model[1], SearchConfig(batch_size=2))
    monkeypatch.setattr(module, bound, 20)
    for one, other in zip(scores_of(model[0], model[1], SearchConfig(batch_size=2)), expected, strict=True):
        np.testing.assert_allclose(one.log_probs, other.log_probs, atol=1e-5)
        np.testing.assert_allclose(one.alignment, other.alignment, atol=1e-5)
        assert (one.correct, one.tokens) == (other.correct, other.tokens)


def test_the_memory_of_one_long_pair_is_bounded(model):
    """2,048 tokens on each side: all logits of a vocabulary of 32,000 would take 268 MB, all additive scores 537 MB."""
    large = build(
        tiny.experiment("model.attention.score=additive").model, source_vocabulary=8, target_vocabulary=32_000
    )
    params = jax.eval_shape(large.init, jax.random.key(0))
    side = jax.ShapeDtypeStruct((1, 2048), jnp.int32)
    program = jax.jit(lambda params, source, target: forced_decoding(large, params, Batch(source, target)))
    memory = program.lower(params, side, side).compile().memory_analysis()
    assert memory is not None
    assert memory.temp_size_in_bytes < 100e6


def test_a_source_is_read_as_far_as_in_translation(model):
    (cut,) = (each for each in scores_of(model[0], model[1], SearchConfig(max_source=4)) if each.unread)
    assert (cut.example, cut.unread, cut.alignment.shape) == (PAIRS[1], 6, (41, 4))
    (whole,) = PairScorer(model[0], PairTokenizer(LETTERS, LETTERS), SearchConfig()).score(
        model[1], [Example("aaa", "ab" * 20)]
    )
    np.testing.assert_allclose(cut.log_probs, whole.log_probs, atol=1e-5)
