"""The letters of array axes, the ids of the four special tokens, and the batch of token ids.

    B batch   S source   T target   V vocabulary   E embedding   H decoder state   M memory (encoder state)
    A score size   Q query   L layers   D directions   G gates times state   K beam   R replicas

Every annotation and every einsum in the project uses these letters. This file imports no jax, so that the text side and
the model side can both use it.
"""

from typing import Any, NamedTuple

PAD, BOS, EOS, UNK = range(4)  # PAD is 0: a zero-filled array is an empty sentence
Size = Any  # an int, or the symbol that stands for it in an exported program
SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")  # as shown to a person; they are never searched in text


class Batch(NamedTuple):
    """Token ids of a group of pairs, padded to one static shape; NumPy on the host, jax on a device.

    Each real row ends with EOS on both sides; a row of PAD alone is no sentence and adds nothing to any sum.
    """

    source: Any  # Int[B, S]
    target: Any  # Int[B, T]
    links: Any = ()  # Bool[B, T, S], gold alignment links; () if they are not needed
    fed: Any = ()  # Int[B, T], the target as the decoder reads it, with words hidden; () if it reads the target
    features: tuple[Any, ...] = ()  # Int[B, F] each: further ids of the source, which `data.features` names

    @property
    def inputs(self) -> Any:
        """What a model encodes: the ids of the source, or `Sources` where there are features."""
        return Sources(self.source, self.features) if self.features else self.source


class Sources(NamedTuple):
    """The ids of source lines and of their features, each padded to a length of its own."""

    tokens: Any  # Int[B, S]
    features: tuple[Any, ...]  # Int[B, F] each


def source_tokens(source):
    """The ids of the source lines themselves, [B, S], of what a model encodes: of ids, or of `Sources`."""
    return source.tokens if isinstance(source, Sources) else source


def map_arrays(function, batch: Batch) -> Batch:
    """The batch with a function of each of its arrays."""

    def mapped(side):
        return tuple(map(mapped, side)) if isinstance(side, tuple) else function(side)

    return Batch(*map(mapped, batch))


def real(tokens):
    """True where a token is not padding, for NumPy and jax arrays alike; all masks are defined by it."""
    return tokens != PAD
