"""Exact hard attention: each target token comes from one source token, and which one is a latent variable.

    p(y) = sum over alignments a of the product over t of p(a_t | a_{t-1}, y_<t) p(y_t | a_t, y_<t)

The sum over all S^T alignments is exact, by the forward algorithm. Three distributions over source tokens occur: the
prior p(a_t | y_<t), which predicts; the filtered p(a_t | y_<=t), from which the next transition starts; and the
posterior p(a_t | y_1..T). All are kept as logarithms, `IMPOSSIBLE` where they are 0, so that no gradient is NaN.

Wu et al. 2018, arXiv:1808.10024 (order 0); Wu & Cotterell 2019, arXiv:1905.06319 (order 1 and monotonic).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from s2s_jax.model.ops.logits import IMPOSSIBLE
from s2s_jax.model.ops.scan import scan


class Potentials(NamedTuple):
    """What the decoder's state says of the alignment, at one step or at all of them."""

    scores: Float[Array, "*T B S"]  # of each source token
    jumps: PyTree  # [*T, B, K], of each distance from the previous token; () where it does not matter


class Chain(NamedTuple):
    """What stays fixed for a sentence."""

    mask: Bool[Array, "B S"]  # tokens that can be attended to: at least one
    jumps: PyTree  # [B, S, K], what the previous token says of each distance; () where it does not matter
    monotonic: bool


def attendable(mask: Bool[Array, "B S"]) -> Bool[Array, "B S"]:
    """The mask of the tokens that can be attended to: the real ones, or the first place of an empty sentence."""
    return mask.at[:, 0].set(True)


def first_position(mask: Bool[Array, "B S"]) -> Float[Array, "B S"]:
    """The filtered distribution before the first step: all on the first token."""
    return jnp.full(mask.shape, IMPOSSIBLE).at[:, 0].set(0.0)


def log_distribution(scores: Float[Array, "*B S"], mask: Bool[Array, "*B S"]) -> Float[Array, "*B S"]:
    """log softmax of the scores where the mask holds, `IMPOSSIBLE` elsewhere."""
    return jnp.where(mask, jax.nn.log_softmax(jnp.where(mask, scores, IMPOSSIBLE)), IMPOSSIBLE)


def log_transitions(potentials: Potentials, chain: Chain) -> Float[Array, "B S S"]:
    """At [j, i] log p(a_t = i | a_{t-1} = j): log softmax over i of the score of i plus what j says of distance i - j.

    Monotonic: over i >= j alone. Without jumps that is 0-MONO of Wu & Cotterell 2019, arXiv:1905.06319, section 3.
    """
    count = potentials.scores.shape[-1]
    logits = jnp.broadcast_to(potentials.scores[:, None], (*potentials.scores.shape, count))
    if not isinstance(potentials.jumps, tuple):
        logits += by_distance(chain.jumps + potentials.jumps[:, None], monotonic=chain.monotonic)
    mask = jnp.broadcast_to(chain.mask[:, None], logits.shape)
    return log_distribution(logits, jnp.triu(mask) if chain.monotonic else mask)


def by_distance(jumps: Float[Array, "B S K"], *, monotonic: bool) -> Float[Array, "B S S"]:
    """At [j, i] the potential of distance i - j from j; distances beyond the K known ones share the outermost."""
    count, known = jumps.shape[1:]
    longest = known - 1 if monotonic else known // 2
    places = jnp.arange(count)
    distances = jnp.clip(places[None] - places[:, None], 0 if monotonic else -longest, longest)
    chosen = jax.nn.one_hot(distances - (longest + 1 - known), known, dtype=jumps.dtype)
    # a product with ones and zeros, because the gradient of a gather is a scatter at every step
    return jnp.einsum("bjk,jik->bji", jumps, chosen, precision="highest")


def predict(filtered: Float[Array, "B S"], transitions: Float[Array, "B S S"]) -> Float[Array, "B S"]:
    """The prior of a step: log of the sum over j of p(a_{t-1} = j | y_<t) p(a_t = i | a_{t-1} = j)."""
    return jax.nn.logsumexp(filtered[..., None] + transitions, axis=1)


def update(prior: Float[Array, "B S"], emission: Float[Array, "B S"], mask: Bool[Array, "B S"]) -> Float[Array, "B S"]:
    """The filtered distribution: the prior times the emission p(y_t | a_t), normalized."""
    return log_distribution(prior + emission, mask)


def all_priors(
    filtered: Float[Array, "B S"],
    potentials: Potentials,
    emissions: Float[Array, "T B S"],
    chain: Chain,
    *,
    remat: int = 0,
) -> Float[Array, "T B S"]:
    """The priors of all steps, by the forward algorithm; the emission of the last step is not read."""

    def body(filtered, inputs):
        potentials, emission = inputs
        prior = predict(filtered, log_transitions(potentials, chain))
        return update(prior, emission, chain.mask), prior

    return scan(body, filtered, (potentials, emissions), chunk=remat)[1]


def mixture(prior: Float[Array, "*B S"], logits: Float[Array, "*B S V"]) -> Float[Array, "*B V"]:
    """log of the sum over i of p(a = i) softmax(logits_i), for each token of the vocabulary."""
    weights = prior - jax.nn.logsumexp(logits, axis=-1)
    return jax.nn.logsumexp(weights[..., None] + logits, axis=-2)
