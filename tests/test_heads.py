"""Do heads attend independently, and are the values those that were configured?"""

import attention_harness as harness
import numpy as np
import oracle_attention
import oracles
import pytest

HEADS = [{}, {"score": "additive", "history": "coverage-fertility"}]


@pytest.mark.parametrize("values", ["projected", "split"])
def test_values_and_slopes_are_the_papers(values):
    harness.check_against_oracle(harness.small_config(values=values))


@pytest.mark.parametrize("choices", HEADS, ids=["general", "with a history"])
def test_heads_are_two_attentions_side_by_side(choices):
    config = harness.small_config(heads=2, **choices)
    outputs = harness.check_against_oracle(config, attend=oracle_attention.side_by_side)
    assert outputs.heads.shape == (harness.STEPS, len(harness.LENGTHS), 2, harness.SOURCE)
    assert outputs.context.shape[-1] == harness.SMALL["size"]


def test_the_reported_alignment_is_the_mean_of_the_heads():
    config = harness.small_config(heads=2)
    outputs, _ = harness.forward_and_gradient(config)(harness.inputs_for(config))
    np.testing.assert_allclose(outputs.alignment, outputs.heads.mean(2), atol=1e-7)
    assert np.abs(outputs.heads[:, :2, 0] - outputs.heads[:, :2, 1]).max() > 0.01  # they do differ


def test_heads_with_equal_weights_are_equal():
    config = harness.small_config(heads=2)
    inputs = harness.inputs_for(config)
    weights = oracles.precise(harness.nnx.to_pure_dict(inputs["weights"]))["heads"]
    first = {"query_kernel": weights["query_kernel"], "memory_kernel": weights["memory_kernel"]} | {
        f"score__{name}": leaf for name, leaf in weights["score"].items()
    }
    equal_heads = harness.with_weights(inputs, **{f"heads__{name}": leaf[:1] for name, leaf in first.items()})
    outputs, _ = harness.forward_and_gradient(config)(equal_heads)
    np.testing.assert_array_equal(outputs.heads[:, :, 0], outputs.heads[:, :, 1])
    np.testing.assert_array_equal(*np.split(outputs.context, 2, axis=-1))


def test_each_head_has_its_own_noise():
    config = harness.small_config(heads=2, normalizer="gumbel-softmax")
    inputs = harness.inputs_for(config)
    blank = harness.with_weights(inputs, heads__query_kernel=0.0)  # every score is 0: what differs is the noise
    compute = harness.forward(config)
    drawn = compute(blank, noise=harness.NOISE).heads[:, :2]
    assert np.abs(drawn[:, :, 0] - drawn[:, :, 1]).max(-1).min() > 1e-3
    assert np.abs(np.diff(drawn[:, 0], axis=0)).max(-1).min() > 1e-3
    assert np.abs(drawn[:, 0, :, :3] - drawn[:, 1, :, :3]).max() > 1e-3
    order = np.array([1, 0, 2, 3])
    all_real = np.ones_like(harness.MASK)
    permuted = compute(blank, all_real, harness.NOISE[order]).heads
    np.testing.assert_array_equal(permuted, compute(blank, all_real, harness.NOISE).heads[:, order])


def test_split_values_separate_keys_from_values():
    config = harness.small_config(values="split")
    inputs = harness.inputs_for(config)
    plain, _ = harness.forward_and_gradient(config)(inputs)
    half = harness.WIDTH // 2
    scaled = {**inputs, "memory": inputs["memory"].at[..., half:].multiply(3.0)}
    outputs, _ = harness.forward_and_gradient(config)(scaled)
    np.testing.assert_array_equal(outputs.alignment, plain.alignment)
    oracles.same(outputs.context, 3 * plain.context, tolerance=1e-6)
    assert outputs.context.shape[-1] == half
