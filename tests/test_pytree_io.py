"""What is stored of a tree, and how it comes back."""

import hashlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s2s_jax.training.checkpoint.pytree_io import (
    check_same_structure,
    described,
    digest,
    nested,
    on_host,
    paths_of,
    rebuilt,
)


class Moments(NamedTuple):
    mean: Any
    square: Any


def tree() -> dict[str, Any]:
    return {
        "params": {"kernel": jnp.arange(6, dtype=jnp.bfloat16).reshape(2, 3), "bias": jnp.asarray([-0.0, jnp.nan])},
        "optimizer": (Moments(jnp.ones(3), np.zeros((0, 2))), None, (), np.float64(0.1)),
        "key": jax.random.key_data(jax.random.key(3)),
    }


def bits(tree: Any) -> list[tuple[str, tuple[int, ...], bytes]]:
    return [(leaf.dtype.name, leaf.shape, np.asarray(leaf).tobytes()) for leaf in jax.tree.leaves(tree)]


def test_a_path_says_where_a_leaf_is():
    assert sorted(paths_of(tree())) == [
        "key",
        "optimizer/0/mean",
        "optimizer/0/square",
        "optimizer/3",
        "params/bias",
        "params/kernel",
    ]


def test_a_tree_comes_back_bit_for_bit_in_its_form():
    back = rebuilt(tree(), on_host(tree()))
    assert jax.tree.structure(back) == jax.tree.structure(tree())
    assert bits(back) == bits(tree())
    assert [type(leaf) for leaf in jax.tree.leaves(back)] == [type(leaf) for leaf in jax.tree.leaves(tree())]


def test_the_copy_on_the_host_outlives_a_donated_tree():
    start = {"w": jnp.arange(4.0)}
    address = start["w"].unsafe_buffer_pointer()
    copy = on_host(start)
    moved = jax.jit(lambda old: {"w": old["w"] + 1}, donate_argnums=0)(start)
    assert moved["w"].unsafe_buffer_pointer() == address, "the copy must not keep the buffer from being donated"
    assert copy["w"].tolist() == [0, 1, 2, 3]


def test_a_leaf_is_placed_as_its_example_is():
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    example = {"split": jax.ShapeDtypeStruct((4,), jnp.float32, sharding=sharding), "here": jnp.zeros(4)}
    back = rebuilt(example, {"split": np.arange(4, dtype=np.float32), "here": np.ones(4, np.float32)})
    assert back["split"].sharding == sharding
    assert [shard.data.tolist() for shard in back["split"].addressable_shards] == [[0, 1], [2, 3]]
    assert not back["here"].committed, "a leaf that may move must stay one that may move"
    again = rebuilt({"split": back["split"]}, on_host({"split": back["split"]}))
    assert again["split"].sharding == sharding
    assert again["split"].tolist() == [0, 1, 2, 3]


def test_a_leaf_that_jax_would_narrow_is_refused():
    with pytest.raises(ValueError, match="jax holds int64 as int32 here; set jax_enable_x64"):
        rebuilt(jax.ShapeDtypeStruct((2,), np.int64), {"": np.zeros(2, np.int64)})


def test_the_digest_sees_every_bit_path_dtype_and_shape():
    start = {"a": np.zeros((2, 3), np.float32), "b": jnp.ones(2)}
    same = {"b": jnp.ones(2), "a": jnp.zeros((2, 3))}
    assert digest(start) == digest(same)
    others = [
        {**start, "a": np.full((2, 3), -0.0, np.float32)},
        {**start, "a": np.zeros((3, 2), np.float32)},
        {**start, "a": np.zeros((2, 3), np.int32)},
        {"c": start["a"], "b": start["b"]},
        {"a": start["a"]},
    ]
    assert len({digest(start), *map(digest, others)}) == 6
    assert digest({}) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_the_digest_is_the_documented_one():
    # A change here means that parameters saved before are no longer known by their digest.
    by_hand = hashlib.sha256(b"a/b\0bfloat16\0(1,)\0" + b"\x80\x3f" + b"w\0int32\0(2,)\0" + b"\0\0\0\0\1\0\0\0")
    leaves = {"w": np.arange(2, dtype=np.int32), "a": {"b": jnp.ones(1, jnp.bfloat16)}}
    assert digest(leaves) == by_hand.hexdigest()


@pytest.mark.parametrize(
    ("example", "said"),
    [
        ({"w": np.zeros(2), "b": np.zeros(1)}, "^place lacks leaf 'b', which is needed here"),
        ({}, "^place holds leaf 'w', which is not used here"),
        ({"w": np.zeros((1, 2))}, r"^place holds leaf 'w' as float64\[2\], expected float64\[1,2\]"),
        ({"w": np.zeros(2, np.float32)}, r"as float64\[2\], expected float32\[2\]; values are never cast silently$"),
        (
            {"w": jnp.zeros(2, jnp.bfloat16)},
            r"as float64\[2\], expected bfloat16\[2\]; values are never cast silently$",
        ),
    ],
)
def test_another_form_is_refused_by_the_name_of_the_leaf(example: dict[str, Any], said: str):
    with pytest.raises(ValueError, match=said):
        check_same_structure(example, described({"w": np.zeros(2)}), where="place")


@pytest.mark.parametrize(
    ("leaf", "said"),
    [
        (3, "leaf 'x' is of type int, expected a jax or NumPy array; wrap it"),
        ("text", "leaf 'x' is of type str"),
        (jax.random.key(0), r"leaf 'x' is a random key, expected its numbers; store jax.random.key_data\(key\)"),
        (np.array(["a"]), "leaf 'x' has dtype <U1, expected numbers or booleans"),
        (np.array([None]), "leaf 'x' has dtype object"),
        (np.zeros(1, ">f4"), "leaf 'x' has dtype >f4"),
    ],
)
def test_what_is_no_array_of_numbers_is_refused(leaf: Any, said: str):
    with pytest.raises(TypeError, match=said):
        on_host({"x": leaf})


def test_a_slash_in_a_key_is_refused():
    with pytest.raises(ValueError, match="key 'a/b' of the tree holds a '/'"):
        on_host({"a/b": np.zeros(1)})


def test_without_an_example_the_leaves_come_as_dicts():
    leaves = nested({"a/b": np.zeros(1), "a/0": np.ones(1), "c": np.ones(2)})
    assert jax.tree.map(np.shape, leaves) == {"a": {"b": (1,), "0": (1,)}, "c": (2,)}
