"""English spelling to phones (CMUdict, g014b2b split): attention on real data that a laptop can train.

Claim: one bidirectional layer with attention comes within a few points of much larger models
(published: LSTM 2x512 without attention 23.3 WER; 3x512 with global attention 21.69 WER, 5.04 PER).
Command: s2s train cmudict   (--data.manual-dir DIR where there is no network)
Then: s2s evaluate runs/cmudict --beam 5
"""

import s2s_jax as s2s


def experiment() -> s2s.Experiment:
    """A bidirectional LSTM of 256, general attention with input feeding."""
    return s2s.Experiment(
        steps=7000,
        data=s2s.DataConfig(train="tfds:cmudict_g2p"),
        tokenizer=s2s.TokenizersConfig(
            source=s2s.TokenizerConfig(type="char"), target=s2s.TokenizerConfig(type="word")
        ),
        batch=s2s.BatchConfig(size=256, buckets=4),
        model=s2s.ModelConfig(
            embedding=128,
            encoder=s2s.EncoderConfig(cell="lstm", size=256, dropout=0.2),
            attention=s2s.AttentionConfig(score="general"),
            decoder=s2s.DecoderConfig(cell="lstm", size=256, dropout=0.3),
        ),
        loss=s2s.LossConfig(label_smoothing=0.1),
        optimizer=s2s.OptimizerConfig(
            learning_rate=2e-3, schedule="cosine", warmup_steps=300, clip_norm=1.0, ema=0.998
        ),
        validation=s2s.ValidationConfig(every=1000, sentences=500),
        checkpoint=s2s.CheckpointConfig(every=500),
        search=s2s.SearchConfig(batch_size=256),
        evaluation=s2s.EvaluationConfig(unit="phone"),
    )
