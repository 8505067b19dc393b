"""Attention as an explanation: compared with gold alignments, saliency and occlusion.

Claim: on dates, where the characters behind each digit are known, attention, saliency (gradients) and occlusion mostly
have their maximum at the same character, and at the gold one about equally often; their rankings of the remaining
characters agree little. So attention shows where the answer comes from, and not how much each other character
contributes. On COGS, whose logical forms count words (`cake ( x _ 4 )`), attention is on the word that is named, and
not on the one that is counted: numbers reach the decoder through the recurrent state.
Command: python experiments/claims/alignment.py OUT [--steps 500] [--scores additive,dot,location-aware] [--seeds 10]
on COGS: python experiments/claims/alignment.py OUT --task cogs --steps 5000 --scores general --manual-dir DIR
or, of finished runs with gold alignments (`s2s train cogs`): python experiments/claims/alignment.py OUT --runs RUN,RUN
Writes OUT/alignment.png (the first seed, rows scaled to their largest value), OUT/alignment.md (means over seeds with
their 95 % intervals) and one run per score and seed; finished runs are not trained again.
Hardware and time: 2 CPU cores; additive and dot with 400 steps, under 7 min 30 s (with four other processes running).
Expect: the same maximum as occlusion in more than half of the rows, and tau below 0.5.
Seen: 2026-11-22, `--steps 400 --scores additive,dot`, one seed: exact match 0.99 and 1.00; alignment error rate 0.179
and 0.135 (the same in greedy and beam 5), of saliency 0.175 and 0.132, of occlusion by zeros 0.231 and 0.169. Attention
and occlusion have the same maximum in 0.82 and 0.81 of the rows (by chance 0.07), with tau 0.19 and 0.14; attention and
saliency in 0.95 and 0.97, with tau 0.40 and 0.44. 2026-11-23, COGS, the run of `s2s train cogs`, one seed: exact match
0.922 on 128 sentences; alignment error rate of the words 0.046, of the numbers 0.956; attention and saliency have the
same maximum in 0.84 of the rows, attention and occlusion in 0.38 (by chance 0.11).
"""

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from rich.console import Console
from scipy import stats

import s2s_jax as s2s
from s2s_jax.cli.experiments import find
from s2s_jax.decode.batching import pad_rows
from s2s_jax.decode.forced_decoding import ScoredPair
from s2s_jax.evaluate.alignment import Link, guess_sure
from s2s_jax.evaluate.attention_agreement import measure_agreement
from s2s_jax.evaluate.evaluation import error_of_alignments, gold_links, token_links
from s2s_jax.evaluate.gradients import occlusion, saliency
from s2s_jax.evaluate.plots import Picture, save_grid
from s2s_jax.model.interface import Params
from s2s_jax.run.batches import encode
from s2s_jax.shapes import Batch
from s2s_jax.text.example import Example
from s2s_jax.text.sources import read_split
from s2s_jax.validation import one_of

SCORES = {
    "additive": ("score=additive",),
    "general": ("score=general",),
    "dot": ("score=dot",),
    "location-aware": ("score=location-aware", "history=previous-and-coverage", "kernel=7"),
}
# An experiment, and settings that make its encoder as wide as its decoder, as dot needs it.
TASKS = {"dates": ("model.encoder.size=48", "model.decoder.size=96"), "cogs": ()}
SENTENCES = 128  # test sentences that are analyzed
BEAM = 5
METHODS = ("attention", "saliency", "occlusion")
KINDS = ("number", "name", "noun", "verb")  # of tokens of a logical form
Matrix = Float[np.ndarray, "T S"]


class Analysis(NamedTuple):
    """A test pair with the matrix of each method, under forced decoding of the true target."""

    pair: ScoredPair
    gold: set[Link]
    matrices: dict[str, Matrix]  # one per method


def trained(task: str, score: str, changes: Sequence[str], folder: Path) -> s2s.Run:
    """A run of the task's experiment with a score; finished runs are loaded."""
    settings = (*TASKS[task], *(f"model.attention.{change}" for change in SCORES[score]))
    experiment = s2s.override(find(task, None)[0], *settings, "validation.sentences=100", *changes)
    return s2s.train(experiment, folder, Console(stderr=True, soft_wrap=True))


def analyze(run: s2s.Run, examples: Sequence[Example]) -> list[Analysis]:
    """The test pairs with the matrices of all methods."""
    encoded = encode(examples, run.pair)
    batch = Batch(pad_rows(encoded.sources), pad_rows(encoded.targets))

    def explain(params: Params, batch: Batch):
        return saliency(run.model, params, batch), occlusion(run.model, params, batch, replacement="zero")

    computed = jax.device_get(jax.jit(explain)(run.params, jax.tree.map(jnp.asarray, batch)))
    analyses = []
    for row, pair in enumerate(run.score(examples)):
        real = np.s_[row, : len(pair.tokens), : len(pair.source_tokens)]
        matrices = pair.alignment, *(matrix[real] for matrix in computed)
        gold = token_links(pair.example, **run.tokenizers)
        analyses.append(Analysis(pair, gold, dict(zip(METHODS, matrices, strict=True))))
    return analyses


def error_in_search(run: s2s.Run, examples: Sequence[Example], beam: int) -> tuple[float, float | None]:
    """The exact match, and the alignment error rate of the exact matches (only their gold alignment is known)."""
    translations = run.translate([example.source for example in examples], beam=beam)
    matches = [
        (translation, example)
        for translation, example in zip(translations, examples, strict=True)
        if translation.text == example.target
    ]
    gold = [gold_links(example, **run.tokenizers) for _, example in matches]
    error = error_of_alignments([translation.alignment for translation, _ in matches], gold)
    return len(matches) / len(examples), error


class Agreement(NamedTuple):
    """The agreement of two methods over all target tokens with a gold link."""

    tau: float  # mean of Kendall's tau
    top: float  # fraction of tokens with the same maximum


def forced_error(analyses: Sequence[Analysis], method: str, *, kind: str = "") -> float | None:
    """The alignment error rate of a method under forced decoding, of all target tokens or of one kind."""
    gold = [{link for link in each.gold if kind in ("", token_kind(each.pair.tokens, link[1]))} for each in analyses]
    return error_of_alignments([each.matrices[method] for each in analyses], list(map(guess_sure, gold)))


def token_kind(tokens: Sequence[str], place: int) -> str:
    """What a token of a logical form of COGS is, one of `KINDS`: a predicate with roles (`eat . agent (`) is a verb."""
    if tokens[place].isdecimal():
        return "number"
    if tokens[place].istitle():
        return "name"
    return "verb" if tuple(tokens[place + 1 : place + 2]) == (".",) else "noun"


def compare_methods(analyses: Sequence[Analysis], first: str, second: str) -> Agreement:
    """Two methods compared token by token."""
    taus, tops = [], []
    for each in analyses:
        linked = sorted({target for _, target in each.gold})
        rows = measure_agreement(each.matrices[first], each.matrices[second])
        taus.append(rows.tau[linked])
        tops.append(rows.top[linked])
    return Agreement(float(np.nanmean(np.concatenate(taus))), float(np.concatenate(tops).mean()))


def chance_agreement(analyses: Sequence[Analysis]) -> float:
    """How often two independent methods have the same maximum."""
    return float(
        np.mean([1 / len(each.pair.source_tokens) for each in analyses for _ in {link[1] for link in each.gold}])
    )


def measured(run: s2s.Run, examples: Sequence[Example], analyses: Sequence[Analysis]) -> dict[str, float | None]:
    """The numbers of one run, by the head of their column."""
    numbers: dict[str, float | None] = {}
    for width, search in ((1, "greedy"), (BEAM, f"beam {BEAM}")):
        numbers[f"exact match, {search}"], numbers[f"AER, {search}"] = error_in_search(run, examples, width)
    for method in METHODS:
        numbers[f"AER of {method}"] = forced_error(analyses, method)
    for kind in KINDS:
        numbers[f"AER of {kind}s"] = forced_error(analyses, "attention", kind=kind)
    for first, second in itertools.combinations(METHODS, 2):
        agreement = compare_methods(analyses, first, second)
        numbers[f"{first} and {second}: tau"], numbers[f"{first} and {second}: same maximum"] = agreement
    return {**numbers, "same maximum by chance": chance_agreement(analyses)}


def table(rows: dict[str, list[dict[str, float | None]]]) -> str:
    """A column for each model: the mean over its seeds and the 95 % interval of the mean."""
    heads = next(iter(rows.values()))[0]
    lines = [f"| | {' | '.join(f'{name}, {len(seeds)} seeds' for name, seeds in rows.items())} |"]
    lines.append("| --- " * (len(rows) + 1) + "|")
    for head in heads:
        cells = [mean_with_interval([seed[head] for seed in seeds]) for seeds in rows.values()]
        lines += [f"| {head} | {' | '.join(cells)} |"] if set(cells) != {"-"} else []
    return "\n".join(lines)


def mean_with_interval(values: Sequence[float | None]) -> str:
    """`mean (low to high)` by Student's t; the mean alone of one value, and `-` of none."""
    known = np.array([value for value in values if value is not None])
    if not known.size:
        return "-"
    if known.size == 1:
        return f"{known[0]:.3f}"
    half = stats.t.ppf(0.975, known.size - 1) * known.std(ddof=1) / np.sqrt(known.size)
    return f"{known.mean():.3f} ({known.mean() - half:.3f} to {known.mean() + half:.3f})"


def pictures(name: str, analysis: Analysis) -> list[Picture]:
    """One picture per method, every row scaled to its largest value."""
    made = []
    for method in METHODS:
        matrix = np.maximum(analysis.matrices[method], 0)
        scaled = matrix / np.maximum(matrix.max(axis=1, keepdims=True), 1e-30)
        pair, title = analysis.pair, f"{name}: {method}"
        made.append(Picture(pair.source_tokens, pair.tokens, scaled, title, analysis.gold))
    return made


def main(out: Path, runs: dict[str, list[s2s.Run]]) -> str:
    """Measure all runs, a list of seeds for each name, on the test split; write the picture and the table."""
    rows: dict[str, list[dict[str, float | None]]] = {}
    drawings = []
    for name, seeds in runs.items():
        for run in seeds:
            examples = read_split(run.experiment.data, "test")[0][:SENTENCES]
            if any(example.links is None for example in examples):
                raise SystemExit(f"{name} has no gold alignments in its test split; take a run of dates or COGS.")
            analyses = analyze(run, examples)
            drawings += pictures(name, analyses[0]) if name not in rows else []
            rows.setdefault(name, []).append(measured(run, examples, analyses))
    save_grid(out / "alignment.png", drawings, columns=len(METHODS))
    (out / "alignment.md").write_text(table(rows) + "\n", encoding="utf-8")
    return table(rows)


def parse_arguments() -> tuple[Path, dict[str, list[s2s.Run]]]:
    """The output folder and the runs of the command line, trained here if they do not exist."""
    parser = argparse.ArgumentParser(description="Attention compared with gold alignments, saliency and occlusion.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--task", choices=TASKS, default="dates")
    parser.add_argument("--manual-dir", default="", help="folder with the files of COGS, if there is no network")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--scores", default="additive,dot,location-aware", help=f"some of {', '.join(SCORES)}")
    parser.add_argument("--runs", default="", help="finished runs to use instead of training")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.runs:
        return arguments.out, {Path(folder).name: [s2s.load(folder)] for folder in arguments.runs.split(",")}
    scores = arguments.scores.split(",")
    for score in scores:
        one_of("--scores", score, SCORES)
    changes = (f"steps={arguments.steps}", f"data.manual-dir={arguments.manual_dir}")
    seeds = range(arguments.seeds)
    runs = {
        score: [
            trained(arguments.task, score, (*changes, f"seed={seed}"), arguments.out / f"{score}-seed{seed}")
            for seed in seeds
        ]
        for score in scores
    }
    return arguments.out, runs


if __name__ == "__main__":
    Console(soft_wrap=True, markup=False).print(main(*parse_arguments()))
