"""Laws of attention over several steps, one test per law, for every entry of every table."""

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
OTHER = ("none", "last-state")  # contexts that are no sums over tokens
TABLES = {name: {axis: name} for axis, names in axis_names().items() for name in names if name not in OTHER}
CONFIGS = {name: harness.legal_config(**choices) for name, choices in {**TABLES, **MORE}.items()}
NOISY = [name for name, config in CONFIGS.items() if CONSTRAINTS[config.constraint].monotonic] + ["gumbel-softmax"]
CASES = [*CONFIGS, *(f"{name}, training" for name in NOISY)]
EVERY = pytest.mark.parametrize("case", CASES)


def run_case(case, inputs=None, *, loop=harness.model_scan, **other):
    """The outputs of a case and its gradient."""
    name, _, training = case.partition(", ")
    config = CONFIGS[name]
    noise = harness.NOISE if training else None
    return harness.forward_and_gradient(config, loop=loop)(
        inputs or harness.inputs_for(config), **{"noise": noise, **other}
    )


def config_of(case):
    return CONFIGS[case.partition(",")[0]]


def real(outputs):
    """The alignments of the rows that have a token, of each head where there are several."""
    alignment = outputs.heads if len(outputs.heads) else outputs.alignment[:, :, None]
    return alignment[:, np.array(harness.LENGTHS) > 0]


def check_sums(case, outputs):
    """Check that the weights sum to 1, or to what the choice documents."""
    config, sums = config_of(case), real(outputs).sum(-1)
    assert (sums >= 0).all()
    if config.constraint in ("monotonic", "mocha", "local-p") and not config.renormalized:
        assert (sums <= 1 + 1e-5).all()  # there may be no choice; a Gaussian only reduces weights
    elif config.normalizer == "constrained-softmax":
        assert (sums <= 1 + 1e-5).all()
        assert (real(outputs).sum(0) <= config.fertility + 1e-5).all()
    elif config.normalizer == "exponential":
        assert np.isfinite(sums).all()
    elif config.normalizer == "sigmoid" and config.constraint == "none":
        assert (real(outputs) <= 1).all()
    else:
        np.testing.assert_allclose(sums, 1, atol=1e-5)


@EVERY
def test_weights_sum_as_documented_and_are_exactly_zero_on_padding(case):
    outputs, _ = run_case(case)
    check_sums(case, outputs)
    np.testing.assert_array_equal(outputs.alignment[:, ~harness.MASK], 0.0)
    assert (outputs.alignment >= 0).all()
    assert outputs.alignment.max() > 0.1


@EVERY
def test_a_sentence_without_tokens_gives_zeros_and_finite_gradients(case):
    for mask in (harness.MASK, np.zeros_like(harness.MASK)):
        outputs, gradient = run_case(case, mask=mask)
        nothing = ~mask.any(-1)
        np.testing.assert_array_equal(outputs.alignment[:, nothing], 0.0)
        np.testing.assert_array_equal(outputs.context[:, nothing], 0.0)
        np.testing.assert_array_equal(gradient["memory"][nothing], 0.0)
        np.testing.assert_array_equal(gradient["queries"][:, nothing], 0.0)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


@EVERY
def test_values_on_padding_affect_neither_result_nor_gradient(case):
    inputs = harness.inputs_for(config_of(case))
    spoiled = {**inputs, "memory": jnp.where(harness.MASK[..., None], inputs["memory"], 1e4)}
    oracles.same(run_case(case, spoiled), run_case(case), tolerance=0)
    _, gradient = run_case(case, spoiled)
    np.testing.assert_array_equal(gradient["memory"][~harness.MASK], 0.0)


@EVERY
def test_other_rows_of_the_batch_change_nothing(case):
    inputs, row = harness.inputs_for(config_of(case)), 1
    others = (np.arange(len(harness.LENGTHS)) != row)[:, None, None]
    lengths = np.array([2, harness.LENGTHS[row], 0, 5])
    changed = {
        **inputs,
        "memory": jnp.where(others, -2 * inputs["memory"][::-1], inputs["memory"]),
        "queries": jnp.where(others[None, ..., 0], 3 * inputs["queries"][:, ::-1], inputs["queries"]),
    }
    noise = {"noise": np.where(others[..., 0], harness.NOISE[::-1], harness.NOISE)} if ", " in case else {}
    outputs, gradient = run_case(case)
    mask = np.arange(harness.SOURCE) < lengths[:, None]
    beside, of_beside = run_case(case, changed, mask=mask, **noise)
    oracles.same(*(jax.tree.map(lambda leaf: leaf[:, row], one) for one in (beside, outputs)), tolerance=1e-6)
    oracles.same(of_beside["memory"][row], gradient["memory"][row], tolerance=1e-6)
    oracles.same(of_beside["queries"][:, row], gradient["queries"][:, row], tolerance=1e-6)


def large_scores(case):
    """Inputs that make scores as large as 1e4."""
    config, inputs = config_of(case), harness.inputs_for(config_of(case))
    position, parameters = "score__", nnx.to_pure_dict(inputs["weights"])
    if config.heads > 1:
        position, parameters = "heads__score__", parameters["heads"]
    if config.score.startswith("gaussian"):
        moves = np.arange(3 * config.mixtures) >= 2 * config.mixtures  # each step moves on by 100 tokens, 1 wide
        far = np.log(100) if config.score == "gaussian-mixture" else 100.0
        return harness.with_weights(
            inputs, **{f"{position}query_kernel": 0.0, f"{position}bias": np.where(moves, far, 0.0)}
        )
    score_weights = parameters.get("score", {})
    if large := score_weights.keys() & {"vector", "gain", "temperature"}:  # v . tanh(...) is as large as v
        return harness.with_weights(inputs, **{position + name: 1e4 * score_weights[name] for name in large})
    return {**inputs, "queries": 1e4 * inputs["queries"]}


@EVERY
def test_scores_of_ten_thousand_stay_finite(case):
    outputs, gradient = run_case(case, large_scores(case))
    config = config_of(case)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((outputs, gradient)))
    check_sums(case, outputs)
    shared = config.normalizer not in ("exponential", "sigmoid", "smoothed-sigmoid", "constrained-softmax")
    if config.constraint == "none" and shared and config.score not in ("tanh-dot", "uniform"):
        assert real(outputs).max(-1).min() > 0.99  # the scores were large indeed


@functools.cache
def replicated(config):
    """A Python loop over the steps, on a source with two more tokens of padding, under vmap over several inputs."""
    graph, _ = harness.build(config)

    def compute(inputs, mask, noise):
        wider = {**inputs, "memory": jnp.pad(inputs["memory"], ((0, 0), (0, 2), (0, 0)), constant_values=1e4)}
        outputs = harness.steps(graph, wider, jnp.pad(mask, ((0, 0), (0, 2))), noise, loop=harness.python_loop)
        return harness.weighted_sum(outputs), outputs

    return oracles.compiled(jax.vmap(jax.grad(compute, has_aux=True), in_axes=(0, None, None)))


@pytest.mark.wide
@pytest.mark.parametrize("case", [case for case in CASES if case not in NOISY])
def test_a_python_loop_with_more_padding_under_vmap_equals_the_scan(case):
    config, noise = config_of(case), harness.NOISE if ", " in case else None
    inputs = harness.inputs_for(config)
    givens = inputs, oracles.drawn(inputs, seed=11)
    gradient, outputs = replicated(config)(
        jax.tree.map(lambda *leaves: jnp.stack(leaves), *givens), harness.MASK, noise
    )
    np.testing.assert_array_equal(outputs.alignment[..., harness.SOURCE :], 0.0)
    cut = jax.tree.map(lambda leaf: leaf[..., : harness.SOURCE], (outputs.alignment, outputs.heads))
    for replica, one in enumerate(givens):
        actual = jax.tree.map(
            lambda leaf, replica=replica: leaf[replica], (harness.StepOutputs(outputs.context, *cut), gradient)
        )
        oracles.same(actual, run_case(case, one), tolerance=2e-5)


WEIGHTS = ["additive", "coverage-tanh", "dynamic-convolution", "local-p", "heads that walk", "stepwise, training"]


@pytest.mark.parametrize("case", WEIGHTS)
def test_a_plain_scan_equals_the_scan_with_delayed_gradients(case):
    oracles.same(run_case(case, loop=harness.lax_scan), run_case(case), tolerance=1e-5)


ROUNDED = ["coverage-fertility", "coverage-tanh", "coverage-gru", "local-p", "mocha, training", "milk, training"]
ROUNDED += ["location-aware", "dynamic-convolution", "gaussian-mixture", "gaussian-mixture-v2", "forward-agent"]
ROUNDED += ["heads", "heads that remember", "projected", "split"]  # that a score is rounded well, test_scores says


@pytest.mark.parametrize("case", ROUNDED)
def test_bfloat16_is_float32_to_its_precision(case):
    config, noise = config_of(case), harness.NOISE if ", " in case else None
    rounded = harness.forward(config, dtype=jnp.bfloat16)(harness.inputs_for(config), noise=noise)
    outputs, _ = run_case(case)
    oracles.same(rounded, outputs, tolerance=0.05)
    assert rounded.context.dtype == rounded.alignment.dtype == jnp.float32
    assert np.abs(rounded.context - outputs.context).max() > 1e-6  # it did round
