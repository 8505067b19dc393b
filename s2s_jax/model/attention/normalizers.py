"""How do scores become weights?

Each function takes scores and a mask and gives weights along the last axis: float32, exactly 0 on padding, all zeros
where no token is real. What stands on padding reaches neither a weight nor a gradient, not even as NaN. To add one:
write the function, add its line to NORMALIZERS.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Bool, Float

from s2s_jax.model.attention.config import AttentionConfig

Number = float | Float[Array, ""]  # fixed, swept without recompiling, or learned

LARGEST = 80.0  # float32 ends at exp(88.7): a sum of a thousand weights of exp(80) is still a number
LOWEST = -200.0  # float32 ends at exp(-104): a token so far below the best weighs exactly 0, whatever alpha is
HALVINGS = 26  # of an interval of ln S: 1e-7 is left of it where S is 1000


def softmax(
    scores: Float[Array, "*B S"], mask: Bool[Array, "*B S"], *, temperature: Number = 1.0
) -> Float[Array, "*B S"]:
    """exp(e / temperature) / sum exp(e / temperature). Bahdanau et al. 2015, arXiv:1409.0473, eq. 6."""
    return jax.nn.softmax(_real(scores, mask) / temperature, axis=-1, where=mask)


def exponential(scores: Float[Array, "*B S"], mask: Bool[Array, "*B S"]) -> Float[Array, "*B S"]:
    """exp(e), for scores that are log weights already; the sum is anything. Scores above 80 count as 80."""
    return jnp.where(mask, jnp.exp(jnp.minimum(_real(scores, mask), LARGEST)), 0.0)


def sigmoid(scores: Float[Array, "*B S"], mask: Bool[Array, "*B S"]) -> Float[Array, "*B S"]:
    """1 / (1 + exp(-e)), each token by itself; the sum is anything from 0 to S."""
    return jnp.where(mask, jax.nn.sigmoid(_real(scores, mask)), 0.0)


def smoothed_sigmoid(scores: Float[Array, "*B S"], mask: Bool[Array, "*B S"]) -> Float[Array, "*B S"]:
    """sigmoid(e) / sum sigmoid(e). Chorowski et al. 2015, arXiv:1506.07503, section 2.3 (smoothing)."""
    return softmax(jax.nn.log_sigmoid(_real(scores, mask)), mask)  # in logs, so that a row of low scores is no 0 / 0


def hardmax(scores: Float[Array, "*B S"], mask: Bool[Array, "*B S"]) -> Float[Array, "*B S"]:
    """1 for the first of the best tokens, 0 for the others; the gradient is softmax's.

    Straight-through: Bengio et al. 2013, arXiv:1308.3432.
    """
    soft = softmax(scores, mask)
    best = jnp.argmax(jnp.where(mask, scores, -jnp.inf), axis=-1)
    hard = jnp.where(mask, jax.nn.one_hot(best, mask.shape[-1]), 0.0)
    return hard + (soft - lax.stop_gradient(soft))  # what is added is exactly 0


def gumbel_softmax(
    scores: Float[Array, "*B S"],
    mask: Bool[Array, "*B S"],
    *,
    noise: Float[Array, "*B S"] | None = None,
    temperature: Number = 1.0,
) -> Float[Array, "*B S"]:
    """softmax((e + noise) / temperature), noise = -log(-log(uniform)). Jang et al. 2017, arXiv:1611.01144, eq. 2."""
    return softmax(scores if noise is None else scores + noise, mask, temperature=temperature)


def top_k(scores: Float[Array, "*B S"], mask: Bool[Array, "*B S"], *, count: int) -> Float[Array, "*B S"]:
    """softmax over the `count` largest scores, over all where there are fewer; of equal scores the first count."""
    ranked = lax.stop_gradient(jnp.where(mask, scores, -jnp.inf))
    least = jnp.min(lax.top_k(ranked, min(count, mask.shape[-1]))[0], axis=-1, keepdims=True)  # [-1:] would sort all
    above, level = ranked > least, ranked == least
    left = count - jnp.sum(above, axis=-1, keepdims=True)
    return softmax(scores, mask & (above | (level & (jnp.cumsum(level, axis=-1) <= left))))


def sparsemax(scores: Float[Array, "*B S"], mask: Bool[Array, "*B S"]) -> Float[Array, "*B S"]:
    """argmin |p - e|^2 over the simplex, [e - threshold]_+. Martins & Astudillo 2016, arXiv:1602.02068, algorithm 1."""
    return _tsallis(_sparsemax_threshold, _real(scores, mask), mask, jnp.float32(2.0))


def entmax15(scores: Float[Array, "*B S"], mask: Bool[Array, "*B S"]) -> Float[Array, "*B S"]:
    """[e / 2 - threshold]_+^2, between softmax and sparsemax. Peters et al. 2019, arXiv:1905.05702, algorithm 2."""
    return _tsallis(_entmax15_threshold, _real(scores, mask), mask, jnp.float32(1.5))


def alpha_entmax(scores: Float[Array, "*B S"], mask: Bool[Array, "*B S"], alpha: Number) -> Float[Array, "*B S"]:
    """[(alpha - 1) e - threshold]_+^(1 / (alpha - 1)), alpha at least 1: 1 is softmax, 2 sparsemax.

    By bisection, good to 1e-6 for alpha up to 2. Differentiable in alpha: Correia et al. 2019, arXiv:1909.00015.
    """
    return _tsallis(_bisected_threshold, _real(scores, mask), mask, jnp.asarray(alpha, jnp.float32))


def fusedmax(scores: Float[Array, "*B S"], mask: Bool[Array, "*B S"], *, strength: Number) -> Float[Array, "*B S"]:
    """argmin 1/2 |p - e|^2 + strength sum |p_(s+1) - p_s| over the simplex: neighbors share one weight.

    It is sparsemax of the scores after total-variation smoothing: Niculae & Blondel 2017, arXiv:1705.07704.
    The smoothing is exact; it takes S steps of work S, so long rows are dear: 1 ms for 64 rows of 50, 0.14 s of 1000.
    """
    # A token this far down weighs 0 and pulls as hard as one further down, so to cut it off here changes no weight.
    heights = _heights(_real(scores, mask), mask, -1.0 - 4.0 * strength)
    edges = jnp.where(mask & _next(mask), strength, 0.0)
    smooth = lax.stop_gradient(_smoothed(heights, edges))
    pulls = edges * jnp.sign(_next(smooth) - smooth)  # each token is pulled towards the next, which is pulled back
    means = _means_of_runs(heights + pulls - jnp.roll(pulls, 1, axis=-1), (edges > 0) & (_next(smooth) == smooth))
    return sparsemax(means, mask)


def constrained_softmax(
    scores: Float[Array, "*B S"], mask: Bool[Array, "*B S"], *, bound: Float[Array, "*B S"]
) -> Float[Array, "*B S"]:
    """argmin KL(p, softmax(e)) over the simplex with p <= bound; the bounds themselves where they sum to less than 1.

    Tokens that want more than their bound get their bound and the others share the rest, round by round until nobody
    wants more. Martins & Kreutzer 2017, "Learning What's Easy", EMNLP.
    """
    bound = jnp.where(mask, _not_negative(bound), 0.0)  # so padding is full from the start, and asks for nothing
    fixed = lax.stop_gradient((scores, bound))

    def spread(scores, bound, full):
        rest = _not_negative(1.0 - jnp.sum(jnp.where(full, bound, 0.0), axis=-1, keepdims=True))
        return jnp.where(full, bound, rest * softmax(scores, ~full))

    def wanting(full):
        return full, spread(*fixed, full) > fixed[1]

    full, _ = lax.while_loop(lambda now: jnp.any(now[1]), lambda now: wanting(now[0] | now[1]), wanting(bound <= 0))
    return spread(scores, bound, full)


def _real(scores, mask):
    """Scores with 0 in place of padding: what stands there must not reach the gradient, not even as NaN."""
    return jnp.where(mask, scores, 0.0).astype(jnp.float32)


def _not_negative(x):
    """[x]_+ with slope 1 at 0: a bound of 0 that is raised lets its token in."""
    return jnp.where(x < 0, 0.0, x)


def _heights(scores, mask, lowest):
    """How far each score lies above the best one of its row: 0 or less, at least `lowest`; padding lies there."""
    best = jnp.max(jnp.where(mask, scores, -jnp.inf), axis=-1, keepdims=True)
    return jnp.where(mask, jnp.maximum(scores - lax.stop_gradient(best), lowest), lowest)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _tsallis(threshold, scores, mask, alpha):
    """exp_alpha(e - threshold): the weights of largest p . e + H_alpha(p), where H_alpha is Tsallis' entropy."""
    heights = _heights(scores, mask, LOWEST)
    weights = jnp.where(mask, _deformed_exp(heights - threshold(heights, alpha), alpha), 0.0)
    slopes, total = _slopes(weights, alpha)
    excess = jnp.sum(weights, axis=-1, keepdims=True) - 1.0  # one Newton step, so that no rounding shows in the sum
    return jnp.maximum(weights - slopes * (excess / total), 0.0)


def _tsallis_forward(threshold, scores, mask, alpha):
    weights = _tsallis(threshold, scores, mask, alpha)
    return weights, (weights, alpha)


def _tsallis_backward(threshold, kept, cotangent):
    """The threshold moves so that the sum stays. Peters et al. 2019; by alpha: Correia et al. 2019."""
    weights, alpha = kept
    slopes, total = _slopes(weights, alpha)
    centerd = cotangent - jnp.sum(slopes * cotangent, axis=-1, keepdims=True) / total
    logs = jnp.log(jnp.where(weights > 0, weights, 1.0))
    by_alpha = -weights * logs**2 * _second_rest((1.0 - alpha) * logs)  # of exp_alpha(x), at the x whose value p is
    return slopes * centerd, None, jnp.sum(by_alpha * centerd)


_tsallis.defvjp(_tsallis_forward, _tsallis_backward)


def _slopes(weights, alpha):
    """The slope of exp_alpha where its value is p: p^(2 - alpha), and 0 where p is; and the sum, 1 where it is 0."""
    slopes = jnp.where(weights > 0, jnp.where(weights > 0, weights, 1.0) ** (2.0 - alpha), 0.0)
    total = jnp.sum(slopes, axis=-1, keepdims=True)
    return slopes, jnp.where(total > 0, total, 1.0)


def _deformed_exp(x, alpha):
    """exp_alpha(x) = [1 + (alpha - 1) x]_+^(1 / (alpha - 1)), which is exp(x) where alpha is 1."""
    bend = alpha - 1.0
    bent = jnp.log1p(jnp.maximum(bend * x, -1.0)) / jnp.where(bend > 0, bend, 1.0)
    return jnp.exp(jnp.where(bend > 0, bent, x))


def _second_rest(x):
    """(exp(x) - 1 - x) / x^2, by its series where the difference would cancel."""
    near = jnp.abs(x) < 0.5
    series = functools.reduce(lambda tail, n: (1.0 + x * tail) / n, range(9, 1, -1), 0.1)
    far = jnp.where(near, 1.0, x)
    return jnp.where(near, series, (jnp.expm1(far) - far) / far**2)


def _sparsemax_threshold(heights, alpha):
    """The largest of (sum of the k best - 1) / k, plus 1 since exp_2(x) is 1 + x."""
    ordered, ranks = _descending(heights)
    return jnp.max((jnp.cumsum(ordered, axis=-1) - 1.0) / ranks, axis=-1, keepdims=True) + 1.0


def _entmax15_threshold(heights, alpha):
    """Where the squares of the k best sum to 1, for the largest k that are all above; exp_1.5(x) is (1 + x/2)^2."""
    ordered, ranks = _descending(heights / 2.0)
    means = jnp.cumsum(ordered, axis=-1) / ranks
    scatter = jnp.cumsum(ordered**2, axis=-1) - ranks * means**2
    thresholds = means - jnp.sqrt(jnp.maximum(1.0 - scatter, 0.0) / ranks)
    held = jnp.where(thresholds <= ordered, thresholds, -1.0)  # they grow with k, and none is below -1
    return 2.0 * (jnp.max(held, axis=-1, keepdims=True) + 1.0)


def _bisected_threshold(heights, alpha):
    """Where exp_alpha sums to 1: between 0, where the best token alone does, and ln S, reached if alpha is 1."""

    def halve(_, bracket):
        low, high = bracket
        middle = (low + high) / 2.0
        heavy = jnp.sum(_deformed_exp(heights - middle, alpha), axis=-1, keepdims=True) >= 1.0
        return jnp.where(heavy, middle, low), jnp.where(heavy, high, middle)

    low = jnp.zeros_like(heights[..., :1])
    return lax.fori_loop(0, HALVINGS, halve, (low, low + jnp.log(jnp.array(heights.shape[-1], heights.dtype))))[0]


def _descending(heights):
    """Each row sorted, the best first; and the ranks 1, 2, ..., S."""
    # Numbers of one sign are ordered as their bits are, and integers are sorted four times as fast on a CPU.
    bits = lax.sort(lax.bitcast_convert_type(jnp.abs(heights), jnp.int32))
    ranks = lax.broadcasted_iota(jnp.float32, heights.shape, heights.ndim - 1) + 1.0
    return -lax.bitcast_convert_type(bits, jnp.float32), ranks


def _next(x):
    """What stands one token later; nothing (0 or False) after the last."""
    return jnp.concatenate([x[..., 1:], jnp.zeros_like(x[..., :1])], axis=-1)


class _Pieces(NamedTuple):
    """A piecewise linear, rising function, slot by slot: where the slot holds, it is slope * x - offset."""

    offset: Array
    start: Array
    end: Array  # below `start`: the slot holds nowhere


def _smoothed(scores, edges):
    """argmin 1/2 |x - e|^2 + sum edge_s |x_(s+1) - x_s|, exact, edge_s between s and s + 1. Johnson 2013.

    Forward: the least cost of the tokens up to s, given x_s, has a rising slope; as the next token sees it, the slope
    is cut to [-edge, edge], which it leaves at x_s = low and x_s = high. Backward: x_s is x_(s+1) cut to [low, high],
    so tokens of one run are equal to the last bit, and where an edge is 0 the two sides know nothing of each other.
    """
    slots = lax.expand_dims(jnp.arange(2 * scores.shape[-1], dtype=jnp.int32), range(scores.ndim - 1))

    def forth(pieces, token):
        index, score, edge = token
        pieces = pieces._replace(offset=pieces.offset + score)
        slopes = jnp.maximum(index + 1 - (slots + 1) // 2, 1)  # a slot grows steeper by 1 a token
        inverse = 1.0 / slopes.astype(jnp.float32)

        def reaches(level):
            at = (pieces.offset + level) * inverse
            held = (pieces.start <= at) & (pieces.start <= pieces.end)
            return jnp.max(jnp.where(held, jnp.minimum(at, pieces.end), -jnp.inf), axis=-1, keepdims=True)

        low, high = reaches(-edge), reaches(edge)
        below, above = slots == 2 * index + 1, slots == 2 * index + 2  # two new slots, of slopes -edge and edge
        cut = _Pieces(
            jnp.where(below, edge, jnp.where(above, -edge, pieces.offset)),
            jnp.where(below, -jnp.inf, jnp.where(above, high, jnp.maximum(pieces.start, low))),
            jnp.where(below, low, jnp.where(above, jnp.inf, jnp.minimum(pieces.end, high))),
        )
        return cut, (low, high)

    def back(later, bounds):
        x = jnp.clip(later, *bounds)
        return x, x

    everywhere = jnp.where(slots == 0, jnp.inf, -jnp.inf)
    flat = _Pieces(*(jnp.broadcast_to(x, (*scores.shape[:-1], slots.size)) for x in (0.0, -everywhere, everywhere)))
    by_token = (jnp.moveaxis(x, -1, 0)[..., None] for x in (scores, edges))
    _, bounds = lax.scan(forth, flat, (jnp.arange(scores.shape[-1], dtype=jnp.int32), *by_token))
    _, smooth = lax.scan(back, jnp.zeros_like(scores[..., :1]), bounds, reverse=True)
    return jnp.moveaxis(smooth[..., 0], 0, -1)


@functools.partial(jnp.vectorize, signature="(s),(s)->(s)")
def _means_of_runs(values, joined):
    """Each value replaced by the mean of its run; `joined` says that a token and the next are of one run."""
    ends = (~joined).astype(jnp.int32)
    total = functools.partial(
        jax.ops.segment_sum, segment_ids=jnp.cumsum(ends) - ends, num_segments=ends.size, indices_are_sorted=True
    )
    return (total(values) / jnp.maximum(total(jnp.ones_like(values)), 1.0))[jnp.cumsum(ends) - ends]


NORMALIZERS: dict[str, Callable[..., Float[Array, "*B S"]]] = {
    "softmax": softmax,
    "exponential": exponential,
    "sigmoid": sigmoid,
    "smoothed-sigmoid": smoothed_sigmoid,
    "sparsemax": sparsemax,
    "entmax-1.5": entmax15,
    "alpha-entmax": alpha_entmax,
    "hardmax": hardmax,
    "gumbel-softmax": gumbel_softmax,
    "fusedmax": fusedmax,
    "constrained-softmax": constrained_softmax,
    "top-k": top_k,
}


class Normalizer(nnx.Module):
    """A function of the table with the numbers that a config gives it; alpha may be learned."""

    def __init__(self, config: AttentionConfig):
        self.config = config
        if config.learned_alpha:
            self.alpha = nnx.Param(jnp.log(jnp.expm1(jnp.array(config.alpha - 1.0))))  # softplus of it is added to 1

    def __call__(
        self,
        scores: Float[Array, "*B S"],
        mask: Bool[Array, "*B S"],
        *,
        bound: Float[Array, "*B S"] | None = None,
        noise: Float[Array, "*B S"] | None = None,
    ) -> Float[Array, "*B S"]:
        """The weights.

        Args:
            bound: the most that each token may weigh, for constrained-softmax.
            noise: Gumbel noise, for gumbel-softmax in training.
        """
        config = self.config
        numbers = {
            "softmax": {"temperature": config.temperature},
            "gumbel-softmax": {"temperature": config.temperature, "noise": noise},
            "alpha-entmax": {"alpha": 1.0 + jax.nn.softplus(self.alpha[...]) if config.learned_alpha else config.alpha},
            "fusedmax": {"strength": config.fusedmax_strength},
            "constrained-softmax": {"bound": bound},
            "top-k": {"count": config.top_k},
        }
        return NORMALIZERS[config.normalizer](scores, mask, **numbers.get(config.normalizer, {}))
