"""Is each normalizer the formula of its paper, and does each obey the laws of weights? One test per law."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from jax import lax

from s2s_jax.model.attention.normalizers import NORMALIZERS

LENGTHS, SOURCE = (4, 2, 1, 0), 4
MASK = np.arange(SOURCE) < np.array(LENGTHS)[:, None]
COUNT = 2  # of top-k; not an array, since the compiled program depends on it
NAMES = sorted(NORMALIZERS)
SUMS_TO_ANYTHING = ("exponential", "sigmoid")
BY_POSITION = ("fusedmax",)  # a token's position matters


def inputs_for(name, *, shape=MASK.shape, seed=1):
    """Scores, and the other arguments of a normalizer."""
    random = np.random.default_rng(seed)
    uniform = random.uniform(0.1, 0.5, shape).astype(np.float32)
    numbers = {
        "softmax": {"temperature": jnp.float32(0.7)},
        "gumbel-softmax": {"noise": jnp.asarray(-np.log(-np.log(uniform))), "temperature": jnp.float32(0.7)},
        "alpha-entmax": {"alpha": jnp.float32(1.3)},
        "fusedmax": {"fusedmax_strength": jnp.float32(0.2)},
        "constrained-softmax": {"bound": jnp.asarray(uniform)},
    }.get(name, {})
    return {"scores": jnp.asarray(random.normal(size=shape).astype(np.float32)), "numbers": numbers}


def normalize(name):
    """The normalizer as a function of inputs and mask."""
    fixed = {"top_k": COUNT} if name == "top-k" else {}
    return lambda inputs, mask: NORMALIZERS[name](inputs["scores"], mask, **inputs["numbers"], **fixed)


@functools.cache
def compute(name):
    """Compiled gradient and weights, shared by the tests."""
    coefficients = np.random.default_rng(3).normal(size=MASK.shape).astype(np.float32)

    def weighted_sum(inputs, mask):
        weights = normalize(name)(inputs, mask)
        return (weights * coefficients[:, : mask.shape[-1]]).sum(), weights

    return coefficients, oracles.compiled(jax.grad(weighted_sum, has_aux=True))


def softmax(scores, temperature=1.0):
    coefficients = np.exp((scores - scores.max()) / temperature)
    return coefficients / coefficients.sum()


def hardmax(scores):
    return np.array([float(s == scores.argmax()) for s in range(scores.size)])


def top_k_softmax(scores):
    best = sorted(range(scores.size), key=lambda s: -scores[s])[:COUNT]  # a stable sort takes the first of equals
    weights = np.zeros(scores.size)
    weights[best] = softmax(scores[best])
    return weights


def subsets(size):
    return (np.array(support, bool) for support in itertools.product([False, True], repeat=size))


def best(candidates, cost):
    """The feasible candidate of least cost."""
    return min((p for p in candidates if (p >= 0).all() and abs(p.sum() - 1) < 1e-9), key=cost)


def sparsemax(scores):
    """argmin |p - e|^2, by trying every support, on which p is e minus the constant that makes the sum 1."""
    supports = (support for support in subsets(scores.size) if support.any())
    tried = (np.where(support, scores - (scores[support].sum() - 1) / support.sum(), 0) for support in supports)
    return best(tried, lambda p: ((p - scores) ** 2).sum())


def alpha_entmax(scores, alpha):
    """[(alpha - 1) e - threshold]_+^(1 / (alpha - 1)) with the threshold by bisection; softmax where alpha is 1."""
    bend = float(alpha) - 1
    if bend == 0:
        return softmax(scores)
    low, high = bend * scores.max() - np.array([1, scores.size**-bend])
    for _ in range(100):
        middle = (low + high) / 2
        heavy = (np.maximum(bend * scores - middle, 0) ** (1 / bend)).sum() >= 1
        low, high = (middle, high) if heavy else (low, middle)
    return np.maximum(bend * scores - low, 0) ** (1 / bend)


def constrained_softmax(scores, bound):
    """argmin sum p log p - p . e with p <= bound, by trying every set of tokens at their bound."""
    if bound.sum() < 1:
        return bound

    def cost(p):
        return (p * np.log(np.maximum(p, 1e-300)) - p * scores).sum()

    def spread(full):
        rest = 1 - bound[full].sum()
        return np.where(full, bound, 0 if full.all() else rest * softmax(np.where(full, -np.inf, scores)))

    tried = (spread(full) for full in subsets(scores.size) if not full.all())
    return best((p for p in tried if (p <= bound + 1e-12).all()), cost)


def fusedmax(scores, fusedmax_strength):
    """argmin 1/2 |p - e|^2 + fusedmax_strength sum |p_(s+1) - p_s|, by trying every partition of the row into runs.

    For fixed signs of the differences between runs and a fixed support, the weight of a run is the mean of its scores,
    plus the pull of its neighbors, minus the constant that makes the sum 1.
    """

    def cost(p):
        return ((p - scores) ** 2).sum() / 2 + fusedmax_strength * np.abs(np.diff(p)).sum()

    def tried():
        for steps in itertools.product([-1, 0, 1], repeat=scores.size - 1):
            run = np.cumsum([0, *np.abs(steps)])
            pull = np.array([*steps, 0]) - np.array([0, *steps])
            means = np.array([(scores + fusedmax_strength * pull)[run == r].mean() for r in range(run[-1] + 1)])[run]
            for support in subsets(run[-1] + 1):
                if support.any():
                    yield np.where(support[run], means - (means[support[run]].sum() - 1) / support[run].sum(), 0)

    return best(tried(), cost)


ORACLES = {
    "softmax": softmax,
    "exponential": np.exp,
    "sigmoid": oracles.sigmoid,
    "smoothed-sigmoid": lambda scores: oracles.sigmoid(scores) / oracles.sigmoid(scores).sum(),
    "sparsemax": sparsemax,
    "entmax-1.5": functools.partial(alpha_entmax, alpha=1.5),
    "alpha-entmax": alpha_entmax,
    "hardmax": hardmax,
    "gumbel-softmax": lambda scores, noise, temperature: softmax(scores + noise, temperature),
    "fusedmax": fusedmax,
    "constrained-softmax": constrained_softmax,
    "top-k": top_k_softmax,
}
SLOPES = ORACLES | {"hardmax": softmax}  # straight through


def by_row(oracle, inputs, mask=MASK):
    """The oracle applied row by row, without padding."""
    weights = np.zeros(mask.shape)
    for row in np.flatnonzero(mask.any(-1)):
        numbers = {k: v[row][mask[row]] if np.ndim(v) else v for k, v in inputs["numbers"].items()}
        weights[row][mask[row]] = oracle(inputs["scores"][row][mask[row]], **numbers)
    return weights


def test_every_normalizer_has_an_oracle():
    assert set(ORACLES) == set(NORMALIZERS)


@pytest.mark.parametrize("name", NAMES)
def test_values_and_gradients_are_the_papers(name):
    """Gradients with respect to the scores and to every number that may be learned."""
    inputs, (coefficients, function) = inputs_for(name), compute(name)
    gradient, weights = function(inputs, MASK)
    assert weights.dtype == jnp.float32
    oracles.same(weights, by_row(ORACLES[name], oracles.precise(inputs)), tolerance=1e-6)
    expected = oracles.gradient(
        lambda inputs: (coefficients * by_row(SLOPES[name], inputs)).sum(), oracles.precise(inputs)
    )
    oracles.same(gradient, expected, tolerance=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_weights_of_padding_are_exactly_zero(name):
    gradient, weights = compute(name)[1](inputs_for(name), MASK)
    np.testing.assert_array_equal(np.asarray(weights)[~MASK], 0.0)
    for leaf in jax.tree.leaves(gradient):
        np.testing.assert_array_equal(np.asarray(leaf)[~MASK] if leaf.ndim else 0.0, 0.0)
    gradient, weights = compute(name)[1](inputs_for(name), np.zeros_like(MASK))
    for leaf in jax.tree.leaves((gradient, weights)):
        np.testing.assert_array_equal(leaf, 0.0)


@pytest.mark.parametrize("name", NAMES)
def test_weights_sum_as_documented(name):
    inputs = inputs_for(name, seed=2)
    _, weights = compute(name)[1](inputs, MASK)
    assert (np.asarray(weights) >= 0).all()
    if name == "constrained-softmax":
        bound = np.where(MASK, inputs["numbers"]["bound"], 0)
        assert (np.asarray(weights) <= bound).all()
        oracles.same(weights.sum(-1), np.minimum(bound.sum(-1), 1), tolerance=1e-6)
    elif name not in SUMS_TO_ANYTHING:
        oracles.same(weights.sum(-1), MASK.any(-1).astype(float), tolerance=1e-6)


@pytest.mark.parametrize("junk", [np.nan, np.inf, -np.inf, 3e38])
@pytest.mark.parametrize("name", NAMES)
def test_values_on_padding_affect_nothing(name, junk):
    inputs, (_, function) = inputs_for(name), compute(name)
    poisoned = jax.tree.map(lambda x: jnp.where(MASK, x, np.float32(junk)) if x.ndim else x, inputs)
    oracles.same(function(poisoned, MASK), function(inputs, MASK), tolerance=0)


@pytest.mark.parametrize("name", NAMES)
def test_huge_scores_stay_finite(name):
    inputs, (_, function) = inputs_for(name), compute(name)
    signs = np.where(np.random.default_rng(0).random(MASK.shape) < 0.5, -1, 1)
    for huge in (signs, np.ones_like(signs), -np.ones_like(signs)):
        gradient, weights = function({**inputs, "scores": jnp.asarray((1e4 * huge).astype(np.float32))}, MASK)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((gradient, weights)))
        if name not in (*SUMS_TO_ANYTHING, "constrained-softmax"):
            oracles.same(weights.sum(-1), MASK.any(-1).astype(float), tolerance=1e-6)
        elif name == "exponential":
            assert weights.max() == pytest.approx(np.exp(20) if huge.max() > 0 else 0, rel=1e-5)


@pytest.mark.parametrize("alpha", [3.0, 30.0, 1e30])
def test_a_large_alpha_leaves_weights_and_slopes_finite(alpha):
    """Where alpha is above 2, the slope of a small weight is large."""
    scores = jnp.array([[0.0, 0.001, 0.01, 0.02, 5.0], [0.0, 0.0, 1e-6, 1e-3, -9.0]])

    def weighted_sum(scores, alpha):
        weights = NORMALIZERS["alpha-entmax"](scores, jnp.ones(scores.shape, bool), alpha)
        return (weights * jnp.arange(5.0)[None]).sum(), weights

    gradient, weights = jax.grad(weighted_sum, argnums=(0, 1), has_aux=True)(scores, jnp.float32(alpha))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-4)


@pytest.mark.parametrize("score", [np.inf, np.nan])
@pytest.mark.parametrize("name", NAMES)
def test_a_score_that_is_no_number_is_never_hidden(name, score):
    """It gives NaN, which stops training, or its token weighs something: a row of zeros would train on in silence."""
    inputs, (_, function) = inputs_for(name), compute(name)
    scores = inputs["scores"].at[0, 1].set(score)
    _, weights = function({**inputs, "scores": scores}, MASK)
    assert np.isnan(weights[0]).any() or weights[0, 1] >= np.max(weights[0])


@pytest.mark.parametrize("name", NAMES)
def test_other_rows_of_the_batch_change_nothing(name):
    inputs, other, (_, function) = inputs_for(name), inputs_for(name, seed=5), compute(name)
    for row in range(len(LENGTHS)):
        mixed = jax.tree.map(lambda a, b, row=row: a.at[row].set(b[row]) if a.ndim else a, other, inputs)
        mask = np.where((np.arange(len(LENGTHS)) == row)[:, None], MASK, ~MASK[:, ::-1])
        mine, alone = function(mixed, mask), function(inputs, MASK)
        oracles.same(mine[1][row], np.asarray(alone[1])[row], tolerance=1e-6)
        oracles.same(mine[0]["scores"][row], np.asarray(alone[0]["scores"])[row], tolerance=1e-6)


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(BY_POSITION)))
def test_weights_are_equivariant_under_permutations_of_tokens(name):
    order = np.array([2, 0, 3, 1])
    inputs = inputs_for(name)
    permuted = jax.tree.map(lambda x: x[:, order] if x.ndim else x, inputs)
    _, weights = compute(name)[1](inputs, MASK)
    _, trace = compute(name)[1](permuted, MASK[:, order])
    oracles.same(trace, np.asarray(weights)[:, order], tolerance=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_padding_scan_and_vmap_change_nothing(name):
    """Three steps of wider rows in a scan, and every row separately under vmap: weights and gradients."""
    steps = [inputs_for(name, seed=seed) for seed in (1, 2, 3)]
    padded = [jax.tree.map(lambda x: jnp.pad(x, ((0, 0), (0, 3))) if x.ndim else x, inputs) for inputs in steps]
    mask, coefficients = (np.pad(x, ((0, 0), (0, 3))) for x in (MASK, compute(name)[0]))
    rows = {"scores": 0, "numbers": {k: 0 if v.ndim else None for k, v in steps[0]["numbers"].items()}}
    by_itself = jax.vmap(normalize(name), in_axes=(rows, 0))

    def weighted_sum(stacked):
        weights = lax.scan(lambda carry, inputs: (carry, by_itself(inputs, jnp.asarray(mask))), 0, stacked)[1]
        return (weights * coefficients[None]).sum(), weights

    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *padded)
    gradient, weights = oracles.compiled(jax.grad(weighted_sum, has_aux=True))(stacked)
    plain = [compute(name)[1](inputs, MASK) for inputs in steps]
    oracles.same(weights[..., :SOURCE], np.stack([step[1] for step in plain]), tolerance=1e-6)
    np.testing.assert_array_equal(weights[..., SOURCE:], 0.0)
    for leaf, *expected in zip(*map(jax.tree.leaves, (gradient, *(step[0] for step in plain))), strict=True):
        oracles.same(leaf[..., :SOURCE] if leaf.ndim > 1 else leaf, np.stack(expected), tolerance=1e-6)


@functools.cache
def compiled(name, top_k):
    fixed = {} if top_k is None else {"top_k": top_k}
    return oracles.compiled(lambda scores, mask, numbers: NORMALIZERS[name](scores, mask, **numbers, **fixed))


def weights_of(name, scores, mask=None, top_k=None, **numbers):
    """The weights of scores that are all real, unless a mask is passed."""
    scores = jnp.asarray(np.asarray(scores, np.float32))
    mask = np.ones(scores.shape, bool) if mask is None else np.asarray(mask)
    return compiled(name, top_k)(scores, mask, {k: jnp.asarray(v, jnp.float32) for k, v in numbers.items()})


LONG = np.random.default_rng(7).normal(size=(3, 200)).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "numbers", "other"),
    [
        ("alpha-entmax", {"alpha": 1.0}, "softmax"),
        ("alpha-entmax", {"alpha": 1.5}, "entmax-1.5"),
        ("alpha-entmax", {"alpha": 2.0}, "sparsemax"),
        ("fusedmax", {"fusedmax_strength": 0.0}, "sparsemax"),
        ("constrained-softmax", {"bound": np.ones(LONG.shape)}, "softmax"),
        ("constrained-softmax", {"bound": np.full(LONG.shape, np.inf)}, "softmax"),
        ("top-k", {"top_k": 200}, "softmax"),
        ("top-k", {"top_k": 1000}, "softmax"),
        ("top-k", {"top_k": 1}, "hardmax"),
        ("gumbel-softmax", {}, "softmax"),
        ("gumbel-softmax", {"temperature": 1e-4}, "hardmax"),
        ("softmax", {"temperature": 1e-4}, "hardmax"),
    ],
)
def test_special_cases_are_other_normalizers(name, numbers, other):
    oracles.same(weights_of(name, LONG, **numbers), np.asarray(weights_of(other, LONG)), tolerance=1e-6)


@pytest.mark.parametrize(
    ("name", "alpha"), [("sparsemax", 2), ("entmax-1.5", 1.5), *(("alpha-entmax", a) for a in (1.05, 1.2, 1.8, 2, 2.5))]
)
@pytest.mark.parametrize("scale", [0.01, 1, 30])
def test_weights_are_the_argmax_of_score_plus_entropy(name, alpha, scale):
    """p . e + H_alpha(p): e - (p^(alpha - 1) - 1) / (alpha - 1) is constant on the support and nowhere larger."""
    numbers = {"alpha": float(alpha)} if name == "alpha-entmax" else {}
    weights = np.asarray(weights_of(name, scale * LONG, **numbers), np.float64)
    slopes = np.float32(scale) * LONG - (weights ** (alpha - 1) - 1) / (alpha - 1)
    for slope, weight in zip(slopes, weights, strict=True):
        off = (slope - slope[weight.argmax()]) / max(1, scale)
        np.testing.assert_allclose(off[weight > 0], 0, atol=1e-5)
        assert (off[weight == 0] <= 1e-5).all()
    oracles.same(weights.sum(-1), np.ones(3), tolerance=1e-6)


@pytest.mark.parametrize("threshold", ["sparsemax", "entmax-1.5", "alpha-entmax"])
def test_a_row_that_cancels_is_still_exact(threshold):
    """One token above a thousand equal ones at the edge of the support, where sums of scores cancel."""
    alpha = {"sparsemax": 2.0, "entmax-1.5": 1.5, "alpha-entmax": 1.7}[threshold]
    scores = np.full((1, 1000), -0.99 / (alpha - 1), np.float32)
    scores[0, 500] = 0
    weights = weights_of(threshold, scores, **({"alpha": alpha} if threshold == "alpha-entmax" else {}))
    oracles.same(weights, alpha_entmax(scores[0].astype(np.float64), alpha)[None], tolerance=2e-6)


@pytest.mark.parametrize("alpha", [1.0, 1.0001, 1.4, 2.0, 2.6])
def test_alpha_can_be_learned(alpha):
    """Also at 1, where the paper's formula is 0 / 0, and beyond sparsemax."""
    inputs, (coefficients, function) = inputs_for("alpha-entmax"), compute("alpha-entmax")
    inputs["numbers"]["alpha"] = jnp.float32(alpha)
    gradient, weights = function(inputs, MASK)
    precise = oracles.precise(inputs)
    oracles.same(weights, by_row(alpha_entmax, precise), tolerance=1e-6)

    def weighted_sum(alpha):
        return (coefficients * by_row(alpha_entmax, {**precise, "numbers": {"alpha": alpha}})).sum()

    at, step = precise["numbers"]["alpha"], 1e-4  # ahead only: the oracle knows no alpha below 1
    slope = (4 * weighted_sum(at + step) - weighted_sum(at + 2 * step) - 3 * weighted_sum(at)) / (2 * step)
    oracles.same(gradient["numbers"]["alpha"], np.asarray(slope), tolerance=1e-5)


def is_fusedmax(weights, scores, strength, *, tolerance):
    """The optimality conditions: dual variables u of the edges, |u| <= strength, = +-strength where the weights differ.

    p_s - e_s + u_(s-1) - u_s + level is 0 where p_s > 0 and not negative where p_s = 0; u is computed as the
    interval of its possible values.
    """
    steps = np.sign(np.diff(weights))
    edge = np.concatenate([[0], np.where(steps != 0, strength * steps, np.nan), [0]])  # NaN: unknown
    ends = np.flatnonzero(~np.isnan(edge))
    runs = [(a, b) for a, b in itertools.pairwise(ends) if weights[a] > 0]
    levels = [((scores - weights)[a:b].sum() + edge[b] - edge[a]) / (b - a) for a, b in runs]
    assert np.ptp(levels) < tolerance
    low = high = 0.0
    for s, weight in enumerate(weights):
        price = weight - scores[s] + np.mean(levels)
        low, high = (low + price if weight > 0 else -strength), high + price
        least, most = (-strength, strength) if np.isnan(edge[s + 1]) else (edge[s + 1], edge[s + 1])
        assert low <= most + tolerance
        assert high >= least - tolerance
        low, high = max(low, least), min(high, most)


@pytest.mark.parametrize("walk", [False, True])
@pytest.mark.parametrize(("scale", "strength"), [(1, 0.5), (0.02, 0.002), (0.01, 0.05), (5, 3), (1e-3, 5)])
def test_long_rows_of_fusedmax_are_the_argmin(scale, strength, walk):
    scores = np.float32(scale) * (np.cumsum(LONG, axis=-1) if walk else LONG)
    weights = np.asarray(weights_of("fusedmax", scores, fusedmax_strength=strength), np.float64)
    for weight, score in zip(weights, scores.astype(np.float64), strict=True):
        is_fusedmax(weight, score, strength, tolerance=1e-5 * max(1, scale, strength))
    assert any((np.diff(weight)[weight[1:] > 0] == 0).any() for weight in weights)  # something was fused


@pytest.mark.parametrize(("scale", "strength"), [(3, 0.5), (3, 3), (0.3, 0.1)])
def test_short_rows_of_fusedmax_are_the_argmin(scale, strength):
    """Scores far below the best are clipped before smoothing, which must not change the result."""
    scores = (scale * LONG[:, :20]).reshape(15, 4)
    expected = [fusedmax(row.astype(np.float64), strength) for row in scores]
    oracles.same(weights_of("fusedmax", scores, fusedmax_strength=strength), np.array(expected), tolerance=1e-6)


def test_fused_neighbors_share_one_weight_and_one_gradient():
    inputs = {
        "scores": jnp.tile(jnp.array([0.1, 0.2, 0.15, -0.5]), (4, 1)),
        "numbers": {"fusedmax_strength": jnp.float32(0.3)},
    }
    gradient, weights = compute("fusedmax")[1](inputs, np.ones_like(MASK))
    for row in np.concatenate([weights, gradient["scores"]]):
        assert len(set(row[:3].tolist())) == 1
        assert row[3] != row[2]


def test_fusedmax_of_no_strength_does_not_fuse_equals():
    scores = {"scores": jnp.tile(jnp.array([0.1, 0.3, 0.3, -0.5]), (4, 1))}
    (fused, weights), plain = (
        compute(name)[1]({**scores, "numbers": numbers}, MASK)
        for name, numbers in (("fusedmax", {"fusedmax_strength": jnp.float32(0)}), ("sparsemax", {}))
    )
    oracles.same((fused["scores"], weights), (plain[0]["scores"], plain[1]), tolerance=1e-6)


def test_fusedmax_does_not_fuse_across_a_gap():
    scores, mask = [[1.0, 0.2, np.nan, 0.5, 0.4]], [[True, True, False, True, True]]
    smooth = [[0.9, 0.3, -np.inf, 0.45, 0.45]]
    expected = np.asarray(weights_of("sparsemax", smooth))
    oracles.same(weights_of("fusedmax", scores, mask, fusedmax_strength=0.1), expected, tolerance=1e-6)


@pytest.mark.parametrize("level", [0.006, 0.02, 0.9])
def test_long_rows_of_the_constrained_softmax_are_the_argmin(level):
    """p = min(bound, c exp(e)) with one c per row, and the sum is 1."""
    bound = np.random.default_rng(1).uniform(0.5, 1.5, LONG.shape).astype(np.float32) * np.float32(level)
    weights = np.asarray(weights_of("constrained-softmax", LONG, bound=bound), np.float64)
    rates = np.log(weights) - LONG
    for rate, full in zip(rates, weights == bound, strict=True):
        np.testing.assert_allclose(rate[~full], rate[~full][0], atol=1e-5)
        assert (rate[full] <= rate[~full][0] + 1e-5).all()
    assert (weights <= bound).all()
    oracles.same(weights.sum(-1), np.ones(3), tolerance=1e-6)


def test_bounds_that_sum_to_less_than_one():
    bound = jnp.array([[0.2, 0.3, 0.1], [0.5, 0.5, 0.0], [1.0, 0.7, -0.1], [0.3, 0.3, 0.9]])
    scores = np.array([[9.0, 0, 0], [1e4, -1e4, 3], [1e4, -1e4, 0], [1e4, -1e4, -1e4]])
    expected = np.array([[0.2, 0.3, 0.1], [0.5, 0.5, 0], [1, 0, 0], [0.3, 0.3, 0.4]])
    oracles.same(weights_of("constrained-softmax", scores, bound=bound), expected, tolerance=1e-6)


def test_a_bound_of_0_can_be_raised():
    """The weight of a token at a bound of 0 is exactly 0; the gradient there is the one-sided one of raising it."""
    inputs, (coefficients, function) = inputs_for("constrained-softmax"), compute("constrained-softmax")
    bound = np.array([0.0, 0.4, 0.3, 0.9], np.float32)
    inputs["numbers"]["bound"] = inputs["numbers"]["bound"].at[0].set(bound)
    gradient, _ = function(inputs, MASK)
    now, then = (
        constrained_softmax(np.asarray(inputs["scores"][0], np.float64), bound + np.array([more, 0, 0, 0]))
        for more in (0, 1e-6)
    )
    assert gradient["numbers"]["bound"][0, 0] == pytest.approx((coefficients[0] * (then - now)).sum() / 1e-6, abs=1e-5)


def test_of_equal_scores_the_first_are_taken():
    scores = [[1.0, 2, 2, 2, 0], [3, 3, 3, 3, 3], [0, -0.0, 0, 0, 1]]
    mask = [[True] * 5, [False, True, True, False, True], [True] * 5]
    third = np.exp(-1) / (1 + np.exp(-1))
    expected = [[0, 0.5, 0.5, 0, 0], [0, 0.5, 0.5, 0, 0], [third, 0, 0, 0, 1 - third]]
    oracles.same(weights_of("top-k", scores, mask, top_k=2), np.array(expected), tolerance=1e-6)
    ones = [[0, 1, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 0, 0, 1]]
    np.testing.assert_array_equal(weights_of("hardmax", scores, mask), np.array(ones, np.float32))
