"""Several models as one, and a language model beside one: against a few lines of NumPy and brute force."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracle_search
import pytest
from fake import MODEL, WORDS, log_probs, table

from s2s_jax.config import Experiment, override
from s2s_jax.decode.autoregressive import greedy
from s2s_jax.decode.beam.engine import beam
from s2s_jax.decode.sampling import row_keys, sample
from s2s_jax.model.ensemble import ENSEMBLE_AVERAGES, ensemble
from s2s_jax.model.fusion import fuse
from s2s_jax.model.interface import unroll_targets
from s2s_jax.model.seq2seq import ModelConfig, build
from s2s_jax.shapes import BOS, EOS, UNK, Batch

SOURCE = jnp.array([[4, 2, 0], [3, 4, 2], [4, 3, 2]], jnp.int32)
SEEDS = (1, 2, 3)
TABLES = [table(seed) for seed in SEEDS]


def mixed(average: str, which: int, time: int, token: int) -> np.ndarray:
    """The log-probabilities of three tables as one, by hand."""
    each = np.array([log_probs(np.asarray(one), which, time, token) for one in TABLES])
    if average == "linear":
        return np.log(np.exp(each).mean(0))
    return each.mean(0) - np.log(np.exp(each.mean(0)).sum())


def shallow(weight: float, which: int, time: int, token: int) -> np.ndarray:
    """The score of a token with a language model, whose empty source is the end token, an even number."""
    own, other = (np.asarray(one) for one in TABLES[:2])
    return log_probs(own, which, time, token) + weight * log_probs(other, EOS % 2, time, token)


def ranked(of) -> list[tuple[float, tuple[int, ...]]]:
    """All strings of at most five tokens by the sum of what their tokens count, best first."""
    scored = []
    for string in oracle_search.strings(5):
        pairs = enumerate(zip((BOS, *string[:-1]), string, strict=True))
        scored.append((sum(of(time, before)[token] for time, (before, token) in pairs), string))
    return sorted(scored, reverse=True)


def is_exact(model, params, of) -> None:
    """A beam that holds everything finds all strings, in order, with their scores and the tokens' parts of them."""
    find = jax.jit(lambda params: beam(model, params, SOURCE, width=48, max_length=5, stopping="never"))
    found = jax.device_get(find(params))
    for row in range(2):
        own = functools.partial(of, int(SOURCE[row, 0]) % 2)
        expected = ranked(own)
        complete = ~found.truncated[row] & np.isfinite(found.scores[row])
        assert complete.sum() == len(expected)
        np.testing.assert_allclose(found.scores[row][complete], [score for score, _ in expected], atol=1e-4)
        for slot, (_, string) in enumerate(expected):
            assert oracle_search.string_of(found.tokens[row, slot]) == string
            pairs = enumerate(zip((BOS, *string[:-1]), string, strict=True))
            parts = [own(time, before)[token] for time, (before, token) in pairs]
            np.testing.assert_allclose(found.log_probs[row, slot, : len(string)], parts, atol=1e-4)


@pytest.mark.parametrize("average", sorted(ENSEMBLE_AVERAGES))
def test_an_ensemble_averages_its_members(average):
    is_exact(ensemble([MODEL] * 3, average=average), TABLES, functools.partial(mixed, average))


def test_a_language_model_adds_its_weighted_log_probability():
    is_exact(fuse(MODEL, MODEL, weight=0.4), (TABLES[0], TABLES[1]), functools.partial(shallow, 0.4))


def test_a_greedy_step_counts_the_same_as_a_beam_of_one():
    model = fuse(MODEL, ensemble([MODEL] * 2), weight=0.7)
    params = (TABLES[0], TABLES[1:])
    find = jax.jit(lambda search, params: search(model, params, SOURCE), static_argnums=0)
    searches = (functools.partial(greedy, max_length=6), functools.partial(beam, width=1, max_length=6))
    for one, other in zip(*(find(search, params) for search in searches), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.mark.parametrize("average", sorted(ENSEMBLE_AVERAGES))
def test_an_ensemble_of_a_model_with_itself_is_the_model(average):
    """In search and in scoring, alignments included."""
    twice = ensemble([MODEL, MODEL], average=average)
    find = jax.jit(lambda model, params: beam(model, params, SOURCE, width=3, max_length=6), static_argnums=0)
    for seed in range(5):
        alone, both = find(MODEL, table(seed)), find(twice, [table(seed)] * 2)
        np.testing.assert_array_equal(alone.tokens, both.tokens)
        for one, other in zip(alone, both, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)
    batch = Batch(SOURCE, jnp.array([[3, 4, 2], [4, 2, 0], [2, 0, 0]]))
    alone, both = jax.jit(
        lambda: (unroll_targets(MODEL, table(), batch), unroll_targets(twice, [table()] * 2, batch))
    )()
    np.testing.assert_allclose(jax.nn.log_softmax(alone.logits), jax.nn.log_softmax(both.logits), atol=1e-5)
    np.testing.assert_allclose(alone.alignment, both.alignment)


def test_models_of_different_kinds_go_together():
    """Real ones: two cells, two sizes, one without attention, whose share of the alignment is missing."""
    small = {"embedding": 5, "encoder.size": 4, "decoder.size": 6}
    kinds = (
        {"encoder.cell": "gru", "decoder.cell": "gru"},
        {"embedding": 3, "attention.score": "none"},
    )
    models = [build(config_of({**small, **kind}), source_vocabulary=WORDS, target_vocabulary=WORDS) for kind in kinds]
    together = ensemble(models, average="linear")
    params = together.init(jax.random.key(0))
    batch = Batch(SOURCE, jnp.array([[3, 4, 2], [4, 2, 0], [2, 0, 0]]))

    @jax.jit
    def outputs_of(params):
        alone = [unroll_targets(model, own, batch) for model, own in zip(models, params, strict=True)]
        return alone, unroll_targets(together, params, batch)

    each, result = outputs_of(params)
    wanted = np.mean([jax.nn.softmax(one.logits) for one in each], axis=0)
    np.testing.assert_allclose(jax.nn.softmax(result.logits), wanted, atol=1e-6)
    np.testing.assert_allclose(result.alignment, each[0].alignment / 2, atol=1e-6)


def config_of(changes: dict) -> ModelConfig:
    return override(Experiment(), *(f"model.{name}={value}" for name, value in changes.items())).model


@pytest.mark.parametrize("kind", ["ensemble", "fusion"])
def test_neighbors_and_padding_change_nothing(kind):
    model = ensemble([MODEL] * 3) if kind == "ensemble" else fuse(MODEL, ensemble([MODEL] * 2), weight=0.5)
    params = TABLES if kind == "ensemble" else (TABLES[0], TABLES[1:])
    find = jax.jit(lambda source: beam(model, params, source, width=3, max_length=6))
    together = find(SOURCE)
    for row in range(3):
        alone = find(jnp.where(jnp.arange(3)[:, None] == row, SOURCE, 0))
        for one, all_of_them in zip(alone, together, strict=True):
            np.testing.assert_array_equal(one[row], all_of_them[row])


def test_a_sample_is_drawn_from_what_both_say():
    """With a weight so large that the language model alone decides."""
    certain = jnp.zeros((2, WORDS, WORDS)).at[:, :, UNK].set(3.0)
    model = fuse(MODEL, MODEL, weight=50.0)
    keys = row_keys(0, jnp.arange(3))
    found = jax.jit(lambda params: sample(model, params, SOURCE, keys, samples=4, max_length=1))((TABLES[0], certain))
    assert (found.tokens == UNK).all()


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="at least one model, got none"):
        ensemble([])
    with pytest.raises(ValueError, match="average must be one of linear, log-linear, got 'log'"):
        ensemble([MODEL], average="log")
    with pytest.raises(ValueError, match="search.language_weight must be above 0, got 0; for 0 leave"):
        fuse(MODEL, MODEL, weight=0)
