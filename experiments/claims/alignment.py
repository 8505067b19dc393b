"""Does attention show what an answer hangs on? Against gold alignments, and against what removing a token changes.

Claim: on dates, where it is known which characters say each digit, attention, slopes (saliency) and removal (occlusion)
mostly point at one and the same character, and at the gold one about equally often; how they rank the other characters
agrees but little. So attention tells where the answer comes from, and not how much each other character adds. On COGS,
whose logical forms count words (`cake ( x _ 4 )`), attention looks at the word that it names, and not at the one that
it counts: a number comes to the decoder by another way.
Command: python experiments/claims/alignment.py OUT [--steps 500] [--scores additive,dot,location-aware]
on COGS: python experiments/claims/alignment.py OUT --task cogs --steps 5000 --scores general --manual-dir DIR
or, of finished runs with gold alignments (`s2s train cogs`): python experiments/claims/alignment.py OUT --runs RUN,RUN
Leaves OUT/alignment.png (rows scaled to their largest value), OUT/alignment.md and a run a score; a run that is done is
not trained again.
Hardware and time: 2 CPU cores; additive and dot with 400 steps, under 7 min 30 s among four other programs.
Expect: the same largest place as occlusion in more than half the rows, tau with it below 0.5.
Seen: 2026-11-22, `--steps 400 --scores additive,dot`, one seed: right 0.99 and 1.00; alignment error rate 0.179 and
0.135 (the same in greedy and beam 5), of saliency 0.175 and 0.132, of occlusion by zeros 0.231 and 0.169. Attention and
occlusion have one largest place in 0.82 and 0.81 of the rows (by chance 0.07), with tau 0.19 and 0.14; attention and
saliency in 0.95 and 0.97, with tau 0.40 and 0.44. 2026-11-23, COGS, the run of `s2s train cogs`, one seed: 0.922 of 128
right; alignment error rate of the words 0.046, of the numbers 0.956; attention and
saliency have one largest place in 0.84 of the rows, attention and occlusion in 0.38 (by chance 0.11).
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

from s2s_jax import run as runs
from s2s_jax.cli.experiments import find
from s2s_jax.config import override
from s2s_jax.decode.batching import pad_rows
from s2s_jax.decode.forced_decoding import ScoredPair
from s2s_jax.evaluate.alignment import Link
from s2s_jax.evaluate.attention_agreement import measure_agreement
from s2s_jax.evaluate.evaluation import error_of_alignments, token_links
from s2s_jax.evaluate.gradients import occlusion, saliency
from s2s_jax.evaluate.plots import Picture, grid
from s2s_jax.model.interface import Params
from s2s_jax.run.prepare import encode
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
# An experiment and, where it has not got it, an encoder as wide as the decoder, so that dot can be among the scores.
TASKS = {"dates": ("model.encoder.size=48", "model.decoder.size=96"), "cogs": ()}
LOOKED_AT = 128  # test sentences that are taken apart
WIDTH = 5  # of the beam
SIGHTS = ("attention", "saliency", "occlusion")
Matrix = Float[np.ndarray, "T S"]


class Seen(NamedTuple):
    """A test pair and what each way of looking says of it, the true target given."""

    pair: ScoredPair
    gold: set[Link]
    sights: dict[str, Matrix]  # a matrix for each of SIGHTS


def trained(task: str, score: str, changes: Sequence[str], folder: Path) -> runs.Run:
    """The task's experiment with this score."""
    said = (*TASKS[task], *(f"model.attention.{change}" for change in SCORES[score]))
    experiment = override(find(task, None)[0], *said, "validation.sentences=100", *changes)
    runs.train(experiment, folder, Console(stderr=True, soft_wrap=True))
    return runs.load(folder)


def looked(run: runs.Run, examples: Sequence[Example]) -> list[Seen]:
    """The pairs under all three."""
    encoded = encode(examples, run.pair)
    batch = Batch(pad_rows(encoded.sources), pad_rows(encoded.targets))

    def slopes_and_falls(params: Params, batch: Batch):
        return saliency(run.model, params, batch), occlusion(run.model, params, batch, replacement="zero")

    found = jax.device_get(jax.jit(slopes_and_falls)(run.params, jax.tree.map(jnp.asarray, batch)))
    seen = []
    for row, pair in enumerate(run.score(examples)):
        real = np.s_[row, : len(pair.tokens), : len(pair.source_tokens)]
        matrices = pair.alignment, *(matrix[real] for matrix in found)
        gold = token_links(pair.example, **run.tokenizers)
        seen.append(Seen(pair, gold, dict(zip(SIGHTS, matrices, strict=True))))
    return seen


def error_in_search(run: runs.Run, examples: Sequence[Example], beam: int) -> tuple[float, float | None]:
    """The share of answers that are right, and the alignment error of those: of the others nobody knows the gold."""
    answers = run.translate([example.source for example in examples], beam=beam)
    right = [
        (answer, example) for answer, example in zip(answers, examples, strict=True) if answer.text == example.target
    ]
    gold = [token_links(example, **run.tokenizers) for _, example in right]
    error = error_of_alignments([answer.hypotheses[0].alignment for answer, _ in right], gold)
    return len(right) / len(examples), error


class Agreed(NamedTuple):
    """How two ways of looking agree over all target tokens with a gold link."""

    tau: float  # the mean of Kendall's
    top: float  # share with the largest value in one place


def error_with_target(seen: Sequence[Seen], sight: str, *, numbers: bool | None = None) -> float | None:
    """The alignment error of a way of looking, the true target given; only of its numbers, or only of its words."""
    judged = [
        {link for link in each.gold if numbers is None or each.pair.tokens[link[1]].isdecimal() == numbers}
        for each in seen
    ]
    return error_of_alignments([each.sights[sight] for each in seen], judged)


def agreed(seen: Sequence[Seen], one: str, other: str) -> Agreed:
    """The two compared token by token."""
    taus, tops = [], []
    for each in seen:
        linked = sorted({target for _, target in each.gold})
        found = measure_agreement(each.sights[one], each.sights[other])
        taus.append(found.tau[linked])
        tops.append(found.top[linked])
    return Agreed(float(np.nanmean(np.concatenate(taus))), float(np.concatenate(tops).mean()))


def by_chance(seen: Sequence[Seen]) -> float:
    """How often two that know nothing of each other have their largest value in one place."""
    return float(np.mean([1 / len(each.pair.source_tokens) for each in seen for _ in {link[1] for link in each.gold}]))


def row(name: str, run: runs.Run, examples: Sequence[Example], seen: Sequence[Seen]) -> str:
    """A line of the table."""
    greedy, beam = (error_in_search(run, examples, width) for width in (1, WIDTH))
    errors = [error_with_target(seen, sight) for sight in SIGHTS]
    parts = [error_with_target(seen, "attention", numbers=numbers) for numbers in (True, False)]
    pairs = [agreed(seen, *two) for two in itertools.combinations(SIGHTS, 2)]
    cells = [greedy[0], beam[0], errors[0], *parts, greedy[1], beam[1], *errors[1:]]
    numbers = ["-" if cell is None else f"{cell:.3f}" for cell in cells]
    how_alike = [*(f"{pair.tau:.2f}, {pair.top:.2f}" for pair in pairs), f"{by_chance(seen):.2f}"]
    return f"| {' | '.join([name, *numbers, *how_alike])} |"


HEAD = (
    "score",
    *("right, greedy", f"right, beam {WIDTH}"),
    *(
        "AER, true target given",
        "AER of its numbers",
        "AER of its words",
        "AER, greedy",
        f"AER, beam {WIDTH}",
        "AER of saliency",
        "AER of occlusion",
    ),
    *(f"{one} and {other}: tau, same top" for one, other in itertools.combinations(SIGHTS, 2)),
    "same top by chance",
)


def pictures(name: str, seen: Seen) -> list[Picture]:
    """One pair under each, every row scaled to its largest value."""
    found = []
    for sight in SIGHTS:
        matrix = np.maximum(seen.sights[sight], 0)
        scaled = matrix / np.maximum(matrix.max(axis=1, keepdims=True), 1e-30)
        found.append(Picture(seen.pair.source_tokens, seen.pair.tokens, scaled, f"{name}: {sight}", seen.gold))
    return found


def main(out: Path, given: dict[str, runs.Run]) -> str:
    """Measure all runs on the test split, and leave picture and table."""
    lines, drawn = ["| " + " | ".join(HEAD) + " |", "| --- " * len(HEAD) + "|"], []
    for name, run in given.items():
        examples = read_split(run.experiment.data, "test")[0][:LOOKED_AT]
        if any(example.links is None for example in examples):
            raise SystemExit(f"{name} has no gold alignments in its test split; take a run of dates or COGS.")
        seen = looked(run, examples)
        lines.append(row(name, run, examples, seen))
        drawn += pictures(name, seen[0])
    grid(out / "alignment.png", drawn, columns=len(SIGHTS))
    (out / "alignment.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return "\n".join(lines)


def asked() -> tuple[Path, dict[str, runs.Run]]:
    """What the command line says: runs, trained here or before."""
    parser = argparse.ArgumentParser(description="Attention against gold alignments, slopes and removal.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--task", choices=TASKS, default="dates")
    parser.add_argument("--manual-dir", default="", help="folder with the files of COGS, where there is no network")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--scores", default="additive,dot,location-aware", help=f"some of {', '.join(SCORES)}")
    parser.add_argument("--runs", default="", help="finished runs, instead of training any")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    if given.runs:
        return given.out, {Path(folder).name: runs.load(Path(folder)) for folder in given.runs.split(",")}
    scores = given.scores.split(",")
    for score in scores:
        one_of("--scores", score, SCORES)
    changes = (f"steps={given.steps}", f"data.manual-dir={given.manual_dir}")
    return given.out, {score: trained(given.task, score, changes, given.out / score) for score in scores}


if __name__ == "__main__":
    Console(soft_wrap=True, markup=False).print(main(*asked()))
