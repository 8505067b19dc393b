"""Every scoring, every way to stop and every way to choose, against brute force and a slow beam in Python."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracle_search
import pytest
from fake import MODEL, table
from test_sample import counted, fits

from s2s_jax.decode.beam.engine import beam
from s2s_jax.decode.beam.stochastic import condition_maximum, log_inclusion, stochastic
from s2s_jax.decode.length_normalization import LENGTH_NORMALIZATIONS, HypothesisScore, log_coverage
from s2s_jax.decode.sampling import row_keys
from s2s_jax.model.interface import Model
from s2s_jax.shapes import EOS

SOURCE = jnp.array([[4, 2, 0], [3, 4, 2], [4, 3, 2]], jnp.int32)
LONGEST = 5
SEEDS = range(16)
WEIGHT = {"gnmt": 0.8, "average": 1.0, "reward": 0.7}


@functools.cache
def compiled(**options):
    """A beam search, compiled once for all tests that use it."""
    return jax.jit(lambda params, source: beam(MODEL, params, source, **options))


@pytest.mark.parametrize("coverage", [0.0, 0.3])
@pytest.mark.parametrize("name", sorted(LENGTH_NORMALIZATIONS))
def test_a_beam_that_holds_everything_is_exact_under_every_ranking(name, coverage):
    """All n-best places too, in order. The second source of three tokens is short, and its padding counts nothing."""
    scoring = HypothesisScore(name=name, strength=WEIGHT[name], coverage=coverage)
    find = compiled(width=48, max_length=LONGEST, scoring=scoring, stopping="never")
    found = jax.device_get(find(table(), SOURCE))
    numbers = np.asarray(table())
    for row in range(2):
        source = np.asarray(SOURCE[row])
        of = functools.partial(oracle_search.score, numbers, source, name=name, weight=WEIGHT[name], coverage=coverage)
        expected = sorted(((of(string), string) for string in oracle_search.strings(LONGEST)), reverse=True)
        complete = ~found.truncated[row] & np.isfinite(found.scores[row])
        assert complete.sum() == len(expected)
        np.testing.assert_allclose(found.scores[row][complete], [one for one, _ in expected], rtol=1e-5, atol=1e-5)
        for slot in np.flatnonzero(complete):
            string = oracle_search.string_of(found.tokens[row, slot])
            assert found.scores[row, slot] == pytest.approx(of(string), rel=1e-5, abs=1e-5)


def test_log_coverage_is_eq_14_over_real_tokens():
    coverage = jnp.array([[0.5, 2.0, 0.25, 0.0]])
    mask = jnp.array([[True, True, True, False]])
    np.testing.assert_allclose(log_coverage(coverage, mask), [np.log(0.5) + np.log(0.25)], rtol=1e-6)
    nothing = log_coverage(jnp.zeros((1, 4)), mask)
    assert np.isfinite(nothing).all()
    assert float(nothing[0]) < -200


@pytest.mark.parametrize("n_best", [1, 3])
@pytest.mark.parametrize(("name", "coverage"), [("gnmt", 0.3), ("average", 0.0), ("reward", 0.0)])
def test_bounded_stopping_gives_what_no_early_stop_gives(name, coverage, n_best):
    scoring = HypothesisScore(name=name, strength=WEIGHT[name], coverage=coverage)
    options = {"width": 3, "max_length": 8, "scoring": scoring, "n_best": n_best}
    for seed in SEEDS:
        bounded = compiled(stopping="bounded", **options)(table(seed), SOURCE)
        never = compiled(stopping="never", **options)(table(seed), SOURCE)
        for one, other in zip(bounded, never, strict=True):
            assert one.shape[1] == n_best
            np.testing.assert_array_equal(one, other)


def test_bounded_stopping_is_sooner_than_none():
    """Counted in steps of the model."""
    steps, taken = [], {}

    def step(*args):
        jax.debug.callback(lambda: steps.append(1))
        return MODEL.step(*args)

    counting = Model(MODEL.init, MODEL.encode, step)
    for stopping in ("bounded", "never"):
        options = {
            "width": 2,
            "max_length": 12,
            "stopping": stopping,
            "n_best": 1,
            "scoring": HypothesisScore(strength=1.0),
        }
        find = jax.jit(functools.partial(beam, counting, **options))
        for seed in range(5):
            find(table(seed), SOURCE)
        jax.effects_barrier()
        taken[stopping], steps[:] = len(steps), []
    assert taken["bounded"] < taken["never"] == 60


def test_a_full_beam_can_stop_too_soon_and_a_bounded_one_cannot():
    """Or "full" and "bounded" would be one setting: where longer is better, the first to end are not the best."""
    options = {
        "width": 3,
        "max_length": 8,
        "scoring": HypothesisScore(name="reward", strength=WEIGHT["reward"]),
        "n_best": 1,
    }
    full, bounded = (
        np.array([compiled(stopping=stopping, **options)(table(seed), SOURCE).scores[:, 0] for seed in SEEDS])
        for stopping in ("full", "bounded")
    )
    assert (full <= bounded + 1e-6).all()
    assert (full < bounded - 1e-3).any()


DIVERSE = (
    {"width": 4},
    {"width": 4, "sibling_penalty": 0.7},
    {"width": 4, "groups": 2, "group_penalty": 0.9},
    {"width": 6, "groups": 3, "group_penalty": 0.5, "sibling_penalty": 0.4},
    {"width": 2, "groups": 2, "group_penalty": 50.0},
)


@pytest.mark.parametrize("options", DIVERSE, ids=str)
def test_groups_and_siblings_choose_as_a_slow_beam_does(options):
    find = compiled(max_length=6, scoring=HypothesisScore(strength=0.6), **options)
    groups = options.get("groups", 1)
    for seed in range(6):
        found = jax.device_get(find(table(seed), SOURCE))
        for row in range(2):
            slow_options = {**options, "width": options["width"] // groups}
            which = int(SOURCE[row, 0]) % 2
            lists = oracle_search.beam(np.asarray(table(seed)), which, longest=6, exponent=0.6, **slow_options)
            expected = sorted(
                (one for of_group in lists for one in of_group), key=lambda one: (one[1][-1] != EOS, -one[0])
            )
            there = np.isfinite(found.scores[row])
            np.testing.assert_allclose(found.scores[row][there], [one for one, _ in expected], atol=1e-5)
            assert [oracle_search.string_of(tokens) for tokens in found.tokens[row][there]] == [
                one for _, one in expected
            ]
            assert found.truncated[row][there].tolist() == [one[-1] != EOS for _, one in expected]


def test_groups_without_a_penalty_are_plain_beams():
    plain = compiled(width=3, max_length=6, scoring=HypothesisScore(strength=0.6))
    grouped = compiled(width=6, groups=2, max_length=6, scoring=HypothesisScore(strength=0.6))
    for seed in range(6):
        for one, twice in zip(plain(table(seed), SOURCE), grouped(table(seed), SOURCE), strict=True):
            np.testing.assert_allclose(one, twice[:, 0::2], atol=1e-6)
            np.testing.assert_allclose(one, twice[:, 1::2], atol=1e-6)


def test_a_high_penalty_keeps_groups_from_choosing_the_same_token():
    """Two words and two groups; the end token, which is not penalized, is out of reach."""
    find = compiled(max_length=6, scoring=HypothesisScore(strength=0.6), **DIVERSE[4])
    for seed in range(6):
        tokens = np.asarray(find(table(seed).at[:, :, EOS].add(-30.0), SOURCE).tokens)
        assert (tokens[:, 0] != tokens[:, 1]).all()
        assert (tokens != EOS).all()


@pytest.mark.parametrize(
    "options",
    [
        {"width": 4, "groups": 2, "group_penalty": 0.9},
        {"width": 3, "stopping": "bounded", "scoring": HypothesisScore(strength=0.8, coverage=0.3)},
    ],
    ids=str,
)
def test_neighbors_and_padding_change_nothing(options):
    find = compiled(max_length=6, **options)
    for seed in range(15):
        together = find(table(seed), SOURCE)
        for row in (0, 1):
            alone = find(table(seed), jnp.concatenate([jnp.zeros((2, 3), jnp.int32), SOURCE[row : row + 1]]))
            for one, all_of_them in zip(alone, together, strict=True):
                np.testing.assert_array_equal(one[2], all_of_them[row])
            assert not bool(jnp.isfinite(alone.scores[:2]).any())
            assert not bool(alone.tokens[:2].any())


DRAWS, SHORT = 4000, 3


@pytest.fixture(scope="module")
def draws():
    find = jax.jit(lambda params, source, keys: stochastic(MODEL, params, source, keys, width=3, max_length=SHORT))
    return jax.device_get(find(table(), jnp.repeat(SOURCE[1:2], DRAWS, axis=0), row_keys(1, jnp.arange(DRAWS))))


@pytest.fixture(scope="module")
def probabilities():
    found = oracle_search.leaves(np.asarray(table()), 1, SHORT)
    assert sum(found.values()) == pytest.approx(1)
    return found


def test_the_first_of_a_stochastic_beam_is_an_exact_sample(draws, probabilities):
    fits(counted(draws.tokens[:, 0]), probabilities)


def test_the_first_two_are_drawn_without_replacement(draws, probabilities):
    pairs = {
        (*one, *other): share * rest / (1 - share)
        for one, share in probabilities.items()
        for other, rest in probabilities.items()
        if one != other
    }
    assert len(pairs) == len(probabilities) * (len(probabilities) - 1)
    fits(counted(draws.tokens[:, :2].reshape(DRAWS, -1)), pairs)
    for tokens in draws.tokens[:500]:
        assert len({oracle_search.string_of(string) for string in tokens}) == 3


def test_importance_weights_estimate_means_without_bias(draws):
    """Of the number of tokens, of the share of complete strings, and of 1: within four standard errors."""
    numbers = np.asarray(table())
    # weights are of what is drawn from, in which PAD and BOS take no part
    leaves = oracle_search.leaves(numbers, 1, SHORT)
    weights = np.exp(draws.log_weights)
    for value in (len, lambda string: string[-1] == EOS, lambda string: 1):
        exact = sum(share * value(string) for string, share in leaves.items())
        values = np.array([[value(oracle_search.string_of(string)) for string in row] for row in draws.tokens])
        estimates = (weights * values).sum(1)
        error = estimates.std() / np.sqrt(DRAWS)
        assert abs(estimates.mean() - exact) < 4 * error + 1e-6


def test_a_stochastic_beam_wider_than_the_tree_holds_every_leaf_with_its_own_probability(probabilities):
    find = jax.jit(lambda params, source, keys: stochastic(MODEL, params, source, keys, width=20, max_length=SHORT))
    found = jax.device_get(find(table(), SOURCE[1:2], row_keys(3, jnp.arange(1))))
    there = np.isfinite(found.scores[0])
    weights = {
        oracle_search.string_of(string): float(np.exp(weight))
        for string, weight in zip(found.tokens[0][there], found.log_weights[0][there], strict=True)
    }
    assert weights == pytest.approx(probabilities, rel=1e-4)


def test_a_stochastic_beam_does_not_depend_on_neighbors():
    find = jax.jit(lambda params, source, keys: stochastic(MODEL, params, source, keys, width=2, max_length=6))
    for seed in range(10):
        together = find(table(seed), SOURCE, row_keys(0, jnp.array([3, 4, 5])))
        alone = find(table(seed), SOURCE.at[jnp.array([0, 2])].set(0), row_keys(0, jnp.array([0, 4, 0])))
        for one, only in zip(together, alone, strict=True):
            np.testing.assert_array_equal(one[1], only[1])


def test_noisy_children_are_moved_below_their_parent():
    random = np.random.default_rng(0)
    noisy = random.normal(size=(5, 4, 6)) * 3
    limit = random.normal(size=(5, 4, 1))
    top = noisy.max(-1, keepdims=True)
    with np.errstate(divide="ignore"):
        expected = -np.log(np.exp(-limit) - np.exp(-top) + np.exp(-noisy))
    noisy[0, 0, 3], expected[0, 0, 3] = -np.inf, -np.inf
    found = condition_maximum(*(jnp.array(one.astype(np.float32)) for one in (noisy, top, limit)))
    np.testing.assert_allclose(found, expected, atol=1e-4)
    np.testing.assert_allclose(found.max(-1, keepdims=True), limit, atol=1e-6)


def test_inclusion_probabilities_are_accurate_for_large_and_small():
    total = np.array([[-30.0, -10.0, -1.0, 5.0]])
    expected = np.log(-np.expm1(-np.exp(total)))
    found = log_inclusion(jnp.array(total.astype(np.float32)), jnp.zeros((1, 1)))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_array_equal(log_inclusion(jnp.zeros((1, 2)), jnp.full((1, 1), -jnp.inf)), [[0.0, 0.0]])
