"""COGS: sentences to logical forms, Kim & Linzen 2020 (arXiv:2010.05465).

Claim: a recurrent model with attention has nearly every test sentence right, and few of those that combine the known
anew.
Source: Kim & Linzen 2020, LSTM 2x512 with dot attention, mean of five runs: 99 % of test, 27.6 % of gen.
May differ: the release (2022, with 50 corrected lines of gen), width.
Command: s2s sweep run published/cogs --data.manual-dir DIR  (gen: s2s evaluate RUN --data.test tfds:cogs@gen)
Hardware and time: not measured yet.
Expect: at least 0.99 and 0.276.
Seen: not run to its end yet.
"""

import s2s_jax as s2s


def base() -> s2s.Experiment:
    """Two bidirectional LSTM layers, dot attention."""
    words = s2s.TokenizerConfig(type="word")
    return s2s.Experiment(
        steps=12_000,
        data=s2s.DataConfig(train="tfds:cogs"),
        tokenizer=s2s.TokenizersConfig(source=words, target=words),
        batch=s2s.BatchConfig(size=64, buckets=4),
        model=s2s.ModelConfig(
            embedding=128,
            encoder=s2s.EncoderConfig(cell="lstm", size=128, layers=2, dropout=0.1),
            attention=s2s.AttentionConfig(score="dot"),
            decoder=s2s.DecoderConfig(cell="lstm", size=256, layers=2, dropout=0.1),
        ),
        optimizer=s2s.OptimizerConfig(learning_rate=1e-3, schedule="cosine", warmup_steps=300, clip_norm=1.0),
        validation=s2s.ValidationConfig(every=1000, sentences=500, metric="exact_match"),
        checkpoint=s2s.CheckpointConfig(every=1000, keep=1),
        search=s2s.SearchConfig(batch_size=128),
    )


def sweep() -> s2s.Sweep:
    """The test split, five seeds."""
    return s2s.Sweep(
        base=base(),
        axes={"model": {"LSTM 2x256": {}}},
        compare="model",
        baseline="LSTM 2x256",
        seeds=range(5),
        metrics=("exact_match", "token_accuracy"),
        published=[s2s.Published("LSTM 2x256", "exact_match", 0.99)],
    )
