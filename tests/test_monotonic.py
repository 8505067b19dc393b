"""Is each monotonic alignment the formula of its paper, for long sentences and for probabilities of 0 and 1?"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from s2s_jax.model.attention import monotonic
from s2s_jax.model.attention.normalizers import NORMALIZERS

LENGTHS = (6, 4, 1, 0)
SOURCE = max(LENGTHS)
MASK = np.arange(SOURCE) < np.array(LENGTHS)[:, None]
WIDTH = 3
SETTINGS_OF = {
    "alpha-entmax": {"alpha": 1.5},
    "fusedmax": {"fusedmax_strength": 0.1},
    "top-k": {"top_k": 2},
    "constrained-softmax": {"bound": jnp.full(MASK.shape, 0.4)},
}


def walk(choose, previous):
    """Raffel et al. 2017: from every start, the probability of passing all tokens before j, and of stopping at j."""
    out = np.zeros(len(choose))
    for j in range(len(choose)):
        for k in range(j + 1):
            passed = 1.0
            for position in range(k, j):
                passed *= 1 - choose[position]
            out[j] += choose[j] * previous[k] * passed
    return out


def hard_walk(choose, previous):
    """Raffel et al. 2017, algorithm 1."""
    out = np.zeros(len(choose))
    for j in range(int(previous.argmax()) if previous.any() else len(choose), len(choose)):
        if choose[j] > 0.5:
            out[j] = 1.0
            break
    return out


def chunks(alignment, energies, width=WIDTH):
    """Chiu & Raffel 2018: a softmax over each chunk, by the probability that the chunk ends there."""
    out = np.zeros(len(energies))
    for k in range(len(energies)):
        begin = max(0, k - width + 1)
        coefficients = np.exp(energies[begin : k + 1] - energies[begin : k + 1].max())
        out[begin : k + 1] += alignment[k] * coefficients / coefficients.sum()
    return out


def look_back(alignment, energies):
    """Arivazhagan et al. 2019: the chunk begins at the first token."""
    return chunks(alignment, energies, width=len(energies))


def one_step(stay, previous):
    """He et al. 2019; the last token is never left."""
    out = np.zeros(len(stay))
    for j in range(len(stay)):
        leaving = 1 - stay[j] if j + 1 < len(stay) else 0.0
        out[j] += previous[j] * (1 - leaving)
        if j + 1 < len(stay):
            out[j + 1] += previous[j] * leaving
    return out


def one_step_chosen(stay, previous):
    return one_step((stay >= 0.5).astype(np.float64), previous)


def step_forward(weights, previous, move):
    """Zhang et al. 2018, algorithm 2; where all reachable weights are 0, the move alone, staying at the last token."""
    out = np.zeros(len(weights))
    for j in range(len(weights)):
        came = previous[j - 1] if j else 0.0
        out[j] = ((1 - move[0]) * previous[j] + move[0] * came) * weights[j]
    return out / out.sum() if out.sum() else one_step(np.full(len(weights), 1 - move[0]), previous)


def with_residual(alignment):
    """Arivazhagan et al. 2019: the rest on the last token."""
    out = alignment.copy()
    out[-1:] += 1 - alignment.sum()
    return out


# The inputs of each function, besides the mask, and the paper's weights of one sentence without padding.
CASES = {
    "expected_choice": (("choose", "previous"), walk),
    "hard_choice": (("choose", "one_hot"), hard_walk),
    "chunkwise": (("previous", "energies"), chunks),
    "lookback": (("previous", "energies"), look_back),
    "stepwise_expected": (("choose", "previous"), one_step),
    "stepwise_hard": (("choose", "previous"), one_step_chosen),
    "forward_alignment": (("weights", "previous", "move"), step_forward),
    "residual_on_last": (("previous",), with_residual),
}
KEEP_THE_SUM = ("chunkwise", "lookback", "stepwise_expected", "stepwise_hard")
EVERY = pytest.mark.parametrize("name", sorted(CASES))


def plain(name, mask, inputs):
    function = getattr(monotonic, name)
    if name == "forward_alignment":
        return function(*inputs[:2], jnp.asarray(mask), move=inputs[2])
    if name in ("expected_choice", "hard_choice"):
        return function(*inputs)
    more = {"width": WIDTH} if name == "chunkwise" else {}
    return function(*inputs, jnp.asarray(mask), **more)


weights_of = oracles.compiled(plain, static_argnums=0)
chunkwise = oracles.compiled(monotonic.chunkwise, static_argnames="width")
hard_choice, expected_choice, forward_alignment, lookback, stepwise_expected = map(
    oracles.compiled,
    (
        monotonic.hard_choice,
        monotonic.expected_choice,
        monotonic.forward_alignment,
        monotonic.lookback,
        monotonic.stepwise_expected,
    ),
)


def inputs_for(name, *, mask=MASK, seed=1, saturated=False):
    """Drawn arrays of a case, 0 on padding; `saturated`: every probability is 0 or 1, the last alignment one-hot."""
    random = np.random.default_rng(seed)
    alignment = random.uniform(size=mask.shape) * mask
    one_hot = mask & (np.arange(mask.shape[-1]) == (mask.sum(-1, keepdims=True) - 1) // 2)
    choose = random.uniform(0.05, 0.95, size=mask.shape) * mask
    arrays = {
        "choose": choose > 0.6 if saturated else choose,
        "one_hot": one_hot,
        "previous": one_hot if saturated else 0.9 * alignment / np.maximum(alignment.sum(-1, keepdims=True), 1e-9),
        "weights": random.uniform(size=mask.shape) * mask,
        "energies": random.normal(size=mask.shape),
        "move": np.arange(len(mask))[:, None] % 2 if saturated else random.uniform(size=(len(mask), 1)),
    }
    return tuple(jnp.asarray(arrays[part].astype(np.float32)) for part in CASES[name][0])


def paper_weights(name, inputs, mask=MASK):
    """The paper's weights of every sentence without its padding; zeros on the padding."""
    out = np.zeros(mask.shape)
    for row, length in enumerate(mask.sum(-1)):
        if length:
            out[row, :length] = CASES[name][1](*(np.asarray(part, np.float64)[row, :length] for part in inputs))
    return out


def objective(name, coefficients, mask=MASK):
    """A number that depends on every weight; inputs are zero on padding, as callers guarantee."""

    def weighted_sum(inputs):
        real = [jnp.where(mask, part, 0.0) if part.shape == mask.shape else part for part in inputs]
        outputs = plain(name, mask, real)
        return (coefficients * outputs).sum(), outputs

    return weighted_sum


def test_every_function_has_an_oracle():
    public = {name for name, thing in vars(monotonic).items() if getattr(thing, "__module__", "") == monotonic.__name__}
    assert {name for name in public if not name.startswith("_")} == {*CASES, "first_token"}


@EVERY
def test_values_and_gradients_are_the_papers(name):
    coefficients = np.random.default_rng(3).normal(size=MASK.shape).astype(np.float32)
    slopes = oracles.compiled(jax.grad(objective(name, coefficients), has_aux=True))
    for saturated in (False, True):
        inputs = inputs_for(name, saturated=saturated)
        gradient, actual = slopes(inputs)
        oracles.same(actual, paper_weights(name, inputs), tolerance=1e-6)
        expected = oracles.gradient(lambda inputs: (coefficients * paper_weights(name, inputs)).sum(), inputs)
        oracles.same(gradient, expected, tolerance=1e-5)


@EVERY
def test_padding_weighs_nothing_and_the_sum_is_at_most_one(name):
    inputs = inputs_for(name)
    actual = np.asarray(weights_of(name, MASK, inputs))
    assert (actual[~MASK] == 0).all()
    assert (actual >= 0).all()
    assert (actual.sum(-1) <= 1 + 1e-6).all()
    if name in KEEP_THE_SUM:
        np.testing.assert_allclose(actual.sum(-1), inputs[CASES[name][0].index("previous")].sum(-1), atol=1e-6)


@pytest.mark.parametrize("name", ["chunkwise", "lookback", "stepwise_expected", "stepwise_hard"])
def test_values_on_padding_affect_neither_weight_nor_gradient(name):
    inputs = inputs_for(name)
    loose = 1 if "energies" in CASES[name][0] else 0  # energies, or the probability of staying
    coefficients = np.ones(MASK.shape, np.float32)

    def weighted_sum(inputs):
        outputs = plain(name, MASK, inputs)
        return (coefficients * outputs**2).sum(), outputs

    slopes = oracles.compiled(jax.grad(weighted_sum, has_aux=True))
    expected = slopes(inputs)
    for junk in (np.nan, np.inf, -1e30):
        spoiled = list(inputs)
        spoiled[loose] = jnp.where(MASK, inputs[loose], jnp.float32(junk))
        actual = slopes(tuple(spoiled))
        oracles.same(actual, expected, tolerance=1e-6)
        assert (np.asarray(actual[0][loose])[~MASK] == 0).all()


@EVERY
def test_more_padding_changes_nothing(name):
    wider = np.pad(MASK, ((0, 0), (0, 3)))
    inputs = inputs_for(name)
    padded = [jnp.pad(part, ((0, 0), (0, 3))) if part.shape == MASK.shape else part for part in inputs]
    actual, expected = weights_of(name, wider, padded), weights_of(name, MASK, inputs)
    oracles.same(actual, jnp.pad(expected, ((0, 0), (0, 3))), tolerance=1e-6)


@EVERY
def test_vmap_over_sentences_and_an_axis_of_heads_change_nothing(name):
    inputs, mask = inputs_for(name), jnp.asarray(MASK)
    actual = functools.partial(plain, name)

    def all_forms(*both):
        heads = jax.tree.map(lambda part: jnp.stack([part, part[::-1]], axis=1), both)
        return actual(*both), jax.vmap(actual)(*both), actual(*heads)

    batched, separate, with_heads = oracles.compiled(all_forms)(mask, inputs)
    oracles.same(separate, batched, tolerance=1e-6)
    oracles.same(with_heads, np.stack([batched, batched[::-1]], axis=1), tolerance=1e-6)


@pytest.mark.parametrize("name", ["expected_choice", "stepwise_expected"])
def test_jit_changes_nothing(name):
    inputs = inputs_for(name)
    oracles.same(weights_of(name, MASK, inputs), plain(name, MASK, inputs), tolerance=1e-6)


def test_the_first_alignment_is_on_the_first_token():
    actual = np.asarray(monotonic.first_token(jnp.asarray(MASK)))
    assert actual.dtype == np.float32
    np.testing.assert_array_equal(actual, MASK & (np.arange(SOURCE) == 0))


@pytest.mark.parametrize(("hard", "soft"), [("hard_choice", "expected_choice"), ("stepwise_hard", "stepwise_expected")])
def test_hard_is_soft_where_every_probability_is_0_or_1(hard, soft):
    for seed in range(20):
        inputs = inputs_for(soft, seed=seed, saturated=True)
        actual, expected = (np.asarray(weights_of(name, MASK, inputs)) for name in (hard, soft))
        np.testing.assert_array_equal(actual, expected)


def test_hard_choices_never_go_back_and_stay_at_none():
    random = np.random.default_rng(0)
    mask = jnp.ones((4, 12), bool)
    alignment, positions = monotonic.first_token(mask), []
    for _ in range(12):
        alignment = hard_choice(jnp.asarray(random.uniform(0.1, 0.7, (4, 12)), jnp.float32), alignment)
        assert set(np.unique(alignment)) <= {0.0, 1.0}
        assert (np.asarray(alignment.sum(-1)) <= 1).all()
        positions.append(np.where(alignment.any(-1), alignment.argmax(-1), 12))
    assert (np.diff(positions, axis=0) >= 0).all()
    assert (positions[-1] == 12).all()
    assert (positions[0] < 12).all()


def test_a_probability_of_one_half_does_not_choose_and_does_stay():
    half, start = jnp.full((1, 3), 0.5), jnp.array([[1.0, 0.0, 0.0]])
    assert not hard_choice(half, start).any()
    np.testing.assert_array_equal(monotonic.stepwise_hard(half, start, jnp.ones((1, 3), bool)), start)


def clipped(choose, previous):
    """What TensorFlow Addons, Lingvo and their successors compute: a division by a product that underflows, clipped."""
    passed = jnp.cumprod(jnp.concatenate([jnp.ones(1), 1 - choose[:-1]]))
    return choose * passed * jnp.cumsum(previous / jnp.clip(passed, 1e-10, 1.0))


@pytest.mark.parametrize("size", [60, 200])
def test_long_sentences_are_exact_where_a_clipped_product_is_not(size):
    random = np.random.default_rng(0)
    choose = random.uniform(0.05, 0.95, size).astype(np.float32)
    previous = np.exp(random.normal(size=size))
    previous = (previous / previous.sum()).astype(np.float32)
    expected = walk(choose.astype(np.float64), previous.astype(np.float64))
    actual = np.abs(expected_choice(jnp.asarray(choose), jnp.asarray(previous)) - expected).max()
    theirs = np.abs(np.asarray(oracles.compiled(clipped)(jnp.asarray(choose), jnp.asarray(previous))) - expected).max()
    outputs = f"S={size}: largest error actual {actual:.2e}, clipped {theirs:.2e}"
    assert actual < 1e-6, outputs
    assert theirs > 1e-2, outputs


def test_saturated_probabilities_give_finite_gradients_through_many_steps():
    random = np.random.default_rng(0)
    energies = jnp.asarray(random.choice([-200.0, -1.0, 1.0, 40.0], (10, 2, 50)), jnp.float32)

    def mass(energies):
        start = jnp.zeros((2, 50)).at[:, 0].set(1.0)

        def step(previous, energy):
            alignment = monotonic.expected_choice(jax.nn.sigmoid(energy), previous)
            return alignment, alignment

        return (jax.lax.scan(step, start, energies)[1] @ jnp.arange(50.0)).sum()

    gradient = np.asarray(oracles.compiled(jax.grad(mass))(energies))
    assert np.isfinite(gradient).all()
    assert (gradient != 0).any()


def test_a_chunk_of_one_is_the_alignment_itself():
    alignment, energies = inputs_for("chunkwise")
    np.testing.assert_array_equal(chunkwise(alignment, energies, jnp.asarray(MASK), width=1), alignment)


@pytest.mark.parametrize("width", [SOURCE, SOURCE + 1, 1000])
def test_a_chunk_of_the_whole_sentence_is_lookback(width):
    alignment, energies = inputs_for("chunkwise")
    actual = chunkwise(alignment, energies, jnp.asarray(MASK), width=width)
    oracles.same(actual, lookback(alignment, energies, jnp.asarray(MASK)), tolerance=1e-6)


def test_a_chosen_token_gives_the_softmax_over_its_chunk():
    alignment, energies = map(np.asarray, inputs_for("chunkwise", mask=np.ones((1, 6), bool), saturated=True))
    end = int(alignment.argmax())
    assert end == 2
    actual = chunkwise(alignment, energies, np.ones((1, 6), bool), width=2)

    def softmax(energies):
        return np.exp(energies) / np.exp(energies).sum()

    np.testing.assert_allclose(actual[0], [0, *softmax(energies[0, 1:3]), 0, 0, 0], atol=1e-7)
    actual = lookback(alignment, energies, np.ones((1, 6), bool))
    np.testing.assert_allclose(actual[0], [*softmax(energies[0, :3]), 0, 0, 0], atol=1e-7)


def test_a_chunk_without_width_is_refused():
    with pytest.raises(ValueError) as refusal:
        monotonic.chunkwise(*inputs_for("chunkwise"), jnp.asarray(MASK), width=0)
    assert str(refusal.value) == "width must be at least 1, got 0; width=1 attends to the chosen token alone."


LONG = 1000
EXTREME = {
    "drawn": lambda random: 1e4 * random.uniform(-1, 1, LONG),
    "two values": lambda random: random.choice([-1e4, 1e4], LONG),
    "all large": lambda random: 1e4 + random.normal(size=LONG),
    "all very negative": lambda random: -1e4 + random.normal(size=LONG),
    "rising": lambda random: np.linspace(-1e4, 1e4, LONG),
    "falling": lambda random: np.linspace(1e4, -1e4, LONG),
    "level": lambda random: np.zeros(LONG),
}


@pytest.mark.parametrize("name", ["chunkwise", "lookback"])
def test_no_energy_is_too_large_and_no_sentence_too_long(name):
    random = np.random.default_rng(0)
    mask = np.arange(LONG) < np.array([LONG, LONG - 13] + [LONG] * (len(EXTREME) - 2))[:, None]
    energies = np.array([draw(random) for draw in EXTREME.values()]).astype(np.float32)
    alignment = (random.uniform(size=mask.shape) ** 8 * mask).astype(np.float32)
    inputs = tuple(map(jnp.asarray, (alignment / alignment.sum(-1, keepdims=True), energies)))
    coefficients = random.normal(size=mask.shape).astype(np.float32)
    gradient, actual = oracles.compiled(jax.grad(objective(name, coefficients, mask), has_aux=True))(inputs)
    expected = paper_weights(name, inputs, mask)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-6)
    assert (np.asarray(actual)[~mask] == 0).all()
    assert all(np.isfinite(part).all() for part in gradient)
    # Exactly linear in the alignment: its slope is the share of every chunk, also where the alignment is 0.
    along = (random.uniform(size=mask.shape) * mask / 100).astype(np.float32)
    slope = (np.asarray(gradient[0], np.float64) * along).sum()
    assert slope == pytest.approx((coefficients * paper_weights(name, (along, energies), mask)).sum(), abs=1e-4)


def test_stepwise_keeps_all_mass_until_it_is_on_the_last_token():
    random = np.random.default_rng(0)
    alignment = monotonic.first_token(jnp.asarray(MASK))
    for _ in range(60):
        stay = jnp.asarray(random.uniform(0.0, 0.8, MASK.shape), jnp.float32)
        alignment = stepwise_expected(stay, alignment, jnp.asarray(MASK))
        np.testing.assert_allclose(alignment.sum(-1), MASK.any(-1), atol=1e-5)
    np.testing.assert_allclose(alignment, MASK & (np.arange(SOURCE) == np.array(LENGTHS)[:, None] - 1), atol=1e-5)


def test_forward_reaches_one_more_token_per_step():
    mask = jnp.ones((2, 8), bool)
    weights = jax.nn.softmax(oracles.drawn(np.zeros((2, 8)), seed=1))
    alignment = monotonic.first_token(mask)
    for step in range(1, 8):
        alignment = forward_alignment(weights, alignment, mask)
        np.testing.assert_array_equal(np.asarray(alignment) > 0, np.arange(8)[None].repeat(2, 0) <= step)
        np.testing.assert_allclose(alignment.sum(-1), 1.0, atol=1e-6)


def test_forward_moves_by_the_probability_of_the_agent():
    start, weights = jnp.array([[0.0, 1.0, 0.0]]), jnp.array([[0.2, 0.3, 0.5]])
    mask = jnp.ones((1, 3), bool)
    np.testing.assert_array_equal(forward_alignment(weights, start, mask, move=0.0), start)
    np.testing.assert_array_equal(forward_alignment(weights, start, mask, move=jnp.array(1.0)), [[0.0, 0.0, 1.0]])
    np.testing.assert_allclose(forward_alignment(weights, start, mask), [[0.0, 0.375, 0.625]], atol=1e-7)


@pytest.mark.parametrize("name", sorted(NORMALIZERS))
def test_forward_stays_a_distribution_under_every_normalizer(name):
    """Sparse weights are often 0 on all tokens that can be reached, and so are those of a softmax of large scores."""
    normalize = functools.partial(NORMALIZERS[name], **SETTINGS_OF.get(name, {}))
    scores = 8 * np.random.default_rng(2).normal(size=(12, *MASK.shape)).astype(np.float32)
    scores[::3] *= 100

    def final(scores, move):
        def step(alignment, row):
            weights = normalize(row, jnp.asarray(MASK))
            alignment = monotonic.forward_alignment(weights, alignment, jnp.asarray(MASK), move=move)
            return alignment, alignment.sum(-1)

        alignment, sums = jax.lax.scan(step, monotonic.first_token(jnp.asarray(MASK)), scores)
        return (alignment * jnp.arange(SOURCE, dtype=jnp.float32)[None]).sum(), (sums, alignment)

    slopes = oracles.compiled(jax.grad(final, argnums=(0, 1), has_aux=True))
    for move in (0.5, 0.9, 1.0):
        gradient, (sums, alignment) = slopes(jnp.asarray(scores), jnp.full((len(MASK), 1), move))
        np.testing.assert_allclose(sums, np.broadcast_to(MASK.any(-1), sums.shape), atol=1e-5)
        assert (np.asarray(alignment)[~MASK] == 0).all()
        assert all(np.isfinite(part).all() for part in gradient)


def test_forward_gives_no_nan_where_reachable_weights_underflow():
    previous = jnp.array([[0.25, 0.75, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    coefficients = np.arange(1.0, 5.0, dtype=np.float32)[None].repeat(2, 0)

    def weighted_sum(*inputs):
        outputs = monotonic.forward_alignment(*inputs[:2], jnp.ones((2, 4), bool), move=inputs[2])
        return (coefficients * outputs).sum(), outputs

    slopes = oracles.compiled(jax.grad(weighted_sum, argnums=(0, 1, 2), has_aux=True))
    reached, moved = np.array([0.1875, 0.625, 0.0, 0.0]), [0.1875, 0.625, 0.1875, 0.0]
    for size in (1.0, 1e-20, 1e-30, 1e-37, 1e-44, 0.0):
        weights = jnp.array([[size, size, 0.0, 1.0], [0.25, 0.25, 0.25, 0.25]], jnp.float32)
        gradient, actual = slopes(weights, previous, jnp.full((2, 1), 0.25))
        assert all(np.isfinite(part).all() for part in gradient), size
        np.testing.assert_allclose(actual[0], reached / reached.sum() if size > 1e-31 else moved, atol=1e-6)
        np.testing.assert_array_equal(actual[1], np.zeros(4))


def test_the_residual_makes_sums_one_and_no_weight_negative():
    alignment, _ = inputs_for("lookback")
    actual = monotonic.residual_on_last(alignment, jnp.asarray(MASK))
    np.testing.assert_allclose(actual.sum(-1), MASK.any(-1), atol=1e-6)
    over = jnp.array([[0.5, 0.5 + 1e-6, 0.0]])
    np.testing.assert_array_equal(monotonic.residual_on_last(over, jnp.ones((1, 3), bool)), over)
