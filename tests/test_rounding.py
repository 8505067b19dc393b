"""What a search computes once before its loop, and how it keeps what its steps note: without changing a bit."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fake import MODEL

from s2s_jax.bench.workloads import WORKLOADS, build_workload
from s2s_jax.config import override
from s2s_jax.decode.records import floats_of, no_records, pack, write_record
from s2s_jax.decode.rounding import round_once
from s2s_jax.model.interface import Memory, State, StepOutput

HALF = jnp.dtype(jnp.bfloat16)
SMALL = ("model.embedding=6", "model.encoder.size=4", "model.decoder.size=8", "model.attention.size=8")
SOURCE = jnp.array([[5, 6, 2], [7, 2, 0]], jnp.int32)


@pytest.mark.parametrize("score", ["general", "additive"])
@pytest.mark.parametrize("tied", ["false", "true"])
def test_a_step_with_rounded_weights_has_the_same_bits(score, tied):
    settings = [*SMALL, f"model.attention.score={score}", f"model.decoder.tied_embeddings={tied}"]
    if tied == "true":
        settings.append("model.embedding=8")
    workload = override(WORKLOADS["W1"], *settings, "model.precision=bfloat16", "target_vocabulary=40")
    model, params = build_workload(workload)
    memory, state = model.encode(params, SOURCE)
    token = jnp.array([9, 3], jnp.int32)
    rounded = round_once(model, params, memory, state, token)
    dtypes = {jax.tree_util.keystr(path): leaf.dtype for path, leaf in jax.tree_util.tree_leaves_with_path(rounded[0])}
    assert dtypes["['decoder']['readout']['weight']"] == HALF
    assert dtypes["['decoder']['cells']['0']['weight']"] == HALF
    assert dtypes["['decoder']['cells']['0']['bias']"] == jnp.float32
    assert rounded[1].values.dtype == HALF
    for found, wanted in zip(
        jax.tree.leaves(jax.jit(model.step)(*rounded, state, token)),
        jax.tree.leaves(jax.jit(model.step)(params, memory, state, token)),
        strict=True,
    ):
        np.testing.assert_array_equal(found, wanted)


def test_a_float32_model_is_left_as_it_is():
    model, params = build_workload(override(WORKLOADS["W1"], *SMALL, "target_vocabulary=40"))
    memory, state = model.encode(params, SOURCE)
    rounded = round_once(model, params, memory, state, jnp.array([9, 3], jnp.int32))
    for found, wanted in zip(jax.tree.leaves(rounded), jax.tree.leaves((params, memory)), strict=True):
        assert found is wanted


def test_only_what_is_read_rounded_alone_is_rounded():
    def half(x):
        return x.astype(jnp.bfloat16).astype(jnp.float32)

    def step(params, memory, state, token):
        result = half(params["read"]) + half(params["moved"].reshape(2, 2).T[:, :1].reshape(2))
        result += jax.jit(half)(params["called"]) + half(params["both"]) + params["both"]
        result += params["widened"].astype(jnp.float32) + params["whole"].astype(jnp.bfloat16).astype(jnp.float32)
        result += params["two"].astype(jnp.float16).astype(jnp.float32) + half(params["two"])
        kept, _ = jax.lax.scan(lambda carry, _: (half(carry), None), params["looped"], None, length=1)
        result += kept + half(memory.keys)
        return State(params["returned"], half(params["returned"]), ()), StepOutput(result, result, result)

    names = ("read", "called", "both", "two", "looped", "returned")
    params = {name: jnp.full(2, 0.1) for name in names}
    params |= {"moved": jnp.full(4, 0.1), "widened": jnp.ones(2, jnp.bfloat16), "whole": jnp.ones(2, jnp.int32)}
    memory = Memory(jnp.full(2, 0.1), (), ())
    model = dataclasses.replace(MODEL, step=step)
    found, found_memory = round_once(model, params, memory, State((), (), ()), jnp.ones(2, jnp.int32))
    changed = {name for name in params if found[name].dtype != params[name].dtype}
    assert changed == {"read", "moved", "called"}
    assert all(found[name].dtype == HALF for name in changed)
    assert found_memory.keys.dtype == HALF


def test_records_return_every_bit():
    """Also of floats whose bits are those of small whole numbers, which arithmetic would flush to zero."""
    random = np.random.default_rng(0)
    numbers = jnp.array(random.integers(0, 2**31, (3, 4)), jnp.int32)
    floats = jnp.array([-0.0, jnp.inf, -jnp.inf, jnp.nan, 1e-42, 1.0])
    several = jnp.broadcast_to(floats[None, None], (3, 4, 6))
    written = jax.jit(write_record)(no_records(3, 5, 4, 8), jnp.int32(2), numbers, several[..., 4], several)
    np.testing.assert_array_equal(written[:, 2], pack(numbers, several[..., 4], several))
    np.testing.assert_array_equal(written[:, 2, :, 0], numbers)
    read, expected = floats_of(written[:, 2, :, 1:]), jnp.concatenate([several[..., 4:5], several], axis=-1)
    np.testing.assert_array_equal(np.asarray(read).view(np.int32), np.asarray(expected).view(np.int32))
    assert not written[:, jnp.array([0, 1, 3, 4])].any()
