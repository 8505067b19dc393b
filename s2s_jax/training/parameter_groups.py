"""Groups of parameters: those that patterns such as `encoder.*` name, and those that weight decay spares."""

import difflib
import fnmatch
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jaxtyping import PyTree


def dotted(path: tuple) -> str:
    """The path of a parameter as it is printed and as patterns are matched: `encoder.cells.0.weight`."""
    return ".".join(jax.tree_util.keystr((entry,), simple=True) for entry in path)


def dotted_paths(params: PyTree) -> dict[str, Any]:
    """Each parameter by its dotted path."""
    return {dotted(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]}


def matched(params: PyTree, pattern: str, *, setting: str) -> PyTree:
    """Whether a pattern names each parameter: `*` stands for any characters, dots included.

    Raises:
        ValueError: it names none; with the nearest paths.
    """
    found = jax.tree_util.tree_map_with_path(lambda path, _: fnmatch.fnmatchcase(dotted(path), pattern), params)
    if not any(jax.tree.leaves(found)):
        paths = list(dotted_paths(params))
        groups = dict.fromkeys(f"{path[:end]}*" for path in paths for end in _group_ends(path))
        near = difflib.get_close_matches(pattern, [*groups, *paths], n=3, cutoff=0.4) or [*groups, *paths][:3]
        raise ValueError(
            f"{setting}: no parameter matches {pattern!r}; the nearest are {', '.join(near)}. A pattern is matched "
            "against the whole path, and * stands for any characters, as in encoder.* or *bias."
        )
    return found


def _group_ends(path: str) -> list[int]:
    """Where the name of each group of a path ends, behind its dot."""
    return [place + 1 for place, letter in enumerate(path) if letter == "."]


def frozen(params: PyTree, patterns: Sequence[str]) -> PyTree:
    """Whether each parameter is frozen by optimizer.freeze.

    Raises:
        ValueError: a pattern names no parameter, or nothing is left to train.
    """
    each = [matched(params, pattern, setting="optimizer.freeze") for pattern in patterns]
    mask = jax.tree.map(lambda *found: any(found), *each)
    if all(jax.tree.leaves(mask)):
        raise ValueError(f"optimizer.freeze={list(patterns)} leaves no parameter to train; freeze fewer.")
    return mask


def parsed_multiplier(text: str) -> tuple[str, float]:
    """The pattern and the factor of an entry of optimizer.multipliers.

    Raises:
        ValueError: it is not PATTERN=FACTOR with a factor above 0.
    """
    pattern, _, number = text.rpartition("=")
    try:
        factor = float(number)
    except ValueError:
        factor = -1.0
    if not pattern or not 0 < factor < float("inf"):
        remedy = " (a factor of 0 is optimizer.freeze)" if number.strip() in ("0", "0.0") else ""
        raise ValueError(
            f"optimizer.multipliers must be PATTERN=FACTOR with a factor above 0, as in encoder.*=0.1, got {text!r}"
            f"{remedy}"
        )
    return pattern, factor


def multipliers(params: PyTree, entries: Sequence[str]) -> PyTree:
    """The factor of each parameter's learning rate: that of the last pattern which names it, else 1.

    Raises:
        ValueError: a pattern names no parameter.
    """
    factors = jax.tree.map(lambda _: 1.0, params)
    for pattern, factor in map(parsed_multiplier, entries):
        found = matched(params, pattern, setting="optimizer.multipliers")
        factors = jax.tree.map(lambda before, here, factor=factor: factor if here else before, factors, found)
    return factors


def is_decayed(params: PyTree, *, undecayed: Sequence[str]) -> PyTree:
    """Whether each parameter decays; which group it belongs to shows in its name, such as `inner_bias`."""
    words = {"biases": ("bias",), "norms": ("gain", "norm"), "embeddings": ("embedding",)}
    spared = tuple(word for group in undecayed for word in words[group])

    def decays(path: tuple, _: Any) -> bool:
        return not any(word in str(getattr(path[-1], "key", path[-1])) for word in spared)

    return jax.tree_util.tree_map_with_path(decays, params)


def kept_where(mask: Callable[[PyTree], PyTree] | None, before: PyTree, after: PyTree) -> PyTree:
    """The tree `after`, with the leaves of `before` where the mask is true; without a mask `after` itself."""
    if mask is None:
        return after
    return jax.tree.map(lambda old, new, keep: old if keep else new, before, after, mask(before))
