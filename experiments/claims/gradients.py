"""Does the signal from a far token fade on its way through the recurrence, and does attention give it a shorter way?

Claim: letters are written in reverse, so target token t must copy a token that 2t + 2 recurrent steps lie before it.
Before training, the slope of its log-odds by that token's embedding falls with this distance through a thought vector,
by the factor and speed that the cell gives it; with attention beside the same recurrence it soon falls no further. So a
thought vector must learn to carry before it can learn to answer, and it answers later. What is NOT seen: once a short
sentence is learned, the slope no longer falls without attention either. The encoder reads from one end only, or each
token would be near one of the two; log-odds, since the slope of a loss goes to 0 wherever the answer is sure.
Command: python experiments/claims/gradients.py OUT [--small] [--steps 600] [--length 12] [--seeds 3]
Leaves OUT/gradients.png, OUT/gradients.md and OUT/gradients.json. `--small`: 300 steps, 10 letters, 2 seeds.
Hardware and time: 2 CPU cores; small 2 min 10 s of CPU time (4 min 14 s among four other programs).
Expect: before training, far / near below 0.01 for the GRU without attention and above 0.4 with it.
Seen: 2026-11-22, small, without attention and with it: before training RNN 0.24 and 0.47, GRU 0.0018 and 0.59, LSTM
0.14 and 0.78; after 300 steps RNN 1.6 and 0.77, GRU 0.72 and 1.2, LSTM 1.2 and 0.89, while 0.93, 0.51 and 0.65 of the
tokens are right without attention, and 0.99 or more with it. The RNN's matrix is orthogonal at first, which is why its
slope falls least.
"""

import argparse
import dataclasses
import functools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console

from s2s_jax.evaluate.gradients import gradient_norms
from s2s_jax.model.attention.config import AttentionConfig, ScoreName
from s2s_jax.model.decoder.decoder import DecoderConfig
from s2s_jax.model.encoder import EncoderConfig
from s2s_jax.model.interface import Model, Params
from s2s_jax.model.seq2seq import ModelConfig, build
from s2s_jax.shapes import EOS, SPECIAL, Batch
from s2s_jax.text.synthetic_tasks import make_examples
from s2s_jax.train.objectives import LossConfig, make_loss, plain_sums
from s2s_jax.train.optimizer import OptimizerConfig, make_optimizer
from s2s_jax.train.scheduled_sampling import ScheduledSamplingConfig
from s2s_jax.train.step import initial_state, make_step
from s2s_jax.validation import at_least

CELLS = ("rnn", "gru", "lstm")
SCORES: dict[str, ScoreName] = {"thought vector alone": "none", "with attention": "general"}
# Okabe & Ito's vermilion and blue, which every kind of color vision tells apart; the dashes say it again.
STYLES = {"thought vector alone": ("#d55e00", "--", "o"), "with attention": ("#0072b2", "-", "s")}
POINTS = ("before training", "half way", "trained")
VOCABULARY = len(SPECIAL) + 26
LOOKED_AT = 64  # held-out sentences over which slopes are averaged


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """How much is trained and measured."""

    steps: int = 600
    length: int = 12  # letters of every sentence
    seeds: int = 3
    sentences: int = 64  # in a batch
    size: int = 64  # of every state
    cells: tuple[str, ...] = CELLS

    def __post_init__(self):
        at_least("steps", self.steps, 2)
        for name in ("length", "seeds"):
            at_least(name, getattr(self, name), 1)


class Curve(NamedTuple):
    """One model at one point of its training, all seeds."""

    cell: str
    looks: str  # a key of SCORES
    point: str
    norms: Float[np.ndarray, "seeds T"]  # the geometric mean over sentences, nearest target token first
    accuracy: Float[np.ndarray, " seeds"]  # share of held-out tokens said right, the true ones before it given

    @property
    def kept(self) -> float:
        """How much of the nearest token's slope the farthest one has; the geometric mean over seeds."""
        return float(np.exp(np.log(self.norms[:, -1] / self.norms[:, 0]).mean()))


def letters(plan: Plan, *, split: str, count: int) -> Batch:
    """Sentences of one length as ids, and their letters in reverse."""
    examples = make_examples(
        "reverse", split=split, count=count, minimum_length=plan.length, maximum_length=plan.length
    )

    def ids(text: str) -> list[int]:
        return [len(SPECIAL) + ord(letter) - ord("a") for letter in text.split()] + [EOS]

    return Batch(*(np.array([ids(getattr(one, side)) for one in examples], np.int32) for side in ("source", "target")))


def configured(plan: Plan, cell: str, score: ScoreName) -> ModelConfig:
    """The thought-vector model, and beside it attention or none."""
    return ModelConfig(
        embedding=plan.size // 2,
        encoder=EncoderConfig(cell=cell, size=plan.size, bidirectional=False),
        attention=AttentionConfig(score=score),
        decoder=DecoderConfig(cell=cell, size=plan.size, input_feeding=False),
    )


def training(plan: Plan, data: Batch, seed: int) -> Iterator[Batch]:
    """Batches by chance."""
    chance = np.random.default_rng(seed)
    while True:
        rows = chance.integers(0, len(data.source), plan.sentences)
        yield Batch(data.source[rows], data.target[rows])


def measured(model: Model, params: Params, held_out: Batch) -> tuple[Float[jax.Array, " T"], Float[jax.Array, ""]]:
    """The slope of each letter's log-odds by the letter that it copies, and the share of tokens said right."""
    norms = gradient_norms(model, params, held_out, of="log-odds")
    letters = held_out.source.shape[1] - 1
    copied = jnp.stack([norms[:, target, letters - 1 - target] for target in range(letters)], axis=-1)
    sums = plain_sums(model, params, held_out)
    return jnp.exp(jnp.log(jnp.maximum(copied, 1e-30)).mean(0)), sums.correct / sums.tokens


def curves(plan: Plan, cell: str, looks: str) -> list[Curve]:
    """One model, trained once a seed, and looked at three times on the way."""
    model = build(configured(plan, cell, SCORES[looks]), source_vocabulary=VOCABULARY, target_vocabulary=VOCABULARY)
    optimizer = make_optimizer(
        OptimizerConfig(learning_rate=3e-3, warmup_steps=min(50, plan.steps), clip_norm=1.0), plan.steps
    )
    step = make_step(make_loss(model, LossConfig(), ScheduledSamplingConfig()), optimizer)
    look = jax.jit(functools.partial(measured, model))
    data, held_out = letters(plan, split="train", count=20_000), letters(plan, split="test", count=LOOKED_AT)
    found: dict[str, list[Any]] = {point: [] for point in POINTS}
    for seed in range(plan.seeds):
        state = initial_state(model.init(jax.random.key(seed)), optimizer, seed=seed, ema=0.0)
        batches = training(plan, data, seed)
        for taken in range(plan.steps + 1):
            if taken in (0, plan.steps // 2, plan.steps):
                point = POINTS[(0, plan.steps // 2, plan.steps).index(taken)]
                found[point].append(jax.device_get(look(state.params, held_out)))
            if taken < plan.steps:
                state, _ = step(state, next(batches))
    return [
        Curve(cell, looks, point, *(np.array(leaf) for leaf in zip(*seeds, strict=True)))
        for point, seeds in found.items()
    ]


def draw(path: Path, found: Iterable[Curve]) -> None:
    """A panel for each cell and point: slope over distance, the two models, bands from the least to the most seed."""
    found = list(found)
    cells = list(dict.fromkeys(curve.cell for curve in found))
    figure = Figure(figsize=(3.0 * len(cells) + 0.8, 7.2), dpi=150, layout="constrained")
    grid = figure.subplots(len(POINTS), len(cells), sharex=True, sharey=True, squeeze=False)
    for curve in found:
        draw_curve(grid[POINTS.index(curve.point), cells.index(curve.cell)], curve)
    for row, point in enumerate(POINTS):
        grid[row, 0].set_ylabel(f"{point}\n|d log-odds / d embedding|")
    for column, cell in enumerate(cells):
        grid[0, column].set_title(cell.upper())
        grid[-1, column].set_xlabel("recurrent steps between the two")
    for axes in grid.flat:
        axes.set_yscale("log")
        axes.grid(color="#dddddd", linewidth=0.5)
        axes.spines[["top", "right"]].set_visible(False)
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2, frameon=False)
    figure.savefig(path)


def draw_curve(axes: Axes, curve: Curve) -> None:
    """One line with its band, and how much is said right."""
    color, dashes, mark = STYLES[curve.looks]
    distance = 2 * np.arange(curve.norms.shape[1]) + 2
    middle = np.exp(np.log(curve.norms).mean(0))
    axes.fill_between(distance, curve.norms.min(0), curve.norms.max(0), color=color, alpha=0.2, linewidth=0)
    height = 0.05 + 0.09 * list(STYLES).index(curve.looks)
    right = f"{curve.accuracy.mean():.0%} said right"
    axes.text(0.04, height, right, color=color, fontsize=8, transform=axes.transAxes)
    axes.plot(distance, middle, dashes, color=color, marker=mark, markersize=3, linewidth=1.5, label=curve.looks)


def table(found: Iterable[Curve]) -> str:
    """What the picture shows, in numbers."""
    lines = ["| cell | model | when | nearest | farthest | far / near | said right |", "| --- " * 7 + "|"]
    for curve in found:
        near, far = np.exp(np.log(curve.norms[:, [0, -1]]).mean(0))
        numbers = f"{near:.2g} | {far:.2g} | {curve.kept:.2g} | {curve.accuracy.mean():.2f}"
        lines.append(f"| {curve.cell} | {curve.looks} | {curve.point} | {numbers} |")
    return "\n".join(lines)


def main(out: Path, plan: Plan) -> list[Curve]:
    """Train all, and leave picture, table and numbers."""
    out.mkdir(parents=True, exist_ok=True)
    found = [curve for cell in plan.cells for looks in SCORES for curve in curves(plan, cell, looks)]
    draw(out / "gradients.png", found)
    (out / "gradients.md").write_text(table(found) + "\n", encoding="utf-8")
    numbers = [
        {**curve._asdict(), "norms": curve.norms.tolist(), "accuracy": curve.accuracy.tolist()} for curve in found
    ]
    (out / "gradients.json").write_text(json.dumps(numbers), encoding="utf-8")
    return found


def asked() -> tuple[Path, Plan]:
    """What the command line says."""
    parser = argparse.ArgumentParser(description="Slopes by distance, with attention and without.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--small", action="store_true", help="300 steps, 10 letters, 2 seeds")
    for name in ("steps", "length", "seeds"):
        parser.add_argument(f"--{name}", type=int)
    given = parser.parse_args()
    plan = Plan(steps=300, length=10, seeds=2) if given.small else Plan()
    changes = {name: getattr(given, name) for name in ("steps", "length", "seeds") if getattr(given, name) is not None}
    return given.out, dataclasses.replace(plan, **changes)


if __name__ == "__main__":
    folder, wanted = asked()
    Console(soft_wrap=True, markup=False).print(table(main(folder, wanted)))
