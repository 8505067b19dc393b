"""Trees of arrays as leaves by path, with dtype, shape and checksum of each."""

import hashlib
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils


def paths_of(tree: Any) -> dict[str, Any]:
    """Each leaf by its path, such as `params/encoder/kernel`.

    Raises:
        ValueError: a key holds the `/` that separates the parts of a path.
    """
    return {_path(entries): leaf for entries, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}


def on_host(tree: Any) -> dict[str, np.ndarray]:
    """Each leaf by its path, copied to this host, so that the tree may be donated or changed at once.

    Raises:
        TypeError: a leaf is no array of numbers.
    """
    return {path: _copied(path, leaf) for path, leaf in paths_of(tree).items()}


def storable(tree: Any) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Each leaf by its path, ready to be written while the tree is donated or changed; and what `described` says of it.

    A leaf of which this process has a part, and other processes other parts, is copied on the devices, so that each
    process writes its own; it is whole on this host only while its checksum is computed. Others are as in `on_host`.
    """
    copies: dict[str, Any] = {}
    forms: dict[str, dict[str, Any]] = {}
    for path, leaf in paths_of(tree).items():
        copies[path] = _copied(path, leaf)
        forms |= described({path: copies[path]})
        if _is_shared_out(leaf):
            copies[path] = jnp.copy(leaf)
    return copies, forms


def described(leaves: Mapping[str, np.ndarray]) -> dict[str, dict[str, Any]]:
    """The dtype, shape and CRC-32 of each leaf, ready for JSON."""
    return {path: {**form_of(leaf), "crc32": checksum(leaf)} for path, leaf in leaves.items()}


def checksum(leaf: np.ndarray) -> int:
    """The CRC-32 of an array's bytes; twenty times faster than SHA-256, and enough against random damage."""
    return zlib.crc32(_bytes(leaf))


def form_of(leaf: Any) -> dict[str, Any]:
    """The dtype and shape of an array, ready for JSON."""
    return {"dtype": np.dtype(leaf.dtype).name, "shape": list(leaf.shape)}


def form_text(form: Mapping[str, Any]) -> str:
    """A dtype and shape as text: `float32[3,4]`."""
    return f"{form['dtype']}[{','.join(map(str, form['shape']))}]"


def empty(record: Mapping[str, Any]) -> np.ndarray:
    """The array without elements that `record` describes; such an array has no bytes to store."""
    return np.zeros(record["shape"], jnp.dtype(record["dtype"]))


def check_same_structure(example: Any, record: Mapping[str, Mapping[str, Any]], *, where: str) -> None:
    """Check that `record` describes exactly the leaves of `example`.

    Raises:
        ValueError: a leaf is missing, is left over, or has another shape or dtype.
    """
    expected = {path: _checked(path, leaf) for path, leaf in paths_of(example).items()}
    for path, form in expected.items():
        if path not in record:
            raise ValueError(f"{where} lacks leaf {path!r}, which is needed here; another configuration saved it")
        if form_text(record[path]) != form_text(form):
            stored, needed = form_text(record[path]), form_text(form)
            raise ValueError(
                f"{where} holds leaf {path!r} as {stored}, expected {needed}; values are never cast silently"
            )
    for path in record:
        if path not in expected:
            raise ValueError(f"{where} holds leaf {path!r}, which is not used here; another configuration saved it")


def rebuilt(example: Any, leaves: Mapping[str, np.ndarray]) -> Any:
    """A tree of the form of `example` with the values of `leaves`, each placed where the leaf of `example` is."""
    return jax.tree_util.tree_map_with_path(lambda entries, leaf: _placed(leaf, leaves[_path(entries)]), example)


def nested(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """The leaves as nested dicts, where there is no example of the tree."""
    tree: dict[str, Any] = {}
    for path, leaf in leaves.items():
        *parents, name = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = leaf
    return tree


def digest(tree: Any) -> str:
    """The SHA-256, in hexadecimal, over path, dtype, shape and bytes of every leaf, in the order of the paths."""
    total = hashlib.sha256()
    for path, leaf in sorted(on_host(tree).items()):
        total.update(f"{path}\0{leaf.dtype.name}\0{leaf.shape}\0".encode())
        total.update(_bytes(leaf))
    return total.hexdigest()


def _path(entries: tuple[Any, ...]) -> str:
    names = [jax.tree_util.keystr((entry,), simple=True) for entry in entries]
    for name in names:
        if "/" in name:
            raise ValueError(f"key {name!r} of the tree holds a '/', which separates the parts of a path; rename it")
    return "/".join(names)


def _copied(path: str, leaf: Any) -> np.ndarray:
    _checked(path, leaf)
    if _is_shared_out(leaf):
        leaf = multihost_utils.process_allgather(leaf, tiled=True)
    # `np.array`, not `np.asarray`: a view of a device array on the CPU keeps its buffer from being donated.
    copy: Callable[..., np.ndarray] = np.array
    return copy(leaf, order="C")


def _is_shared_out(leaf: Any) -> bool:
    """Whether a leaf lies in parts on the devices of several processes."""
    return isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated)


def _checked(path: str, leaf: Any) -> dict[str, Any]:
    if not isinstance(leaf, jax.Array | jax.ShapeDtypeStruct | np.ndarray | np.generic):
        kind = type(leaf).__name__
        raise TypeError(f"leaf {path!r} is of type {kind}, expected a jax or NumPy array; wrap it, as in np.int32(3)")
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        raise TypeError(f"leaf {path!r} is a random key, expected its numbers; store jax.random.key_data(key)")
    number = jnp.issubdtype(leaf.dtype, np.bool_) or jnp.issubdtype(leaf.dtype, np.number)
    if not number or not leaf.dtype.isnative:
        raise TypeError(f"leaf {path!r} has dtype {leaf.dtype}, expected numbers or booleans in native byte order")
    return form_of(leaf)


def _bytes(leaf: np.ndarray) -> memoryview:
    return np.ascontiguousarray(leaf).reshape(-1).view(np.uint8).data


def _placed(example: Any, value: np.ndarray) -> Any:
    if isinstance(example, np.ndarray):
        return value
    if isinstance(example, np.generic):
        return value[()]
    sharding = example.sharding
    if sharding is None or (isinstance(example, jax.Array) and not example.committed):
        placed = jnp.array(value)
    else:
        placed = jax.make_array_from_callback(value.shape, sharding, lambda index: value[index])
    if placed.dtype != value.dtype:
        raise ValueError(
            f"jax holds {value.dtype} as {placed.dtype} here; set jax_enable_x64 to restore this checkpoint"
        )
    return placed
