"""Attention scores compared.

Claim: without any score (a thought vector) quality is far below all others; among the scores differences are small
(Britz et al. 2017, arXiv:1703.03906, find additive slightly ahead of multiplicative). The unscaled dot product suffers
as the width grows, and scaling prevents that (Vaswani et al. 2017, arXiv:1706.03762).
Command: s2s sweep run scores --jobs 2 --data.manual-dir DIR  (SCAN; CMUdict: --function sounds --data.manual-dir DIR;
with a gold alignment: --function dates; widths: --function widths; global and local attention: --function luong)
Hardware and time: 2 CPU cores (with other processes running): dates 51 minutes for 180 runs, CMUdict 34 for 144, widths
14 for 42. Smaller: `--seeds 2`.
Expect: `none` is last by far; the alignment error rate (dates) separates scores that exact match does not.
Seen: 2026-11-23, SCAN, 180 runs (--replicas; 63 minutes on one busy core): exact match `none` 0.141, general 0.640, dot
0.662, scaled-dot 0.538, additive 0.667, location-aware 0.682, cosine 0.684, additive-layer-norm 0.685. Against general,
after Holm's correction: `none`, scaled-dot, location (0.544), dynamic-convolution (0.439) and both gaussian mixtures
(0.538, 0.537) worse, additive-layer-norm better. So `none` is last by far; of the content-based scores only scaled-dot
is worse, since at width 64 scaling hurts; additive is ahead of general as in Britz et al., but not significantly
(0.027, -0.005 to 0.059).
Dates, 10 seeds: `none` 0.008, scaled-dot 0.865, general 0.984; dot 0.999, concat 0.998, additive 0.998 and four more
are significantly better than general. CMUdict, 8 seeds, word error rate: `none` 0.874, scaled-dot 0.764, general 0.648,
dot 0.644, additive 0.665, location-aware 0.628. docs/results.md has the table, and the alignment error rates on dates.
Global and local, CMUdict, 4 seeds, word error rate: dot 0.640, general 0.647, concat 0.659, location 0.687 in the order
of Luong et al. 2015 (arXiv:1508.04025); local-p general 0.655 before dot 0.663, as in the paper, but behind global dot,
unlike in the paper; local-m is best, dot 0.618 and general 0.623.
Widths, dates, 7 seeds, exact match: dot 0.989, 1.000, 0.998 with a width of 32, 128, 512; scaled-dot 0.576, 0.952 and
0.668, each worse (p = 0.047, the smallest possible with seven). So the unscaled product does not suffer here: the width
sharpens it (entropy 0.84, 0.38, 0.27 nats), and the scaled one is nearly flat after 400 steps (2.30, 2.15, 2.66).
"""

import dataclasses

import s2s_jax as s2s

SCORE = "model.attention.score"
CONSTRAINT = "model.attention.constraint"
# Luong et al. 2015, table 4: a score of positions alone, and three scores over the whole source or over a window.
LUONG = {
    "global, location": {SCORE: "location"},
    "global, dot": {SCORE: "dot"},
    "global, general": {SCORE: "general"},
    "global, concat": {SCORE: "concat"},
    "local-m, dot": {SCORE: "dot", CONSTRAINT: "local-m"},
    "local-m, general": {SCORE: "general", CONSTRAINT: "local-m"},
    "local-p, dot": {SCORE: "dot", CONSTRAINT: "local-p"},
    "local-p, general": {SCORE: "general", CONSTRAINT: "local-p"},
}

CELLS = {
    cell: {"model.encoder.cell": cell, "model.decoder.cell": cell} for cell in ("gru", "layer-norm-lstm")
}  # the second has states whose size does not depend on the width


def base() -> s2s.Experiment:
    """A bidirectional GRU of 64 on SCAN."""
    words = s2s.TokenizerConfig(type="word")
    return s2s.Experiment(
        steps=400,
        data=s2s.DataConfig(train="tfds:scan/simple"),
        tokenizer=s2s.TokenizersConfig(source=words, target=words),
        batch=s2s.BatchConfig(size=32, buckets=3),
        model=s2s.ModelConfig(
            embedding=32,
            encoder=s2s.EncoderConfig(cell="gru", size=32),
            attention=s2s.AttentionConfig(score="general", size=64),
            decoder=s2s.DecoderConfig(cell="gru", size=64, input_feeding=False),
        ),
        optimizer=s2s.OptimizerConfig(learning_rate=1e-2, schedule="cosine", warmup_steps=50, clip_norm=1.0),
        validation=s2s.ValidationConfig(every=200, sentences=0),
        checkpoint=s2s.CheckpointConfig(every=400, keep=1),
        search=s2s.SearchConfig(batch_size=512),
    )


def history(point: dict[str, str]) -> dict[str, str]:
    """The history that a score needs."""
    score = s2s.SCORES.get(point[SCORE])
    return {"model.attention.history": "previous"} if score is not None and score.needs_history else {}


def scores_of(experiment: s2s.Experiment, *metrics: str) -> s2s.Sweep:
    """All shipped scores, with the ten seeds that 17 comparisons need."""
    return s2s.Sweep(
        base=experiment,
        axes={SCORE: ["none", *(score for score in s2s.SCORES if score != "none")]},
        compare=SCORE,
        baseline="general",
        seeds=range(10),
        metrics=metrics,
        sentences=1000,
        adapt=history,
    )


def sweep() -> s2s.Sweep:
    """The scores on SCAN."""
    return scores_of(base(), "exact_match", "token_accuracy")


def dates() -> s2s.Sweep:
    """The scores on dates, where the gold alignment is known."""
    changes = (
        "data.train=task:dates",
        "tokenizer.source.type=char",
        "tokenizer.target.type=char",
        "data.train_size=10000",
    )
    return scores_of(s2s.override(base(), *changes), "exact_match", "aer", "token_accuracy")


def tuned() -> s2s.Sweep:
    """Five scores on dates with three learning rates and two budgets: each one's best rate is chosen on validation."""
    rates = {f"{rate:g}": {"optimizer.learning_rate": rate} for rate in (3e-3, 1e-2, 3e-2)}
    budgets = {f"{steps:,}": {"steps": steps, "validation.every": steps} for steps in (400, 4000)}
    axes = {"steps": budgets, "rate": rates, SCORE: ["dot", "scaled-dot", "cosine", "general", "additive"]}
    return dataclasses.replace(dates(), axes=axes, seeds=range(11), split="validation")


def on_sounds() -> s2s.Experiment:
    """The same model for CMUdict."""
    changes = ("data.train=tfds:cmudict_g2p", "tokenizer.source.type=char", "batch.size=128", "evaluation.unit=phone")
    return s2s.override(base(), *changes)


def sounds() -> s2s.Sweep:
    """The scores on CMUdict."""
    return scores_of(on_sounds(), "wer", "per", "token_accuracy")


def luong() -> s2s.Sweep:
    """Global and local attention on CMUdict, with a window of two letters to either side."""
    return s2s.Sweep(
        base=s2s.override(on_sounds(), "model.attention.window=2"),
        axes={"attention": LUONG},
        compare="attention",
        baseline="global, dot",
        seeds=range(9),
        metrics=("wer", "per", "perplexity"),
        sentences=1000,
    )


def widths() -> s2s.Sweep:
    """Dot products with and without scale, as the width grows, on dates; with states of unit variance too."""
    changes = (
        "data.train=task:dates",
        "tokenizer.source.type=char",
        "tokenizer.target.type=char",
        "data.train_size=10000",
    )
    sizes = {str(size): {"model.encoder.size": size // 2, "model.decoder.size": size} for size in (32, 128, 512)}
    return s2s.Sweep(
        base=s2s.override(base(), *changes),
        axes={"cell": CELLS, "width": sizes, SCORE: ["dot", "scaled-dot"]},
        compare=SCORE,
        baseline="dot",
        seeds=range(8),
        metrics=("exact_match", "token_accuracy", "aer"),
    )
