"""Loss terms on the alignment, added to the objective.

Each term is a sum per sentence over its real target tokens (fertility: over its real source tokens). Padding adds
nothing, whatever the alignment holds there, and gets no gradient.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

FLOOR = 1e-8  # added below a logarithm: a weight of 0 costs 18 nats and has a steep but finite gradient


def coverage_loss(
    alignment: Float[Array, "B T S"], *, target: Bool[Array, "B T"], source: Bool[Array, "B S"]
) -> Float[Array, " B"]:
    """Repeated attention: sum over t, s of min(alignment, sum of the alignments of s in the steps before t).

    See et al. 2017, arXiv:1704.04368, equations 10 and 12. Step t itself is not among those before it: with it, the
    term would be min(a, a) where nothing was attended to twice.
    """
    alignment = _real(alignment, target, source)
    before = jnp.pad(jnp.cumsum(alignment[:, :-1], axis=1), ((0, 0), (1, 0), (0, 0)))
    return jnp.minimum(alignment, before).sum((1, 2))


def fertility_loss(
    alignment: Float[Array, "B T S"], *, target: Bool[Array, "B T"], source: Bool[Array, "B S"]
) -> Float[Array, " B"]:
    """Distance of the total attention of each source token from 1: sum over s of (1 - sum over t of alignment)^2.

    The global fertility of Cohn et al. 2016, arXiv:1601.01085, with a mean of 1 and a fixed variance; Xu et al. 2015,
    arXiv:1502.03044, equation 14, second term.
    """
    total = _real(alignment, target, source).sum(1)
    return jnp.where(source, (1 - total) ** 2, 0).sum(1)


def entropy_loss(
    alignment: Float[Array, "B T S"], *, target: Bool[Array, "B T"], source: Bool[Array, "B S"]
) -> Float[Array, " B"]:
    """Entropy of attention in nats: sum over t of -(sum over s of p log p), p the normalized weights of a step.

    A step that does not sum to 1 (sigmoid attention) is normalized first; one whose weights are all 0 adds nothing.
    """
    alignment = _real(alignment, target, source)
    total = alignment.sum(-1, keepdims=True)
    weights = alignment / jnp.where(total > 0, total, 1)
    return -(weights * jnp.log(weights + FLOOR)).sum((1, 2))


def diagonal_loss(
    alignment: Float[Array, "B T S"], *, target: Bool[Array, "B T"], source: Bool[Array, "B S"], width: float
) -> Float[Array, " B"]:
    """Attention away from the diagonal: sum over t, s of alignment (1 - exp(-(s/S - t/T)^2 / (2 width^2))).

    S and T are the sentence's own lengths, s and t count from 0. Tachibana et al. 2018, arXiv:1710.08969, section 4.1.
    """
    places = [jnp.arange(mask.shape[1])[None] / jnp.maximum(mask.sum(1, keepdims=True), 1) for mask in (target, source)]
    apart = (places[0][:, :, None] - places[1][:, None]) / width
    return (_real(alignment, target, source) * -jnp.expm1(-(apart**2) / 2).astype(alignment.dtype)).sum((1, 2))


def guided_loss(
    alignment: Float[Array, "B T S"],
    *,
    target: Bool[Array, "B T"],
    source: Bool[Array, "B S"],
    links: Bool[Array, "B T S"],
) -> Float[Array, " B"]:
    """Cross-entropy with gold alignments: sum over t, s of -A log alignment.

    A is 1/n for each of the n source tokens that a target token is linked with; a target token without links adds
    nothing. Chen et al. 2016, arXiv:1607.01628.
    """
    links = _real(links.astype(alignment.dtype), target, source)
    gold = links / jnp.maximum(links.sum(-1, keepdims=True), 1)
    return -(gold * jnp.log(_real(alignment, target, source) + FLOOR)).sum((1, 2))


def _real(weights: Float[Array, "B T S"], target: Bool[Array, "B T"], source: Bool[Array, "B S"]):
    """The weights, 0 wherever either token is padding; selected, not multiplied, which removes NaN too."""
    return jnp.where(target[:, :, None] & source[:, None], weights, 0)
