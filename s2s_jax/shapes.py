"""Which letters name the axes, and which four ids mean something special?

    B batch   S source   T target   V vocabulary   E embedding   H decoder state   M memory (encoder state)
    A score size   Q query   L layers   D directions   G gates times state   K beam   R replicas

Every annotation and every einsum in the project uses these letters. This file knows neither jax nor files, so that
the text side and the model side can both stand on it.
"""

from typing import Any, NamedTuple

PAD, BOS, EOS, UNK = range(4)  # PAD is 0: a zero-filled array is an empty sentence
Size = Any  # an int, or the symbol that stands for it in an exported program
SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")  # how the four are shown to a person; they are never looked up in text


class Batch(NamedTuple):
    """Token ids of a group of pairs, padded to one static shape; NumPy on the host, jax on a device.

    Each real row ends with EOS on both sides; a row of nothing but PAD is no sentence and counts for nothing.
    """

    source: Any  # Int[B, S]
    target: Any  # Int[B, T]
    links: Any = ()  # Bool[B, T, S], which tokens belong together: gold; () where nobody asked for it


def real(tokens):
    """True where a token is not padding; the one definition of a mask, for NumPy and jax arrays alike."""
    return tokens != PAD
