"""Does attention remember what the papers say, and no more: values and slopes over several steps, and identities?"""

import attention_harness as harness
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from s2s_jax.model.attention.history import HISTORIES

SAYING = sorted(set(HISTORIES) - {"none", "intra-temporal"})  # what it says is added to the keys


@pytest.mark.parametrize("history", sorted(HISTORIES))
@pytest.mark.parametrize("score", ["additive", "general"])
def test_values_and_slopes_are_the_papers(history, score):
    harness.agrees(harness.chosen(score=score, history=history))


@pytest.mark.parametrize("history", ["previous-and-coverage", "coverage-gru"])
def test_a_kernel_convolves_what_is_said(history):
    harness.agrees(harness.chosen(score="additive", history=history, kernel=3))


@pytest.mark.parametrize("history", SAYING)
def test_a_history_that_weighs_nothing_is_none(history):
    config, plain = harness.chosen(history=history), harness.chosen()
    given = harness.with_weights_of(config, harness.given_for(plain))
    unseen = harness.looker(config)(harness.put(given, history_features__weight=0.0))
    wanted = harness.looker(plain)(harness.given_for(plain))
    oracles.same(unseen[0], wanted[0], tolerance=1e-6)
    for part in ("queries", "memory"):
        oracles.same(unseen[1][part], wanted[1][part], tolerance=1e-6)
    assert np.abs(harness.looker(config)(given)[0].alignment - wanted[0].alignment).max() > 1e-3  # it does weigh


@pytest.mark.parametrize("history", ["coverage", "previous-and-coverage"])
def test_coverage_leaves_the_step_itself_out(history):
    config = harness.chosen(history=history)
    states, said, _ = harness.followed(config)(harness.given_for(config))
    covered = states.history if history == "coverage" else states.history[1]
    np.testing.assert_array_equal(covered[0], 0.0)  # before the first step
    np.testing.assert_array_equal(covered[1], said.alignment[0])
    oracles.same(covered[1:], np.cumsum(said.alignment, axis=0), tolerance=1e-6)


def test_coverage_of_one_token_twice_costs_one_the_second_time():
    """See et al. 2017, eq. 12: sum_s min(a_s, c_s), 0 at the first step; with the step itself counted it would be 1."""
    config = harness.chosen(history="coverage")
    given, mask = harness.given_for(config), np.arange(harness.SOURCE) < np.ones((4, 1))
    states, said, _ = harness.followed(config)(given, mask)
    np.testing.assert_allclose(np.minimum(said.alignment, states.history[:-1]).sum(-1), [[0] * 4, [1] * 4, [1] * 4])


def test_the_first_alignment_before_the_first_step_is_spread_evenly():
    config = harness.chosen(history="previous")
    states, said, _ = harness.followed(config)(harness.given_for(config))
    np.testing.assert_allclose(states.history[0].sum(-1), [1, 1, 1, 0], rtol=1e-6)
    np.testing.assert_allclose(states.history[0][0], 0.2, rtol=1e-6)
    np.testing.assert_array_equal(states.history[1:], said.alignment)


def test_shares_of_fertility_add_up_to_the_number_of_steps():
    config = harness.chosen(history="coverage-fertility")
    states, _, keys = harness.followed(config)(harness.given_for(config))
    fertility = keys.history
    assert (fertility > 0).all()
    assert (fertility <= config.fertility).all()
    for time in range(harness.STEPS + 1):
        np.testing.assert_allclose((fertility * states.history[time]).sum(-1), [time, time, time, 0], atol=1e-5)


@pytest.mark.parametrize("history", ["coverage-tanh", "coverage-gru"])
def test_what_is_remembered_of_padding_is_zero(history):
    config = harness.chosen(history=history)
    states, _, _ = harness.followed(config)(harness.given_for(config))
    np.testing.assert_array_equal(states.history[:, ~harness.MASK], 0.0)
    assert np.abs(states.history[1:, harness.MASK]).min() > 0


def test_the_same_question_twice_finds_all_tokens_alike_the_second_time():
    """Paulus et al. 2018, eq. 3: exp(e) / exp(e) is 1 for every token, and exp(e) / 2 exp(e) a half."""
    config = harness.chosen(history="intra-temporal")
    given = harness.given_for(config)
    same = {**given, "queries": jnp.broadcast_to(given["queries"][:1], given["queries"].shape)}
    said, _ = harness.looker(config)(same)
    plain, _ = harness.looker(harness.chosen())(same)
    oracles.same(said.alignment[0], plain.alignment[0], tolerance=1e-6)
    even = harness.MASK / np.maximum(harness.MASK.sum(-1, keepdims=True), 1)
    oracles.same(said.alignment[1:], np.broadcast_to(even, (2, *even.shape)), tolerance=1e-5)


@pytest.mark.parametrize("history", ["coverage", "coverage-fertility", "previous-and-coverage"])
def test_no_token_gets_more_than_its_fertility(history):
    config = harness.chosen(history=history, normalizer="constrained-softmax", fertility=1.2)
    given = harness.given_for(config)
    _, said, keys = harness.followed(config)({**given, "queries": 3 * given["queries"]})
    most = keys.history if history == "coverage-fertility" else np.full(harness.MASK.shape, 1.2)
    total = said.alignment.sum(0)
    assert (total <= most + 1e-5).all()
    assert np.isclose(total, most, atol=1e-5)[harness.MASK].any()  # the limit was felt
