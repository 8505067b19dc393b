"""Monotonic alignments: pure functions of one decoder step.

Every array is batch first and source last, and padding comes after the real tokens. Alignments and probabilities that
are passed in must be 0 on padding; energies may hold anything there. `previous` is the alignment of the last step,
`first_token(mask)` before the first one. All weights that are returned are exactly 0 on padding.
"""

import jax
import jax.export
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def first_token(mask: Bool[Array, "*B S"]) -> Float[Array, "*B S"]:
    """The alignment before the first step: all on the first token, zeros where no token is real."""
    return (mask & ~_shift_right(mask)).astype(jnp.float32)


def expected_choice(choose: Float[Array, "*B S"], previous: Float[Array, "*B S"]) -> Float[Array, "*B S"]:
    """The probability of choosing each token when scanning on from the last choice, as training needs it.

    The rest is the probability of choosing none. alignment_j = choose_j sum_{k<=j} previous_k prod_{k<=l<j} (1 -
    choose_l). Raffel et al. 2017, arXiv:1704.00784, through their recurrence q_j = (1 - choose_{j-1}) q_{j-1} +
    previous_j, alignment_j = choose_j q_j. Nothing is divided and nothing clipped: it is exact for long sentences, and
    for probabilities of 0 and 1.

    Args:
        choose: the probability that a token is chosen when it is reached.
        previous: sums to at most 1.
    """
    return choose * _linear_recurrence(1.0 - _shift_right(choose), previous)


def hard_choice(choose: Float[Array, "*B S"], previous: Float[Array, "*B S"]) -> Float[Array, "*B S"]:
    """The chosen token when every probability above 1/2 is a choice: one-hot, or zeros where none is chosen.

    Raffel et al. 2017, algorithm 1. After a step that chose none, no later step chooses any, as in `expected_choice`;
    `residual_on_last` chooses the last token instead.

    Args:
        choose: the probability that a token is chosen when it is reached.
        previous: one-hot or zeros.
    """
    stops = (choose > 0.5) & (jnp.cumsum(previous, axis=-1) > 0.5)
    return (stops & (jnp.cumsum(stops, axis=-1) == 1)).astype(choose.dtype)


def chunkwise(
    alignment: Float[Array, "*B S"], energies: Float[Array, "*B S"], mask: Bool[Array, "*B S"], *, width: int
) -> Float[Array, "*B S"]:
    """The weights of soft attention over the `width` tokens that end at the chosen token.

    weight_j = sum_{k=j}^{j+width-1} alignment_k exp(energy_j) / sum_{l=k-width+1}^{k} exp(energy_l).
    Chiu & Raffel 2018, arXiv:1712.05382. The alignment may be expected or chosen, and its sum is kept.

    Every chunk has its own softmax, so that a large energy outside a chunk cannot make the chunk's weights underflow.
    That costs `width` numbers per token; for chunks without a limit `lookback` is cheaper.

    Raises:
        ValueError: where width is not positive.
    """
    if width < 1:
        raise ValueError(f"width must be at least 1, got {width}; width=1 attends to the chosen token alone.")
    width = min(width, mask.shape[-1])
    in_chunk = _sliding_windows(mask, width)
    weights = jax.nn.softmax(_sliding_windows(energies, width), axis=-2, where=in_chunk)
    return _sum_windows(alignment[..., None, :] * weights)


def lookback(
    alignment: Float[Array, "*B S"], energies: Float[Array, "*B S"], mask: Bool[Array, "*B S"]
) -> Float[Array, "*B S"]:
    """The weights of soft attention over all tokens up to the chosen one.

    weight_j = sum_{k>=j} alignment_k exp(energy_j) / sum_{l<=k} exp(energy_l).
    Arivazhagan et al. 2019, arXiv:1906.05218 (MILk): `chunkwise` without a limit, in two scans.

    With share_j = exp(energy_j) / sum_{l<=j} exp(energy_l), the softmax up to k gives j the weight
    share_j prod_{j<l<=k} (1 - share_l): a scan back from k that stops at j, which is
    `expected_choice` in the other direction.
    """
    share = _running_share(energies, mask)
    return jnp.flip(expected_choice(jnp.flip(share, -1), jnp.flip(alignment, -1)), -1)


def stepwise_expected(
    stay: Float[Array, "*B S"], previous: Float[Array, "*B S"], mask: Bool[Array, "*B S"]
) -> Float[Array, "*B S"]:
    """The probability of each token after one step that either stays at the last token or moves on by one.

    alignment_j = previous_j stay_j + previous_{j-1} (1 - stay_{j-1}). He et al. 2019, arXiv:1906.00672, eq. 8.
    At the last token `stay` is taken as 1, so that the sum is kept.
    """
    stay = jnp.where(mask & ~_is_last(mask), stay, 1.0)
    return previous * stay + _shift_right(previous * (1.0 - stay))


def stepwise_hard(
    stay: Float[Array, "*B S"], previous: Float[Array, "*B S"], mask: Bool[Array, "*B S"]
) -> Float[Array, "*B S"]:
    """`stepwise_expected` that moves on exactly where `stay` is below 1/2: a one-hot alignment stays one-hot."""
    return stepwise_expected((stay >= 0.5).astype(stay.dtype), previous, mask)


def forward_alignment(
    weights: Float[Array, "*B S"],
    previous: Float[Array, "*B S"],
    mask: Bool[Array, "*B S"],
    *,
    move: Float[Array, "*B 1"] | Float[Array, ""] | float = 0.5,
) -> Float[Array, "*B S"]:
    """Content weights, restricted to the last step's tokens and their right neighbors, and renormalized.

    alignment_j = ((1 - move) previous_j + move previous_{j-1}) weights_j / Z. Zhang et al. 2018, arXiv:1807.06736,
    algorithm 1; with a transition agent that gives `move`, algorithm 2. Where all tokens that can be reached weigh 0,
    as a sparse normalizer may decide and a softmax by underflow, the move alone decides: the sum stays 1.

    Args:
        weights: any normalizer's weights, 0 on padding.
        previous: sums to 1, or is all zeros where no token is real.
        move: the probability of moving on; without an agent it is 1/2, which cancels.
    """
    reached = ((1.0 - move) * previous + move * _shift_right(previous)) * weights
    # Scaled by the largest before the division: the slope of x / Z has Z squared in it, which underflows long before Z.
    largest = jax.lax.stop_gradient(reached).max(axis=-1, keepdims=True)
    limits = jnp.finfo(reached.dtype)
    alive = largest > limits.tiny / limits.eps  # below it the slope itself is too large for a float
    scaled = jnp.where(alive, reached, 0.0) / jnp.where(alive, largest, 1.0)
    aligned = scaled / jnp.where(alive, scaled.sum(axis=-1, keepdims=True), 1.0)
    stay = jnp.broadcast_to(1.0 - jnp.asarray(move, previous.dtype), previous.shape)
    return jnp.where(alive, aligned, stepwise_expected(stay, previous, mask))


def residual_on_last(alignment: Float[Array, "*B S"], mask: Bool[Array, "*B S"]) -> Float[Array, "*B S"]:
    """The alignment with its missing weight added to the last real token: it sums to 1 wherever a token is real.

    alignment_n + 1 - sum alignment. Arivazhagan et al. 2019, who do so before `lookback`.
    """
    rest = 1.0 - alignment.sum(axis=-1, keepdims=True)
    rest = rest - jax.lax.stop_gradient(jnp.minimum(rest, 0.0))  # rounding makes no weight negative, nor stops a slope
    return alignment + jnp.where(_is_last(mask), rest, 0.0)


def _shift_right(row):
    """Every entry one position to the right; 0 enters at the left."""
    return jnp.concatenate([jnp.zeros_like(row[..., :1]), row[..., :-1]], axis=-1)


def _is_last(mask):
    """True at the last real token only."""
    return mask & ~jnp.concatenate([mask[..., 1:], jnp.zeros_like(mask[..., :1])], axis=-1)


def _linear_recurrence(kept, added):
    """x_j = kept_j x_{j-1} + added_j, as a scan of logarithmic depth over the maps x -> kept x + added.

    An exported program with an unknown number of tokens computes it one token after the other.
    """
    if jax.export.is_symbolic_dim(kept.shape[-1]):

        def next_token(x, token):
            x = token[0] * x + token[1]
            return x, x

        tokens = jnp.moveaxis(kept, -1, 0), jnp.moveaxis(added, -1, 0)
        return jnp.moveaxis(jax.lax.scan(next_token, jnp.zeros_like(added[..., 0]), tokens)[1], 0, -1)

    def compose(first, second):
        return first[0] * second[0], second[0] * first[1] + second[1]

    return jax.lax.associative_scan(compose, (kept, added), axis=-1)[1]


def _running_share(energies, mask):
    """exp(energy_j) / sum_{l<=j} exp(energy_l), computed relative to the largest energy so far; 0 on padding."""
    masked = jnp.where(mask, jax.lax.stop_gradient(energies), jnp.finfo(energies.dtype).min)
    largest = jax.lax.cummax(masked, axis=masked.ndim - 1)  # cancels in the quotient, hence in its slope
    before = jnp.concatenate([largest[..., :1], largest[..., :-1]], axis=-1)
    added = jnp.exp(jnp.where(mask, energies - largest, -jnp.inf))
    total = _linear_recurrence(jnp.exp(before - largest), added)
    return added / jnp.where(mask, total, 1.0)


def _sliding_windows(row, width: int):
    """[..., i, j] = row[j - (width - 1) + i], zeros before the front.

    Copies of the row are laid end to end and cut one entry longer each, which shifts each by one: this needs no gather,
    whose gradient would be a scatter.
    """
    *lead, size = row.shape
    longer = width - 1 + size
    padded = jnp.concatenate([jnp.zeros((*lead, width - 1), row.dtype), row], axis=-1)
    copies = jnp.broadcast_to(padded[..., None, :], (*lead, width, longer)).reshape(*lead, width * longer)
    copies = jnp.concatenate([copies, jnp.zeros((*lead, width), row.dtype)], axis=-1)
    return copies.reshape(*lead, width, longer + 1)[..., :size]


def _sum_windows(windows):
    """For each entry the sum of its values in all windows: the transpose of `_sliding_windows`."""
    *lead, width, size = windows.shape
    longer = width - 1 + size
    rows = jnp.concatenate([windows, jnp.zeros((*lead, width, width), windows.dtype)], axis=-1)
    copies = rows.reshape(*lead, width * (longer + 1))[..., : width * longer].reshape(*lead, width, longer)
    return copies.sum(axis=-2)[..., width - 1 :]
