"""Normalizers: functions that turn scores into weights.

Each takes scores and a mask and returns weights along the last axis: float32, exactly 0 on padding, all zeros where no
token is real. Values on padding affect neither a weight nor a gradient, not even if they are NaN.

To add one, write a function `(scores, mask) -> weights` and add it to NORMALIZERS. Parameters after those two are
passed by name: one named like a setting of `model.attention` gets that setting, `bound` the largest weight that each
token may get (from a history that limits weights), `noise` Gumbel noise in training and None otherwise. Weights that do
not sum to 1, or that are independent probabilities, are declared with `facts`.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Bool, Float

from s2s_jax.model.attention.config import AttentionConfig
from s2s_jax.model.attention.total_variation import means_of_runs, shift_left, total_variation_smoothing

Number = float | Float[Array, ""]  # fixed, swept without recompiling, or learned
NormalizerFn = Callable[..., Float[Array, "*B S"]]

LARGEST_SCORE = 20.0  # of a log weight: exp(20) is 5e8, whose square times a million is still finite in float32
LARGEST_SLOPE = 1e18  # of exp_alpha, so that the product of two is finite; alpha up to 2 has none above 1
LOWEST_HEIGHT = -200.0  # float32 underflows at exp(-104): a token this far below the best weighs 0 for every alpha
BISECTIONS = 26  # of an interval of ln S: its length is then 1e-7 where S is 1000


class NormalizerFacts(NamedTuple):
    """What `model.compatibility` and `Normalizer` need to know of a normalizer."""

    sums_to_one: bool  # the weights of a sentence sum to 1
    independent: bool  # each weight is a probability by itself, whatever the other scores are
    parameters: tuple[str, ...]  # what it takes besides scores and mask

    @property
    def settings(self) -> tuple[str, ...]:
        """The settings of `model.attention` that it reads."""
        return tuple(name for name in self.parameters if name in SETTINGS)


SETTINGS = frozenset(field.name for field in dataclasses.fields(AttentionConfig))


def facts(*, sums_to_one: bool = True, independent: bool = False) -> Callable[[NormalizerFn], NormalizerFn]:
    """A decorator that declares facts of a normalizer as attributes of the function."""

    def declare(function: NormalizerFn) -> NormalizerFn:
        vars(function).update(sums_to_one=sums_to_one, independent=independent)
        return function

    return declare


def normalizer_facts(name: str) -> NormalizerFacts:
    """The facts of a normalizer of the table; a plain function sums to 1."""
    function = NORMALIZERS[name]
    return NormalizerFacts(
        getattr(function, "sums_to_one", True), getattr(function, "independent", False), _parameters(function)
    )


@functools.cache
def _parameters(function: NormalizerFn) -> tuple[str, ...]:
    """The parameters after scores and mask that attention can pass; others keep their defaults."""
    known = SETTINGS | {"bound", "noise"}
    return tuple(name for name in list(inspect.signature(function).parameters)[2:] if name in known)


def softmax(
    scores: Float[Array, "*B S"], mask: Bool[Array, "*B S"], *, temperature: Number = 1.0
) -> Float[Array, "*B S"]:
    """exp(e / temperature) / sum exp(e / temperature). Bahdanau et al. 2015, arXiv:1409.0473, eq. 6."""
    return _softmax(_real(scores, mask) / temperature, mask)


@jax.custom_jvp
def _softmax(scores, mask):
    return jax.nn.softmax(scores, axis=-1, where=mask)


@_softmax.defjvp
def _softmax_jvp(primals, tangents):
    """Its derivative in terms of the weights alone, which are there anyway."""
    weights, change = _softmax(*primals), tangents[0]
    return weights, weights * (change - jnp.sum(weights * change, axis=-1, keepdims=True))


@facts(sums_to_one=False)
def exponential(scores: Float[Array, "*B S"], mask: Bool[Array, "*B S"]) -> Float[Array, "*B S"]:
    """exp(e), for scores that are already log weights; any sum is possible. Scores above 20 are taken as 20."""
    return jnp.where(mask, jnp.exp(jnp.minimum(_real(scores, mask), LARGEST_SCORE)), 0.0)


@facts(sums_to_one=False, independent=True)
def sigmoid(scores: Float[Array, "*B S"], mask: Bool[Array, "*B S"]) -> Float[Array, "*B S"]:
    """1 / (1 + exp(-e)), independently for each token; the sum is between 0 and S."""
    return jnp.where(mask, jax.nn.sigmoid(_real(scores, mask)), 0.0)


def smoothed_sigmoid(scores: Float[Array, "*B S"], mask: Bool[Array, "*B S"]) -> Float[Array, "*B S"]:
    """sigmoid(e) / sum sigmoid(e). Chorowski et al. 2015, arXiv:1506.07503, section 2.3 (smoothing)."""
    return softmax(jax.nn.log_sigmoid(_real(scores, mask)), mask)  # in logarithms, so that low scores do not give 0 / 0


def hardmax(scores: Float[Array, "*B S"], mask: Bool[Array, "*B S"]) -> Float[Array, "*B S"]:
    """1 for the token with the largest score (the first of equal ones), 0 for the rest; the gradient is softmax's.

    Straight-through: Bengio et al. 2013, arXiv:1308.3432.
    """
    soft = softmax(scores, mask)
    best = jnp.argmax(jnp.where(mask, scores, -jnp.inf), axis=-1)
    hard = jnp.where(mask, jax.nn.one_hot(best, mask.shape[-1]), 0.0)
    return hard + (soft - lax.stop_gradient(soft))  # the added term is exactly 0


def gumbel_softmax(
    scores: Float[Array, "*B S"],
    mask: Bool[Array, "*B S"],
    *,
    noise: Float[Array, "*B S"] | None = None,
    temperature: Number = 1.0,
) -> Float[Array, "*B S"]:
    """softmax((e + noise) / temperature), noise = -log(-log(uniform)). Jang et al. 2017, arXiv:1611.01144, eq. 2."""
    return softmax(scores if noise is None else scores + noise, mask, temperature=temperature)


def top_k_softmax(scores: Float[Array, "*B S"], mask: Bool[Array, "*B S"], *, top_k: int) -> Float[Array, "*B S"]:
    """softmax over the `top_k` largest scores, over all where there are fewer; of equal scores the first are taken."""
    ranked = lax.stop_gradient(jnp.where(mask, scores, -jnp.inf))
    least = jnp.min(lax.top_k(ranked, min(top_k, mask.shape[-1]))[0], axis=-1, keepdims=True)  # [-1:] would sort all
    above, equal = ranked > least, ranked == least
    remaining = top_k - jnp.sum(above, axis=-1, keepdims=True)
    best = above | (equal & (jnp.cumsum(equal, axis=-1) <= remaining)) | jnp.isnan(ranked)  # NaN must not look like 0
    return softmax(scores, mask & best)


def sparsemax(scores: Float[Array, "*B S"], mask: Bool[Array, "*B S"]) -> Float[Array, "*B S"]:
    """argmin |p - e|^2 over the simplex, [e - threshold]_+. Martins & Astudillo 2016, arXiv:1602.02068, algorithm 1."""
    return _tsallis(_sparsemax_threshold, _real(scores, mask), mask, jnp.float32(2.0))


def entmax15(scores: Float[Array, "*B S"], mask: Bool[Array, "*B S"]) -> Float[Array, "*B S"]:
    """[e / 2 - threshold]_+^2, between softmax and sparsemax. Peters et al. 2019, arXiv:1905.05702, algorithm 2."""
    return _tsallis(_entmax15_threshold, _real(scores, mask), mask, jnp.float32(1.5))


def alpha_entmax(scores: Float[Array, "*B S"], mask: Bool[Array, "*B S"], alpha: Number) -> Float[Array, "*B S"]:
    """[(alpha - 1) e - threshold]_+^(1 / (alpha - 1)), alpha at least 1: 1 is softmax, 2 sparsemax.

    Computed by bisection, to within 1e-6 for alpha up to 2. Differentiable in alpha: Correia et al. 2019,
    arXiv:1909.00015.
    """
    return _tsallis(_bisected_threshold, _real(scores, mask), mask, jnp.asarray(alpha, jnp.float32))


def fusedmax(
    scores: Float[Array, "*B S"], mask: Bool[Array, "*B S"], *, fusedmax_strength: Number
) -> Float[Array, "*B S"]:
    """argmin 1/2 |p - e|^2 + strength sum |p_(s+1) - p_s| over the simplex: neighbors share one weight.

    It is sparsemax of the scores after total-variation smoothing: Niculae & Blondel 2017, arXiv:1705.07704.
    The smoothing is exact and takes O(S^2) work: 1 ms for 64 rows of 50 tokens, 0.14 s for 64 rows of 1000.
    """
    # A token this far down weighs 0 and affects its neighbors as one further down does, so clipping changes no weight.
    heights = _heights(_real(scores, mask), mask, -1.0 - 4.0 * fusedmax_strength)
    edges = jnp.where(mask & shift_left(mask), fusedmax_strength, 0.0)
    smooth = lax.stop_gradient(total_variation_smoothing(heights, edges))
    pulls = edges * jnp.sign(shift_left(smooth) - smooth)  # pulls a token towards the next, and the next one back
    joined = (edges > 0) & (shift_left(smooth) == smooth)
    means = means_of_runs(heights + pulls - jnp.roll(pulls, 1, axis=-1), joined)
    return sparsemax(means, mask)


@facts(sums_to_one=False)
def constrained_softmax(
    scores: Float[Array, "*B S"], mask: Bool[Array, "*B S"], *, bound: Float[Array, "*B S"]
) -> Float[Array, "*B S"]:
    """argmin KL(p, softmax(e)) over the simplex with p <= bound; the bounds themselves where they sum to less than 1.

    Tokens that would exceed their bound get their bound and the remaining tokens share the rest, repeated until none
    exceeds its bound. Martins & Kreutzer 2017, "Learning What's Easy", EMNLP.
    """
    bound = jnp.where(mask, _clip_negative(bound), 0.0)  # so padding is saturated from the start
    fixed = lax.stop_gradient((scores, bound))

    def distribute(scores, bound, saturated):
        rest = _clip_negative(1.0 - jnp.sum(jnp.where(saturated, bound, 0.0), axis=-1, keepdims=True))
        return jnp.where(saturated, bound, rest * softmax(scores, ~saturated))

    def with_excess(saturated):
        return saturated, distribute(*fixed, saturated) > fixed[1]

    saturated, _ = lax.while_loop(
        lambda state: jnp.any(state[1]), lambda state: with_excess(state[0] | state[1]), with_excess(bound <= 0)
    )
    return distribute(scores, bound, saturated)


def _real(scores, mask):
    """Scores with 0 on padding, so that the values there do not affect the gradient, not even if they are NaN."""
    return jnp.where(mask, scores, 0.0).astype(jnp.float32)


def _clip_negative(x):
    """[x]_+ with slope 1 at 0, so that raising a bound of 0 has a gradient."""
    return jnp.where(x < 0, 0.0, x)


def _heights(scores, mask, lowest):
    """Each score minus the best one of its row: at most 0, at least `lowest`, which padding gets."""
    best = jnp.max(jnp.where(mask, scores, -jnp.inf), axis=-1, keepdims=True)
    return jnp.where(mask, jnp.maximum(scores - lax.stop_gradient(best), lowest), lowest)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _tsallis(threshold, scores, mask, alpha):
    """exp_alpha(e - threshold): the weights that maximize p . e + H_alpha(p), where H_alpha is Tsallis' entropy."""
    heights = _heights(scores, mask, LOWEST_HEIGHT)
    weights = jnp.where(mask, _deformed_exp(heights - threshold(heights, alpha), alpha), 0.0)
    slopes, total = _slopes(weights, alpha)
    excess = jnp.sum(weights, axis=-1, keepdims=True) - 1.0  # one Newton step removes rounding from the sum
    return jnp.maximum(weights - slopes * (excess / total), 0.0)


def _tsallis_forward(threshold, scores, mask, alpha):
    weights = _tsallis(threshold, scores, mask, alpha)
    return weights, (weights, alpha)


def _tsallis_backward(threshold, residuals, cotangent):
    """The gradient, in which the threshold keeps the sum. Peters et al. 2019; for alpha Correia et al. 2019."""
    weights, alpha = residuals
    slopes, total = _slopes(weights, alpha)
    centered = cotangent - jnp.sum(slopes * cotangent, axis=-1, keepdims=True) / total
    logs = jnp.log(jnp.where(weights > 0, weights, 1.0))
    alpha_slopes = -weights * logs**2 * _second_remainder((1.0 - alpha) * logs)  # of exp_alpha(x) where it equals p
    return slopes * centered, None, jnp.sum(alpha_slopes * centered)


_tsallis.defvjp(_tsallis_forward, _tsallis_backward)


def _slopes(weights, alpha):
    """The slope of exp_alpha where it equals p, p^(2 - alpha), 0 where p is 0; and the slopes' sum, 1 where it is 0."""
    powers = jnp.where(weights > 0, weights, 1.0) ** (2.0 - alpha)
    slopes = jnp.where(weights > 0, jnp.minimum(powers, LARGEST_SLOPE), 0.0)
    total = jnp.sum(slopes, axis=-1, keepdims=True)
    return slopes, jnp.where(total > 0, total, 1.0)


def _deformed_exp(x, alpha):
    """exp_alpha(x) = [1 + (alpha - 1) x]_+^(1 / (alpha - 1)), which is exp(x) where alpha is 1."""
    bend = alpha - 1.0
    bent = jnp.log1p(jnp.maximum(bend * x, -1.0)) / jnp.where(bend > 0, bend, 1.0)
    return jnp.exp(jnp.where(bend > 0, bent, x))


def _second_remainder(x):
    """(exp(x) - 1 - x) / x^2, by its series near 0, where the difference would cancel."""
    near = jnp.abs(x) < 0.5
    series = functools.reduce(lambda tail, n: (1.0 + x * tail) / n, range(9, 1, -1), 0.1)
    far = jnp.where(near, 1.0, x)
    return jnp.where(near, series, (jnp.expm1(far) - far) / far**2)


def _sparsemax_threshold(heights, alpha):
    """The largest of (sum of the k best - 1) / k, plus 1 because exp_2(x) is 1 + x."""
    ordered, ranks = _descending(heights)
    return jnp.max((jnp.cumsum(ordered, axis=-1) - 1.0) / ranks, axis=-1, keepdims=True) + 1.0


def _entmax15_threshold(heights, alpha):
    """The threshold where the squares of the k best sum to 1, for the largest possible k; exp_1.5(x) is (1 + x/2)^2."""
    ordered, ranks = _descending(heights / 2.0)
    means = jnp.cumsum(ordered, axis=-1) / ranks
    scatter = jnp.cumsum(ordered**2, axis=-1) - ranks * means**2
    thresholds = means - jnp.sqrt(jnp.maximum(1.0 - scatter, 0.0) / ranks)
    valid = jnp.where(thresholds <= ordered, thresholds, -1.0)  # they grow with k, and none is below -1
    return 2.0 * (jnp.max(valid, axis=-1, keepdims=True) + 1.0)


def _bisected_threshold(heights, alpha):
    """The threshold at which exp_alpha sums to 1: between 0, where the best token alone does, and ln S (alpha 1)."""

    def halve(_, bracket):
        low, high = bracket
        middle = (low + high) / 2.0
        too_low = jnp.sum(_deformed_exp(heights - middle, alpha), axis=-1, keepdims=True) >= 1.0
        return jnp.where(too_low, middle, low), jnp.where(too_low, high, middle)

    low = jnp.zeros_like(heights[..., :1])
    return lax.fori_loop(0, BISECTIONS, halve, (low, low + jnp.log(jnp.array(heights.shape[-1], heights.dtype))))[0]


def _descending(heights):
    """Each row sorted in descending order, and the ranks 1, 2, ..., S."""
    # Numbers of one sign have the order of their bits, and a CPU sorts integers four times as fast.
    bits = lax.sort(lax.bitcast_convert_type(jnp.abs(heights), jnp.int32))
    ranks = lax.broadcasted_iota(jnp.float32, heights.shape, heights.ndim - 1) + 1.0
    return -lax.bitcast_convert_type(bits, jnp.float32), ranks


NORMALIZERS: dict[str, NormalizerFn] = {
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
    "top-k": top_k_softmax,
}


class Normalizer(nnx.Module):
    """A function of the table with the settings that it reads; alpha may be learned."""

    def __init__(self, config: AttentionConfig):
        self.config, self.parameters = config, normalizer_facts(config.normalizer).parameters
        self.learns_alpha = config.learned_alpha and "alpha" in self.parameters
        if self.learns_alpha:
            self.alpha = nnx.Param(jnp.log(jnp.expm1(jnp.array(config.alpha - 1.0))))  # alpha is 1 plus its softplus

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
            bound: the largest weight that each token may get, for a normalizer that takes it.
            noise: Gumbel noise in training, for a normalizer that takes it.
        """
        computed: dict[str, Any] = {"bound": bound, "noise": noise}
        if self.learns_alpha:
            computed["alpha"] = 1.0 + jax.nn.softplus(self.alpha[...])
        arguments = {
            name: computed[name] if name in computed else getattr(self.config, name) for name in self.parameters
        }
        return NORMALIZERS[self.config.normalizer](scores, mask, **arguments)
