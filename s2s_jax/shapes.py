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


def real(tokens):
    """True where a token is not padding, for NumPy and jax arrays alike; all masks are defined by it."""
    return tokens != PAD
