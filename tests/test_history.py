"""Is each history the formula of its paper, over several steps: values, slopes, and identities?"""

import attention_harness as harness
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from s2s_jax.model.attention.history import HISTORIES

WITH_FEATURES = sorted(set(HISTORIES) - {"none", "intra-temporal"})  # what it says is added to the keys


@pytest.mark.parametrize("history", sorted(HISTORIES))
@pytest.mark.parametrize("score", ["additive", "general"])
def test_values_and_slopes_are_the_papers(history, score):
    harness.check_against_oracle(harness.small_config(score=score, history=history))


@pytest.mark.parametrize("history", ["previous-and-coverage", "coverage-gru"])
def test_a_kernel_convolves_the_features(history):
    harness.check_against_oracle(harness.small_config(score="additive", history=history, kernel=3))


@pytest.mark.parametrize("history", WITH_FEATURES)
def test_a_history_with_zero_weights_is_none(history):
    config, plain = harness.small_config(history=history), harness.small_config()
    inputs = harness.with_weights_from(config, harness.inputs_for(plain))
    unseen = harness.forward_and_gradient(config)(harness.with_weights(inputs, history_features__weight=0.0))
    expected = harness.forward_and_gradient(plain)(harness.inputs_for(plain))
    oracles.same(unseen[0], expected[0], tolerance=1e-6)
    for part in ("queries", "memory"):
        oracles.same(unseen[1][part], expected[1][part], tolerance=1e-6)
    assert (
        np.abs(harness.forward_and_gradient(config)(inputs)[0].alignment - expected[0].alignment).max() > 1e-3
    )  # it does weigh


@pytest.mark.parametrize("history", ["coverage", "previous-and-coverage"])
def test_coverage_does_not_include_the_step_itself(history):
    config = harness.small_config(history=history)
    states, outputs, _ = harness.trace_states(config)(harness.inputs_for(config))
    covered = states.history if history == "coverage" else states.history[1]
    np.testing.assert_array_equal(covered[0], 0.0)  # before the first step
    np.testing.assert_array_equal(covered[1], outputs.alignment[0])
    oracles.same(covered[1:], np.cumsum(outputs.alignment, axis=0), tolerance=1e-6)


def test_the_coverage_loss_of_attending_twice_to_one_token_is_one():
    """See et al. 2017, eq. 12: sum_s min(a_s, c_s), 0 at the first step (1 if it included itself)."""
    config = harness.small_config(history="coverage")
    inputs, mask = harness.inputs_for(config), np.arange(harness.SOURCE) < np.ones((4, 1))
    states, outputs, _ = harness.trace_states(config)(inputs, mask)
    np.testing.assert_allclose(np.minimum(outputs.alignment, states.history[:-1]).sum(-1), [[0] * 4, [1] * 4, [1] * 4])


def test_the_alignment_before_the_first_step_is_uniform():
    config = harness.small_config(history="previous")
    states, outputs, _ = harness.trace_states(config)(harness.inputs_for(config))
    np.testing.assert_allclose(states.history[0].sum(-1), [1, 1, 1, 0], rtol=1e-6)
    np.testing.assert_allclose(states.history[0][0], 0.2, rtol=1e-6)
    np.testing.assert_array_equal(states.history[1:], outputs.alignment)


def test_coverage_times_fertility_adds_up_to_the_number_of_steps():
    config = harness.small_config(history="coverage-fertility")
    states, _, keys = harness.trace_states(config)(harness.inputs_for(config))
    fertility = keys.history
    assert (fertility > 0).all()
    assert (fertility <= config.fertility).all()
    for time in range(harness.STEPS + 1):
        np.testing.assert_allclose((fertility * states.history[time]).sum(-1), [time, time, time, 0], atol=1e-5)


@pytest.mark.parametrize("history", ["coverage-tanh", "coverage-gru"])
def test_coverage_vectors_of_padding_are_zero(history):
    config = harness.small_config(history=history)
    states, _, _ = harness.trace_states(config)(harness.inputs_for(config))
    np.testing.assert_array_equal(states.history[:, ~harness.MASK], 0.0)
    assert np.abs(states.history[1:, harness.MASK]).min() > 0


def test_intra_temporal_attention_is_uniform_when_a_query_is_repeated():
    """Paulus et al. 2018, eq. 3: exp(e) / exp(e) is 1 for every token, and exp(e) / 2 exp(e) is 1/2."""
    config = harness.small_config(history="intra-temporal")
    inputs = harness.inputs_for(config)
    same = {**inputs, "queries": jnp.broadcast_to(inputs["queries"][:1], inputs["queries"].shape)}
    outputs, _ = harness.forward_and_gradient(config)(same)
    plain, _ = harness.forward_and_gradient(harness.small_config())(same)
    oracles.same(outputs.alignment[0], plain.alignment[0], tolerance=1e-6)
    even = harness.MASK / np.maximum(harness.MASK.sum(-1, keepdims=True), 1)
    oracles.same(outputs.alignment[1:], np.broadcast_to(even, (2, *even.shape)), tolerance=1e-5)


@pytest.mark.parametrize("history", ["coverage", "coverage-fertility", "previous-and-coverage"])
def test_no_token_gets_more_than_its_fertility(history):
    config = harness.small_config(history=history, normalizer="constrained-softmax", fertility=1.2)
    inputs = harness.inputs_for(config)
    _, outputs, keys = harness.trace_states(config)({**inputs, "queries": 3 * inputs["queries"]})
    most = keys.history if history == "coverage-fertility" else np.full(harness.MASK.shape, 1.2)
    total = outputs.alignment.sum(0)
    assert (total <= most + 1e-5).all()
    assert np.isclose(total, most, atol=1e-5)[harness.MASK].any()  # the limit is reached
