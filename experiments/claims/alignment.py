"""Attention as an explanation: compared with gold alignments, saliency and occlusion.

Claim: on dates, where the characters behind each digit are known, attention, saliency (gradients) and occlusion mostly
have their maximum at the same character, and at the gold one about equally often; their rankings of the remaining
characters agree little. So attention shows where the answer comes from, and not how much each other character
contributes. On COGS, whose logical forms count words (`cake ( x _ 4 )`), attention is on the word that is named, and
not on the one that is counted: numbers reach the decoder through the recurrent state.
Command: python experiments/claims/alignment.py OUT [--steps 500] [--scores additive,dot,location-aware]
on COGS: python experiments/claims/alignment.py OUT --task cogs --steps 5000 --scores general --manual-dir DIR
or, of finished runs with gold alignments (`s2s train cogs`): python experiments/claims/alignment.py OUT --runs RUN,RUN
Writes OUT/alignment.png (rows scaled to their largest value), OUT/alignment.md and one run per score; finished runs are
not trained again.
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
Matrix = Float[np.ndarray, "T S"]


class Analysis(NamedTuple):
    """A test pair with the matrix of each method, under forced decoding of the true target."""

    pair: ScoredPair
    gold: set[Link]
    matrices: dict[str, Matrix]  # one per method


def trained(task: str, score: str, changes: Sequence[str], folder: Path) -> s2s.Run:
    """A run of the task's experiment with a score."""
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


def forced_error(analyses: Sequence[Analysis], method: str, *, numbers: bool | None = None) -> float | None:
    """The alignment error rate of a method under forced decoding, of all tokens, numbers only, or words only."""
    gold = [
        {link for link in each.gold if numbers is None or each.pair.tokens[link[1]].isdecimal() == numbers}
        for each in analyses
    ]
    return error_of_alignments([each.matrices[method] for each in analyses], list(map(guess_sure, gold)))


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


def table_row(name: str, run: s2s.Run, examples: Sequence[Example], analyses: Sequence[Analysis]) -> str:
    """A line of the table."""
    greedy, beam = (error_in_search(run, examples, width) for width in (1, BEAM))
    errors = [forced_error(analyses, method) for method in METHODS]
    parts = [forced_error(analyses, "attention", numbers=numbers) for numbers in (True, False)]
    pairs = [compare_methods(analyses, *methods) for methods in itertools.combinations(METHODS, 2)]
    cells = [greedy[0], beam[0], errors[0], *parts, greedy[1], beam[1], *errors[1:]]
    numbers = ["-" if cell is None else f"{cell:.3f}" for cell in cells]
    agreements = [*(f"{pair.tau:.2f}, {pair.top:.2f}" for pair in pairs), f"{chance_agreement(analyses):.2f}"]
    return f"| {' | '.join([name, *numbers, *agreements])} |"


HEAD = (
    "score",
    *("exact match, greedy", f"exact match, beam {BEAM}"),
    *(
        "AER, forced decoding",
        "AER of its numbers",
        "AER of its words",
        "AER, greedy",
        f"AER, beam {BEAM}",
        "AER of saliency",
        "AER of occlusion",
    ),
    *(f"{first} and {second}: tau, same maximum" for first, second in itertools.combinations(METHODS, 2)),
    "same maximum by chance",
)


def pictures(name: str, analysis: Analysis) -> list[Picture]:
    """One picture per method, every row scaled to its largest value."""
    made = []
    for method in METHODS:
        matrix = np.maximum(analysis.matrices[method], 0)
        scaled = matrix / np.maximum(matrix.max(axis=1, keepdims=True), 1e-30)
        pair, title = analysis.pair, f"{name}: {method}"
        made.append(Picture(pair.source_tokens, pair.tokens, scaled, title, analysis.gold))
    return made


def main(out: Path, runs: dict[str, s2s.Run]) -> str:
    """Measure all runs on the test split; write the picture and the table."""
    lines, drawings = ["| " + " | ".join(HEAD) + " |", "| --- " * len(HEAD) + "|"], []
    for name, run in runs.items():
        examples = read_split(run.experiment.data, "test")[0][:SENTENCES]
        if any(example.links is None for example in examples):
            raise SystemExit(f"{name} has no gold alignments in its test split; take a run of dates or COGS.")
        analyses = analyze(run, examples)
        lines.append(table_row(name, run, examples, analyses))
        drawings += pictures(name, analyses[0])
    save_grid(out / "alignment.png", drawings, columns=len(METHODS))
    (out / "alignment.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return "\n".join(lines)


def parse_arguments() -> tuple[Path, dict[str, s2s.Run]]:
    """The output folder and the runs of the command line, trained here if they do not exist."""
    parser = argparse.ArgumentParser(description="Attention compared with gold alignments, saliency and occlusion.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--task", choices=TASKS, default="dates")
    parser.add_argument("--manual-dir", default="", help="folder with the files of COGS, if there is no network")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--scores", default="additive,dot,location-aware", help=f"some of {', '.join(SCORES)}")
    parser.add_argument("--runs", default="", help="finished runs to use instead of training")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.runs:
        return arguments.out, {Path(folder).name: s2s.load(folder) for folder in arguments.runs.split(",")}
    scores = arguments.scores.split(",")
    for score in scores:
        one_of("--scores", score, SCORES)
    changes = (f"steps={arguments.steps}", f"data.manual-dir={arguments.manual_dir}")
    return arguments.out, {score: trained(arguments.task, score, changes, arguments.out / score) for score in scores}


if __name__ == "__main__":
    Console(soft_wrap=True, markup=False).print(main(*parse_arguments()))
