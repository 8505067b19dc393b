"""Is each constraint the formula of its paper, over several steps, and what it should be at its limits?"""

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
    harness.agrees(harness.chosen(constraint=constraint))


def test_local_p_can_be_brought_back_to_a_sum_of_one():
    harness.agrees(harness.chosen(constraint="local-p", renormalized=True))


@EVERY_MONOTONIC
def test_in_training_the_expectation_is_the_papers(constraint):
    harness.agrees(harness.fitted(constraint=constraint), noise=harness.NOISE)


@EVERY_MONOTONIC
@pytest.mark.parametrize("hard", [True, False])
def test_without_noise_one_token_is_chosen_or_the_expectation_kept(constraint, hard):
    harness.agrees(harness.fitted(constraint=constraint, monotonic_hard=hard))


def said_by(config, given, **other):
    return harness.forward(config)(harness.with_weights_of(config, given), **other)


LIMITS = {
    "local-p with a window that has no end": {"constraint": "local-p", "window": 10**6},
    "local-m with a window as long as the source": {"constraint": "local-m", "window": harness.SOURCE},
    "window as long as the source": {"constraint": "window", "window": harness.SOURCE},
    "wait-k with all that was read": {"constraint": "wait-k", "wait_k": harness.SOURCE},
}


@pytest.mark.parametrize("limit", LIMITS)
def test_a_constraint_without_limit_is_none(limit):
    free = harness.chosen()
    given = harness.given_for(free)
    oracles.same(
        said_by(harness.chosen(**LIMITS[limit]), given),
        harness.looker(free)(given)[0],
        tolerance=1e-6,
    )


@pytest.mark.parametrize("noise", [None, harness.NOISE], ids=["hard", "training"])
def test_mocha_with_chunks_of_one_token_is_monotonic(noise):
    plain = harness.fitted(constraint="monotonic")
    given = harness.given_for(plain)
    ours = said_by(harness.fitted(constraint="mocha", mocha_chunk=1), given, noise=noise)
    oracles.same(ours, harness.looker(plain)(given, noise=noise)[0], tolerance=1e-6)


def test_an_agent_without_an_opinion_is_plain_forward():
    plain, agent = harness.chosen(constraint="forward"), harness.chosen(constraint="forward-agent")
    given = harness.given_for(plain)
    blank = {f"constraint__{name}": 0.0 for name in ("query_kernel", "context_kernel", "bias")}
    ours = harness.looker(agent)(harness.put(harness.with_weights_of(agent, given), **blank))[0]
    oracles.same(ours, harness.looker(plain)(given)[0], tolerance=1e-6)


@pytest.mark.parametrize("constraint", ["forward", "forward-agent"])
def test_forward_reaches_one_more_token_a_step(constraint):
    config = harness.chosen(constraint=constraint)
    alignment = harness.looker(config)(harness.given_for(config))[0].alignment[:, 0]
    for time in range(harness.STEPS):
        assert (alignment[time, : time + 2] > 0).all()
        np.testing.assert_array_equal(alignment[time, time + 2 :], 0.0)


def test_wait_k_reads_one_more_token_a_step():
    config = harness.chosen(constraint="wait-k", wait_k=2)
    alignment = harness.forward(config)(harness.given_for(config)).alignment[:, 0]
    for time in range(harness.STEPS):
        assert (alignment[time, : time + 2] > 0).all()
        np.testing.assert_array_equal(alignment[time, time + 2 :], 0.0)


@pytest.mark.parametrize("constraint", ["monotonic", "stepwise"])
def test_the_choice_never_goes_back_and_is_one_token_or_none(constraint):
    config = harness.fitted(constraint=constraint)
    given = harness.given_for(config)
    for loud in (1.0, -1.0, 5.0):
        alignment = harness.looker(config)({**given, "queries": loud * given["queries"]})[0].alignment
        assert set(np.unique(alignment)) <= {0.0, 1.0}
        assert set(np.unique(alignment.sum(-1))) <= {0.0, 1.0}
        places = np.where(alignment.any(-1), alignment.argmax(-1), harness.SOURCE)[:, :3]
        assert (np.diff(places, axis=0) >= 0).all()
        if constraint == "stepwise":
            assert (np.diff(places, axis=0) <= 1).all()


@EVERY_MONOTONIC
def test_sure_of_every_choice_the_expectation_is_the_choice(constraint):
    hard, soft = (harness.fitted(constraint=constraint, monotonic_hard=hard) for hard in (True, False))
    given = harness.given_for(hard)
    sure = {**given, "queries": 1e5 * given["queries"]}
    chosen = harness.looker(hard)(sure)[0]
    oracles.same(harness.looker(soft)(sure)[0], chosen, tolerance=1e-4)
    assert chosen.alignment[:, :2].any()


@EVERY_MONOTONIC
def test_noise_of_no_size_is_no_noise(constraint):
    silent = harness.fitted(constraint=constraint, monotonic_noise=0.0)
    given = harness.given_for(silent)
    plain = harness.looker(harness.fitted(constraint=constraint, monotonic_hard=False))(given)[0]
    oracles.same(harness.forward(silent)(given, noise=harness.NOISE), plain, tolerance=1e-6)


@pytest.mark.parametrize(
    "choices", [{"constraint": "stepwise", "monotonic_noise": 3.0}, {"normalizer": "gumbel-softmax"}]
)
def test_noise_is_a_rows_own_and_new_at_every_step(choices):
    config = harness.fitted(**choices)
    given = harness.given_for(config)
    alike = {
        **given,
        "memory": jnp.broadcast_to(given["memory"][:1], given["memory"].shape),
        "queries": jnp.broadcast_to(given["queries"][:1, :1], given["queries"].shape),
    }
    everywhere, look = np.ones_like(harness.MASK), harness.forward(config)
    drawn = look(alike, everywhere, harness.NOISE).alignment
    order = np.array([2, 0, 3, 1])
    np.testing.assert_array_equal(look(alike, everywhere, harness.NOISE[order]).alignment, drawn[:, order])
    assert all(np.abs(drawn[:, 0] - drawn[:, row]).max() > 0.01 for row in (1, 2, 3))
    same = look(alike, everywhere, harness.NOISE[:1].repeat(4, axis=0)).alignment
    np.testing.assert_array_equal(same, np.broadcast_to(drawn[:, :1], drawn.shape))
    if config.constraint == "none":  # nothing is remembered: steps differ by their noise alone
        assert np.abs(np.diff(drawn, axis=0)).max(-1).min() > 1e-3


def test_without_a_key_gumbel_softmax_is_softmax():
    drawn, plain = harness.chosen(normalizer="gumbel-softmax"), harness.chosen()
    given = harness.given_for(plain)
    oracles.same(harness.looker(drawn)(given)[0], harness.looker(plain)(given)[0], tolerance=1e-7)
    noisy = harness.looker(drawn)(given, noise=harness.NOISE)[0].alignment
    wanted = harness.noises(drawn).transpose(1, 0, 2)
    plain = harness.looker(plain)(given)[0].alignment
    expected = np.where(harness.MASK, plain * np.exp(wanted), 0.0)
    expected /= np.maximum(expected.sum(-1, keepdims=True), 1e-30)
    oracles.same(noisy, expected, tolerance=1e-5)
