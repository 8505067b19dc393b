"""How does the model say a word that only the source sentence has?

An id above the target vocabulary is one of the sentence's own words (`text.own_words`). Each source token says one
target id, or nothing; what is copied is added to the probabilities of the vocabulary, id by id. The logits of a step
are then log-probabilities, and loss, search and scoring need not know of any of this. A slot that the sentence does not
use has `NEVER`, which is finite, so that nothing that is made of it is NaN.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, PyTree

from s2s_jax.model.attention.config import AttentionConfig
from s2s_jax.model.attention.constraints import CONSTRAINTS
from s2s_jax.model.attention.normalizers import softmax
from s2s_jax.model.ops import initializers
from s2s_jax.model.ops.matmul import matmul
from s2s_jax.shapes import BOS, PAD, UNK

NEVER = -1e9  # log-probability of what cannot be said: far below all that can, and finite
LEAST = 1e-10  # a word of the sentence weighs at least this: a loss stays a number where attention is exactly 0
LOWEST = -60.0  # below the best copy score no score counts as lower: its exponential stays a number


class Copyable(NamedTuple):
    """What of the source can be copied, prepared once a sentence."""

    target_ids: Int[Array, "B S"]  # the target id of each source token; one past the last where it says nothing
    keys: PyTree  # what the decoder's state is compared with, where copying has scores of its own


class Copied(NamedTuple):
    """All that copying adds to the vocabulary's logits, at each step."""

    target_ids: Int[Array, "*B S"]
    weights: Float[Array, "*B S"]  # attention, or copy scores
    gate: PyTree  # logit of the vocabulary's share, where there is a gate


def pointer(
    logits: Float[Array, "*B V"],
    gate: Float[Array, "*B"],
    weights: Float[Array, "*B S"],
    target_ids: Int[Array, "*B S"],
    *,
    slots: int,
) -> Float[Array, "*B W"]:
    """log (p P_V(w) + (1 - p) sum of the weights of the tokens that say w), p = sigmoid(gate).

    See et al. 2017, arXiv:1704.04368, eq. 9. What attention gives to tokens that say nothing, the vocabulary gets, so
    that the sum is 1 whatever the sentence holds.
    """
    width = logits.shape[-1] + slots
    sayable = target_ids < width
    copied = gathered(jnp.maximum(weights, LEAST), target_ids, width)
    silent = jnp.where(sayable.any(-1), jnp.where(sayable, 0.0, weights).sum(-1), 1.0)
    known, other = jax.nn.log_sigmoid(gate), jax.nn.log_sigmoid(-gate)
    share = jnp.logaddexp(known, other + safe_log(silent))
    spoken = share[..., None] + jax.nn.log_softmax(logits)
    return jnp.logaddexp(_widened(spoken, slots), other[..., None] + safe_log(copied))


def copynet(
    logits: Float[Array, "*B V"], scores: Float[Array, "*B S"], target_ids: Int[Array, "*B S"], *, slots: int
) -> Float[Array, "*B W"]:
    """log of (exp(logit of w) + sum of exp(score) of the tokens that say w) / Z, with one Z over both.

    Gu et al. 2016, arXiv:1603.06393, eq. 5-6.
    """
    width = logits.shape[-1] + slots
    sayable = target_ids < width
    best = jax.lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True, where=sayable, initial=NEVER))
    best = jnp.where(sayable.any(-1, keepdims=True), best, 0.0)
    above = jnp.exp(jnp.maximum(jnp.where(sayable, scores - best, LOWEST), LOWEST))
    copied = best + safe_log(gathered(above, target_ids, width))
    return jax.nn.log_softmax(jnp.logaddexp(_widened(logits, slots), copied))


def gathered(weights: Float[Array, "*B S"], target_ids: Int[Array, "*B S"], width: int) -> Float[Array, "*B W"]:
    """For each id the sum of the weights of the tokens that say it; ids past the last are left out."""
    rows = weights.reshape(-1, weights.shape[-1])
    place = jnp.arange(rows.shape[0])[:, None]
    sums = jnp.zeros((rows.shape[0], width)).at[place, target_ids.reshape(rows.shape)].add(rows, mode="drop")
    return sums.reshape(*weights.shape[:-1], width)


def safe_log(x: Float[Array, "*B"]) -> Float[Array, "*B"]:
    """log x, and `NEVER` without a gradient where x is 0."""
    return jnp.where(x > 0, jnp.log(jnp.where(x > 0, x, 1.0)), NEVER)


def _widened(logits, slots: int):
    """With the slots behind the vocabulary, which cannot say them."""
    return jnp.pad(logits, [(0, 0)] * (logits.ndim - 1) + [(0, slots)], constant_values=NEVER)


class Sizes(NamedTuple):
    """How wide is what copying looks at."""

    outputs: int  # of the encoder
    values: int  # what attention averages
    state: int  # of the decoder
    embedding: int


class Pointer(nnx.Module):
    """Attention says what is copied, and a gate how much. See et al. 2017, arXiv:1704.04368, eq. 8."""

    reads = False  # whether what was copied last changes the next step

    def __init__(self, sizes: Sizes, *, slots: int, dtype: DTypeLike, rngs: nnx.Rngs):
        self.slots, self.dtype, self.width = slots, dtype, 0
        seen = sizes.values + sizes.state + sizes.embedding
        self.weight = nnx.Param(initializers.glorot(rngs.params(), seen, 1))
        self.bias = nnx.Param(jnp.zeros(()))

    def prepare(self, outputs: Float[Array, "B S M"], target_ids: Int[Array, "B S"]) -> Copyable:
        """Attention knows all that is needed."""
        return Copyable(target_ids, ())

    def start(self, target_ids: Int[Array, "B S"]) -> PyTree:
        """Nothing is remembered."""
        return ()

    def look(self, copyable: Copyable, state: Float[Array, "*B H"]) -> Float[Array, "*B H"]:
        """What must be kept of a step, to say later what it copies: the state that asked."""
        return state

    def copied(
        self,
        target_ids: Int[Array, "*B S"],
        looked: Float[Array, "*B H"],
        alignment: Float[Array, "*B S"],
        context: Float[Array, "*B M"],
        embedded: Float[Array, "*B E"],
    ) -> Copied:
        """The alignment, and the gate w_c . context + w_s . state + w_x . input + b."""
        seen = jnp.concatenate([context, looked, embedded], axis=-1)
        return Copied(target_ids, alignment, matmul(seen, self.weight[...], self.dtype)[..., 0] + self.bias[...])

    def log_probs(self, logits: Float[Array, "*B V"], copied: Copied) -> Float[Array, "*B W"]:
        """Of the vocabulary and the sentence's own words."""
        return pointer(logits, copied.gate, copied.weights, copied.target_ids, slots=self.slots)


class CopyNet(nnx.Module):
    """Each token has a copy score, tanh(W h) . state, beside the vocabulary's logits. Gu et al. 2016, eq. 8."""

    reads = True

    def __init__(self, sizes: Sizes, *, slots: int, dtype: DTypeLike, rngs: nnx.Rngs):
        self.slots, self.dtype, self.width = slots, dtype, sizes.values
        self.weight = nnx.Param(initializers.glorot(rngs.params(), sizes.outputs, sizes.state))

    def prepare(self, outputs: Float[Array, "B S M"], target_ids: Int[Array, "B S"]) -> Copyable:
        """tanh(W h) of all tokens."""
        return Copyable(target_ids, jnp.tanh(matmul(outputs, self.weight[...], self.dtype)))

    def start(self, target_ids: Int[Array, "B S"]) -> PyTree:
        """The scores of the step before the first one: no token says BOS, so they are never read."""
        return jnp.zeros(target_ids.shape)

    def look(self, copyable: Copyable, state: Float[Array, "B H"]) -> Float[Array, "B S"]:
        """The copy scores."""
        factors = copyable.keys.astype(self.dtype), state.astype(self.dtype)
        return jnp.einsum("bsh,bh->bs", *factors, preferred_element_type=jnp.float32)

    def read(
        self,
        copyable: Copyable,
        values: Float[Array, "B S M"],
        scores: Float[Array, "B S"],
        token: Int[Array, " B"],
    ) -> Float[Array, "B M"]:
        """The selective read: the values where the source says the token just fed, weighed by how it was copied.

        Zeros where it does not say it. Gu et al. 2016, eq. 9.
        """
        weights = softmax(scores, copyable.target_ids == token[:, None])
        factors = weights.astype(self.dtype), values.astype(self.dtype)
        return jnp.einsum("bs,bsm->bm", *factors, preferred_element_type=jnp.float32)

    def copied(
        self,
        target_ids: Int[Array, "*B S"],
        looked: Float[Array, "*B S"],
        alignment: Float[Array, "*B S"],
        context: Float[Array, "*B M"],
        embedded: Float[Array, "*B E"],
    ) -> Copied:
        """The copy scores."""
        return Copied(target_ids, looked, ())

    def log_probs(self, logits: Float[Array, "*B V"], copied: Copied) -> Float[Array, "*B W"]:
        """Of the vocabulary and the sentence's own words."""
        return copynet(logits, copied.weights, copied.target_ids, slots=self.slots)


COPYING = {"pointer": Pointer, "copynet": CopyNet}


def check_copying(copy: str, attention: AttentionConfig) -> None:
    """Refuse attention that copying cannot use.

    Raises:
        ValueError: with the reason and what to choose instead.
    """
    if copy != "none" and attention.score == "none":
        raise ValueError(
            f"model.decoder.copy={copy} needs to look at the source, which model.attention.score=none does not; "
            "take another score, such as general."
        )
    if copy == "pointer" and not sums_to_one(attention):
        raise ValueError(
            "model.decoder.copy=pointer takes attention's weights for probabilities, but with "
            f"model.attention.normalizer={attention.normalizer} and model.attention.constraint={attention.constraint} they need "
            "not sum to 1; take model.attention.normalizer=softmax (for local-p also model.attention.renormalized=true), or "
            "model.decoder.copy=copynet, which has scores of its own."
        )


def sums_to_one(attention: AttentionConfig) -> bool:
    """Whether the weights of a sentence always do."""
    if attention.constraint in ("forward", "forward-agent", "milk"):
        return True
    if attention.constraint == "local-p":
        return attention.renormalized
    if CONSTRAINTS[attention.constraint].monotonic:
        return False
    return attention.normalizer not in ("exponential", "sigmoid", "constrained-softmax")


def identity_copy_table(source_vocabulary: int, target_vocabulary: int, slots: int) -> Int[np.ndarray, " W"]:
    """What each source id says where both sides have one vocabulary: itself, but PAD, BOS and UNK say nothing.

    Raises:
        ValueError: the vocabularies are not of one size.
    """
    if source_vocabulary != target_vocabulary:
        raise ValueError(
            f"copying from a vocabulary of {source_vocabulary} into one of {target_vocabulary} needs to know which "
            "token is which; give build(..., copy_table=...), as PairTokenizer.copy_table() makes it."
        )
    table = np.arange(source_vocabulary + slots, dtype=np.int32)
    table[[PAD, BOS, UNK]] = -1
    return table


def clip_to_vocabulary(ids: Int[Array, "*B"], vocabulary: int) -> Int[Array, "*B"]:
    """The ids as embeddings know them: a sentence's own words are UNK."""
    return jnp.where(ids < vocabulary, ids, UNK)


def copy_targets(
    source: Int[Array, "B S"], mask: Bool[Array, "B S"], table: Int[np.ndarray, " W"], width: int
) -> Int[Array, "B S"]:
    """The target id that each source token says; `width` on padding, and where it says nothing."""
    target_ids = jnp.asarray(table, jnp.int32)[source]
    return jnp.where(mask & (target_ids >= 0), target_ids, width)
