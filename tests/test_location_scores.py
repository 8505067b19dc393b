"""Is each location score the formula of its paper, over several steps, and does it move forward only?"""

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
    return harness.small_config(score=case.split(",")[0], **PLACES[case])


@pytest.mark.parametrize("case", PLACES)
def test_values_and_slopes_are_the_papers(case):
    harness.check_against_oracle(config_of(case))


@pytest.mark.parametrize("case", [case for case in PLACES if case.startswith("location-aware")])
def test_location_aware_without_filters_is_additive(case):
    config, plain = config_of(case), harness.small_config(score="additive")
    inputs = harness.inputs_for(plain)
    blank = harness.with_weights(harness.with_weights_from(config, inputs), history_features__filters=0.0)
    (outputs, gradient), (expected, slopes) = (
        harness.forward_and_gradient(config)(blank),
        harness.forward_and_gradient(plain)(inputs),
    )
    oracles.same(outputs, expected, tolerance=1e-6)
    for part in ("queries", "memory"):
        oracles.same(gradient[part], slopes[part], tolerance=1e-6)


def test_location_aware_has_the_kernels_of_its_paper():
    filters = harness.inputs_for(config_of("location-aware"))["weights"]["history_features"]["filters"]
    assert filters[...].shape == (31, 1, harness.SMALL["filters"])
    filters = harness.inputs_for(config_of("location-aware, two channels"))["weights"]["history_features"]["filters"]
    assert filters[...].shape == (3, 2, harness.SMALL["filters"])
    assert harness.inputs_for(config_of("dynamic-convolution"))["weights"]["score"]["filters"][...].shape[0] == 21


def test_the_prior_of_dynamic_convolution_is_a_beta_binomial_with_a_mean_of_one_token():
    prior = np.asarray(beta_binomial(10, 0.1, 0.9), np.float64)
    np.testing.assert_allclose(prior, oracle_attention.prior_of(10, 0.1, 0.9), rtol=1e-4)
    np.testing.assert_allclose([prior.sum(), prior @ np.arange(11)], [1.0, 1.0], rtol=1e-5)


def test_dynamic_convolution_starts_on_the_first_token_and_moves_by_its_prior():
    config = config_of("dynamic-convolution")
    outputs, _ = harness.forward_and_gradient(config)(
        harness.with_weights(harness.inputs_for(config), score__vector=0.0)
    )
    prior = np.array(oracle_attention.prior_of(10, 0.1, 0.9))[: harness.SOURCE]
    oracles.same(outputs.alignment[0, 0], prior / prior.sum(), tolerance=1e-5)
    twice = np.convolve(prior / prior.sum(), prior)[: harness.SOURCE]
    oracles.same(outputs.alignment[1, 0], twice / twice.sum(), tolerance=1e-5)


def test_tokens_beyond_the_prior_of_dynamic_convolution_can_still_be_reached():
    config = config_of("dynamic-convolution")
    inputs = harness.with_weights(harness.inputs_for(config), score__vector=0.0)
    inputs = {
        **inputs,
        "queries": inputs["queries"][:, :1],
        "memory": np.ones((1, 14, harness.WIDTH), np.float32),
    }
    outputs, gradient = harness.forward_and_gradient(config)(inputs, np.ones((1, 14), bool))
    expected = np.array([*oracle_attention.prior_of(10, 0.1, 0.9), 1e-6, 1e-6, 1e-6])
    np.testing.assert_allclose(outputs.alignment[0, 0], expected / expected.sum(), rtol=1e-3)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize("score", MIXTURES)
def test_components_start_before_the_first_token_and_move_forward(score):
    config = harness.small_config(score=score)
    states, _, _ = harness.trace_states(config)(harness.inputs_for(config))
    np.testing.assert_array_equal(states.score[0], 0.0)
    assert (np.diff(states.score, axis=0) > 0).all()


@pytest.mark.parametrize("score", MIXTURES)
def test_a_component_moves_once_per_step(score):
    """A known error elsewhere adds the move to a center that already includes it, which doubles the means."""
    config = harness.small_config(score=score, mixtures=1)
    inputs = harness.inputs_for(config)
    narrow = 3.0 if score == "gaussian-mixture" else -2.0
    steady = harness.with_weights(inputs, score__query_kernel=0.0, score__bias=np.array([0.0, narrow, MOVES[score]]))
    states, outputs, _ = harness.trace_states(config)(steady)
    np.testing.assert_allclose(states.score[:, 0, 0], [0, 1, 2, 3], rtol=1e-5)
    np.testing.assert_array_equal(outputs.alignment[:, 0].argmax(-1), [0, 1, 2])
    assert (outputs.alignment[:, 0].max(-1) > 0.9).all()


def test_the_exponential_normalizer_gives_the_weights_of_the_mixture():
    """Graves 2013, eq. 46: the window is the mixture itself, of any sum; padding takes no weight from it."""
    config = harness.small_config(score="gaussian-mixture", normalizer="exponential", mixtures=1)
    inputs = harness.inputs_for(config)
    bias = np.log(np.array([0.7, 0.5, 1.0]))
    outputs = harness.forward(config)(harness.with_weights(inputs, score__query_kernel=0.0, score__bias=bias))
    for time in range(harness.STEPS):
        window = 0.7 * np.exp(-0.5 * (time + 1.0 - np.arange(1, harness.SOURCE + 1)) ** 2)
        oracles.same(outputs.alignment[time], np.where(harness.MASK, window, 0.0), tolerance=1e-5)


@pytest.mark.parametrize(
    ("score", "normalizer"), [(MIXTURES[0], "softmax"), (MIXTURES[0], "exponential"), (MIXTURES[1], "softmax")]
)
def test_numbers_of_any_size_leave_a_mixture_and_its_slopes_finite(score, normalizer):
    """Moves, spreads and weights are exponentials, which overflow from 88 on; their squares too must stay finite."""
    config = harness.small_config(score=score, normalizer=normalizer)
    inputs = harness.inputs_for(config)
    for size in (100.0, 1e4, -1e4):
        for third in range(3):  # the weights, the spreads or the moves
            part = np.arange(3 * config.mixtures) // config.mixtures == third
            large = harness.with_weights(inputs, score__query_kernel=0.0, score__bias=np.where(part, size, 0.0))
            outputs, gradient = harness.forward_and_gradient(config)(large)
            for leaf in jax.tree.leaves((outputs, gradient)):
                assert np.isfinite(np.square(leaf).sum())
        outputs, gradient = harness.forward_and_gradient(config)({**inputs, "queries": size * inputs["queries"]})
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((outputs, gradient)))
