"""What the decoder should be fed while it learns.

Claim: teacher forcing learns fastest and is then asked to live on its own words; scheduled sampling (Bengio et al.
2015, arXiv:1506.03099) narrows the gap between the loss on true and on own words.
Command: s2s sweep run forcing --function sounds --jobs 2 --data.manual-dir DIR      (CMUdict; dates: without --function)
Hardware and time: 2 CPU cores, 12 minutes for 40 of the 90 runs, beside other work. The small form: `--seeds 2`.
Expect: every schedule that shows the model its own words narrows the exposure gap; differences in quality are small
beside it; nothing but own words from the first step learns least.
Seen: 2026-11-22, 9 seeds, 17 minutes beside other work: no difference in exact match (0.997 to 0.998 everywhere,
p = 1): dates are too easy to tell. The exposure gap narrows as expected, from 0.00021 nats a token (teacher forcing)
to 0.00014 (late switch), 0.00008 (linear) and 0.00001 (soft; own words only), too small to matter. 2026-11-23, CMUdict,
9 seeds: the gap narrows from 0.547 nats a token to 0.364 (soft) and 0.073 (own words only), and the word error rate of
free-running search rises with every schedule in every seed, each p = 0.035 after Holm's correction, the least that nine
can give: 0.611 with teacher forcing, 0.626 in parallel, 0.628 linear, 0.652 exponential, 0.718 with own words only. So
a narrower gap is no better model, in a run of 500 steps.
"""

from s2s_jax.config import Experiment, override
from s2s_jax.decode.search import SearchConfig
from s2s_jax.model.attention.config import AttentionConfig
from s2s_jax.model.decoder.decoder import DecoderConfig
from s2s_jax.model.encoder import EncoderConfig
from s2s_jax.model.seq2seq import ModelConfig
from s2s_jax.sweep.sweep import Sweep
from s2s_jax.text.batches import BatchConfig
from s2s_jax.text.sources import DataConfig
from s2s_jax.text.tokenizers import TokenizerConfig, TokenizersConfig
from s2s_jax.train.checkpoint.checkpoints import CheckpointConfig
from s2s_jax.train.loop import ValidationConfig
from s2s_jax.train.optimizer import OptimizerConfig

STEPS = 500
LINEAR = {
    "scheduled_sampling.schedule": "linear",
    "scheduled_sampling.decay": float(STEPS),
    "scheduled_sampling.end": 0.25,
}
SCHEDULES = {
    "teacher forcing": {},
    "constant 0.5": {"scheduled_sampling.start": 0.5},
    "linear": LINEAR,
    "exponential": {"scheduled_sampling.schedule": "exponential", "scheduled_sampling.decay": STEPS / 2},
    "inverse sigmoid": {"scheduled_sampling.schedule": "inverse-sigmoid", "scheduled_sampling.decay": STEPS / 8},
    "late switch": {
        "scheduled_sampling.schedule": "piecewise",
        "scheduled_sampling.points": [[STEPS // 2, 1.0], [STEPS // 2 + 1, 0.25]],
    },
    "linear, in parallel": LINEAR | {"scheduled_sampling.parallel_passes": 2},
    "linear, soft": LINEAR | {"scheduled_sampling.prediction": "soft"},
    "linear, Gumbel": LINEAR | {"scheduled_sampling.prediction": "gumbel"},
    "own words only": {"scheduled_sampling.start": 0.0},
}


def base() -> Experiment:
    """Dates in 18 locales with a GRU of 64, additive attention."""
    characters = TokenizerConfig(type="char")
    return Experiment(
        steps=STEPS,
        data=DataConfig(train="task:dates", train_size=10_000),
        tokenizer=TokenizersConfig(source=characters, target=characters),
        batch=BatchConfig(size=32, buckets=2),
        model=ModelConfig(
            embedding=32,
            encoder=EncoderConfig(cell="gru", size=48),
            attention=AttentionConfig(score="additive", size=48),
            decoder=DecoderConfig(cell="gru", size=64, input_feeding=False),
        ),
        optimizer=OptimizerConfig(learning_rate=5e-3, schedule="cosine", warmup_steps=50, clip_norm=1.0),
        validation=ValidationConfig(every=250, sentences=0),
        checkpoint=CheckpointConfig(every=500, keep=1),
        search=SearchConfig(batch_size=256),
    )


def compared(experiment: Experiment, *metrics: str) -> Sweep:
    """Nine comparisons, for which Holm's correction needs nine seeds."""
    return Sweep(
        base=experiment,
        axes={"fed": SCHEDULES},
        compare="fed",
        baseline="teacher forcing",
        seeds=range(9),
        metrics=metrics,
        sentences=2000,
    )


def sweep() -> Sweep:
    """On dates, which are easy."""
    return compared(base(), "exact_match", "exposure_gap", "perplexity")


def sounds() -> Sweep:
    """On CMUdict, where most words go wrong somewhere."""
    changes = ("data.train=tfds:cmudict_g2p", "batch.size=128", "tokenizer.target.type=word", "evaluation.unit=phone")
    return compared(override(base(), *changes), "wer", "exposure_gap", "per", "perplexity")
