"""How sure is a difference, with few seeds and one test set? Intervals, an exact test, and what no test could show.

A score of seed r on sentence i is an effect of the seed, one of the sentence and one of both together, and all seeds
meet the same sentences: a crossed design. So sentences are drawn once for all seeds and both sides of a comparison, and
differences are paired by seed. Nothing here knows of runs or files; every number is a function of its arguments.
"""

import functools
import math
import typing
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.significance import PairedTest
from scipy.stats import t as student

from s2s_jax.evaluate.metrics import METRICS, Counts
from s2s_jax.evaluate.text_counts import BLEU_TOKENIZERS, references_by_rank
from s2s_jax.validation import one_of

LEVEL = 0.05
DRAWS = 1000  # of sentences; the standard error that they give is itself sure to 2 %
EXACT_SEEDS = 20  # up to here all flips of the signs are counted, 2^19 of them
FLIPS = 100_000  # beyond
Scores = Float[np.ndarray, " seeds"]
Redrawn = Float[np.ndarray, "draws seeds"]


class Spread(NamedTuple):
    """What seeds say of one number. No standard deviation below two seeds."""

    mean: float | None
    sd: float | None
    n: int


class Interval(NamedTuple):
    """Where a mean over seeds lies, and what it was allowed to vary over."""

    low: float
    high: float
    over: str  # "seeds and sentences", "seeds" or "sentences"


class Wins(NamedTuple):
    """How many pairs of one seed are better, how many equal, out of how many."""

    won: int
    tied: int
    pairs: int


class OutputTest(NamedTuple):
    """sacreBLEU's paired test of two outputs of one test set."""

    baseline: float
    other: float
    p: float


def spread(values: Scores) -> Spread:
    """Mean, standard deviation (n - 1) and number of the seeds."""
    n = len(values)
    return Spread(float(values.mean()) if n else None, float(values.std(ddof=1)) if n > 1 else None, n)


@functools.lru_cache(maxsize=2)
def sentence_draws(sentences: int, draws: int = DRAWS, seed: int = 0) -> Float[np.ndarray, "draws N"]:
    """How often each sentence stands in each draw of as many sentences, with replacement: the same at every call."""
    picked = np.random.default_rng(seed).integers(sentences, size=(draws, sentences))
    flat = (picked + np.arange(draws)[:, None] * sentences).ravel()
    return np.bincount(flat, minlength=draws * sentences).reshape(draws, sentences).astype(np.float64)


def redrawn(metric: str, counts: Sequence[Counts]) -> Redrawn:
    """The metric of each seed on each draw of the sentences; `counts` has one array a seed, of the same sentences."""
    seeds, sentences, width = np.shape(counts)
    side_by_side = np.stack(counts, 1).reshape(sentences, seeds * width)
    summed = sentence_draws(sentences) @ side_by_side
    return METRICS[metric].values(summed.reshape(-1, seeds, width))


def interval(values: Scores, drawn: Redrawn | None = None, *, level: float = LEVEL) -> Interval | None:
    """Where the mean over seeds (or of paired differences) lies, with 1 - level confidence, over seeds and sentences.

    A t interval around the mean with a bootstrapped standard error. Drawing seeds again needs no draws: the bootstrap
    variance of a mean is known, and with its factor (n - 1) / n mended it is s^2 / n. Drawing sentences gives each
    seed's score again and again; what those share between seeds (the mean covariance of two seeds) is the sentences'
    part. What they do not share stands in s^2 / n already and is not counted twice. Degrees of freedom:
    Satterthwaite's.

    Why not the percentile of seeds drawn, then sentences: with few seeds it is too narrow (Hesterberg 2015,
    doi 10.1080/00031305.2015.1089789), three seeds have but ten different draws, and where the noise is of
    seed and sentence together it counts that three times (Owen 2007, doi 10.1214/07-AOAS122). Of 4,000 made-up worlds
    with 100 sentences (`pytest tests/test_statistics.py -m wide -k covers -s`, 22 November 2026) this interval held the
    truth in 94.2 % (8 seeds, all noise), 95.5 % (8, of seeds), 93.8 % (8, of sentences), 94.7 % (20, all noise), 95.7 %
    (20, of both together) and 94.2 % (3, all noise); the percentile in 95.2, 89.5, 93.3, 94.6, 99.7 and 95.1 %.

    Args:
        values: one a seed.
        drawn: the same on draws of the sentences, from `redrawn`, or a difference of two; None where there are none.

    Returns:
        None where nothing can vary: no seed, or one seed without draws.
    """
    n = len(values)
    covariance = None if n == 0 or drawn is None else _covariance(drawn)
    if n == 0 or (n == 1 and covariance is None):
        return None
    if covariance is None:
        variance, freedom, over = float(values.var(ddof=1)) / n, n - 1.0, "seeds"
    elif n == 1:
        variance, freedom, over = float(covariance[0, 0]), math.inf, "sentences"
    else:
        seeds = float(values.var(ddof=1)) / n
        variance = seeds + max(0.0, float(covariance[~np.eye(n, dtype=bool)].mean()))
        freedom = (n - 1) * (variance / seeds) ** 2 if seeds else math.inf  # sentences are many: they cost none
        over = "seeds and sentences"
    reach = float(student.ppf(1 - level / 2, freedom)) * math.sqrt(variance)
    mean = float(values.mean())
    return Interval(mean - reach, mean + reach, over)


def _covariance(drawn: Redrawn) -> Float[np.ndarray, "seeds seeds"] | None:
    """Of the seeds' scores over the draws; None where half of the draws have no score, as of an empty reference."""
    usable = drawn[np.isfinite(drawn).all(1)]
    return np.atleast_2d(np.cov(usable, rowvar=False)) if 2 * len(usable) > len(drawn) else None


def sign_flip(differences: Scores) -> float | None:
    """Two-sided p of "no difference": how many flips of the pairs' signs give a sum as far from 0. None without pairs.

    Exact, over all 2^n flips, up to 20 pairs, and never below 2 / 2^n; beyond, 100,000 seeded flips, the one that
    happened counted in. Fisher 1935, The Design of Experiments, section 21.
    """
    n = len(differences)
    if not n:
        return None
    observed = abs(differences.sum())
    near = observed - 1e-9 * np.abs(differences).sum()  # the same sum added in another order differs in its last bits
    if n > EXACT_SEEDS:
        signs = np.random.default_rng(0).choice([-1.0, 1.0], size=(FLIPS, n))
        return float((1 + (np.abs(signs @ differences) >= near).sum()) / (1 + FLIPS))
    sums = differences[:1]  # the first sign stays: a flip of all signs changes no distance
    for difference in differences[1:]:
        sums = np.concatenate([sums + difference, sums - difference])
    return float((np.abs(sums) >= near).mean())


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """The p values of one family, corrected: the k-th smallest of m times m - k + 1, never falling, at most 1.

    None is a comparison that was planned and could not be made: it counts in m, as a p of 1 would. Holm 1979,
    Scandinavian Journal of Statistics 6(2).
    """
    order = sorted((p, place) for place, p in enumerate(ps) if p is not None)
    corrected: list[float | None] = [None] * len(ps)
    highest = 0.0
    for rank, (p, place) in enumerate(order):
        highest = max(highest, min(1.0, p * (len(ps) - rank)))
        corrected[place] = highest
    return corrected


def smallest_p(pairs: int) -> float:
    """The smallest p that flipping the signs of so many pairs can give."""
    return min(1.0, 2.0 ** (1 - pairs)) if pairs <= EXACT_SEEDS else 1 / (1 + FLIPS)


def seeds_needed(comparisons: int, *, level: float = LEVEL) -> int:
    """The fewest seeds with which the smallest p of so many comparisons can pass Holm: 2 / 2^n <= level / m.

    Raises:
        ValueError: no comparison, or a level outside (0, 1).
    """
    if comparisons < 1:
        raise ValueError(f"comparisons must be positive, got {comparisons}")
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    return next(n for n in range(1, 1100) if 2 * comparisons <= level * 2.0**n)


def what_seeds_allow(comparisons: int, *, seeds: int, level: float = LEVEL) -> str:
    """One sentence: whether so many comparisons could be significant at all with so many seeds."""
    needed = seeds_needed(comparisons, level=level)
    many = "1 comparison" if comparisons == 1 else f"{comparisons} comparisons with Holm"
    verb = "needs" if comparisons == 1 else "need"
    there = f"{many} {verb} {needed} seeds, there {'is' if seeds == 1 else 'are'} {seeds}"
    if seeds < needed:
        return f"{there}: no difference can be significant."
    return f"{there}: the smallest p that can come out is {min(1.0, comparisons * smallest_p(seeds)):.2g}."


def wins(differences: Scores, *, higher_is_better: bool) -> Wins:
    """How many paired differences are improvements, and how many are none either way."""
    better = differences > 0 if higher_is_better else differences < 0
    return Wins(int(better.sum()), int((differences == 0).sum()), len(differences))


def probability_of_improvement(
    ours: Scores, theirs: Float[np.ndarray, " others"], *, higher_is_better: bool
) -> float | None:
    """P(X > Y): the share of all pairs of seeds, one of each side, in which ours is better; ties count half.

    Agarwal et al. 2021, arXiv:2108.13264. None where a side has no seed.
    """
    if not len(ours) or not len(theirs):
        return None
    gain = np.sign(ours[:, None] - theirs[None, :]) * (1 if higher_is_better else -1)
    return float(((gain + 1) / 2).mean())


def paired_test(
    baseline: Sequence[str],
    other: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    metric: str = "bleu",
    kind: str = "ar",
    draws: int = 0,
    unit: str = "word",
) -> OutputTest:
    """sacreBLEU's paired test of two outputs: are these two models different, whatever other seeds would give?

    Args:
        metric: bleu or chrf.
        kind: ar (approximate randomisation) or bs (paired bootstrap).
        draws: how many; 0 is sacreBLEU's own number, 10,000 and 1,000.
        unit: as in `quality`.

    Raises:
        ValueError: an unknown metric, kind or unit.
    """
    one_of("metric", metric, ("bleu", "chrf"))
    one_of("kind", kind, ("ar", "bs"))
    one_of("unit", unit, BLEU_TOKENIZERS)
    scorer = BLEU(tokenize=BLEU_TOKENIZERS[unit], force=True) if metric == "bleu" else CHRF()
    systems: list[tuple[str, Sequence[str]]] = [("baseline", list(baseline)), ("other", list(other))]
    _, results = PairedTest(
        systems, {metric: scorer}, references_by_rank(references), test_type=kind, n_samples=draws
    )()
    first, second = next(
        typing.cast(list[Any], scores) for name, scores in results.items() if name != "System"
    )  # sacreBLEU names metrics its own way
    same = list(baseline) == list(other)  # of which sacreBLEU says p = 1 / (draws + 1): no draw is further apart than 0
    return OutputTest(float(first.score), float(second.score), 1.0 if same else float(second.p_value))
