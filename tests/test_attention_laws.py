"""What must hold for attention over several steps, whatever it is made of? One test a law, over all of every table."""

import functools

import attention_harness as harness
import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from flax import nnx

from s2s_jax.model.attention.constraints import CONSTRAINTS
from s2s_jax.model.compatibility import axis_names

MORE = {
    "heads": {"heads": 2},
    "heads that remember": {"heads": 2, "score": "additive", "history": "coverage-fertility"},
    "heads at places": {"heads": 2, "score": "gaussian-mixture", "constraint": "window"},
    "heads that walk": {"heads": 2, "score": "additive", "constraint": "mocha"},
    "projected": {"values": "projected"},
    "split": {"values": "split"},
    "a kernel": {"score": "additive", "history": "previous-and-coverage", "kernel": 3},
    "renormalized": {"constraint": "local-p", "renormalized": True},
    "learned alpha": {"normalizer": "alpha-entmax", "learned_alpha": True},
    "limited by fertility": {"normalizer": "constrained-softmax", "history": "coverage-fertility"},
}
TABLES = {name: {axis: name} for axis, names in axis_names().items() for name in names if name != "none"}
CONFIGS = {name: harness.fitted(**choices) for name, choices in {**TABLES, **MORE}.items()}
NOISY = [name for name, config in CONFIGS.items() if CONSTRAINTS[config.constraint].monotonic] + ["gumbel-softmax"]
CASES = [*CONFIGS, *(f"{name}, training" for name in NOISY)]
EVERY = pytest.mark.parametrize("case", CASES)


def looked(case, given=None, *, way=harness.delayed, **other):
    """What a case says and its gradient."""
    name, _, training = case.partition(", ")
    config = CONFIGS[name]
    noise = harness.NOISE if training else None
    return harness.looker(config, way=way)(given or harness.given_for(config), **{"noise": noise, **other})


def config_of(case):
    return CONFIGS[case.partition(",")[0]]


def real(said):
    """The alignments of the rows that have a token, of each head where there are several."""
    alignment = said.heads if len(said.heads) else said.alignment[:, :, None]
    return alignment[:, np.array(harness.LENGTHS) > 0]


def sums_as_it_should(case, said):
    """A sum of 1, or what the choice documents."""
    config, sums = config_of(case), real(said).sum(-1)
    assert (sums >= 0).all()
    if config.constraint in ("monotonic", "mocha", "local-p") and not config.renormalized:
        assert (sums <= 1 + 1e-5).all()  # the walk may fall off the end; a Gaussian only takes away
    elif config.normalizer == "constrained-softmax":
        assert (sums <= 1 + 1e-5).all()
        assert (real(said).sum(0) <= config.fertility + 1e-5).all()
    elif config.normalizer == "exponential":
        assert np.isfinite(sums).all()
    elif config.normalizer == "sigmoid" and config.constraint == "none":
        assert (real(said) <= 1).all()
    else:
        np.testing.assert_allclose(sums, 1, atol=1e-5)


@EVERY
def test_weights_sum_to_one_or_to_the_stated_bound_and_padding_weighs_exactly_nothing(case):
    said, _ = looked(case)
    sums_as_it_should(case, said)
    np.testing.assert_array_equal(said.alignment[:, ~harness.MASK], 0.0)
    assert (said.alignment >= 0).all()
    assert said.alignment.max() > 0.1


@EVERY
def test_a_sentence_without_tokens_gives_zeros_and_finite_slopes(case):
    for mask in (harness.MASK, np.zeros_like(harness.MASK)):
        said, gradient = looked(case, mask=mask)
        nothing = ~mask.any(-1)
        np.testing.assert_array_equal(said.alignment[:, nothing], 0.0)
        np.testing.assert_array_equal(said.context[:, nothing], 0.0)
        np.testing.assert_array_equal(gradient["memory"][nothing], 0.0)
        np.testing.assert_array_equal(gradient["queries"][:, nothing], 0.0)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


@EVERY
def test_what_stands_on_padding_reaches_neither_value_nor_slope(case):
    given = harness.given_for(config_of(case))
    spoiled = {**given, "memory": jnp.where(harness.MASK[..., None], given["memory"], 1e4)}
    oracles.same(looked(case, spoiled), looked(case), tolerance=0)
    _, gradient = looked(case, spoiled)
    np.testing.assert_array_equal(gradient["memory"][~harness.MASK], 0.0)


@EVERY
def test_neighbors_in_the_batch_change_nothing(case):
    given, row = harness.given_for(config_of(case)), 1
    others = (np.arange(len(harness.LENGTHS)) != row)[:, None, None]
    lengths = np.array([2, harness.LENGTHS[row], 0, 5])
    changed = {
        **given,
        "memory": jnp.where(others, -2 * given["memory"][::-1], given["memory"]),
        "queries": jnp.where(others[None, ..., 0], 3 * given["queries"][:, ::-1], given["queries"]),
    }
    noise = {"noise": np.where(others[..., 0], harness.NOISE[::-1], harness.NOISE)} if ", " in case else {}
    said, gradient = looked(case)
    mask = np.arange(harness.SOURCE) < lengths[:, None]
    beside, of_beside = looked(case, changed, mask=mask, **noise)
    oracles.same(*(jax.tree.map(lambda leaf: leaf[:, row], one) for one in (beside, said)), tolerance=1e-6)
    oracles.same(of_beside["memory"][row], gradient["memory"][row], tolerance=1e-6)
    oracles.same(of_beside["queries"][:, row], gradient["queries"][:, row], tolerance=1e-6)


def loud(case):
    """What makes scores as large as 1e4."""
    config, given = config_of(case), harness.given_for(config_of(case))
    place, inside = "score__", nnx.to_pure_dict(given["weights"])
    if config.heads > 1:
        place, inside = "heads__score__", inside["heads"]
    if config.score.startswith("gaussian"):
        moves = np.arange(3 * config.mixtures) >= 2 * config.mixtures  # each step moves on by 100 tokens, 1 wide
        far = np.log(100) if config.score == "gaussian-mixture" else 100.0
        return harness.put(given, **{f"{place}query_kernel": 0.0, f"{place}bias": np.where(moves, far, 0.0)})
    of_score = inside.get("score", {})
    if large := of_score.keys() & {"vector", "gain", "temperature"}:  # v . tanh(...) is as large as v
        return harness.put(given, **{place + name: 1e4 * of_score[name] for name in large})
    return {**given, "queries": 1e4 * given["queries"]}


@EVERY
def test_scores_of_ten_thousand_stay_finite(case):
    said, gradient = looked(case, loud(case))
    config = config_of(case)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((said, gradient)))
    if not config.constraint.startswith("forward"):  # there all that could be reached may weigh nothing
        sums_as_it_should(case, said)
    shared = config.normalizer not in ("exponential", "sigmoid", "smoothed-sigmoid", "constrained-softmax")
    if config.constraint == "none" and shared and config.score != "tanh-dot":
        assert real(said).max(-1).min() > 0.99  # they were huge indeed


@functools.cache
def replicated(config):
    """One step after the other, on a source padded by two tokens more, for several givens at once."""
    graph, _ = harness.build(config)

    def look(given, mask, noise):
        wider = {**given, "memory": jnp.pad(given["memory"], ((0, 0), (0, 2), (0, 0)), constant_values=1e4)}
        said = harness.steps(graph, wider, jnp.pad(mask, ((0, 0), (0, 2))), noise, way=harness.by_loop)
        return harness.weighed(said), said

    return oracles.compiled(jax.vmap(jax.grad(look, has_aux=True), in_axes=(0, None, None)))


@pytest.mark.wide
@pytest.mark.parametrize("case", [case for case in CASES if case not in NOISY])
def test_steps_one_by_one_with_more_padding_and_under_vmap_say_what_the_scan_says(case):
    config, noise = config_of(case), harness.NOISE if ", " in case else None
    given = harness.given_for(config)
    givens = given, oracles.drawn(given, seed=11)
    gradient, said = replicated(config)(jax.tree.map(lambda *leaves: jnp.stack(leaves), *givens), harness.MASK, noise)
    np.testing.assert_array_equal(said.alignment[..., harness.SOURCE :], 0.0)
    cut = jax.tree.map(lambda leaf: leaf[..., : harness.SOURCE], (said.alignment, said.heads))
    for replica, one in enumerate(givens):
        ours = jax.tree.map(lambda leaf, replica=replica: leaf[replica], (harness.Said(said.context, *cut), gradient))
        oracles.same(ours, looked(case, one), tolerance=2e-5)


WEIGHTS = ["additive", "coverage-tanh", "dynamic-convolution", "local-p", "heads that walk", "stepwise, training"]


@pytest.mark.parametrize("case", WEIGHTS)
def test_a_plain_scan_says_what_the_scan_with_delayed_gradients_says(case):
    oracles.same(looked(case, way=harness.by_scan), looked(case), tolerance=1e-5)


ROUNDED = ["coverage-fertility", "coverage-tanh", "coverage-gru", "local-p", "mocha, training", "milk, training"]
ROUNDED += ["location-aware", "dynamic-convolution", "gaussian-mixture", "gaussian-mixture-v2", "forward-agent"]
ROUNDED += ["heads", "heads that remember", "projected", "split"]  # that a score is rounded well, test_scores says


@pytest.mark.parametrize("case", ROUNDED)
def test_bfloat16_is_float32_to_its_precision(case):
    config, noise = config_of(case), harness.NOISE if ", " in case else None
    rounded = harness.forward(config, dtype=jnp.bfloat16)(harness.given_for(config), noise=noise)
    said, _ = looked(case)
    oracles.same(rounded, said, tolerance=0.05)
    assert rounded.context.dtype == rounded.alignment.dtype == jnp.float32
    assert np.abs(rounded.context - said.context).max() > 1e-6  # rounded they were
