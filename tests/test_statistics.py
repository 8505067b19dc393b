"""The tests against brute force and worked examples; the interval in simulations with a known mean."""

import itertools
import math
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from scipy.stats import t as student

from s2s_jax.config import Experiment
from s2s_jax.run import Run
from s2s_jax.sweep import statistics
from s2s_jax.sweep.compare_runs import _grouped
from s2s_jax.sweep.report import simulation
from s2s_jax.sweep.report.simulation import describe_effect, error_rates, population_rates, power
from s2s_jax.sweep.significance import (
    describe_difference,
    describe_power,
    holds,
    holm_correction,
    max_t_test,
    pooled_sd,
    seeds_needed,
    sign_flip_test,
    smallest_p,
)
from s2s_jax.sweep.statistics import (
    Interval,
    Spread,
    Wins,
    bootstrap_counts,
    confidence_interval,
    count_wins,
    interval_test,
    probability_of_improvement,
    resample,
    spread,
    swap_test,
)


def numbers(*values):
    return np.array(values, np.float64)


@settings(max_examples=60, deadline=None)
@given(some.lists(some.integers(-4, 4), min_size=1, max_size=8))
def test_sign_flip_is_brute_force(differences):
    found = [abs(sum(s * d for s, d in zip(signs, differences, strict=True))) for signs in
             itertools.product([1, -1], repeat=len(differences))]  # fmt: skip
    wanted = sum(each >= abs(sum(differences)) for each in found) / len(found)
    assert (
        sign_flip_test(numbers(*differences) * 0.1) == wanted
    )  # tenths: sums differ in their last bits by their order


def test_sign_flip_at_its_ends():
    assert sign_flip_test(numbers()) is None
    assert sign_flip_test(numbers(1, math.nan, 2)) is None  # not 0.0, as comparisons with NaN would give
    assert sign_flip_test(np.array([1.0] * 24 + [math.inf])) is None
    assert sign_flip_test(numbers(0, 0, 0)) == 1.0
    assert sign_flip_test(numbers(5)) == 1.0 == smallest_p(1)
    assert sign_flip_test(numbers(1, 2, 3, 1, 2, 3, 1, 2)) == 2 / 2**8 == smallest_p(8)
    assert sign_flip_test(np.ones(25)) == smallest_p(25) == 1 / 100_001
    noise = np.random.default_rng(1).normal(size=25)
    assert 0.05 < sign_flip_test(noise - noise.mean() + 0.1) < 1


def test_swaps_are_those_of_all_assignments():
    """Against all 2^9 swaps of nine sentences, for a rate with sentences of several lengths."""
    rng = np.random.default_rng(3)
    lengths = rng.integers(3, 9, 9)
    first, second = (np.stack([rng.integers(0, most, 9), lengths], 1).astype(float) for most in (3, 5))
    rates = []
    for swapped in itertools.product([False, True], repeat=9):
        mine = [b if swap else a for a, b, swap in zip(first, second, swapped, strict=True)]
        other = [a if swap else b for a, b, swap in zip(first, second, swapped, strict=True)]
        (wrong, total), (wrong_of_other, _) = np.sum(mine, 0), np.sum(other, 0)
        rates.append(abs(wrong - wrong_of_other) / total)
    exact = np.mean(np.array(rates) >= rates[0] - 1e-12)
    assert 0.01 < exact < 0.5
    assert abs(swap_test("wer", first, second) - exact) < 4 * math.sqrt(exact * (1 - exact) / statistics.SWAPS) + 1e-4
    assert swap_test("wer", first, first) == 1.0
    assert swap_test("wer", first * 0, second * 0) is None


def test_holm_worked_example():
    assert holm_correction([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm_correction([0.03, None, 0.9]) == pytest.approx(
        [0.09, None, 1.0], nan_ok=True
    )  # what failed counts in m
    assert holm_correction([0.02, 0.02]) == [0.04, 0.04]
    assert holm_correction([]) == []


def test_seeds_needed():
    assert [seeds_needed(m) for m in (1, 2, 5, 10, 20)] == [6, 7, 8, 9, 10]
    for comparisons, level in itertools.product(range(1, 30), (0.05, 0.01)):
        needed = seeds_needed(comparisons, level=level)
        assert smallest_p(needed) <= level / comparisons < smallest_p(needed - 1)
    with pytest.raises(ValueError, match="comparisons must be positive, got 0"):
        seeds_needed(0)
    with pytest.raises(ValueError, match="level must lie between 0 and 1, got 5"):
        seeds_needed(1, level=5)


def test_describe_power_in_one_sentence():
    assert describe_power(5, seeds=3) == (
        "5 comparisons by max-T need 6 seeds, there are 3: no difference can be significant."
    )
    assert describe_power(1, seeds=1) == "1 comparison needs 6 seeds, there is 1: no difference can be significant."
    assert describe_power(5, seeds=8) == (
        "5 comparisons by max-T need 6 seeds, there are 8: the smallest possible p is 0.0078."
    )


def step_down(differences):
    """Westfall & Young 1993, algorithm 2.8, with every flip of whole seeds, and Student's |t| as the statistic."""

    def t_of(row):
        known = row[~np.isnan(row)]
        return abs(known.mean()) / (known.std(ddof=1) / math.sqrt(len(known)))

    seeds = differences.shape[1]
    observed = [t_of(row) for row in differences]
    order = sorted(range(len(differences)), key=lambda index: -observed[index])
    exceeds = [0] * len(order)
    for signs in itertools.product([1, -1], repeat=seeds):
        flipped = [t_of(row * signs) for row in differences]
        for rank, index in enumerate(order):
            exceeds[rank] += max(flipped[other] for other in order[rank:]) >= observed[index] * (1 - 1e-9)
    ps = dict(zip(order, np.maximum.accumulate(np.array(exceeds) / 2**seeds), strict=True))
    return [ps[index] for index in range(len(differences))]


@pytest.mark.parametrize("missing", [False, True])
def test_max_t_is_the_algorithm_of_westfall_and_young(missing):
    random = np.random.default_rng(5)
    differences = random.normal(size=(4, 7)) + np.array([[2.5], [0.4], [0.0], [1.5]]) - random.normal(size=7)
    if missing:  # the |t| of a row without some seeds stays a function of its |sum| / sqrt(sum of squares)
        differences[1, 2] = differences[2, :2] = math.nan
    wanted = step_down(differences)
    assert max_t_test(differences) == pytest.approx(wanted, abs=1e-12)
    assert len(set(wanted)) > 2
    assert max_t_test(differences, exact=3, flips=20_000) == pytest.approx(wanted, abs=0.02)


def test_max_t_at_its_ends():
    assert max_t_test(np.full((2, 6), math.nan)) == [None, None]
    assert max_t_test(np.zeros((0, 6))) == []
    both = np.stack([np.ones(6), np.zeros(6), np.full(6, math.nan)])
    assert max_t_test(both) == [2 / 2**6, 1.0, None]  # six seeds decide, however many comparisons there are
    assert holm_correction([sign_flip_test(both[0])] * 3) == [6 / 2**6] * 3


def test_a_claim_needs_a_small_p_and_its_interval():
    assert holds(0.03, Interval(0.1, 0.2, "seeds"))
    assert not holds(0.03, Interval(-0.1, 0.2, "seeds"))
    assert not holds(0.06, Interval(0.1, 0.2, "seeds"))
    assert not holds(None, Interval(0.1, 0.2, "seeds"))
    assert not holds(0.03, None)
    assert describe_difference(-0.1, "on this test set", higher_is_better=False) == "better on this test set"
    assert describe_difference(-0.1, "on this test set", higher_is_better=True) == "worse on this test set"
    assert describe_difference(-0.1, None, higher_is_better=True) == "may be chance"


def test_the_p_of_an_interval_is_where_it_reaches_0():
    values = np.random.default_rng(2).normal(0.4, 1, size=7)
    scores = values[:, None] + np.random.default_rng(3).normal(size=(7, 50))
    for resampled in (None, resample("exact_match", list(np.stack([scores, np.ones_like(scores)], 2)))):
        p = interval_test(values, resampled)
        low, high, _ = confidence_interval(values, resampled, level=p)
        assert min(abs(low), abs(high)) < 1e-9
    assert interval_test(numbers(2, 2)) == 0.0
    assert interval_test(numbers(0, 0)) == 1.0
    assert interval_test(numbers(1)) is None


def test_simulations_keep_the_error_and_find_effects(monkeypatch):
    """Small ones; `s2s sweep simulate` makes the published ones."""
    monkeypatch.setattr(simulation, "NOISE", {"normal": simulation.NOISE["normal"]})
    rates = list(error_rates(4, 30))
    assert {(row.seeds, row.differing) for row in rates} == set(itertools.product((6, 8, 10), (0, 2)))
    assert all(row.holm <= row.max_t + 0.1 and row.max_t < 0.2 for row in rates)
    assert (found := power(17, 8, 4.0, 30)).max_t > 0.9 > found.holm == 0
    rows = list(population_rates(5, 12))
    assert all(row.this_test_set > 0.5 > 0.25 > row.new_sentences for row in rows)


def test_power_for_an_effect_of_the_user(monkeypatch):
    monkeypatch.setattr(simulation, "POWER_REPEATS", 40)
    scores = [numbers(0.70, 0.72, 0.74), numbers(0.5), numbers(0.6, 0.62, 0.64)]
    assert pooled_sd(scores) == pytest.approx(0.02)
    given = {"comparisons": 17, "seeds": 8}
    sentence = describe_effect("0.06", "exact_match", scores, **given)
    assert "0.06 in Exact match (3.0 standard deviations over seeds) in one of 17 comparisons" in sentence
    assert (
        sentence.split("sds)")[-1].split(" in ")[-2:]
        == describe_effect("3sd", "exact_match", [], **given).split(" in ")[-2:]
    )
    with pytest.raises(ValueError, match="until then give the effect in standard deviations, such as --effect 3sd"):
        describe_effect("0.06", "exact_match", [numbers(0.5)], **given)
    for wrong in ("much", "-1", "0", "nan", "infsd"):
        with pytest.raises(ValueError, match=f"--effect must be positive.*got '{wrong}'"):
            describe_effect(wrong, "exact_match", scores, **given)


def test_spread_and_wins_and_improvement_by_hand():
    assert spread(numbers(1, 2, 3)) == Spread(2.0, 1.0, 3)
    assert spread(numbers(1)) == Spread(1.0, None, 1)
    assert spread(numbers()) == Spread(None, None, 0)
    assert count_wins(numbers(1, 0, -1, 2), higher_is_better=True) == Wins(2, 1, 4)
    assert count_wins(numbers(1, 0, -1, 2), higher_is_better=False) == Wins(1, 1, 4)
    assert probability_of_improvement(numbers(1, 2), numbers(1, 0, 3), higher_is_better=True) == 3.5 / 6
    assert probability_of_improvement(numbers(1, 2), numbers(1, 0, 3), higher_is_better=False) == 2.5 / 6
    assert probability_of_improvement(numbers(), numbers(1), higher_is_better=True) is None


def test_resamples_are_the_same_at_every_call_and_count_every_sentence():
    draws = bootstrap_counts(7, 50)
    bootstrap_counts.cache_clear()
    assert (bootstrap_counts(7, 50) == draws).all()
    assert (draws.sum(1) == 7).all()
    assert draws.min() == 0
    assert 0.7 < draws.mean(0).min() < draws.mean(0).max() < 1.3
    counts = np.stack([np.arange(7.0), np.ones(7)], 1)
    assert resample("exact_match", [counts, counts])[:, 1] == pytest.approx(bootstrap_counts(7) @ np.arange(7.0) / 7)


def test_interval_of_constants_is_a_point():
    same = np.stack([np.ones(5), np.full(5, 2.0)], 1)
    resampled = resample("exact_match", [same] * 3)
    assert confidence_interval(numbers(0.5, 0.5, 0.5), resampled) == Interval(0.5, 0.5, "seeds and sentences")


def test_interval_without_sentences_is_students():
    values = numbers(1, 2, 4)
    half = student.ppf(0.975, 2) * values.std(ddof=1) / math.sqrt(3)
    low, high, over = confidence_interval(values)
    assert (low, high, over) == (pytest.approx(7 / 3 - half), pytest.approx(7 / 3 + half), "seeds")
    assert confidence_interval(numbers()) is None
    assert confidence_interval(numbers(1)) is None
    assert confidence_interval(values, np.full((10, 3), np.nan)).over == "seeds"  # no draw has a score


def test_interval_of_one_seed_is_over_sentences():
    scores = np.random.default_rng(0).normal(size=400)
    resampled = resample("exact_match", [np.stack([scores, np.ones(400)], 1)])
    low, high, over = confidence_interval(numbers(scores.mean()), resampled)
    assert over == "sentences"
    assert high - low == pytest.approx(2 * 1.96 * scores.std() / 20, rel=0.06)


SIMULATIONS = {  # seeds, standard deviations of a seed, of a sentence, and of both together; 100 sentences
    "8 seeds, all noise": (8, 0.1, 1.0, 1.0),
    "8 seeds, of seeds": (8, 0.3, 0.1, 0.5),
    "8 seeds, of sentences": (8, 0.02, 1.0, 0.3),
    "20 seeds, all noise": (20, 0.1, 1.0, 1.0),
    "20 seeds, of both together": (20, 0.02, 0.1, 2.0),
    "3 seeds, all noise": (3, 0.1, 1.0, 1.0),
}


def simulate(name, repeats, sentences=100):
    """Paired differences whose true mean is 0, as counts of a mean over sentences, one array per seed."""
    seeds, of_seed, of_sentence, of_both = SIMULATIONS[name]
    random = np.random.default_rng(7)
    for _ in range(repeats):
        noise = of_seed * random.normal(size=(seeds, 1)) + of_sentence * random.normal(size=sentences)
        scores = noise + of_both * random.normal(size=(seeds, sentences))
        yield scores.mean(1), resample("exact_match", list(np.stack([scores, np.ones_like(scores)], 2)))


def percentile(values, resampled):
    """The alternative: seeds are resampled, then sentences, and the middle 95 % are taken."""
    draws, seeds = resampled.shape
    picked = np.random.default_rng(int(1e6 * abs(values[0]))).integers(seeds, size=(draws, seeds))
    return np.quantile(np.take_along_axis(resampled, picked, 1).mean(1), [0.025, 0.975])


def coverage(name, repeats, interval_of):
    """How often the interval covers the true mean."""
    ends = [interval_of(values, resampled) for values, resampled in simulate(name, repeats)]
    return np.mean([low <= 0 <= high for low, high in ends])


def ours(values, resampled):
    return confidence_interval(values, resampled)[:2]


@pytest.fixture
def few_draws(monkeypatch):
    monkeypatch.setattr(statistics, "bootstrap_counts", lambda sentences: bootstrap_counts(sentences, 200))


@pytest.mark.parametrize("name", ["8 seeds, of seeds"])
def test_interval_has_its_nominal_coverage(name, few_draws):
    assert 0.93 <= coverage(name, 1500, ours) <= 0.97


@pytest.mark.wide
@pytest.mark.parametrize("name", SIMULATIONS)
def test_interval_covers_the_true_mean(name, few_draws):
    found, other = coverage(name, 4000, ours), coverage(name, 4000, percentile)
    sys.stdout.write(f"{name}: interval {found:.1%}, percentile of seeds then sentences {other:.1%}\n")
    assert 0.93 <= found <= 0.97


def test_runs_of_other_numbers_of_steps_are_other_systems():
    def of(seed: int, steps: int) -> Run:
        run = object.__new__(Run)  # without parameters
        vars(run).update(experiment=Experiment(seed=seed, steps=steps), facts={}, directory=f"{seed}")
        return run

    assert _grouped([of(0, 10), of(1, 10), of(2, 9000)]) == [[0, 1], [2]]
