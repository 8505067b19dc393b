"""Is each constraint the formula of its paper, over several steps, and the right special case at its limits?"""

import attention_harness as harness
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from s2s_jax.model.attention.constraints import CONSTRAINTS

MONOTONIC = sorted(name for name, kind in CONSTRAINTS.items() if kind.monotonic)
OTHERS = sorted(set(CONSTRAINTS) - set(MONOTONIC))
EVERY_MONOTONIC = pytest.mark.parametrize("constraint", MONOTONIC)


@pytest.mark.parametrize("constraint", OTHERS)
def test_values_and_slopes_are_the_papers(constraint):
    harness.check_against_oracle(harness.small_config(constraint=constraint))


def test_local_p_can_be_renormalized():
    harness.check_against_oracle(harness.small_config(constraint="local-p", renormalized=True))


@EVERY_MONOTONIC
def test_the_expectation_in_training_is_the_papers(constraint):
    harness.check_against_oracle(harness.legal_config(constraint=constraint), noise=harness.NOISE)


@EVERY_MONOTONIC
@pytest.mark.parametrize("hard", [True, False])
def test_without_noise_the_choice_is_hard_unless_configured_otherwise(constraint, hard):
    harness.check_against_oracle(harness.legal_config(constraint=constraint, monotonic_hard=hard))


def outputs_of(config, inputs, **other):
    return harness.forward(config)(harness.with_weights_from(config, inputs), **other)


@EVERY_MONOTONIC
def test_the_bias_starts_where_it_is_set(constraint):
    """Raffel et al. 2017, section 2.4; without a setting, where the constraint's own docstring says."""
    kind, score = CONSTRAINTS[constraint], {"constraint": constraint, "score": "additive"}
    for setting, start in ((-4.0, -4.0), (0.0, kind.offset)):
        config = harness.small_config(**score, monotonic_bias=setting)
        made = kind(4, 4, config, values=4, dtype=jnp.float32, rngs=oracles.OneKey())
        np.testing.assert_array_equal(made.bias[...], np.float32(start))


LIMITS = {
    "local-p with a window that has no end": {"constraint": "local-p", "window": 10**6},
    "local-m with a window as long as the source": {"constraint": "local-m", "window": harness.SOURCE},
    "window as long as the source": {"constraint": "window", "window": harness.SOURCE},
    "wait-k with all that was read": {"constraint": "wait-k", "wait_k": harness.SOURCE},
}


@pytest.mark.parametrize("limit", LIMITS)
def test_a_constraint_without_a_limit_is_none(limit):
    free = harness.small_config()
    inputs = harness.inputs_for(free)
    oracles.same(
        outputs_of(harness.small_config(**LIMITS[limit]), inputs),
        harness.forward_and_gradient(free)(inputs)[0],
        tolerance=1e-6,
    )


@pytest.mark.parametrize("noise", [None, harness.NOISE], ids=["hard", "training"])
def test_mocha_with_chunks_of_one_token_is_monotonic(noise):
    plain = harness.legal_config(constraint="monotonic")
    inputs = harness.inputs_for(plain)
    actual = outputs_of(harness.legal_config(constraint="mocha", mocha_chunk=1), inputs, noise=noise)
    oracles.same(actual, harness.forward_and_gradient(plain)(inputs, noise=noise)[0], tolerance=1e-6)


def test_a_forward_agent_with_zero_weights_is_forward():
    plain, agent = harness.small_config(constraint="forward"), harness.small_config(constraint="forward-agent")
    inputs = harness.inputs_for(plain)
    blank = {f"constraint__{name}": 0.0 for name in ("query_kernel", "context_kernel", "bias")}
    actual = harness.forward_and_gradient(agent)(
        harness.with_weights(harness.with_weights_from(agent, inputs), **blank)
    )[0]
    oracles.same(actual, harness.forward_and_gradient(plain)(inputs)[0], tolerance=1e-6)


@pytest.mark.parametrize("constraint", ["forward", "forward-agent"])
def test_forward_reaches_one_more_token_per_step(constraint):
    config = harness.small_config(constraint=constraint)
    alignment = harness.forward_and_gradient(config)(harness.inputs_for(config))[0].alignment[:, 0]
    for time in range(harness.STEPS):
        assert (alignment[time, : time + 2] > 0).all()
        np.testing.assert_array_equal(alignment[time, time + 2 :], 0.0)


def test_wait_k_reads_one_more_token_per_step():
    config = harness.small_config(constraint="wait-k", wait_k=2)
    alignment = harness.forward(config)(harness.inputs_for(config)).alignment[:, 0]
    for time in range(harness.STEPS):
        assert (alignment[time, : time + 2] > 0).all()
        np.testing.assert_array_equal(alignment[time, time + 2 :], 0.0)


@pytest.mark.parametrize("constraint", ["monotonic", "stepwise"])
def test_the_choice_never_goes_back_and_is_one_token_or_none(constraint):
    config = harness.legal_config(constraint=constraint)
    inputs = harness.inputs_for(config)
    for scale in (1.0, -1.0, 5.0):
        alignment = harness.forward_and_gradient(config)({**inputs, "queries": scale * inputs["queries"]})[0].alignment
        assert set(np.unique(alignment)) <= {0.0, 1.0}
        assert set(np.unique(alignment.sum(-1))) <= {0.0, 1.0}
        positions = np.where(alignment.any(-1), alignment.argmax(-1), harness.SOURCE)[:, :3]
        assert (np.diff(positions, axis=0) >= 0).all()
        if constraint == "stepwise":
            assert (np.diff(positions, axis=0) <= 1).all()


@EVERY_MONOTONIC
def test_with_saturated_probabilities_the_expectation_is_the_choice(constraint):
    hard, soft = (harness.legal_config(constraint=constraint, monotonic_hard=hard) for hard in (True, False))
    inputs = harness.inputs_for(hard)
    saturated = {**inputs, "queries": 1e5 * inputs["queries"]}
    choice = harness.forward_and_gradient(hard)(saturated)[0]
    oracles.same(harness.forward_and_gradient(soft)(saturated)[0], choice, tolerance=1e-4)
    assert choice.alignment[:, :2].any()


@EVERY_MONOTONIC
def test_noise_of_size_zero_is_no_noise(constraint):
    noiseless = harness.legal_config(constraint=constraint, monotonic_noise=0.0)
    inputs = harness.inputs_for(noiseless)
    plain = harness.forward_and_gradient(harness.legal_config(constraint=constraint, monotonic_hard=False))(inputs)[0]
    oracles.same(harness.forward(noiseless)(inputs, noise=harness.NOISE), plain, tolerance=1e-6)


@pytest.mark.parametrize(
    "choices", [{"constraint": "stepwise", "monotonic_noise": 3.0}, {"normalizer": "gumbel-softmax"}]
)
def test_noise_differs_by_row_and_step(choices):
    config = harness.legal_config(**choices)
    inputs = harness.inputs_for(config)
    repeated = {
        **inputs,
        "memory": jnp.broadcast_to(inputs["memory"][:1], inputs["memory"].shape),
        "queries": jnp.broadcast_to(inputs["queries"][:1, :1], inputs["queries"].shape),
    }
    everywhere, compute = np.ones_like(harness.MASK), harness.forward(config)
    drawn = compute(repeated, everywhere, harness.NOISE).alignment
    order = np.array([2, 0, 3, 1])
    np.testing.assert_array_equal(compute(repeated, everywhere, harness.NOISE[order]).alignment, drawn[:, order])
    assert all(np.abs(drawn[:, 0] - drawn[:, row]).max() > 0.01 for row in (1, 2, 3))
    same = compute(repeated, everywhere, harness.NOISE[:1].repeat(4, axis=0)).alignment
    np.testing.assert_array_equal(same, np.broadcast_to(drawn[:, :1], drawn.shape))
    if config.constraint == "none":  # nothing is remembered: steps differ by their noise alone
        assert np.abs(np.diff(drawn, axis=0)).max(-1).min() > 1e-3


def test_without_a_key_gumbel_softmax_is_softmax():
    drawn, plain = harness.small_config(normalizer="gumbel-softmax"), harness.small_config()
    inputs = harness.inputs_for(plain)
    oracles.same(
        harness.forward_and_gradient(drawn)(inputs)[0], harness.forward_and_gradient(plain)(inputs)[0], tolerance=1e-7
    )
    noisy = harness.forward_and_gradient(drawn)(inputs, noise=harness.NOISE)[0].alignment
    expected = harness.noises(drawn).transpose(1, 0, 2)
    plain = harness.forward_and_gradient(plain)(inputs)[0].alignment
    reweighted = np.where(harness.MASK, plain * np.exp(expected), 0.0)
    reweighted /= np.maximum(reweighted.sum(-1, keepdims=True), 1e-30)
    oracles.same(noisy, reweighted, tolerance=1e-5)
