"""Is each score of places the formula of its paper, over several steps, and does it only move on where it should?"""

import attention_harness as harness
import jax
import numpy as np
import oracle_attention
import oracles
import pytest

from s2s_jax.model.attention.scores.location import beta_binomial

PLACES = {
    "location": {},
    "location-aware": {"history": "previous"},
    "location-aware, a kernel of 3": {"history": "previous", "kernel": 3},
    "location-aware, two channels": {"history": "previous-and-coverage", "kernel": 3},
    "dynamic-convolution": {"history": "previous"},
    "dynamic-convolution, a kernel of 3": {"history": "previous", "kernel": 3},
    "gaussian-mixture": {},
    "gaussian-mixture-v2": {},
}
MIXTURES = ("gaussian-mixture", "gaussian-mixture-v2")
MOVES = {"gaussian-mixture": 0.0, "gaussian-mixture-v2": np.log(np.e - 1)}  # exp and softplus of them are 1


def config_of(case):
    return harness.chosen(score=case.split(",")[0], **PLACES[case])


@pytest.mark.parametrize("case", PLACES)
def test_values_and_slopes_are_the_papers(case):
    harness.agrees(config_of(case))


@pytest.mark.parametrize("case", [case for case in PLACES if case.startswith("location-aware")])
def test_location_aware_without_filters_is_additive(case):
    config, plain = config_of(case), harness.chosen(score="additive")
    given = harness.given_for(plain)
    blank = harness.put(harness.with_weights_of(config, given), marks__filters=0.0)
    (said, gradient), (wanted, slopes) = harness.looker(config)(blank), harness.looker(plain)(given)
    oracles.same(said, wanted, tolerance=1e-6)
    for part in ("queries", "memory"):
        oracles.same(gradient[part], slopes[part], tolerance=1e-6)


def test_location_aware_has_the_kernels_of_its_paper():
    filters = harness.given_for(config_of("location-aware"))["weights"]["history_features"]["filters"]
    assert filters[...].shape == (31, 1, harness.SMALL["filters"])
    filters = harness.given_for(config_of("location-aware, two channels"))["weights"]["history_features"]["filters"]
    assert filters[...].shape == (3, 2, harness.SMALL["filters"])
    assert harness.given_for(config_of("dynamic-convolution"))["weights"]["score"]["filters"][...].shape[0] == 21


def test_the_prior_of_dynamic_convolution_is_a_beta_binomial_with_a_mean_of_one_token():
    prior = np.asarray(beta_binomial(10, 0.1, 0.9), np.float64)
    np.testing.assert_allclose(prior, oracle_attention.prior_of(10, 0.1, 0.9), rtol=1e-4)
    np.testing.assert_allclose([prior.sum(), prior @ np.arange(11)], [1.0, 1.0], rtol=1e-5)


def test_dynamic_convolution_starts_on_the_first_token_and_moves_by_its_prior():
    config = config_of("dynamic-convolution")
    said, _ = harness.looker(config)(harness.put(harness.given_for(config), score__vector=0.0))
    prior = np.array(oracle_attention.prior_of(10, 0.1, 0.9))[: harness.SOURCE]
    oracles.same(said.alignment[0, 0], prior / prior.sum(), tolerance=1e-5)
    twice = np.convolve(prior / prior.sum(), prior)[: harness.SOURCE]
    oracles.same(said.alignment[1, 0], twice / twice.sum(), tolerance=1e-5)


def test_tokens_beyond_the_prior_of_dynamic_convolution_can_still_be_reached():
    config = config_of("dynamic-convolution")
    given = harness.put(harness.given_for(config), score__vector=0.0)
    given = {
        **given,
        "queries": given["queries"][:, :1],
        "memory": np.ones((1, 14, harness.WIDTH), np.float32),
    }
    said, gradient = harness.looker(config)(given, np.ones((1, 14), bool))
    wanted = np.array([*oracle_attention.prior_of(10, 0.1, 0.9), 1e-6, 1e-6, 1e-6])
    np.testing.assert_allclose(said.alignment[0, 0], wanted / wanted.sum(), rtol=1e-3)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize("score", MIXTURES)
def test_components_only_move_on_from_before_the_first_token(score):
    config = harness.chosen(score=score)
    states, _, _ = harness.followed(config)(harness.given_for(config))
    np.testing.assert_array_equal(states.score[0], 0.0)
    assert (np.diff(states.score, axis=0) > 0).all()


@pytest.mark.parametrize("score", MIXTURES)
def test_a_component_moves_once_a_step(score):
    """A peer adds the move to a center that it was in already, so that the means double."""
    config = harness.chosen(score=score, mixtures=1)
    given = harness.given_for(config)
    narrow = 3.0 if score == "gaussian-mixture" else -2.0
    steady = harness.put(given, score__query_kernel=0.0, score__bias=np.array([0.0, narrow, MOVES[score]]))
    states, said, _ = harness.followed(config)(steady)
    np.testing.assert_allclose(states.score[:, 0, 0], [0, 1, 2, 3], rtol=1e-5)
    np.testing.assert_array_equal(said.alignment[:, 0].argmax(-1), [0, 1, 2])
    assert (said.alignment[:, 0].max(-1) > 0.9).all()


def test_exponential_gives_the_mixtures_own_weights():
    """Graves 2013, eq. 46: the window is the mixture itself, of any sum; tokens on padding take nothing from it."""
    config = harness.chosen(score="gaussian-mixture", normalizer="exponential", mixtures=1)
    given = harness.given_for(config)
    bias = np.log(np.array([0.7, 0.5, 1.0]))
    said = harness.forward(config)(harness.put(given, score__query_kernel=0.0, score__bias=bias))
    for time in range(harness.STEPS):
        window = 0.7 * np.exp(-0.5 * (time + 1.0 - np.arange(1, harness.SOURCE + 1)) ** 2)
        oracles.same(said.alignment[time], np.where(harness.MASK, window, 0.0), tolerance=1e-5)
