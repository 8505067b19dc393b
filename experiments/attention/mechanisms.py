"""One sentence under eight attention mechanisms, trained in the same way: a picture and a table.

Claim: scores, normalizers, histories and constraints are exchanged by one setting, and their alignments are readable.
Command: python experiments/attention/mechanisms.py dates OUT [--steps 600]   (any experiment; settings as in s2s train)
Writes OUT/NAME for each run, OUT/mechanisms.png and OUT/mechanisms.md; finished runs are not trained again.
Hardware and time: dates, one CPU core, --steps 400: about 80 seconds per mechanism.
"""

import sys
from pathlib import Path

from rich.console import Console

import s2s_jax as s2s
from s2s_jax.cli.experiments import find
from s2s_jax.evaluate.evaluation import token_links
from s2s_jax.evaluate.plots import Picture, save_grid
from s2s_jax.run import count_parameters
from s2s_jax.text.sources import read_split

MECHANISMS = {
    "additive": (),
    "sparsemax": ("normalizer=sparsemax",),
    "two heads": ("score=scaled-dot", "heads=2"),
    "coverage": ("history=coverage",),
    "location-aware": ("score=location-aware", "history=previous-and-coverage", "kernel=7"),
    "local-p": ("constraint=local-p", "window=4"),
    "gaussian-mixture": ("score=gaussian-mixture-v2", "mixtures=3"),
    "mocha": ("constraint=mocha", "normalizer=sigmoid", "mocha_chunk=4"),
}


def trained(base: s2s.Experiment, changes: tuple[str, ...], folder: Path) -> s2s.Run:
    """The run of a mechanism, trained unless it is finished."""
    settings = [f"model.attention.{change}" for change in changes]
    return s2s.train(s2s.override(base, *settings), folder, Console(stderr=True, soft_wrap=True))


def main(name: str, out: Path, settings: list[str]) -> None:
    """Train, measure on the test split, and draw the first test pair under each mechanism."""
    base = s2s.override(find(name, None)[0], *settings)
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
        lines.append(f"| {mechanism} | {numbers['exact_match']:.3f} | {error} | {count_parameters(run.params):,} |")
    save_grid(out / "mechanisms.png", pictures, columns=4)
    (out / "mechanisms.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    Console(soft_wrap=True, markup=False).print("\n".join(lines))


if __name__ == "__main__":
    experiment, folder, *rest = sys.argv[1:]
    named = [f"{name.removeprefix('--')}={value}" for name, value in zip(rest[::2], rest[1::2], strict=True)]
    main(experiment, Path(folder), named)
