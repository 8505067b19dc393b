"""What was found, and how was it made? Sentences that a paper's results and methods could begin with."""

from collections import Counter
from collections.abc import Iterable

from s2s_jax.evaluate.metrics import METRICS
from s2s_jax.sweep.report import numbers
from s2s_jax.sweep.report.comparisons import Comparison
from s2s_jax.sweep.report.figures import label_of
from s2s_jax.sweep.statistics import DRAWS, EXACT_SEEDS, FLIPS, LEVEL, smallest_p


def standing(judged: Comparison) -> str:
    """How many cells there are, by status."""
    counts = Counter(cell.status for row in judged.rows for cell in row.cells)
    total = counts.total()
    rest = [f"{counts[status]} {status}" for status in ("failed", "diverged", "running", "waiting") if counts[status]]
    return ", ".join([f"{counts['done']} of {total} runs done", *rest])


def finding(judged: Comparison) -> list[str]:
    """What the table shows, in one or two sentences."""
    study, metric = judged.study, METRICS[judged.tested].label
    if not any(row.done for row in judged.rows):
        return ["No run is done yet: there is nothing to compare."]
    if not judged.comparisons:
        return [judged.allows]
    compared = [(row, row.differences[judged.tested]) for row in judged.rows if judged.tested in row.differences]
    sure = [row for row, gap in compared if gap.p_holm is not None and gap.p_holm <= LEVEL]
    known = [gap.p_holm for _, gap in compared if gap.p_holm is not None]
    if sure:
        names = listed(f"“{label_of(judged, row)}”" for row in sure)  # a label may be the word none
        first = f"{metric}: significantly different from “{study.baseline}” after Holm's correction: {names}."
    elif known:
        least = numbers.p_value(min(known))
        first = f"{metric}: no difference to {study.baseline} is significant (smallest corrected p {least})."
    else:
        first = f"{metric}: no value has a seed in common with {study.baseline} yet."
    return [first, judged.allows]


def methods(judged: Comparison) -> list[str]:
    """How the numbers were made, a sentence each."""
    return [_grid(judged), _data(judged), _training(judged), _selection(judged), _measures(judged), *_tests(judged)]


def listed(words: Iterable[str]) -> str:
    """a, b and c."""
    known = list(words)
    return " and ".join(filter(None, [", ".join(known[:-1]), *known[-1:]]))


def _grid(judged: Comparison) -> str:
    study = judged.study
    seeds = sorted({cell.seed for cell in study.results})
    axes = "; ".join(f"{axis}: {', '.join(labels)}" for axis, labels in study.axes.items())
    many = f"{_plural(len(seeds), 'seed')} ({', '.join(map(str, seeds))})" if seeds else "no seed yet"
    return (
        f"The grid has {_plural(len(judged.rows), 'point')} ({axes}), each trained with {many}; "
        f"{study.compare} is compared, with {study.baseline} as the baseline. Of these, {standing(judged)}; what is "
        "not done is counted in the table and has no part in any mean."
    )


def _data(judged: Comparison) -> str:
    train, test = (listed(_values(judged, f"data.{split}")) for split in ("train", "test"))
    parts = [f"Models were trained on {train or 'the data that the settings name'}"]
    parts += [f" and tested on {test}"] if test else []
    sizes = [cell.parameters for row in judged.rows for cell in row.done if cell.parameters]
    if sizes:
        parts.append(f"; they have {_between(sizes)} parameters")
    return "".join(parts) + "."


def _training(judged: Comparison) -> str:
    done = [cell for row in judged.rows for cell in row.done]
    if not done:
        return "No run is done."
    ways = sorted({cell.how for cell in done})
    together = (
        "; runs that differ in seed or told numbers were trained together in one program" if "replicas" in ways else ""
    )
    return (
        f"Training took {_between([cell.steps for cell in done])} steps on {_between([cell.tokens for cell in done])} "
        f"target tokens and {_between([cell.seconds for cell in done])} seconds a run, compiling and validating left "
        f"out{together}."
    )


def _selection(judged: Comparison) -> str:
    metric = " or ".join(_values(judged, "validation.metric"))
    steps = [cell.best_step for row in judged.rows for cell in row.done if cell.best_step]
    at = f" (steps {_between(steps)})" if steps else ""
    return (
        f"Of each run the checkpoint with the best validation {metric or 'score'} was kept{at}, and the test split was "
        "read once, with that checkpoint."
    )


def _measures(judged: Comparison) -> str:
    sources = sorted({len(counts) for row in judged.rows for cell in row.done for counts in cell.counts.values()})
    size = f" on {_between(sources)} test sources" if sources else ""
    labels = listed(METRICS[metric].label for metric in judged.study.metrics)
    return (
        f"Reported are {labels}{size}, as mean ± standard deviation over seeds; {METRICS[judged.tested].label} alone "
        "is tested, all else describes."
    )


def _tests(judged: Comparison) -> list[str]:
    if not judged.comparisons:
        return ["Nothing is compared, so nothing is tested."]
    exact = judged.pairs <= EXACT_SEEDS
    flips = f"an exact sign-flip permutation test over the seeds (all 2^{judged.pairs} flips)"
    drawn = f"a sign-flip permutation test over the seeds ({FLIPS:,} seeded flips)"
    many = _plural(judged.comparisons, "comparison")
    floor = f"{smallest_p(judged.pairs):.2g}"
    return [
        f"Differences are paired by seed. {_intervals(judged)}",
        f"p values are two-sided and of {flips if exact else drawn}.",
        f"Holm's correction covers {many}. With {_plural(judged.pairs, 'paired seed')} no p can be below {floor} "
        f"before the correction. {judged.allows}",
        "P(better) is the probability of improvement over all pairs of seeds, ties counted half (Agarwal et al. 2021, "
        "arXiv:2108.13264); wins are paired seeds that are strictly better.",
    ]


def _intervals(judged: Comparison) -> str:
    """By what the intervals of the tested differences could be taken over."""
    gaps = [row.differences[judged.tested] for row in judged.rows if judged.tested in row.differences]
    over = {gap.interval.over for gap in gaps if gap.interval}
    drawn = f"{DRAWS} bootstrap draws, which are the same for all seeds and both sides of a comparison"
    said = {
        "seeds and sentences": "95 % intervals are t intervals over seeds and sentences: the variance between "
        f"seeds, and that of the test sentences by {drawn} (a crossed design; Satterthwaite's degrees of freedom).",
        "seeds": "Where sentences could not be paired, 95 % intervals are Student's, over seeds only.",
        "sentences": f"With a single pair of seeds, 95 % intervals are over test sentences only, by {drawn}: they say "
        "nothing of other seeds.",
    }
    return " ".join(sentence for kind, sentence in said.items() if kind in over)


def _values(judged: Comparison, key: str) -> list[str]:
    return sorted({str(cell.settings[key]) for cell in judged.study.results if cell.settings.get(key)})


def _between(sizes: Iterable[float]) -> str:
    known = list(sizes)
    low, high = numbers.whole(min(known)), numbers.whole(max(known))
    return low if low == high else f"{low}–{high}"


def _plural(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"
