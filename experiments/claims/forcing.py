"""Scheduled sampling: which tokens the decoder should be fed in training.

Claim: teacher forcing learns fastest but never sees its own predictions; scheduled sampling (Bengio et al. 2015,
arXiv:1506.03099) narrows the gap between the loss on true tokens and on predicted ones.
Command: s2s sweep run forcing --function sounds --jobs 2 --data.manual-dir DIR  (CMUdict; dates: without --function;
until convergence: --function converged_sounds, --function converged_commands)
Hardware and time: 2 CPU cores, 12 minutes for 40 of the 90 runs (with other processes running). Smaller: `--seeds 2`.
Expect: every schedule that feeds predictions narrows the exposure gap; differences in quality are smaller; feeding
predictions alone from the first step learns least.
Seen: 2026-11-22, 9 seeds, 17 minutes (with other processes running): no difference in exact match (0.997 to 0.998
everywhere, p = 1): dates are too easy. The exposure gap narrows as expected, from 0.00021 nats per token (teacher
forcing) to 0.00014 (late switch), 0.00008 (linear) and 0.00001 (soft; predictions only), too small to matter.
2026-11-23, CMUdict, 9 seeds: the gap narrows from 0.547 nats per token to 0.364 (soft) and 0.073 (predictions only),
and the word error rate of search rises with every schedule in every seed, each p = 0.035 after Holm's correction, the
smallest possible with nine: 0.611 with teacher forcing, 0.626 in parallel, 0.628 linear, 0.652 exponential, 0.718 with
predictions only. So in a run of 500 steps a narrower gap does not mean a better model.
"""

import s2s_jax as s2s

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
    "predictions only": {"scheduled_sampling.start": 0.0},
}


def base() -> s2s.Experiment:
    """Dates in 18 locales with a GRU of 64, additive attention."""
    characters = s2s.TokenizerConfig(type="char")
    return s2s.Experiment(
        steps=STEPS,
        data=s2s.DataConfig(train="task:dates", train_size=10_000),
        tokenizer=s2s.TokenizersConfig(source=characters, target=characters),
        batch=s2s.BatchConfig(size=32, buckets=2),
        model=s2s.ModelConfig(
            embedding=32,
            encoder=s2s.EncoderConfig(cell="gru", size=48),
            attention=s2s.AttentionConfig(score="additive", size=48),
            decoder=s2s.DecoderConfig(cell="gru", size=64, input_feeding=False),
        ),
        optimizer=s2s.OptimizerConfig(learning_rate=5e-3, schedule="cosine", warmup_steps=50, clip_norm=1.0),
        validation=s2s.ValidationConfig(every=250, sentences=0),
        checkpoint=s2s.CheckpointConfig(every=500, keep=1),
        search=s2s.SearchConfig(batch_size=256),
    )


def schedules(experiment: s2s.Experiment, *metrics: str) -> s2s.Sweep:
    """All schedules; Holm's correction for nine comparisons needs nine seeds."""
    return s2s.Sweep(
        base=experiment,
        axes={"fed": SCHEDULES},
        compare="fed",
        baseline="teacher forcing",
        seeds=range(9),
        metrics=metrics,
        sentences=2000,
    )


def sweep() -> s2s.Sweep:
    """Dates, an easy task."""
    return schedules(base(), "exact_match", "exposure_gap", "perplexity")


def converged(experiment: s2s.Experiment, steps: int, *metrics: str) -> s2s.Sweep:
    """Four ways of feeding the decoder, with attention and without, trained until validation stands still."""
    schedules = {
        "teacher forcing": {},
        "half its own": {"scheduled_sampling.start": 0.5},
        "inverse sigmoid": {"scheduled_sampling.schedule": "inverse-sigmoid", "scheduled_sampling.decay": steps / 10},
        "two phases": {
            "scheduled_sampling.schedule": "piecewise",
            "scheduled_sampling.points": [[steps // 2, 1.0], [steps // 2 + 1, 0.0]],
        },
    }
    connections = {"attention": {}, "thought vector": {"model.attention.score": "last-state"}}
    return s2s.Sweep(
        base=s2s.override(experiment, f"steps={steps}", f"validation.every={steps // 10}", "validation.sentences=500"),
        axes={"connection": connections, "fed": schedules},
        compare="fed",
        baseline="teacher forcing",
        seeds=range(8),
        metrics=metrics,
    )


def converged_sounds() -> s2s.Sweep:
    """CMUdict, seven epochs, where 500 steps of `sounds` are half of one."""
    return converged(sounds().base, 6000, "wer", "exposure_gap", "per")


def converged_commands() -> s2s.Sweep:
    """SCAN's split by length, whose outputs have up to 48 tokens; Lake & Baroni 2018 feed half of the model's own."""
    changes = ("data.train=tfds:scan/length", *(f"tokenizer.{side}.type=word" for side in ("source", "target")))
    return converged(s2s.override(base(), *changes), 4000, "exact_match", "exposure_gap", "token_accuracy")


def sounds() -> s2s.Sweep:
    """CMUdict, where most words have an error."""
    changes = ("data.train=tfds:cmudict_g2p", "batch.size=128", "tokenizer.target.type=word", "evaluation.unit=phone")
    return schedules(s2s.override(base(), *changes), "wer", "exposure_gap", "per", "perplexity")
