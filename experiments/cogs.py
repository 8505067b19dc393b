"""COGS sentences to logical forms (Kim & Linzen 2020, arXiv:2010.05465).

Claim: attention learns the forms it was shown, and hardly any of those that combine the known anew.
Command: s2s train cogs   (--data.manual-dir DIR where there is no network)
The 21 kinds of generalization: s2s evaluate runs/cogs --data.test tfds:cogs@gen
Hardware and time: 2 CPU cores, 12 minutes beside two other programs.
Expect: exact match on test above 0.9, on gen far below.
Seen: 2026-11-23, one seed: 0.930 of 3,000 on test (0.980 of those of up to 10 words), 0.076 of 21,000 on gen.
"""

import s2s_jax as s2s


def experiment() -> s2s.Experiment:
    """A bidirectional GRU of 96, a decoder of 192, general attention without input feeding."""
    words = s2s.TokenizerConfig(type="word")
    return s2s.Experiment(
        steps=5000,
        data=s2s.DataConfig(train="tfds:cogs"),
        tokenizer=s2s.TokenizersConfig(source=words, target=words),
        batch=s2s.BatchConfig(size=32, buckets=4),
        model=s2s.ModelConfig(
            embedding=64,
            encoder=s2s.EncoderConfig(cell="gru", size=96),
            attention=s2s.AttentionConfig(score="general"),
            decoder=s2s.DecoderConfig(cell="gru", size=192, input_feeding=False),
        ),
        optimizer=s2s.OptimizerConfig(learning_rate=4e-3, schedule="cosine", warmup_steps=100, clip_norm=1.0),
        validation=s2s.ValidationConfig(every=1000, sentences=500),
        search=s2s.SearchConfig(batch_size=128),
    )
