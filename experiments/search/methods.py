"""Search methods on one trained run: quality and speed.

Claim: a small beam is better than greedy search, a large one adds little; samples are worse, less so where many of them
agree on one (minimum Bayes risk; Eikema & Aziz 2020, arXiv:2005.10283).
Command: python experiments/search/methods.py RUN [--split test] [--lines 2000] [--only sample]
Prints a table: quality of the first hypothesis, oracle exact match, log-probability, lines per second.
Hardware and time: one CPU core, 2,000 words of CMUdict: about 12 minutes, half of them for samples.
Seen: 2026-11-22, docs/results.md. Beam 5 is 2.5 BLEU above greedy search in Japanese to English, 0.35 WER below it in
CMUdict; beam 10 is no better; 16 samples combined by minimum Bayes risk with chrF are 34 WER better than one sample,
and 4 worse than beam 5.
"""

import argparse
import itertools
import time
from collections.abc import Sequence

from rich.console import Console

import s2s_jax as s2s
from s2s_jax.decode.lexical_constraints import InputLine
from s2s_jax.decode.translate import Hypothesis, Translation
from s2s_jax.evaluate.evaluation import group_by_source
from s2s_jax.evaluate.metrics import Predictions, measure
from s2s_jax.text.sources import read_split

METRICS = {"word": ("bleu", "chrf"), "phone": ("wer", "per")}
SAMPLES = {"method": "sample", "samples": 16, "beam": 1}
METHODS = {
    "greedy": {"beam": 1},
    "beam 2": {"beam": 2},
    "beam 5": {"beam": 5},
    "beam 10": {"beam": 10},
    "beam 5, no length penalty": {"beam": 5, "length_penalty": 0.0},
    "beam 5, length average": {"beam": 5, "length_normalization": "average", "length_penalty": 1.0},
    "beam 5, coverage penalty 0.2": {"beam": 5, "coverage_penalty": 0.2},
    "beam 5, bounded stopping": {"beam": 5, "stopping": "bounded"},
    "beam 6 in 3 groups": {"beam": 6, "groups": 3, "group_penalty": 0.5},
    "beam 5, sibling penalty 0.5": {"beam": 5, "sibling_penalty": 0.5},
    "1 sample": {"method": "sample", "beam": 1},
    "1 sample of the top 0.9": {"method": "sample", "beam": 1, "sampling": {"top_p": 0.9}},
    "best of 16 samples": SAMPLES,
    "16 samples, agreed by chrF": SAMPLES | {"mbr_metric": "chrf"},
    "16 samples, agreed exactly": SAMPLES | {"mbr_metric": "exact"},
    "5 without replacement": {"method": "stochastic", "beam": 5},
    "beam 10, agreed by chrF": {"beam": 10, "mbr_metric": "chrf"},
}


def chosen(name: str, translation: Translation) -> Hypothesis:
    """The hypothesis that a method returns; samples are in the order in which they were drawn."""
    if name.startswith("best of") and translation.hypotheses:
        return max(translation.hypotheses, key=lambda each: each.score)
    return translation.best


def oracle(translations: Sequence[Translation], references: Sequence[Sequence[str]]) -> float:
    """The fraction of lines of which one hypothesis equals a reference."""
    exact = sum(
        any(hypothesis.text in lines for hypothesis in translation.hypotheses)
        for translation, lines in zip(translations, references, strict=True)
    )
    return exact / len(translations)


def row(run: s2s.Run, name: str, sources: Sequence[InputLine], references: Sequence[Sequence[str]]) -> list[str]:
    """The row of a method: its metrics, its oracle, its log-probability and its speed."""
    settings = METHODS[name]
    run.translate(sources, **settings)  # compiles
    started = time.monotonic()
    translations = run.translate(sources, **settings)
    seconds = time.monotonic() - started
    hypotheses = [chosen(name, translation) for translation in translations]
    evaluation = run.experiment.evaluation
    numbers = measure(Predictions([one.text for one in hypotheses], references, evaluation.unit, evaluation.tokenizer))
    nats = sum(sum(one.log_probs) for one in hypotheses) / len(hypotheses)
    measured = [f"{numbers[metric]:.4f}" for metric in ("exact_match", *METRICS[run.experiment.evaluation.unit])]
    return [
        name,
        *measured,
        f"{oracle(translations, references):.4f}",
        f"{nats:.2f}",
        f"{len(translations) / seconds:,.0f}",
    ]


def main() -> None:
    """Print the table, each row as soon as it is computed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--split", default="test")
    parser.add_argument("--lines", type=int, help="maximum number of lines, from the start of the split")
    parser.add_argument("--only", default="", help="rows whose name contains this")
    arguments = parser.parse_args()
    run = s2s.load(arguments.run)
    examples, _ = read_split(run.experiment.data, arguments.split)
    everything = group_by_source(examples)
    sources, references = everything.inputs[: arguments.lines], everything.references[: arguments.lines]
    metrics = METRICS[run.experiment.evaluation.unit]
    heads = ["search", "exact match", *metrics, "oracle exact match", "nats per line", "lines/s"]
    console = Console(soft_wrap=True, markup=False, highlight=False)
    console.print(f"{run.step} steps, {len(sources)} lines of {arguments.split}")
    rows = (row(run, name, sources, references) for name in METHODS if arguments.only in name)
    for cells in itertools.chain((heads, ["---"] * len(heads)), rows):
        console.print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
