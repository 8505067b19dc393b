"""Sentences for a paper: what the comparison found, and how its numbers were computed."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from s2s_jax.evaluate.metrics import METRICS
from s2s_jax.sweep.report import numbers
from s2s_jax.sweep.report.comparisons import Comparison, Difference, PointSummary
from s2s_jax.sweep.significance import EXACT_SEEDS, FLIPS, NEW_SENTENCES, POPULATIONS, THIS_TEST_SET, smallest_p
from s2s_jax.sweep.statistics import LEVEL, RESAMPLES


def describe_status(comparison: Comparison) -> str:
    """The number of trials with each status."""
    counts = Counter(trial.status for row in comparison.rows for trial in row.trials)
    total = counts.total()
    rest = [f"{counts[status]} {status}" for status in ("failed", "diverged", "running", "waiting") if counts[status]]
    return ", ".join([f"{counts['done']} of {total} runs done", *rest])


def describe_findings(comparison: Comparison) -> list[str]:
    """The result of the comparison, and how it stands to published numbers, in a few sentences."""
    if not any(row.done for row in comparison.rows):
        return ["No run is done yet: there is nothing to compare."]
    return [*_against_published(comparison), *_against_baseline(comparison)]


def _against_published(comparison: Comparison) -> Iterator[str]:
    """For each published number the mean of the points with its label."""
    for one in comparison.results.published:
        for row in comparison.rows:
            mean = row.spreads[one.metric].mean
            if row.point[comparison.results.compare] == one.label and mean is not None:
                subject = f"{METRICS[one.metric].title} of “{comparison.label(row)}”"
                seeds = _plural(len(row.done), "seed")
                yield f"{subject}: published {one.value:.4g}, here {mean:.4g} ({seeds}): {one.standing(mean)}."


def _against_baseline(comparison: Comparison) -> list[str]:
    results, metric = comparison.results, METRICS[comparison.tested_metric].title
    if not comparison.comparisons:
        return [comparison.power]
    compared = [(row, row.differences[comparison.tested_metric]) for row in comparison.rows if row.differences]
    known = [gap.p_max_t for _, gap in compared if gap.p_max_t is not None]
    found = [
        _claims(comparison, compared, population, is_better=is_better)
        for is_better in (True, False)
        for population in (NEW_SENTENCES, THIS_TEST_SET)
    ]
    claims = [claim for claim in found if claim]
    if claims:
        rest = len(compared) - sum(gap.population is not None for _, gap in compared)
        ending = f" {_plural(rest, 'difference')} may be chance." if rest else ""
        first = f"{metric}, against “{results.baseline}”: {'; '.join(claims)}.{ending}"
    elif known:
        least = numbers.p_value(min(known))
        first = f"{metric}: no difference from {results.baseline} is significant (smallest corrected p {least})."
    else:
        first = f"{metric}: no value has a seed in common with {results.baseline} yet."
    return [first, comparison.power]


def _claims(
    comparison: Comparison, compared: Sequence[tuple[PointSummary, Difference]], population: str, *, is_better: bool
) -> str:
    """The points that are better, or worse, for a population, as `2 better on this test set: “a” and “b”`."""
    higher = METRICS[comparison.tested_metric].higher_is_better
    rows = [
        row
        for row, gap in compared
        if gap.population == population and ((gap.spread.mean or 0) > 0) == (higher is is_better)
    ]
    names = join_words(f"“{comparison.label(row)}”" for row in rows)  # quoted: a label may be the word none
    return f"{len(rows)} {'better' if is_better else 'worse'} {population}: {names}" if rows else ""


def describe_methods(comparison: Comparison) -> list[str]:
    """How the numbers were computed, in sentences."""
    return [
        _grid(comparison),
        _data(comparison),
        _training(comparison),
        *_machines(comparison),
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


def _machines(comparison: Comparison) -> list[str]:
    """Versions and hardware of the finished runs, as each recorded them when it was started last."""
    starts = [trial.start for row in comparison.rows for trial in row.done if trial.start]
    if not starts:
        return []

    def values(name: str) -> str:
        return " or ".join(sorted({str(start[name]) for start in starts if start.get(name)}))

    packages = sorted({f"{name} {version}" for start in starts for name, version in start.get("packages", {}).items()})
    commits = sorted({start["s2s_jax_commit"][:12] for start in starts if start.get("s2s_jax_commit")})
    at = f" (commit {' or '.join(commits)})" if commits else ""
    hosts = len({start.get("host") for start in starts})
    return [
        f"Software: s2s_jax {values('s2s_jax')}{at}, Python {values('python')}, {', '.join(packages)}.",
        f"Hardware: {values('devices')}, {values('processors')} processors, {values('system')}, "
        f"{_plural(hosts, 'machine')}.",
    ]


def _selection(comparison: Comparison) -> str:
    metric = " or ".join(_values(comparison, "validation.metric"))
    steps = [trial.best_step for row in comparison.rows for trial in row.done if trial.best_step]
    chosen = f" (steps {_between(steps)})" if steps else ""
    reads = sorted({trial.reads for row in comparison.rows for trial in row.done})
    often = f"{_between(reads)} times" if reads else "never yet"
    times = {"1 times": "once", "2 times": "twice"}.get(often, often)
    again = ", again whenever settings of the search were changed," if reads and max(reads) > 1 else ""
    return (
        f"Of each run the checkpoint with the best validation {metric or 'score'} was kept{chosen}, and the test split "
        f"was read{again} {times} per run, with that checkpoint."
    )


def _measures(comparison: Comparison) -> str:
    sources = sorted({len(counts) for row in comparison.rows for trial in row.done for counts in trial.counts.values()})
    size = f" on {_between(sources)} test sources" if sources else ""
    labels = join_words(METRICS[metric].title for metric in comparison.results.metrics)
    tested = METRICS[comparison.tested_metric].title
    signatures = sorted({trial.signature for row in comparison.rows for trial in row.done if trial.signature})
    bleu = (
        f" BLEU's signature is {' or '.join(signatures)}."
        if signatures and "bleu" in comparison.results.metrics
        else ""
    )
    return (
        f"Reported are {labels}{size}, as mean ± standard deviation over seeds; {tested} alone is tested; all other "
        f"numbers are descriptive.{bleu}"
    )


def _tests(comparison: Comparison) -> list[str]:
    if not comparison.comparisons:
        return ["Nothing is compared, so nothing is tested."]
    is_exact = comparison.pairs <= EXACT_SEEDS
    how = f"all 2^{comparison.pairs}, exact" if is_exact else f"{FLIPS:,} seeded ones"
    many = _plural(comparison.comparisons, "comparison")
    floor = f"{smallest_p(comparison.pairs):.2g}"
    return [
        f"Differences are paired by seed. {_intervals(comparison)}",
        f"Two populations are told apart. “{_name(THIS_TEST_SET)}” is {POPULATIONS[THIS_TEST_SET]}: its p values are "
        f"two-sided, by step-down max-T over {many} under sign flips of whole seeds ({how}; Westfall & Young 1993), "
        "which assumes that, where nothing differs, all differences of a seed are as likely with the opposite sign; "
        f"with {_plural(comparison.pairs, 'paired seed')} no p is below {floor}. Its intervals are Student's over "
        "seeds.",
        f"“{_name(NEW_SENTENCES)}” is {POPULATIONS[NEW_SENTENCES]}: its p values are those at which the interval over "
        "seeds and sentences reaches 0, with Holm's correction. * marks a difference that holds on this test set and "
        f"** one that holds on new sentences too: p at most {LEVEL:g}, and the interval of that population without 0.",
        comparison.power,
        "P(better) is the probability of improvement over all pairs of seeds, ties counted half (Agarwal et al. 2021, "
        "arXiv:2108.13264); wins are paired seeds that are strictly better.",
    ]


def _name(population: str) -> str:
    return population.removeprefix("on ")


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
