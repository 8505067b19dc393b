"""Simulated sweeps in which the truth is known: how often the tests of a report are wrong, and how often they find.

Every variant has a score per seed, the baseline too, and all are compared with the baseline. An effect is measured in
standard deviations of a score over seeds. The same arguments give the same numbers.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from s2s_jax.evaluate.metrics import METRICS
from s2s_jax.sweep.significance import holds, holm_correction, max_t_test, pooled_sd, sign_flips
from s2s_jax.sweep.statistics import LEVEL, confidence_interval, interval_test

Scores = Float[np.ndarray, "variants seeds"]  # the baseline first
NOISE: dict[str, Callable[[np.random.Generator, tuple[int, int]], Scores]] = {  # mean 0, standard deviation 1
    "normal": lambda random, shape: random.normal(size=shape),
    "heavy tails (t with 3 degrees)": lambda random, shape: random.standard_t(3, size=shape) / np.sqrt(3),
    "skewed (exponential)": lambda random, shape: random.exponential(size=shape) - 1,
    "unequal (variants from 1/3 to 3)": lambda random, shape: (
        random.normal(size=shape) * 3 ** random.uniform(-1, 1, size=(shape[0], 1))
    ),
    "one run in ten fails (-10)": lambda random, shape: (
        random.normal(size=shape) / 2 - 10.0 * (random.random(shape) < 0.1) + 1
    ),
}
EFFECTS = (2.0, 3.0, 4.0)  # of the simulated power
SEEDS = (6, 8, 10)
SENTENCES, RESAMPLES = 100, 200
FLIPS = {"exact": 12, "flips": 2000}  # fewer than a report takes: a family is tested thousands of times
POWER_REPEATS = 500  # they give the power to 0.02


class ErrorRate(NamedTuple):
    """How often a family without any difference, or the part of it without, has a significant one."""

    noise: str
    seeds: int
    differing: int  # comparisons with an effect of 3 standard deviations; the rest has none
    max_t: float
    holm: float

    def __str__(self) -> str:
        """One line for the user."""
        return (
            f"{self.noise}, {self.seeds} seeds, {self.differing} comparisons differ: family-wise error "
            f"{self.max_t:.3f} by max-T, {self.holm:.3f} by Holm"
        )


class Power(NamedTuple):
    """How often the one comparison that has an effect is significant, all others having none; normal noise."""

    seeds: int
    effect: float  # standard deviations of a score over seeds
    max_t: float
    holm: float

    def __str__(self) -> str:
        """One line for the user."""
        return (
            f"power, {self.seeds} seeds, one effect of {self.effect:g} standard deviations: "
            f"{self.max_t:.2f} by max-T, {self.holm:.2f} by Holm"
        )


class PopulationRate(NamedTuple):
    """Where sentences dominate: variants differ on this test set, and on average over all sentences they do not."""

    seeds: int
    this_test_set: float  # fraction of comparisons that are marked "on this test set", rightly
    new_sentences: float  # fraction of sweeps with a comparison that is marked "on new sentences too", wrongly

    def __str__(self) -> str:
        """One line for the user."""
        return (
            f"sentences dominate, {self.seeds} seeds: {self.this_test_set:.0%} of the comparisons differ on this test "
            f"set; family-wise error on new sentences too {self.new_sentences:.3f}"
        )


def simulate(comparisons: int, repeats: int) -> Iterator[NamedTuple]:
    """The error rates, the power and the claims of each population, row by row."""
    yield from error_rates(comparisons, repeats)
    for seeds in SEEDS:
        for effect in EFFECTS:
            yield power(comparisons, seeds, effect, repeats)
    yield from population_rates(comparisons, repeats)


def error_rates(comparisons: int, repeats: int) -> Iterator[ErrorRate]:
    """The family-wise error for every kind of noise and number of seeds, with and without true differences."""
    for noise in NOISE:
        for seeds in SEEDS:
            for differing in sorted({0, comparisons // 2}):
                found = np.zeros(2)
                for random in _generators(repeats):
                    scores = NOISE[noise](random, (comparisons + 1, seeds))
                    scores[comparisons + 1 - differing :] += 3.0
                    largest = comparisons - differing
                    found += [any(p <= LEVEL for p in ps[:largest]) for ps in _corrected(scores)]
                yield ErrorRate(noise, seeds, differing, *(found / repeats).tolist())


def power(comparisons: int, seeds: int, effect: float, repeats: int) -> Power:
    """The power for one true effect among the comparisons."""
    found = np.zeros(2)
    for random in _generators(repeats):
        scores = NOISE["normal"](random, (comparisons + 1, seeds))
        scores[1] += effect
        found += [ps[0] <= LEVEL for ps in _corrected(scores)]
    return Power(seeds, effect, *(found / repeats).tolist())


def population_rates(comparisons: int, repeats: int) -> Iterator[PopulationRate]:
    """How often each population is claimed where sentences vary much more than seeds."""
    for seeds in SEEDS:
        here = beyond = 0
        for random in _generators(repeats):
            gaps, resampled = _of_sentences(random, comparisons, seeds)
            ps = max_t_test(gaps)
            marked = [holds(p, confidence_interval(each)) for p, each in zip(ps, gaps, strict=True)]
            both = list(zip(gaps, resampled, strict=True))
            of_all = holm_correction([interval_test(*each) for each in both])
            here += sum(marked)
            beyond += any(
                mark and holds(p, confidence_interval(*each))
                for mark, p, each in zip(marked, of_all, both, strict=True)
            )
        yield PopulationRate(seeds, here / repeats / comparisons, beyond / repeats)


def _generators(repeats: int) -> Iterator[np.random.Generator]:
    return (np.random.default_rng((2026, repeat)) for repeat in range(repeats))


def _corrected(scores: Scores) -> tuple[list[float], list[float]]:
    """The p values of all comparisons with the first row: by max-T, and by Holm."""
    gaps = scores[1:] - scores[0]
    by_max_t = max_t_test(gaps, **FLIPS)
    observed = np.abs(gaps.sum(1)) * (1 - 1e-9)
    alone = [(np.abs(signs @ gaps.T) >= observed).mean(0) for signs in sign_flips(gaps.shape[1], **FLIPS)]
    by_holm = holm_correction(alone[0].tolist())  # all flips are one block
    return [1.0 if p is None else p for p in by_max_t], [1.0 if p is None else p for p in by_holm]


def _of_sentences(
    random: np.random.Generator, comparisons: int, seeds: int
) -> tuple[Float[np.ndarray, "comparisons seeds"], Float[np.ndarray, "comparisons resamples seeds"]]:
    """Differences of mean scores on one drawn test set, and the same on resamples of it."""
    of_seed, of_sentence, of_both = (
        size * random.normal(size=(comparisons + 1, *shape))
        for size, shape in ((0.02, (seeds, 1)), (1.0, (1, SENTENCES)), (0.2, (seeds, SENTENCES)))
    )
    scores = of_seed + of_sentence + of_both
    gaps = scores[1:] - scores[:1]
    draws = random.multinomial(SENTENCES, np.full(SENTENCES, 1 / SENTENCES), size=RESAMPLES) / SENTENCES
    return gaps.mean(2), np.einsum("csn,rn->crs", gaps, draws)


def describe_effect(
    text: str, metric: str, scores: Sequence[Float[np.ndarray, " _"]], *, comparisons: int, seeds: int
) -> str:
    """One sentence: how likely an effect that the user names is to be found.

    Args:
        text: the effect in units of the metric, such as `0.02`, or in standard deviations over seeds, such as `3sd`.
        scores: the metric of the finished trials, one array per point.

    Raises:
        ValueError: the text is neither, or the standard deviation is not known yet.
    """
    if not comparisons:
        raise ValueError("--effect needs a comparison, and the compared axis has one value.")
    try:
        size = float(text.removesuffix("sd"))
    except ValueError:
        size = 0.0
    if not 0 < size < float("inf"):
        raise ValueError(f"--effect must be positive, in {metric} (0.02) or in standard deviations (3sd), got {text!r}")
    about = ""
    if not text.endswith("sd"):
        sd = pooled_sd(scores)
        if not sd:
            raise ValueError(
                f"--effect {text} needs the standard deviation of {metric} over seeds, which is known when two seeds "
                "of a point are done; until then give the effect in standard deviations, such as --effect 3sd"
            )
        size, about = size / sd, f" in {METRICS[metric].title} ({size / sd:.1f} standard deviations over seeds)"
    found = power(comparisons, seeds, size, POWER_REPEATS)
    family = "one comparison" if comparisons == 1 else f"one of {comparisons} comparisons"
    return (
        f"An effect of {text}{about} in {family} is found by {seeds} seeds in {found.max_t:.0%} of simulated sweeps "
        f"(with Holm's correction in {found.holm:.0%})."
    )
