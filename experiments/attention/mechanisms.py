"""One sentence under eight kinds of attention, each trained alike: a picture and a table.

Claim: any score, normalizer, history and constraint can be trained by changing a word, and its alignment is readable.
Command: python experiments/attention/mechanisms.py dates OUT [--steps 600]   (any experiment; settings as in s2s train)
Leaves OUT/NAME for each run, OUT/mechanisms.png and OUT/mechanisms.md; a run that is done is not trained again.
Hardware and time: dates, one CPU core, --steps 400: about 80 seconds a mechanism.
"""

import sys
from pathlib import Path

from rich.console import Console

from s2s_jax import run as runs
from s2s_jax.cli.experiments import find
from s2s_jax.config import Experiment, override
from s2s_jax.evaluate.evaluation import token_links
from s2s_jax.evaluate.plots import Picture, grid
from s2s_jax.text.sources import read_split

MECHANISMS = {
    "additive": (),
    "sparsemax": ("normalizer=sparsemax",),
    "two heads": ("score=scaled-dot", "heads=2"),
    "coverage": ("history=coverage",),
    "location-aware": ("score=location-aware", "history=previous-and-coverage", "kernel=7"),
    "local-p": ("constraint=local-p", "window=4"),
    "gaussian-mixture": ("score=gaussian-mixture-v2", "mixtures=3"),
    "mocha": ("constraint=mocha", "normalizer=sigmoid", "chunk=4"),
}


def trained(base: Experiment, changes: tuple[str, ...], folder: Path) -> runs.Run:
    """The run of a mechanism, trained if it is not yet."""
    settings = [f"model.attention.{change}" for change in changes]
    runs.train(override(base, *settings), folder, Console(stderr=True, soft_wrap=True))
    return runs.load(folder)


def main(name: str, out: Path, settings: list[str]) -> None:
    """Train, measure on the test split, and draw the first test pair under each mechanism."""
    base = override(find(name, None)[0], *settings)
    pictures = []
    lines = ["| mechanism | exact match | alignment error rate | parameters |", "| --- | --- | --- | --- |"]
    for mechanism, changes in MECHANISMS.items():
        run = trained(base, changes, out / mechanism.replace(" ", "-"))
        numbers = run.evaluate("test")
        examples, _ = read_split(run.experiment.data, "test")
        (pair,) = run.score(examples[:1])
        gold = None if pair.example.links is None else token_links(pair.example, **run.tokenizers)
        pictures.append(Picture(pair.source_tokens, pair.tokens, pair.alignment, mechanism, gold))
        error = "" if numbers.get("aer") is None else f"{numbers['aer']:.3f}"
        lines.append(f"| {mechanism} | {numbers['exact_match']:.3f} | {error} | {runs.count(run.params):,} |")
    grid(out / "mechanisms.png", pictures, columns=4)
    (out / "mechanisms.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    Console(soft_wrap=True, markup=False).print("\n".join(lines))


if __name__ == "__main__":
    experiment, folder, *rest = sys.argv[1:]
    named = [f"{name.removeprefix('--')}={value}" for name, value in zip(rest[::2], rest[1::2], strict=True)]
    main(experiment, Path(folder), named)
