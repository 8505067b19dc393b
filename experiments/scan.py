"""SCAN commands to actions (Lake & Baroni 2018, arXiv:1711.00350), the simple split.

Claim: attention learns it to 99 % and more, and a vanilla RNN shows what attention gives: with it most commands are
carried out exactly, without it hardly any.
Command: s2s train scan   (--data.manual-dir DIR where there is no network)
The thought vector: s2s train scan --run runs/scan-none --model.attention.score none
A vanilla RNN: --model.encoder.cell rnn --model.decoder.cell rnn --optimizer.learning-rate 1e-3
Hardware and time: 2 CPU cores, 2 to 3 minutes. Seen: see LOG.md, 2026-11-22.
"""

import s2s_jax as s2s


def experiment() -> s2s.Experiment:
    """A bidirectional LSTM of 96, a decoder of 128, additive attention with input feeding."""
    words = s2s.TokenizerConfig(type="word")
    return s2s.Experiment(
        steps=2000,
        data=s2s.DataConfig(train="tfds:scan/simple"),
        tokenizer=s2s.TokenizersConfig(source=words, target=words),
        batch=s2s.BatchConfig(buckets=3),
        model=s2s.ModelConfig(
            embedding=32,
            encoder=s2s.EncoderConfig(cell="lstm", size=96),
            attention=s2s.AttentionConfig(score="additive", size=64),
            decoder=s2s.DecoderConfig(cell="lstm", size=128),
        ),
        optimizer=s2s.OptimizerConfig(learning_rate=4e-3, schedule="cosine", warmup_steps=100, clip_norm=1.0),
        validation=s2s.ValidationConfig(every=500, sentences=500),
        search=s2s.SearchConfig(batch_size=128),
    )
