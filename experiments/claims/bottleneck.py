"""A single vector for the whole sentence is a bottleneck, and attention removes it.

Claim: trained on lines of up to 20 letters and tested on up to 40, quality without attention falls with every letter;
with attention, only beyond the lengths of training.
Command: s2s sweep run bottleneck --jobs 2  (dates: --function dates; sounds: --function sounds --data.manual-dir DIR;
what a state of n numbers holds after how many steps: --function capacity)
Hardware and time: 2 CPU cores, 8 minutes (with other processes running).
Expect: with attention nearly every line of up to 20 letters is right; without it hardly any of more than 14.
Seen: 2026-11-22, 6 seeds: exact match over all lengths 0.531 with attention, 0.177 without (difference 0.353, 95 % from
0.324 to 0.382, p = 0.031, the smallest possible with six seeds); docs/bottleneck.svg shows it by length. Beyond 21
letters both are near 0: attention does not make a GRU count further than in training.
"""

import s2s_jax as s2s

VARIANTS = {
    "thought vector": {"model.attention.score": "none"},
    "attention": {"model.attention.score": "general"},
}

WIDTHS = (16, 32, 64, 128, 256)
STEPS = (1000, 4000, 16_000)


def base() -> s2s.Experiment:
    """Reversed letters with a GRU of 64."""
    letters = s2s.TokenizerConfig(type="word")
    return s2s.Experiment(
        steps=1000,
        data=s2s.DataConfig(train="task:reverse", lengths=(1, 20), test_lengths=(1, 40)),
        tokenizer=s2s.TokenizersConfig(source=letters, target=letters),
        batch=s2s.BatchConfig(buckets=1),
        model=s2s.ModelConfig(
            embedding=32,
            encoder=s2s.EncoderConfig(cell="gru", size=64),
            attention=s2s.AttentionConfig(score="general"),
            decoder=s2s.DecoderConfig(cell="gru", size=64, input_feeding=False),
        ),
        optimizer=s2s.OptimizerConfig(learning_rate=5e-3, schedule="cosine", warmup_steps=50, clip_norm=1.0),
        validation=s2s.ValidationConfig(every=250, sentences=0),
        checkpoint=s2s.CheckpointConfig(every=500, keep=1),
        search=s2s.SearchConfig(batch_size=256, max_length=60),
    )


def sweep() -> s2s.Sweep:
    """Reversed letters, with six seeds: the fewest with which one comparison can be significant."""
    return s2s.Sweep(
        base=base(),
        axes={"connection": VARIANTS},
        compare="connection",
        baseline="thought vector",
        seeds=range(6),
        metrics=("exact_match", "token_accuracy"),
    )


def capacity() -> s2s.Sweep:
    """How much a state of n numbers holds, apart from how fast it learns: widths and steps, without attention."""
    widths = {str(size): {"model.encoder.size": size, "model.decoder.size": size} for size in WIDTHS}
    return s2s.Sweep(
        base=s2s.override(
            base(), "model.attention.score=none", "model.encoder.bidirectional=false", "data.test-lengths=[1,24]"
        ),
        axes={"steps": {f"{steps:,}": {"steps": steps} for steps in STEPS}, "width": widths},
        compare="width",
        baseline="64",
        seeds=range(10),
        metrics=("exact_match", "token_accuracy"),
    )


def dates() -> s2s.Sweep:
    """Dates in 18 locales, with characters as tokens."""
    changes = ("data.train=task:dates", "data.lengths=[0,0]", "data.test-lengths=[0,0]", "tokenizer.source.type=char")
    on_dates = s2s.override(base(), *changes, "tokenizer.target.type=char")
    return s2s.Sweep(
        base=on_dates,
        axes={"connection": VARIANTS},
        compare="connection",
        baseline="thought vector",
        seeds=range(6),
        metrics=("exact_match", "token_accuracy"),
    )


def sounds() -> s2s.Sweep:
    """CMUdict (grapheme to phoneme)."""
    changes = (
        "data.train=tfds:cmudict_g2p",
        "data.lengths=[0,0]",
        "data.test-lengths=[0,0]",
        "tokenizer.source.type=char",
    )
    sizes = ("model.encoder.size=128", "model.decoder.size=128", "batch.size=128", "evaluation.unit=phone")
    return s2s.Sweep(
        base=s2s.override(base(), *changes, *sizes, "steps=2000"),
        axes={"connection": VARIANTS},
        compare="connection",
        baseline="thought vector",
        seeds=range(6),
        metrics=("wer", "per"),
    )
