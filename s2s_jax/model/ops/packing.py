"""Arrays that are held together, concatenated along their last axis."""

import itertools
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from s2s_jax.model.ops.jaxprs import Leaves
from s2s_jax.shapes import Size


class Packing:
    """Which arrays are held together.

    Args:
        groups: the indices of those in each array.
    """

    def __init__(self, shapes: Sequence[tuple[Size, ...]], groups: list[list[int]]):
        self.widths, self.groups = [shape[-1] if shape else 1 for shape in shapes], groups

    @classmethod
    def of_alike(cls, avals: Sequence[Any], *, together: bool) -> "Packing":
        """That of arrays which differ in their last axis alone, or of none."""
        groups: dict[Any, list[int]] = {}
        for index, aval in enumerate(avals):
            alone = () if together and len(aval.shape) > 1 else (index,)
            groups.setdefault((aval.dtype, aval.shape[:-1], alone), []).append(index)
        return cls([aval.shape for aval in avals], list(groups.values()))

    def pack(self, leaves: Leaves) -> list:
        """One array per group."""
        groups = ([leaves[index] for index in group] for group in self.groups)
        return [group[0] if len(group) == 1 else jnp.concatenate(group, axis=-1) for group in groups]

    def unpack(self, packed: Leaves) -> list:
        """The inverse of `pack`, for any axes before those of one step."""
        leaves: list[Any] = [None] * len(self.widths)
        for group, joined in zip(self.groups, packed, strict=True):
            ends = list(itertools.accumulate(self.widths[index] for index in group))
            parts = [joined] if len(group) == 1 else jnp.split(joined, ends[:-1], axis=-1)
            for index, part in zip(group, parts, strict=True):
                leaves[index] = part
        return leaves
