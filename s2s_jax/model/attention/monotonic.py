"""Where does the decoder look, if it may never look back?

Pure functions of one step. Every array is batch first and source last, padding comes after the real tokens, and
alignments and probabilities that are handed in are 0 there; energies may hold anything on padding. `previous` is the
alignment of the last step, `first(mask)` before the first one. All weights said are exactly 0 on padding.
"""

import jax
import jax.export
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def first(mask: Bool[Array, "*B S"]) -> Float[Array, "*B S"]:
    """The alignment before the first step: all on the first token, zeros where no token is real."""
    return (mask & ~_later(mask)).astype(jnp.float32)


def expected(choose: Float[Array, "*B S"], previous: Float[Array, "*B S"]) -> Float[Array, "*B S"]:
    """How probably the walk on from the last token stops at each, as training needs it; the rest falls off the end.

    alignment_j = choose_j sum_{k<=j} previous_k prod_{k<=l<j} (1 - choose_l). Raffel et al. 2017, arXiv:1704.00784,
    through their recurrence q_j = (1 - choose_{j-1}) q_{j-1} + previous_j, alignment_j = choose_j q_j.
    Nothing is divided and nothing clipped: it is exact for long sentences, and for probabilities of 0 and 1.

    Args:
        choose: the probability that a token is chosen when it is looked at.
        previous: sums to at most 1.
    """
    return choose * _carried(1.0 - _later(choose), previous)


def chosen(choose: Float[Array, "*B S"], previous: Float[Array, "*B S"]) -> Float[Array, "*B S"]:
    """Where the walk stops when every probability above 1/2 is a choice: one-hot, or zeros if it falls off the end.

    Raffel et al. 2017, algorithm 1. Once off the end it stays there, as in `expected`; `residual_on_last` keeps it on.

    Args:
        choose: the probability that a token is chosen when it is looked at.
        previous: one-hot or zeros.
    """
    stops = (choose > 0.5) & (jnp.cumsum(previous, axis=-1) > 0.5)
    return (stops & (jnp.cumsum(stops, axis=-1) == 1)).astype(choose.dtype)


def chunkwise(
    alignment: Float[Array, "*B S"], energies: Float[Array, "*B S"], mask: Bool[Array, "*B S"], *, width: int
) -> Float[Array, "*B S"]:
    """The weights of soft attention over the `width` tokens that end where the walk stops.

    weight_j = sum_{k=j}^{j+width-1} alignment_k exp(energy_j) / sum_{l=k-width+1}^{k} exp(energy_l).
    Chiu & Raffel 2018, arXiv:1712.05382. The alignment may be expected or chosen, and its sum is kept.

    Every chunk has a softmax of its own, so that no energy, however large, drowns a far one. That costs `width`
    numbers a token; `lookback` is the cheaper way to have no limit.

    Raises:
        ValueError: where width is not positive.
    """
    if width < 1:
        raise ValueError(f"width must be at least 1, got {width}; width=1 attends to the chosen token alone.")
    width = min(width, mask.shape[-1])
    inside = _windows(mask, width)
    shares = jax.nn.softmax(_windows(energies, width), axis=-2, where=inside)
    return _gathered(alignment[..., None, :] * shares)


def lookback(
    alignment: Float[Array, "*B S"], energies: Float[Array, "*B S"], mask: Bool[Array, "*B S"]
) -> Float[Array, "*B S"]:
    """The weights of soft attention over all tokens up to where the walk stops.

    weight_j = sum_{k>=j} alignment_k exp(energy_j) / sum_{l<=k} exp(energy_l).
    Arivazhagan et al. 2019, arXiv:1906.05218 (MILk): `chunkwise` without a limit, in two scans.

    With share_j = exp(energy_j) / sum_{l<=j} exp(energy_l), the softmax up to k gives j the weight
    share_j prod_{j<l<=k} (1 - share_l): a walk back from k that stops at j, which is `expected` the other way round.
    """
    share = _share(energies, mask)
    return jnp.flip(expected(jnp.flip(share, -1), jnp.flip(alignment, -1)), -1)


def stepwise(
    stay: Float[Array, "*B S"], previous: Float[Array, "*B S"], mask: Bool[Array, "*B S"]
) -> Float[Array, "*B S"]:
    """How probable each token is after one step in which the walk stays where it is or moves on by one.

    alignment_j = previous_j stay_j + previous_{j-1} (1 - stay_{j-1}). He et al. 2019, arXiv:1906.00672, eq. 8.
    At the last token there is nowhere to go: `stay` counts as 1 there, so the sum is kept.
    """
    stay = jnp.where(mask & ~_last(mask), stay, 1.0)
    return previous * stay + _later(previous * (1.0 - stay))


def stepwise_chosen(
    stay: Float[Array, "*B S"], previous: Float[Array, "*B S"], mask: Bool[Array, "*B S"]
) -> Float[Array, "*B S"]:
    """`stepwise` where the walk moves on exactly if staying is less probable than not: one-hot stays one-hot."""
    return stepwise((stay >= 0.5).astype(stay.dtype), previous, mask)


def forward(
    weights: Float[Array, "*B S"],
    previous: Float[Array, "*B S"],
    *,
    move: Float[Array, "*B 1"] | Float[Array, ""] | float = 0.5,
) -> Float[Array, "*B S"]:
    """Content weights, kept to the tokens that were attended to and their next neighbors; they sum to 1 again.

    alignment_j = ((1 - move) previous_j + move previous_{j-1}) weights_j / Z. Zhang et al. 2018, arXiv:1807.06736,
    algorithm 1, and with the transition agent that says `move` algorithm 2. Zeros where nothing can be reached.

    Args:
        weights: any normalizer's weights, 0 on padding.
        previous: sums to 1 or is all zeros.
        move: the probability of moving on; without an agent 1/2, which cancels.
    """
    reached = ((1.0 - move) * previous + move * _later(previous)) * weights
    # Scaled by the largest before the division: the slope of x / Z has Z squared in it, which underflows long before Z.
    largest = jax.lax.stop_gradient(reached).max(axis=-1, keepdims=True)
    limits = jnp.finfo(reached.dtype)
    alive = largest > limits.tiny / limits.eps  # below it the slope itself is too large for a float
    scaled = jnp.where(alive, reached, 0.0) / jnp.where(alive, largest, 1.0)
    return scaled / jnp.where(alive, scaled.sum(axis=-1, keepdims=True), 1.0)


def residual_on_last(alignment: Float[Array, "*B S"], mask: Bool[Array, "*B S"]) -> Float[Array, "*B S"]:
    """The alignment with what falls off the end put on the last real token: it sums to 1 wherever a token is real.

    alignment_n + 1 - sum alignment. Arivazhagan et al. 2019, who do so before `lookback`.
    """
    rest = 1.0 - alignment.sum(axis=-1, keepdims=True)
    rest = rest - jax.lax.stop_gradient(jnp.minimum(rest, 0.0))  # rounding makes no weight negative, nor stops a slope
    return alignment + jnp.where(_last(mask), rest, 0.0)


def _later(row):
    """Every entry one place on; 0 enters at the front."""
    return jnp.concatenate([jnp.zeros_like(row[..., :1]), row[..., :-1]], axis=-1)


def _last(mask):
    """True at the last real token alone."""
    return mask & ~jnp.concatenate([mask[..., 1:], jnp.zeros_like(mask[..., :1])], axis=-1)


def _carried(kept, added):
    """x_j = kept_j x_{j-1} + added_j, as a scan of log depth over the maps x -> kept x + added.

    An exported program, which doesn't know how many tokens there are, goes from one to the next.
    """
    if jax.export.is_symbolic_dim(kept.shape[-1]):

        def on(x, now):
            x = now[0] * x + now[1]
            return x, x

        tokens = jnp.moveaxis(kept, -1, 0), jnp.moveaxis(added, -1, 0)
        return jnp.moveaxis(jax.lax.scan(on, jnp.zeros_like(added[..., 0]), tokens)[1], 0, -1)

    def composed(one, then):
        return one[0] * then[0], then[0] * one[1] + then[1]

    return jax.lax.associative_scan(composed, (kept, added), axis=-1)[1]


def _share(energies, mask):
    """exp(energy_j) / sum_{l<=j} exp(energy_l), every sum relative to the largest energy so far; 0 on padding."""
    seen = jnp.where(mask, jax.lax.stop_gradient(energies), jnp.finfo(energies.dtype).min)
    largest = jax.lax.cummax(seen, axis=seen.ndim - 1)  # cancels in the quotient, hence in its slope
    before = jnp.concatenate([largest[..., :1], largest[..., :-1]], axis=-1)
    added = jnp.exp(jnp.where(mask, energies - largest, -jnp.inf))
    total = _carried(jnp.exp(before - largest), added)
    return added / jnp.where(mask, total, 1.0)


def _windows(row, width: int):
    """[..., i, j] = row[j - (width - 1) + i], zeros before the front.

    Copies laid end to end and cut one entry longer each slide by one: no gather, whose way back would be a scatter.
    """
    *lead, size = row.shape
    longer = width - 1 + size
    padded = jnp.concatenate([jnp.zeros((*lead, width - 1), row.dtype), row], axis=-1)
    copies = jnp.broadcast_to(padded[..., None, :], (*lead, width, longer)).reshape(*lead, width * longer)
    copies = jnp.concatenate([copies, jnp.zeros((*lead, width), row.dtype)], axis=-1)
    return copies.reshape(*lead, width, longer + 1)[..., :size]


def _gathered(windows):
    """The sum of what all windows hold for each entry: the transpose of `_windows`."""
    *lead, width, size = windows.shape
    longer = width - 1 + size
    rows = jnp.concatenate([windows, jnp.zeros((*lead, width, width), windows.dtype)], axis=-1)
    copies = rows.reshape(*lead, width * (longer + 1))[..., : width * longer].reshape(*lead, width, longer)
    return copies.sum(axis=-2)[..., width - 1 :]
