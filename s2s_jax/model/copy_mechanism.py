"""Copying words from the source: pointer-generator and CopyNet.

Ids above the target vocabulary are an extension of it per sentence (`text.copy_vocabulary`). Each source token has one
target id or none; what is copied is added to the probabilities of the vocabulary, id by id. The logits of a step are
then log-probabilities, so that loss, search and scoring do not depend on copying. A slot that the sentence does not use
has the log-probability `IMPOSSIBLE`, which is finite, so that nothing computed from it is NaN.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, PyTree

from s2s_jax.model.attention.normalizers import softmax
from s2s_jax.model.ops import initializers
from s2s_jax.model.ops.logits import IMPOSSIBLE
from s2s_jax.model.ops.matmul import contract, matmul
from s2s_jax.shapes import BOS, PAD, UNK

CopyName = Literal["none", "pointer", "copynet"]

SMALLEST_WEIGHT = 1e-10  # of a source token, so that the loss is finite where attention is exactly 0
LOWEST_SCORE = -60.0  # of a copy score relative to the best one, so that its exponential does not underflow


class Copyable(NamedTuple):
    """What can be copied from the source, prepared once per sentence."""

    target_ids: Int[Array, "B S"]  # the target id of each source token; one past the last where it has none
    keys: PyTree  # with which copy scores compare the decoder's state; () without copy scores


class Copied(NamedTuple):
    """What copying combines with the vocabulary's logits, at each step."""

    target_ids: Int[Array, "*B S"]
    weights: Float[Array, "*B S"]  # attention weights, or copy scores
    gate: PyTree  # logit of the probability of generating, where there is a gate


def pointer(
    logits: Float[Array, "*B V"],
    gate: Float[Array, "*B"],
    weights: Float[Array, "*B S"],
    target_ids: Int[Array, "*B S"],
    *,
    slots: int,
) -> Float[Array, "*B W"]:
    """log (p P_V(w) + (1 - p) sum of the weights of the tokens with id w), p = sigmoid(gate).

    See et al. 2017, arXiv:1704.04368, eq. 9. The attention on tokens without a target id goes to the vocabulary, so
    that the sum is 1 for every sentence.
    """
    width = logits.shape[-1] + slots
    has_id = target_ids < width
    copied = sum_by_id(jnp.maximum(weights, SMALLEST_WEIGHT), target_ids, width)
    without_id = jnp.where(has_id.any(-1), jnp.where(has_id, 0.0, weights).sum(-1), 1.0)
    log_generate, log_copy = jax.nn.log_sigmoid(gate), jax.nn.log_sigmoid(-gate)
    log_vocabulary = jnp.logaddexp(log_generate, log_copy + safe_log(without_id))
    generated = log_vocabulary[..., None] + jax.nn.log_softmax(logits)
    return jnp.logaddexp(_pad_slots(generated, slots), log_copy[..., None] + safe_log(copied))


def copynet(
    logits: Float[Array, "*B V"], scores: Float[Array, "*B S"], target_ids: Int[Array, "*B S"], *, slots: int
) -> Float[Array, "*B W"]:
    """log of (exp(logit of w) + sum of exp(score) of the tokens with id w) / Z, with one Z over both.

    Gu et al. 2016, arXiv:1603.06393, eq. 5-6.
    """
    width = logits.shape[-1] + slots
    has_id = target_ids < width
    best = jax.lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True, where=has_id, initial=IMPOSSIBLE))
    best = jnp.where(has_id.any(-1, keepdims=True), best, 0.0)
    weights = jnp.exp(jnp.maximum(jnp.where(has_id, scores - best, LOWEST_SCORE), LOWEST_SCORE))
    copied = best + safe_log(sum_by_id(weights, target_ids, width))
    return jax.nn.log_softmax(jnp.logaddexp(_pad_slots(logits, slots), copied))


def sum_by_id(weights: Float[Array, "*B S"], target_ids: Int[Array, "*B S"], width: int) -> Float[Array, "*B W"]:
    """For each id the sum of the weights of its tokens; ids past the last are left out."""
    rows = weights.reshape(-1, weights.shape[-1])
    row_numbers = jnp.arange(rows.shape[0])[:, None]
    sums = jnp.zeros((rows.shape[0], width)).at[row_numbers, target_ids.reshape(rows.shape)].add(rows, mode="drop")
    return sums.reshape(*weights.shape[:-1], width)


def safe_log(x: Float[Array, "*B"]) -> Float[Array, "*B"]:
    """log x, or `IMPOSSIBLE` without a gradient where x is 0."""
    return jnp.where(x > 0, jnp.log(jnp.where(x > 0, x, 1.0)), IMPOSSIBLE)


def _pad_slots(logits, slots: int):
    """The logits with the slots appended, which the vocabulary cannot generate."""
    return jnp.pad(logits, [(0, 0)] * (logits.ndim - 1) + [(0, slots)], constant_values=IMPOSSIBLE)


class CopyWidths(NamedTuple):
    """The widths of what copying reads."""

    outputs: int  # of the encoder
    values: int  # that attention averages
    state: int  # of the decoder
    embedding: int


class Pointer(nnx.Module):
    """Copies by the attention weights, and a gate weighs copying. See et al. 2017, arXiv:1704.04368, eq. 8."""

    reads = False  # whether what was copied last is read at the next step
    needs_distribution = True  # the attention weights are read as probabilities, which must sum to 1
    reads_source = False  # a step reads all tokens, also those that attention may not reach

    def __init__(self, widths: CopyWidths, *, slots: int, dtype: DTypeLike, rngs: nnx.Rngs):
        self.slots, self.dtype, self.width = slots, dtype, 0
        inputs = widths.values + widths.state + widths.embedding
        self.weight = nnx.Param(initializers.glorot(rngs.params(), inputs, 1))
        self.bias = nnx.Param(jnp.zeros(()))

    def prepare(self, outputs: Float[Array, "B S M"], target_ids: Int[Array, "B S"]) -> Copyable:
        """The target ids alone: attention provides the weights."""
        return Copyable(target_ids, ())

    def start(self, target_ids: Int[Array, "B S"]) -> PyTree:
        """(), since there is no state."""
        return ()

    def features(self, copyable: Copyable, state: Float[Array, "*B H"]) -> Float[Array, "*B H"]:
        """What a step keeps in order to compute later what it copies: the decoder state."""
        return state

    def copied(
        self,
        target_ids: Int[Array, "*B S"],
        features: Float[Array, "*B H"],
        alignment: Float[Array, "*B S"],
        context: Float[Array, "*B M"],
        embedded: Float[Array, "*B E"],
    ) -> Copied:
        """The alignment, and the gate w_c . context + w_s . state + w_x . input + b."""
        inputs = jnp.concatenate([context, features, embedded], axis=-1)
        return Copied(target_ids, alignment, matmul(inputs, self.weight[...], self.dtype)[..., 0] + self.bias[...])

    def log_probs(self, logits: Float[Array, "*B V"], copied: Copied) -> Float[Array, "*B W"]:
        """Log-probabilities of the vocabulary and the slots."""
        return pointer(logits, copied.gate, copied.weights, copied.target_ids, slots=self.slots)


class CopyNet(nnx.Module):
    """Each source token has a copy score tanh(W h) . state besides the vocabulary's logits. Gu et al. 2016, eq. 8."""

    reads = True
    needs_distribution = False
    reads_source = True

    def __init__(self, widths: CopyWidths, *, slots: int, dtype: DTypeLike, rngs: nnx.Rngs):
        self.slots, self.dtype, self.width = slots, dtype, widths.values
        self.weight = nnx.Param(initializers.glorot(rngs.params(), widths.outputs, widths.state))

    def prepare(self, outputs: Float[Array, "B S M"], target_ids: Int[Array, "B S"]) -> Copyable:
        """The keys tanh(W h) of all tokens."""
        return Copyable(target_ids, jnp.tanh(matmul(outputs, self.weight[...], self.dtype)))

    def start(self, target_ids: Int[Array, "B S"]) -> PyTree:
        """The scores before the first step, which are never read, because no token has the id of BOS."""
        return jnp.zeros(target_ids.shape)

    def features(self, copyable: Copyable, state: Float[Array, "B H"]) -> Float[Array, "B S"]:
        """The copy scores, one per token."""
        return contract("bsh,bh->bs", copyable.keys, state, self.dtype)

    def read(
        self,
        copyable: Copyable,
        values: Float[Array, "B S M"],
        scores: Float[Array, "B S"],
        token: Int[Array, " B"],
    ) -> Float[Array, "B M"]:
        """The selective read: the mean of the values at tokens with the id of the last token, weighted by copy score.

        Zeros where no token has that id. Gu et al. 2016, eq. 9.
        """
        weights = softmax(scores, copyable.target_ids == token[:, None])
        return contract("bs,bsm->bm", weights, values, self.dtype)

    def copied(
        self,
        target_ids: Int[Array, "*B S"],
        features: Float[Array, "*B S"],
        alignment: Float[Array, "*B S"],
        context: Float[Array, "*B M"],
        embedded: Float[Array, "*B E"],
    ) -> Copied:
        """The copy scores; there is no gate."""
        return Copied(target_ids, features, ())

    def log_probs(self, logits: Float[Array, "*B V"], copied: Copied) -> Float[Array, "*B W"]:
        """Log-probabilities of the vocabulary and the slots."""
        return copynet(logits, copied.weights, copied.target_ids, slots=self.slots)


COPYING = {"pointer": Pointer, "copynet": CopyNet}


def identity_copy_table(source_vocabulary: int, target_vocabulary: int, slots: int) -> Int[np.ndarray, " W"]:
    """The target id of each source id where both sides share a vocabulary: itself, or -1 for PAD, BOS and UNK.

    Raises:
        ValueError: the vocabularies differ in size.
    """
    if source_vocabulary != target_vocabulary:
        raise ValueError(
            f"copying from a vocabulary of {source_vocabulary} tokens into one of {target_vocabulary} needs a table of "
            "their ids; pass build(..., copy_table=PairTokenizer(...).copy_table())."
        )
    table = np.arange(source_vocabulary + slots, dtype=np.int32)
    table[[PAD, BOS, UNK]] = -1
    return table


def clip_to_vocabulary(ids: Int[Array, "*B"], vocabulary: int) -> Int[Array, "*B"]:
    """The ids with UNK in place of those above the vocabulary, which have no embedding."""
    return jnp.where(ids < vocabulary, ids, UNK)


def copy_targets(
    source: Int[Array, "B S"], mask: Bool[Array, "B S"], table: Int[np.ndarray, " W"], width: int
) -> Int[Array, "B S"]:
    """The target id of each source token; `width` on padding and for tokens without one."""
    target_ids = jnp.asarray(table, jnp.int32)[source]
    return jnp.where(mask & (target_ids >= 0), target_ids, width)
