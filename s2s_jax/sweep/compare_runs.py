"""Runs compared without a sweep: grouped into systems by their settings, with significance, wins and lengths."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from s2s_jax import config as configs
from s2s_jax.evaluate.metrics import METRICS
from s2s_jax.run import Run, count_parameters
from s2s_jax.sweep.predictions import predict_split, score_predictions
from s2s_jax.sweep.report.comparisons import Difference, PointSummary, compare_to_baseline
from s2s_jax.sweep.results import SweepResults, TrialResult, digest_of_lines
from s2s_jax.sweep.significance import (
    LIKE_THESE,
    POPULATIONS,
    THIS_TEST_SET,
    describe_difference,
    holds,
    holm_correction,
)
from s2s_jax.sweep.statistics import Interval, swap_test
from s2s_jax.validation import one_of

AXIS = "system"
EDGES = (10, 20, 30, 40, 50, 60)  # the longest sources of each row of `by_length`, in tokens
# settings that change neither parameters nor translations
IGNORED = ("seed", "steps", "imports", "device", "record", "checkpoint", "batch.prefetch", "data.cache", "data.workers")


class Wins(NamedTuple):
    """The sentences on which a system is better than the baseline, equal and worse, by the mean over its runs."""

    better: int
    equal: int
    worse: int


class SystemDifference(NamedTuple):
    """A system's difference from the baseline in one metric."""

    mean: float | None  # None where a side has no value
    interval: Interval | None  # 95 %, with what it is over: seeds and sentences, or sentences alone
    p: float | None  # of the tested metric only, corrected for several systems
    verdict: str  # of the tested metric only: better or worse, and for which population; or that it may be chance
    wins: Wins | None  # of sentences


class System(NamedTuple):
    """Runs of the same settings, whatever their seeds."""

    label: str  # A, B, ...
    runs: tuple[str, ...]  # directories
    seeds: tuple[int, ...]
    parameters: int
    metrics: dict[str, float | None]  # means over the runs
    differences: dict[str, SystemDifference]  # from the first system; empty for that one


class LengthRow(NamedTuple):
    """The tested metric over the sources of one length, by system."""

    label: str  # tokens of the source
    sources: int
    values: dict[str, float | None]


class RunComparison(NamedTuple):
    """Systems on the same sentences, the first one the baseline."""

    split: str  # which was read
    sources: int
    metric: str  # the tested one
    population: str  # for which the p values hold
    settings: dict[str, dict[str, Any]]  # those that differ: name -> label of the system -> value
    systems: tuple[System, ...]
    by_length: tuple[LengthRow, ...]


def compare(runs: Sequence[Run], *, split: str = "test", metric: str = "") -> RunComparison:
    """Compare trained runs on a split of the data, each translating with its own settings of the search.

    Runs whose settings are equal but for the seed are one system. Systems of several runs are compared by a sign-flip
    test over pairs of runs, single runs by swapping sentences; the first run's system is the baseline.

    Args:
        metric: the tested metric; empty for the first run's validation.metric, or BLEU (WER of phones) for the loss.

    Raises:
        ValueError: fewer than two runs, runs whose test sentences differ, or a metric that not all of them have.
    """
    if len(runs) < 2:
        raise ValueError(f"a comparison needs two runs or more, got {len(runs)}.")
    trials = [_evaluated(run, split) for run in runs]
    _check_same_sentences(runs, trials, split)
    metrics = _shared_metrics(trials, tested := metric or _default_metric(runs[0]))
    groups = {_letters(number): group for number, group in enumerate(_grouped(runs))}
    trials_of = _paired({label: [trials[index] for index in group] for label, group in groups.items()})
    results = SweepResults(
        *("comparison", "", ""),
        axes={AXIS: tuple(groups)},
        compare=AXIS,
        baseline=next(iter(groups)),
        metrics=metrics,
        trials=tuple(trial for each in trials_of.values() for trial in each),
    )
    rows = compare_to_baseline(results).rows
    single = all(len(group) == 1 for group in groups.values())
    seeds = [tuple(sorted(trials[index].seed for index in group)) for group in groups.values()]
    return RunComparison(
        split=runs[0].experiment.data.split_used(split),
        sources=len(trials[0].lengths),
        metric=tested,
        population=POPULATIONS[LIKE_THESE if single else THIS_TEST_SET],
        settings=_differing({label: runs[group[0]] for label, group in groups.items()}),
        systems=_systems(rows, seeds, tested, single=single),
        by_length=tuple(_by_length(trials_of, tested)),
    )


def _evaluated(run: Run, split: str) -> TrialResult:
    """The predictions of a run and their scores, as the trial of a sweep has them."""
    predictions = predict_split(run, split, sentences=0, gallery=0)
    metrics, counts = score_predictions(predictions, run.experiment.evaluation)
    return TrialResult(
        name=str(run.directory),
        point={},
        seed=run.experiment.seed,
        status="done",
        parameters=count_parameters(run.params),
        metrics=metrics,
        counts=counts,
        test_set=digest_of_lines([predictions["sources"], predictions["references"]]),
        lengths=np.array(predictions["lengths"], np.int64),
    )


def _check_same_sentences(runs: Sequence[Run], trials: Sequence[TrialResult], split: str) -> None:
    for run, trial in zip(runs, trials, strict=True):
        if trial.test_set != trials[0].test_set:
            name = "test" if split == "test" else split
            raise ValueError(
                f"{run.directory} and {runs[0].directory} have other {split} sentences, so that nothing can be "
                f"compared; name the same ones for both: --data.{name} FILE."
            )


def _shared_metrics(trials: Sequence[TrialResult], tested: str) -> tuple[str, ...]:
    """The metrics that every run has, the tested one first."""
    one_of("metric", tested, METRICS)
    if METRICS[tested].higher_is_better is None:
        raise ValueError(f"metric={tested} has no better direction, so that nothing can be tested; choose another.")
    shared = [name for name in METRICS if all(trial.metrics.get(name) is not None for trial in trials)]
    if tested not in shared:
        raise ValueError(f"metric={tested} is not known for every run; they share {', '.join(shared)}.")
    return tested, *(name for name in shared if name != tested)


def _default_metric(run: Run) -> str:
    chosen = run.experiment.validation.metric
    if chosen != "loss" and METRICS[chosen].higher_is_better is not None:
        return chosen
    return "wer" if run.experiment.evaluation.unit == "phone" else "bleu"


def _grouped(runs: Sequence[Run]) -> list[list[int]]:
    """The indices of the runs of each system, in the order of their first runs; one seed is there once."""
    groups: dict[str, list[int]] = {}
    for index, run in enumerate(runs):
        key = json.dumps([_compared_settings(run), run.experiment.steps, run.facts.get("data")], sort_keys=True)
        if any(runs[other].experiment.seed == run.experiment.seed for other in groups.get(key, ())):
            key = json.dumps([key, str(run.directory)])  # such as two checkpoints of one run: a system of its own
        groups.setdefault(key, []).append(index)
    return list(groups.values())


def _compared_settings(run: Run) -> dict[str, Any]:
    """The settings that can make a difference, as JSON gives them back; where data lies is not one of them."""
    left_out = (*IGNORED, *configs.LOCATION_SETTINGS)
    known = {it.name: it.value for it in configs.settings(run.experiment) if not it.name.startswith(left_out)}
    return json.loads(json.dumps(known))


def _differing(runs: Mapping[str, Run]) -> dict[str, dict[str, Any]]:
    known = {label: _compared_settings(run) | {"step": run.step} for label, run in runs.items()}
    names = dict.fromkeys(name for values in known.values() for name in values)
    found = {name: {label: values.get(name) for label, values in known.items()} for name in names}
    return {name: values for name, values in found.items() if len({json.dumps(value) for value in values.values()}) > 1}


def _letters(number: int) -> str:
    """A, B, ..., Z, AA, AB, ..."""
    before, letter = divmod(number, 26)
    return (_letters(before - 1) if before else "") + chr(ord("A") + letter)


def _paired(trials_of: Mapping[str, Sequence[TrialResult]]) -> dict[str, list[TrialResult]]:
    """The trials with their system as point; where the seeds are not the same, they are paired in their order."""
    seeds = [{trial.seed for trial in trials} for trials in trials_of.values()]
    same = all(each == seeds[0] for each in seeds)
    return {
        label: [
            trial._replace(point={AXIS: label}, seed=trial.seed if same else number)
            for number, trial in enumerate(sorted(trials, key=lambda trial: trial.seed))
        ]
        for label, trials in trials_of.items()
    }


def _systems(
    rows: Sequence[PointSummary], seeds: Sequence[tuple[int, ...]], tested: str, *, single: bool
) -> tuple[System, ...]:
    base, *others = rows
    if single:
        pairs = [(row.trials[0].counts[tested], base.trials[0].counts[tested]) for row in others]
        ps = holm_correction([swap_test(tested, *pair) for pair in pairs])
    else:
        ps = [row.differences[tested].p_max_t for row in others]
    systems = []
    for row, own_seeds, p in zip(rows, seeds, [None, *ps], strict=True):
        differences = {}
        for name, gap in row.differences.items():
            of_test = (p, _verdict(gap, p, name, single=single)) if name == tested else (None, "")
            differences[name] = SystemDifference(gap.spread.mean, gap.interval, *of_test, _wins(row, base, name))
        systems.append(
            System(
                label=row.point[AXIS],
                runs=tuple(trial.name for trial in row.trials),
                seeds=own_seeds,
                parameters=row.trials[0].parameters,
                metrics={name: spread.mean for name, spread in row.spreads.items()},
                differences=differences,
            )
        )
    return tuple(systems)


def _verdict(gap: Difference, p: float | None, metric: str, *, single: bool) -> str:
    """What can be claimed; of single models, only that they differ on sentences like these."""
    population = gap.population
    if single:
        population = LIKE_THESE if holds(p, gap.interval) else None
    return describe_difference(gap.spread.mean, population, higher_is_better=METRICS[metric].higher_is_better)


def _wins(row: PointSummary, base: PointSummary, metric: str) -> Wins | None:
    higher = METRICS[metric].higher_is_better
    if higher is None:
        return None
    ours, theirs = (np.nan_to_num(_by_sentence(each.trials, metric)) for each in (row, base))
    better, worse = (ours > theirs, ours < theirs) if higher else (ours < theirs, ours > theirs)
    return Wins(int(better.sum()), int((ours == theirs).sum()), int(worse.sum()))


def _by_sentence(trials: Sequence[TrialResult], metric: str) -> Float[np.ndarray, " N"]:
    """The metric of each sentence alone, mean over runs."""
    return np.mean([METRICS[metric].values(np.asarray(trial.counts[metric], np.float64)) for trial in trials], axis=0)


def _by_length(trials_of: Mapping[str, Sequence[TrialResult]], metric: str) -> Iterator[LengthRow]:
    """The metric of the sources of each length, shortest first; a length that no source has is left out."""
    lengths = next(iter(trials_of.values()))[0].lengths
    for low, high in zip((0, *(edge + 1 for edge in EDGES)), (*EDGES, None), strict=True):
        members = (lengths >= low) & (lengths <= (lengths.max(initial=0) if high is None else high))
        if not members.any():
            continue
        values = {}
        for label, trials in trials_of.items():
            each = METRICS[metric].values(np.stack([trial.counts[metric][members].sum(0) for trial in trials]))
            values[label] = None if np.isnan(each).any() else float(each.mean())
        yield LengthRow(f"{low}+" if high is None else f"{low}-{high}", int(members.sum()), values)
