"""Sentences for a paper: what the comparison found, and how its numbers were computed."""

from collections import Counter
from collections.abc import Iterable

from s2s_jax.evaluate.metrics import METRICS
from s2s_jax.sweep.report import numbers
from s2s_jax.sweep.report.comparisons import Comparison
from s2s_jax.sweep.report.figures import point_label
from s2s_jax.sweep.statistics import EXACT_SEEDS, FLIPS, LEVEL, RESAMPLES, smallest_p


def describe_status(comparison: Comparison) -> str:
    """The number of trials with each status."""
    counts = Counter(trial.status for row in comparison.rows for trial in row.trials)
    total = counts.total()
    rest = [f"{counts[status]} {status}" for status in ("failed", "diverged", "running", "waiting") if counts[status]]
    return ", ".join([f"{counts['done']} of {total} runs done", *rest])


def describe_findings(comparison: Comparison) -> list[str]:
    """The result of the comparison, in one or two sentences."""
    results, metric = comparison.results, METRICS[comparison.tested_metric].title
    if not any(row.done for row in comparison.rows):
        return ["No run is done yet: there is nothing to compare."]
    if not comparison.comparisons:
        return [comparison.power]
    tested = comparison.tested_metric
    compared = [(row, row.differences[tested]) for row in comparison.rows if tested in row.differences]
    significant = [row for row, gap in compared if gap.p_holm is not None and gap.p_holm <= LEVEL]
    known = [gap.p_holm for _, gap in compared if gap.p_holm is not None]
    if significant:
        names = join_words(
            f"“{point_label(comparison, row)}”" for row in significant
        )  # quoted, since a label may be the word none
        first = f"{metric}: significantly different from “{results.baseline}” after Holm's correction: {names}."
    elif known:
        least = numbers.p_value(min(known))
        first = f"{metric}: no difference from {results.baseline} is significant (smallest corrected p {least})."
    else:
        first = f"{metric}: no value has a seed in common with {results.baseline} yet."
    return [first, comparison.power]


def describe_methods(comparison: Comparison) -> list[str]:
    """How the numbers were computed, in sentences."""
    return [
        _grid(comparison),
        _data(comparison),
        _training(comparison),
        _selection(comparison),
        _measures(comparison),
        *_tests(comparison),
    ]


def join_words(words: Iterable[str]) -> str:
    """The words as `a, b and c`."""
    known = list(words)
    return " and ".join(filter(None, [", ".join(known[:-1]), *known[-1:]]))


def _grid(comparison: Comparison) -> str:
    results = comparison.results
    seeds = sorted({trial.seed for trial in results.trials})
    axes = "; ".join(f"{axis}: {', '.join(labels)}" for axis, labels in results.axes.items())
    many = f"{_plural(len(seeds), 'seed')} ({', '.join(map(str, seeds))})" if seeds else "no seed yet"
    return (
        f"The grid has {_plural(len(comparison.rows), 'point')} ({axes}), each trained with {many}; "
        f"{results.compare} is compared, with {results.baseline} as the baseline. Of these, "
        f"{describe_status(comparison)}; what is not done is counted in the table and is not part of any mean."
    )


def _data(comparison: Comparison) -> str:
    train, test = (join_words(_values(comparison, f"data.{split}")) for split in ("train", "test"))
    parts = [f"Models were trained on {train or 'the data that the settings name'}"]
    parts += [f" and tested on {test}"] if test else []
    sizes = [trial.parameters for row in comparison.rows for trial in row.done if trial.parameters]
    if sizes:
        parts.append(f"; they have {_between(sizes)} parameters")
    return "".join(parts) + "."


def _training(comparison: Comparison) -> str:
    done = [trial for row in comparison.rows for trial in row.done]
    if not done:
        return "No run is done."
    together = (
        "; runs that differ in their seed or in numbers that one program can vary were trained together"
        if any(trial.launch_mode == "replicas" for trial in done)
        else ""
    )
    steps, tokens, seconds = (
        _between([getattr(trial, name) for trial in done]) for name in ("steps", "tokens", "seconds")
    )
    return (
        f"Training took {steps} steps on {tokens} target tokens and {seconds} seconds per run, without compilation and "
        f"validation{together}."
    )


def _selection(comparison: Comparison) -> str:
    metric = " or ".join(_values(comparison, "validation.metric"))
    steps = [trial.best_step for row in comparison.rows for trial in row.done if trial.best_step]
    chosen = f" (steps {_between(steps)})" if steps else ""
    return (
        f"Of each run the checkpoint with the best validation {metric or 'score'} was kept{chosen}, and the test split "
        "was read once, with that checkpoint."
    )


def _measures(comparison: Comparison) -> str:
    sources = sorted({len(counts) for row in comparison.rows for trial in row.done for counts in trial.counts.values()})
    size = f" on {_between(sources)} test sources" if sources else ""
    labels = join_words(METRICS[metric].title for metric in comparison.results.metrics)
    tested = METRICS[comparison.tested_metric].title
    return (
        f"Reported are {labels}{size}, as mean ± standard deviation over seeds; {tested} alone is tested; all other "
        "numbers are descriptive."
    )


def _tests(comparison: Comparison) -> list[str]:
    if not comparison.comparisons:
        return ["Nothing is compared, so nothing is tested."]
    is_exact = comparison.pairs <= EXACT_SEEDS
    exact = f"an exact sign-flip permutation test over the seeds (all 2^{comparison.pairs} flips)"
    random = f"a sign-flip permutation test over the seeds ({FLIPS:,} seeded flips)"
    many = _plural(comparison.comparisons, "comparison")
    floor = f"{smallest_p(comparison.pairs):.2g}"
    return [
        f"Differences are paired by seed. {_intervals(comparison)}",
        f"p values are two-sided and of {exact if is_exact else random}.",
        f"Holm's correction covers {many}. With {_plural(comparison.pairs, 'paired seed')} no p can be below {floor} "
        f"before the correction. {comparison.power}",
        "P(better) is the probability of improvement over all pairs of seeds, ties counted half (Agarwal et al. 2021, "
        "arXiv:2108.13264); wins are paired seeds that are strictly better.",
    ]


def _intervals(comparison: Comparison) -> str:
    """What the intervals of the tested differences cover."""
    gaps = [
        row.differences[comparison.tested_metric]
        for row in comparison.rows
        if comparison.tested_metric in row.differences
    ]
    over = {gap.interval.over for gap in gaps if gap.interval}
    resamples = f"{RESAMPLES} bootstrap resamples, the same for all seeds and both sides of a comparison"
    sentences = {
        "seeds and sentences": "95 % intervals are t intervals over seeds and sentences: the variance between "
        f"seeds, and that of the test sentences by {resamples} (a crossed design; Satterthwaite's degrees of freedom).",
        "seeds": "Where sentences could not be paired, 95 % intervals are Student's, over seeds only.",
        "sentences": "With a single pair of seeds, 95 % intervals are over test sentences only, by "
        f"{resamples}: they do not cover other seeds.",
    }
    return " ".join(sentence for kind, sentence in sentences.items() if kind in over)


def _values(comparison: Comparison, key: str) -> list[str]:
    return sorted({str(trial.settings[key]) for trial in comparison.results.trials if trial.settings.get(key)})


def _between(sizes: Iterable[float]) -> str:
    known = list(sizes)
    low, high = numbers.whole(min(known)), numbers.whole(max(known))
    return low if low == high else f"{low}–{high}"


def _plural(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"
