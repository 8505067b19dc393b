"""Which scoring functions differ, and which do not.

Claim: without any score (one thought vector) quality is far below all others; among the scores differences are small
(Britz et al. 2017, arXiv:1703.03906, find additive slightly ahead of multiplicative). The unscaled dot product suffers
as the width grows, and scaling heals it (Vaswani et al. 2017, arXiv:1706.03762).
Command: s2s sweep run scores --jobs 2 --data.manual-dir DIR      (SCAN; CMUdict: --function sounds --data.manual-dir DIR;
with a gold alignment: --function dates; widths: --function widths; global and local attention: --function luong)
Hardware and time: 2 CPU cores, beside other work: dates 51 minutes for 180 runs, CMUdict 34 for 144, widths 14 for 42.
The small form of each is `--seeds 2`.
Expect: none last by far; the alignment error rate (dates) tells apart what exact match does not.
Seen: 2026-11-23, SCAN, 180 runs (--replicas; 63 minutes on one busy core): exact match none 0.141, general 0.640, dot
0.662, scaled-dot 0.538, additive 0.667, location-aware 0.682, cosine 0.684, additive-layer-norm 0.685. Against general,
after Holm's correction: none, scaled-dot, location (0.544), dynamic-convolution (0.439) and both gaussian mixtures
(0.538, 0.537) worse, additive-layer-norm better. So none is last by far; of the scores that see content scaled-dot
alone falls behind, since at width 64 scaling hurts; additive is ahead of general as Britz et al. say, but not
significantly (0.027, -0.005 to 0.059).
Dates, 10 seeds: none 0.008, scaled-dot 0.865, general 0.984; dot 0.999, concat 0.998, additive 0.998 and four more are
significantly better than general. CMUdict, 8 seeds, word error rate: none 0.874, scaled-dot 0.764, general 0.648, dot
0.644, additive 0.665, location-aware 0.628. README has the table, and the alignment error rates on dates.
Global and local, CMUdict, 4 seeds, word error rate: dot 0.640, general 0.647, concat 0.659, location 0.687 in the order
of Luong et al. 2015 (arXiv:1508.04025); local-p general 0.655 before dot 0.663, as there, but behind global dot, which
is not as there; local-m is best, dot 0.618 and general 0.623.
Widths, dates, 7 seeds, exact match: dot 0.989, 1.000, 0.998 with a width of 32, 128, 512; scaled-dot 0.576, 0.952 and
0.668, each worse (p = 0.047, the least that seven can give). So the unscaled product does not suffer here: the width
sharpens it (entropy 0.84, 0.38, 0.27 nats), and the scaled one is still nearly flat after 400 steps (2.30, 2.15, 2.66).
"""

from s2s_jax.config import Experiment, override
from s2s_jax.decode.search import SearchConfig
from s2s_jax.model.attention.config import AttentionConfig
from s2s_jax.model.attention.scores import SCORES
from s2s_jax.model.decoder.decoder import DecoderConfig
from s2s_jax.model.encoder import EncoderConfig
from s2s_jax.model.seq2seq import ModelConfig
from s2s_jax.sweep.sweep import Point, Sweep
from s2s_jax.text.batches import BatchConfig
from s2s_jax.text.sources import DataConfig
from s2s_jax.text.tokenizers import TokenizerConfig, TokenizersConfig
from s2s_jax.train.checkpoint.checkpoints import CheckpointConfig
from s2s_jax.train.loop import ValidationConfig
from s2s_jax.train.optimizer import OptimizerConfig

SCORE = "model.attention.score"
CONSTRAINT = "model.attention.constraint"
# What Luong et al. 2015 compare in their table 4: places alone, and two scores over all of the source or a window.
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
LOOKS_BACK = ("location-aware", "dynamic-convolution")  # scores that read where was looked before


def base() -> Experiment:
    """A GRU of 64 both ways on SCAN."""
    words = TokenizerConfig(type="word")
    return Experiment(
        steps=400,
        data=DataConfig(train="tfds:scan/simple"),
        tokenizer=TokenizersConfig(source=words, target=words),
        batch=BatchConfig(size=32, buckets=3),
        model=ModelConfig(
            embedding=32,
            encoder=EncoderConfig(cell="gru", size=32),
            attention=AttentionConfig(score="general", size=64),
            decoder=DecoderConfig(cell="gru", size=64, input_feeding=False),
        ),
        optimizer=OptimizerConfig(learning_rate=1e-2, schedule="cosine", warmup_steps=50, clip_norm=1.0),
        validation=ValidationConfig(every=200, sentences=0),
        checkpoint=CheckpointConfig(every=400, keep=1),
        search=SearchConfig(batch_size=512),
    )


def history(point: Point) -> dict[str, str]:
    """What a score needs beside it."""
    return {"model.attention.history": "previous"} if point[SCORE] in LOOKS_BACK else {}


def scores_of(experiment: Experiment, *metrics: str) -> Sweep:
    """Every score there is, with the ten seeds that 17 comparisons need."""
    return Sweep(
        base=experiment,
        axes={SCORE: ["none", *(score for score in SCORES if score != "none")]},
        compare=SCORE,
        baseline="general",
        seeds=range(10),
        metrics=metrics,
        sentences=1000,
        adapt=history,
    )


def sweep() -> Sweep:
    """On SCAN."""
    return scores_of(base(), "exact_match", "token_accuracy")


def dates() -> Sweep:
    """On dates, where the gold alignment is known."""
    changes = (
        "data.train=task:dates",
        "tokenizer.source.type=char",
        "tokenizer.target.type=char",
        "data.train_size=10000",
    )
    return scores_of(override(base(), *changes), "exact_match", "aer", "token_accuracy")


def on_sounds() -> Experiment:
    """The same model on CMUdict."""
    changes = ("data.train=tfds:cmudict_g2p", "tokenizer.source.type=char", "batch.size=128", "evaluation.unit=phone")
    return override(base(), *changes)


def sounds() -> Sweep:
    """On CMUdict."""
    return scores_of(on_sounds(), "wer", "per", "token_accuracy")


def luong() -> Sweep:
    """Global and local attention on CMUdict, with a window of two letters to either side."""
    return Sweep(
        base=override(on_sounds(), "model.attention.window=2"),
        axes={"attention": LUONG},
        compare="attention",
        baseline="global, dot",
        seeds=range(9),
        metrics=("wer", "per", "perplexity"),
        sentences=1000,
    )


def widths() -> Sweep:
    """Dot products with and without scale, as the width grows, on dates."""
    changes = (
        "data.train=task:dates",
        "tokenizer.source.type=char",
        "tokenizer.target.type=char",
        "data.train_size=10000",
    )
    sizes = {str(size): {"model.encoder.size": size // 2, "model.decoder.size": size} for size in (32, 128, 512)}
    return Sweep(
        base=override(base(), *changes),
        axes={"width": sizes, SCORE: ["dot", "scaled-dot"]},
        compare=SCORE,
        baseline="dot",
        seeds=range(7),
        metrics=("exact_match", "token_accuracy", "aer"),
    )
