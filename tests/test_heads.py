"""Do heads look side by side, each by itself, and are values what was chosen?"""

import attention_harness as harness
import numpy as np
import oracle_attention
import oracles
import pytest

from s2s_jax.model.attention.heads import build_attention

HEADS = [{}, {"score": "additive", "history": "coverage-fertility"}]


@pytest.mark.parametrize("values", ["projected", "split"])
def test_values_and_slopes_are_the_papers(values):
    harness.agrees(harness.chosen(values=values))


@pytest.mark.parametrize("choices", HEADS, ids=["general", "with a history"])
def test_heads_are_two_attentions_side_by_side(choices):
    config = harness.chosen(heads=2, **choices)
    said = harness.agrees(config, attend=oracle_attention.side_by_side)
    assert said.heads.shape == (harness.STEPS, len(harness.LENGTHS), 2, harness.SOURCE)
    assert said.context.shape[-1] == harness.SMALL["size"]


def test_the_mean_of_the_heads_is_what_is_reported():
    config = harness.chosen(heads=2)
    said, _ = harness.looker(config)(harness.given_for(config))
    np.testing.assert_allclose(said.alignment, said.heads.mean(2), atol=1e-7)
    assert np.abs(said.heads[:, :2, 0] - said.heads[:, :2, 1]).max() > 0.01  # they do differ


def test_heads_of_one_mind_are_one_head_twice():
    config = harness.chosen(heads=2)
    given = harness.given_for(config)
    weights = oracles.precise(harness.nnx.to_pure_dict(given["weights"]))["heads"]
    first = {"query_kernel": weights["query_kernel"], "memory_kernel": weights["memory_kernel"]} | {
        f"score__{name}": leaf for name, leaf in weights["score"].items()
    }
    alike = harness.put(given, **{f"heads__{name}": leaf[:1] for name, leaf in first.items()})
    said, _ = harness.looker(config)(alike)
    np.testing.assert_array_equal(said.heads[:, :, 0], said.heads[:, :, 1])
    np.testing.assert_array_equal(*np.split(said.context, 2, axis=-1))


def test_each_head_has_noise_of_its_own():
    config = harness.chosen(heads=2, normalizer="gumbel-softmax")
    given = harness.given_for(config)
    blank = harness.put(given, heads__query_kernel=0.0)  # every score is 0: what differs is the noise
    look = harness.forward(config)
    drawn = look(blank, noise=harness.NOISE).heads[:, :2]
    assert np.abs(drawn[:, :, 0] - drawn[:, :, 1]).max(-1).min() > 1e-3
    assert np.abs(np.diff(drawn[:, 0], axis=0)).max(-1).min() > 1e-3
    assert np.abs(drawn[:, 0, :, :3] - drawn[:, 1, :, :3]).max() > 1e-3
    order = np.array([1, 0, 2, 3])
    everywhere = np.ones_like(harness.MASK)
    turned = look(blank, everywhere, harness.NOISE[order]).heads
    np.testing.assert_array_equal(turned, look(blank, everywhere, harness.NOISE).heads[:, order])


def test_split_values_keep_what_is_looked_for_from_what_is_found():
    config = harness.chosen(values="split")
    given = harness.given_for(config)
    plain, _ = harness.looker(config)(given)
    half = harness.WIDTH // 2
    louder = {**given, "memory": given["memory"].at[..., half:].multiply(3.0)}
    said, _ = harness.looker(config)(louder)
    np.testing.assert_array_equal(said.alignment, plain.alignment)
    oracles.same(said.context, 3 * plain.context, tolerance=1e-6)
    assert said.context.shape[-1] == half


def test_values_cannot_be_split_out_of_an_odd_width():
    with pytest.raises(ValueError, match="model.attention.values=split") as refusal:
        build_attention(harness.chosen(values="split"), 4, 5, dtype=np.float32, rngs=oracles.OneKey())
    assert str(refusal.value) == (
        "model.attention.values=split needs encoder states of an even width, got 5; "
        "make model.encoder.size even, or take model.attention.values=projected."
    )
