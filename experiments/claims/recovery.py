"""Errors of trained models by position, and what follows a wrong token.

Claim: a decoder that was only fed true tokens does not know its own mistakes, so that after one wrong token more follow
than in a model that was fed its own predictions (Bengio et al. 2015, arXiv:1506.03099; Ranzato et al. 2016,
arXiv:1511.06732).
Command: python experiments/claims/recovery.py OUT SWEEP  (the folder of a finished sweep of forcing.py, whose target
tokens are words)
Writes OUT/recovery.json, OUT/recovery.md and OUT/recovery.png: errors by position, and the share of outputs whose rest
is right after their middle token was right, and after it was replaced by another one.
Hardware and time: 2 CPU cores, a few seconds for each trial.
Expect: with teacher forcing the share falls more after a wrong token than with any other schedule.
Seen: not run to its end yet.
"""

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from rich.console import Console

import s2s_jax as s2s
from s2s_jax.text.example import Example
from s2s_jax.text.sources import read_split

SENTENCES = 500  # test sentences that are read
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")  # Okabe & Ito


class Errors(NamedTuple):
    """What one trial gets wrong."""

    label: str
    seed: int
    by_position: Float[np.ndarray, " T"]  # the share of outputs with another token there than the reference
    after_right: float  # the share whose rest is right when the output was given up to its middle
    after_wrong: float  # the same with a wrong middle token

    @property
    def recovered(self) -> float:
        """How much of what is right after a right token is right after a wrong one too."""
        return self.after_wrong / self.after_right if self.after_right else float("nan")


def errors_of(run: s2s.Run, examples: Sequence[Example], *, label: str, seed: int) -> Errors:
    """The errors of a run on examples whose targets are words between spaces."""
    targets = [example.target.split(" ") for example in examples]
    outputs = [each.text.split(" ") for each in run.translate([example.source for example in examples], beam=1)]
    long = [(example.source, target) for example, target in zip(examples, targets, strict=True) if len(target) > 2]
    right, wrong = (rest_is_right(run, long, replaced=replaced) for replaced in (False, True))
    return Errors(label, seed, errors_by_position(outputs, targets), right, wrong)


def errors_by_position(outputs: Sequence[list[str]], targets: Sequence[list[str]]) -> Float[np.ndarray, " T"]:
    """At each position, the share of the targets that reach it whose output differs there, or has ended."""
    pairs = list(zip(outputs, targets, strict=True))
    longest = max(map(len, targets))
    return np.array(
        [
            np.mean([output[place : place + 1] != [target[place]] for output, target in pairs if place < len(target)])
            for place in range(longest)
        ]
    )


def rest_is_right(run: s2s.Run, pairs: Sequence[tuple[str, list[str]]], *, replaced: bool) -> float:
    """The share of sources whose output is right behind a given beginning, which ends in the middle of the target.

    Args:
        replaced: whether the last token of the beginning is another one than that of the target.
    """
    words = sorted({word for _, target in pairs for word in target})
    random = np.random.default_rng(0)  # the same tokens for every run
    lines = []
    for source, target in pairs:
        middle = len(target) // 2
        other = random.choice([word for word in words if word != target[middle]])
        lines.append(s2s.ConstrainedLine(source, " ".join([*target[:middle], other if replaced else target[middle]])))
    rests = zip(run.translate(lines, beam=1), pairs, strict=True)
    return float(np.mean([out.text.split(" ")[len(of) // 2 + 1 :] == of[len(of) // 2 + 1 :] for out, (_, of) in rests]))


def trials_of(sweep: Path) -> list[tuple[str, int, Path]]:
    """The label, the seed and the run of each finished trial of a sweep."""
    found = []
    for trial in sorted((sweep / "trials").iterdir()):
        if (trial / "scores.json").exists():
            record = json.loads((trial / "trial.json").read_text(encoding="utf-8"))
            found.append((", ".join(record["point"].values()), record["seed"], trial / "run"))
    return found


def table(errors: Iterable[Errors]) -> str:
    """The means over seeds as Markdown."""
    lines = ["| fed | seeds | rest right after a right token | after a wrong one | recovered |", "| --- " * 5 + "|"]
    for label, of_label in grouped(errors).items():
        numbers = np.array([[one.after_right, one.after_wrong, one.recovered] for one in of_label]).mean(0)
        lines.append(f"| {label} | {len(of_label)} | {' | '.join(f'{number:.3f}' for number in numbers)} |")
    return "\n".join(lines)


def grouped(errors: Iterable[Errors]) -> dict[str, list[Errors]]:
    """The errors by label, in their order."""
    groups: dict[str, list[Errors]] = {}
    for one in errors:
        groups.setdefault(one.label, []).append(one)
    return groups


def draw(path: Path, errors: Iterable[Errors]) -> None:
    """Errors by position, one line per label: the mean over seeds, and a band from the lowest to the highest seed."""
    figure = Figure(figsize=(7.2, 4.0), dpi=150, layout="constrained")
    axes = figure.subplots()
    for color, (label, of_label) in zip(COLORS * 9, grouped(errors).items(), strict=False):
        lines = np.array([one.by_position for one in of_label])
        places = np.arange(1, lines.shape[1] + 1)
        axes.fill_between(places, lines.min(0), lines.max(0), color=color, alpha=0.15, linewidth=0)
        axes.plot(places, lines.mean(0), color=color, linewidth=1.5, label=label)
    axes.set_xlabel("position in the output")
    axes.set_ylabel("share of outputs that are wrong there")
    axes.set_title("Errors pile up along the output when the decoder reads its own words", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(path)


def main(out: Path, sweep: Path) -> list[Errors]:
    """Measure all finished trials of a sweep; write the numbers, the table and the picture."""
    out.mkdir(parents=True, exist_ok=True)
    measured = []
    for label, seed, folder in trials_of(sweep):
        run = s2s.load(folder)
        examples = read_split(run.experiment.data, "test")[0][:SENTENCES]
        measured.append(errors_of(run, examples, label=label, seed=seed))
    if not measured:
        raise SystemExit(f"{sweep} has no finished trial; run the sweep first.")
    numbers = [{**one._asdict(), "by_position": one.by_position.tolist()} for one in measured]
    (out / "recovery.json").write_text(json.dumps(numbers), encoding="utf-8")
    (out / "recovery.md").write_text(table(measured) + "\n", encoding="utf-8")
    draw(out / "recovery.png", measured)
    return measured


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Errors by position, and what follows a wrong token.")
    parser.add_argument("out", type=Path)
    parser.add_argument("sweep", type=Path)
    arguments = parser.parse_args()
    Console(soft_wrap=True, markup=False).print(table(main(arguments.out, arguments.sweep)))
