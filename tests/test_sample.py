"""Samples come as often as the model says, and as the cuts say."""

import jax
import jax.numpy as jnp
import numpy as np
import oracle_search
import pytest
from fake import MODEL, table
from scipy.stats import chisquare

from s2s_jax.decode.sampling import Sampling, draw_tokens, place_of, row_keys, sample, truncate
from s2s_jax.shapes import EOS

SOURCE = jnp.array([[4, 2, 0], [3, 4, 2]], jnp.int32)
DRAWS, LONGEST = 8000, 3


def fits(counts: dict, probabilities: dict) -> None:
    """Refuse counts that chance would bring once in ten thousand times; rare outcomes are counted together."""
    assert set(counts) <= set(probabilities)
    total = sum(counts.values())
    common = [one for one, share in probabilities.items() if share * total >= 5]
    expected = np.array([probabilities[one] * total for one in common])
    observed = np.array([counts.get(one, 0) for one in common], float)
    rest = total - expected.sum()
    if rest > 1e-6 * total:
        expected, observed = np.append(expected, rest), np.append(observed, total - observed.sum())
    assert len(expected) > 2
    assert chisquare(observed, expected * observed.sum() / expected.sum()).pvalue > 1e-4


def counted(rows) -> dict:
    strings, counts = np.unique(np.asarray(rows), axis=0, return_counts=True)
    return {oracle_search.string_of(string): int(count) for string, count in zip(strings, counts, strict=True)}


@pytest.fixture(scope="module")
def found():
    draw = jax.jit(lambda params, source, keys: sample(MODEL, params, source, keys, samples=DRAWS, max_length=LONGEST))
    return jax.device_get(draw(table(), SOURCE, row_keys(5, jnp.arange(2))))


@pytest.mark.parametrize("row", [0, 1])
def test_samples_are_as_frequent_as_their_probabilities(found, row):
    fits(counted(found.tokens[row]), oracle_search.leaves(np.asarray(table()), int(SOURCE[row, 0]) % 2, LONGEST))


def test_a_sample_has_the_models_own_log_probabilities_and_its_alignment(found):
    numbers = np.asarray(table())
    for slot in range(20):
        string = oracle_search.string_of(found.tokens[1, slot])
        expected = oracle_search.token_log_probs(numbers, 1, string)
        np.testing.assert_allclose(found.log_probs[1, slot, : len(string)], expected, atol=1e-5)
        assert found.scores[1, slot] == pytest.approx(sum(expected), abs=1e-5)
        for time, before in enumerate((1, *string[:-1])):
            assert found.alignment[1, slot, time].argmax() == (before + time) % 3
        assert bool(found.truncated[1, slot]) == (string[-1] != EOS)
    assert not found.log_weights.any()


CUTS = (
    Sampling(),
    Sampling(temperature=0.5),
    Sampling(temperature=2.0, top_k=3),
    Sampling(top_k=1),
    Sampling(top_k=100),
    Sampling(top_p=0.6),
    Sampling(top_p=1e-6),
    Sampling(epsilon=0.1),
    Sampling(epsilon=0.9),
    Sampling(temperature=1.5, top_k=6, top_p=0.8, epsilon=0.07),
)


def cut_by_hand(logits: np.ndarray, sampling: Sampling) -> dict[int, float]:
    """The probability of each token that may be drawn."""
    tempered = np.asarray(logits, np.float64) / sampling.temperature
    shares = np.exp(tempered) / np.exp(tempered).sum()
    chosen = []
    for token, share in enumerate(shares):
        likelier = shares[shares > share]
        dropped = (
            (sampling.top_k and len(likelier) >= sampling.top_k)
            or likelier.sum() >= sampling.top_p
            or share < sampling.epsilon
        )
        if share > 0 and not (dropped and len(likelier)):
            chosen.append(token)
    total = shares[chosen].sum()
    return {token: shares[token] / total for token in chosen}


@pytest.mark.parametrize("sampling", CUTS, ids=str)
def test_truncation_agrees_with_slow_python(sampling):
    random = np.random.default_rng(0)
    logits = random.normal(size=(30, 9)).astype(np.float32)
    logits[10:20] = np.round(logits[10:20]) + 0.0  # equals, and no -0.0, which top_k puts below 0.0
    logits[:, 0] = -np.inf
    left = np.asarray(truncate(jnp.array(logits) / sampling.temperature, sampling))
    for row in range(len(logits)):
        shares = np.exp(left[row]) / np.exp(left[row]).sum()
        found = {int(token): shares[token] for token in np.flatnonzero(shares)}
        assert found == pytest.approx(cut_by_hand(logits[row], sampling), rel=1e-4)


@pytest.mark.parametrize("sampling", [CUTS[2], CUTS[5], CUTS[9]], ids=str)
def test_tokens_are_as_frequent_as_the_truncated_distribution(sampling):
    logits = np.random.default_rng(1).normal(size=9).astype(np.float32)
    rows = jnp.broadcast_to(jnp.array(logits), (DRAWS, 9))
    tokens = draw_tokens(rows, row_keys(2, jnp.arange(DRAWS)), sampling)
    drawn, counts = np.unique(np.asarray(tokens), return_counts=True)
    fits(dict(zip(drawn.tolist(), counts.tolist(), strict=True)), cut_by_hand(logits, sampling))


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(top_p=0.9)], ids=str)
def test_a_vocabulary_of_many_blocks_is_sampled_alike(sampling):
    logits = np.random.default_rng(3).normal(size=200).astype(np.float32) * 2
    logits[10:140] = -np.inf  # a whole stretch that nothing is drawn from
    tokens = draw_tokens(jnp.broadcast_to(jnp.array(logits), (DRAWS, 200)), row_keys(4, jnp.arange(DRAWS)), sampling)
    drawn, counts = np.unique(np.asarray(tokens), return_counts=True)
    fits(dict(zip(drawn.tolist(), counts.tolist(), strict=True)), cut_by_hand(logits, sampling))


@pytest.mark.parametrize(("point", "place"), [(0.0, 1), (0.99, 1), (1.0, 3), (2.99, 3), (3.0, 3), (9.0, 3)])
def test_a_point_falls_on_a_place_that_has_weight(point, place):
    assert place_of(jnp.array([[0.0, 1.0, 0.0, 2.0, 0.0]]), jnp.array([[point]])) == place


def test_neighbors_padding_and_order_change_no_sample():
    few = jax.jit(lambda params, source, keys: sample(MODEL, params, source, keys, samples=4, max_length=6))
    for seed in range(10):
        together = few(table(seed), SOURCE, row_keys(seed, jnp.array([7, 8])))
        turned = few(table(seed), SOURCE[::-1], row_keys(seed, jnp.array([8, 7])))
        alone = few(table(seed), SOURCE.at[0].set(0), row_keys(seed, jnp.array([0, 8])))
        for one, other, only in zip(together, turned, alone, strict=True):
            np.testing.assert_array_equal(one, other[::-1])
            np.testing.assert_array_equal(one[1], only[1])
        assert not bool(jnp.isfinite(alone.scores[0]).any())
        assert not bool(alone.tokens[0].any())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"temperature": 0.0},
            r"temperature must be at least 1e-06, got 0.0; for the likeliest token take search.method=beam",
        ),
        ({"top_k": -1}, "search.sampling.top_k must be zero or more, got -1"),
        ({"top_p": 0.0}, "search.sampling.top_p must be above 0 and at most 1, got 0.0"),
        ({"epsilon": 1.0}, "search.sampling.epsilon must be at least 0 and below 1, got 1.0"),
    ],
)
def test_invalid_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Sampling(**settings)
