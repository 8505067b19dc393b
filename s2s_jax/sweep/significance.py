"""Which differences of a family are not chance: sign flips of whole seeds, two corrections, and two populations.

A difference can be claimed for one of two populations. "This test set": other seeds would differ in the same direction
on these sentences. "New sentences too": also on other sentences like these. The sign flips answer the first question
alone: where sentences vary much more than seeds, 58, 73 and 78 % of the comparisons of variants that are equal over
all sentences differ on a test set of 100, with 6, 8 and 10 seeds; the test for new sentences too is wrong in 5 % of
such sweeps (`s2s sweep simulate scores`). So each claim needs a p value and the interval of its own population.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float

from s2s_jax.sweep.statistics import LEVEL, Interval, SeedValues

THIS_TEST_SET, NEW_SENTENCES = "on this test set", "on new sentences too"
LIKE_THESE = "on sentences like these"  # where each side is a single model
POPULATIONS = {  # what each claim is about
    THIS_TEST_SET: "other seeds, on these sentences",
    NEW_SENTENCES: "other seeds, on other sentences like these",
    LIKE_THESE: "these models, on other sentences like these",
}
EXACT_SEEDS = 20  # up to this number of seeds all sign flips are enumerated, 2^19 of them
FLIPS = 100_000  # random flips for more seeds
BLOCK = 4096  # flips at a time
Differences = Float[np.ndarray, "comparisons seeds"]


def sign_flips(seeds: int, *, exact: int = EXACT_SEEDS, flips: int = FLIPS) -> Iterator[Float[np.ndarray, "F seeds"]]:
    """Blocks of signs: every flip of the seeds, the first seed's sign fixed, since flipping all changes no distance.

    With more than `exact` seeds, seeded random flips in addition to the observed signs.
    """
    if seeds > exact:
        rng = np.random.default_rng(0)
        for start in range(0, 1 + flips, BLOCK):
            signs = rng.choice([-1.0, 1.0], size=(min(BLOCK, 1 + flips - start), seeds))
            signs[: start == 0] = 1.0
            yield signs
        return
    for start in range(0, 2 ** (seeds - 1), BLOCK):
        numbers = np.arange(start, min(start + BLOCK, 2 ** (seeds - 1)))
        yield 1.0 - 2.0 * (numbers[:, None] >> np.arange(seeds)[::-1] & 1)


def sign_flip_test(differences: SeedValues) -> float | None:
    """Two-sided p of "no difference": the fraction of sign flips with a sum as far from 0.

    None without pairs, and where a difference is not a finite number: there is nothing to test.

    Exact, over all 2^n flips, up to 20 pairs, and never below 2 / 2^n. Fisher 1935, The Design of Experiments,
    section 21.
    """
    return max_t_test(differences[None])[0] if len(differences) and np.isfinite(differences).all() else None


def max_t_test(differences: Differences, *, exact: int = EXACT_SEEDS, flips: int = FLIPS) -> list[float | None]:
    """The p values of a family of comparisons, corrected for all of them: step-down max-T under flips of whole seeds.

    T of a comparison is |sum| / sqrt(sum of squares) of its differences, which grows with Student's |t|. Comparisons
    are ordered by T; the p of each is the fraction of flips in which the largest T of it and of those after it is as
    large as its own, and at least the p of the one before it. One flip changes the signs of a seed in all comparisons,
    so that comparisons that rise and fall together (they share the baseline) cost little, and the smallest p is
    2 / 2^n whatever their number. Westfall & Young 1993, Resampling-Based Multiple Testing, algorithm 2.8.

    What it assumes: where nothing differs, the differences of one seed are, all together, as likely as the same with
    opposite signs, and seeds are independent. This is exact for one comparison, whose two sides could then be
    exchanged. For several it needs scores that spread evenly to both sides; where they do not, it is still close. In
    `s2s sweep simulate scores --repeats 2000` (18 comparisons, 28 November 2026) the family-wise error is at most
    0.059, with a standard error of 0.005, for normal, heavy-tailed, skewed and unequal noise and runs that fail, with
    6, 8 and 10 seeds. The power for one difference of 3 standard deviations is 0.35, 0.86 and 0.99; by Holm's
    correction of the same p values 0, 0 and 0.85. So max-T decides in reports, and Holm's p stands beside it.

    Args:
        differences: a row per comparison and a column per seed; NaN where a side has no value. It counts as 0, which
            no flip changes.
        exact, flips: as in `sign_flips`.

    Returns:
        None for a comparison without a pair.
    """
    known = np.isfinite(differences)
    made = known.any(1)
    values = np.where(known, differences, 0.0)[made]
    size = np.sqrt((values**2).sum(1))
    values /= np.where(size > 0, size, 1.0)[:, None]
    order = np.argsort(-np.abs(values.sum(1)), kind="stable")
    ranked = values[order]
    thresholds = np.abs(ranked.sum(1)) - 1e-9 * np.abs(ranked).sum(1)  # a sum in another order differs in its last bits
    as_far, made_flips = np.zeros(len(ranked)), 0
    for signs in sign_flips(differences.shape[1], exact=exact, flips=flips) if len(ranked) else ():
        distances = np.abs(signs @ ranked.T)
        as_far += (np.maximum.accumulate(distances[:, ::-1], axis=1)[:, ::-1] >= thresholds).sum(0)
        made_flips += len(signs)
    corrected: list[float | None] = [None] * len(differences)
    for place, p in zip(np.flatnonzero(made)[order], np.maximum.accumulate(as_far / max(made_flips, 1)), strict=True):
        corrected[place] = float(p)
    return corrected


def holm_correction(ps: Sequence[float | None]) -> list[float | None]:
    """The corrected p values of one family: the k-th smallest of m times m - k + 1, monotonic, at most 1.

    None is a comparison that was planned and could not be made: it counts in m, as a p of 1 would. Holm 1979,
    Scandinavian Journal of Statistics 6(2).
    """
    order = sorted((p, index) for index, p in enumerate(ps) if p is not None)
    corrected: list[float | None] = [None] * len(ps)
    highest = 0.0
    for rank, (p, index) in enumerate(order):
        highest = max(highest, min(1.0, p * (len(ps) - rank)))
        corrected[index] = highest
    return corrected


def holds(p: float | None, interval: Interval | None, *, level: float = LEVEL) -> bool:
    """Whether a claim holds: the corrected p is small, and the interval of the same population excludes 0."""
    return p is not None and p <= level and interval is not None and not interval.low <= 0 <= interval.high


def describe_difference(mean: float | None, population: str | None, *, higher_is_better: bool | None) -> str:
    """In words: `better on this test set`, `worse on new sentences too`, or that the difference may be chance.

    Args:
        population: the widest one for which the difference holds; None for none.
    """
    if mean is None or higher_is_better is None:
        return ""
    if population is None:
        return "may be chance"
    return f"{'better' if (mean > 0) == higher_is_better else 'worse'} {population}"


def smallest_p(pairs: int) -> float:
    """The smallest p that sign flips can give with a number of pairs of seeds."""
    return min(1.0, 2.0 ** (1 - pairs)) if pairs <= EXACT_SEEDS else 1 / (1 + FLIPS)


def seeds_needed(comparisons: int = 1, *, level: float = LEVEL) -> int:
    """The fewest seeds with which the smallest p of m comparisons can pass Holm's correction: 2 / 2^n <= level / m.

    Max-T needs those of one comparison.

    Raises:
        ValueError: no comparison, or a level outside (0, 1).
    """
    if comparisons < 1:
        raise ValueError(f"comparisons must be positive, got {comparisons}")
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    return next(n for n in range(1, 1100) if 2 * comparisons <= level * 2.0**n)


def describe_power(comparisons: int, *, seeds: int, level: float = LEVEL) -> str:
    """One sentence: whether any of the comparisons could be significant with the number of seeds."""
    needed = seeds_needed(level=level)
    subject = "1 comparison needs" if comparisons == 1 else f"{comparisons} comparisons by max-T need"
    sentence = f"{subject} {needed} seeds, there {'is' if seeds == 1 else 'are'} {seeds}"
    if seeds < needed:
        return f"{sentence}: no difference can be significant."
    return f"{sentence}: the smallest possible p is {smallest_p(seeds):.2g}."


def pooled_sd(scores: Sequence[Float[np.ndarray, " _"]]) -> float | None:
    """The standard deviation of a score over seeds, pooled over points of a grid; None before any has two seeds."""
    known = [values for values in scores if len(values) > 1]
    freedom = sum(len(values) - 1 for values in known)
    return math.sqrt(sum(float(((values - values.mean()) ** 2).sum()) for values in known) / freedom) if known else None
