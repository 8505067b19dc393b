"""What turns the scores of the vocabulary into probabilities, other than softmax, and the losses that belong to it.

Entmax gives most tokens a probability of exactly 0. Peters et al. 2019, arXiv:1905.05702, sections 3 and 4.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from s2s_jax.model.attention.normalizers import entmax15, sparsemax
from s2s_jax.model.copy_mechanism import safe_log

OutputName = Literal["softmax", "entmax-1.5", "sparsemax"]
STEEPNESS = 1e4  # of the log-probability of impossible tokens, whose float32 numbers are 64 apart


class Entmax(NamedTuple):
    """A member of the family."""

    probabilities: Callable[[Float[Array, "*B V"], Bool[Array, "*B V"]], Float[Array, "*B V"]]  # of scores and mask
    alpha: float


SPARSE_OUTPUTS = {"entmax-1.5": Entmax(entmax15, 1.5), "sparsemax": Entmax(sparsemax, 2.0)}


def log_probabilities(name: str, scores: Float[Array, "*B V"]) -> Float[Array, "*B V"]:
    """The log-probability of each token; `IMPOSSIBLE` and less where it is 0, in the order of the scores.

    So every search reads it like logits, and still knows the next best token where its rules forbid all possible ones.
    """
    probabilities = _probabilities(name, scores)
    below = jax.lax.stop_gradient(scores - scores.max(-1, keepdims=True))
    return safe_log(probabilities) + jnp.where(probabilities > 0, 0.0, STEEPNESS * below)


def entmax_loss(name: str, scores: Float[Array, "*B V"], target: Int[Array, "*B"]) -> Float[Array, "*B"]:
    """(p - e_y) . z + H_alpha(p), the Fenchel-Young loss of each token: 0 where p is 1 for it. Its gradient is p - e_y.

    H_alpha(p) = sum_j (p_j - p_j^alpha) / (alpha (alpha - 1)), Tsallis' entropy. Peters et al. 2019, eq. 8 and 10.
    """
    alpha, p = SPARSE_OUTPUTS[name].alpha, jax.lax.stop_gradient(_probabilities(name, scores))
    entropy = (p - p**alpha).sum(-1) / (alpha * (alpha - 1))
    heights = scores - jax.lax.stop_gradient(scores.max(-1, keepdims=True))  # the loss is the same, the sum more exact
    true = jnp.take_along_axis(heights, target[..., None], axis=-1)[..., 0]
    return (p * heights).sum(-1) - true + entropy


def _probabilities(name: str, scores):
    return SPARSE_OUTPUTS[name].probabilities(scores, jnp.ones(scores.shape, bool))
