"""Letters in reverse: the task on which a thought vector fails as lines grow, and attention does not.

Claim: with attention every length seen in training is copied backwards without error; `--model.attention.score none`
shows the bottleneck. The gold alignment is known, so `s2s evaluate` gives an alignment error rate too.
Command: s2s train reverse
"""

import s2s_jax as s2s


def experiment() -> s2s.Experiment:
    """A bidirectional GRU of 64, general attention."""
    letters = s2s.TokenizerConfig(type="word")
    return s2s.Experiment(
        steps=1500,
        data=s2s.DataConfig(train="task:reverse", train_size=20_000, lengths=(1, 20)),
        tokenizer=s2s.TokenizersConfig(source=letters, target=letters),
        batch=s2s.BatchConfig(buckets=2),
        model=s2s.ModelConfig(
            embedding=32,
            encoder=s2s.EncoderConfig(cell="gru", size=64),
            attention=s2s.AttentionConfig(score="general"),
            decoder=s2s.DecoderConfig(cell="gru", size=128, input_feeding=False),
        ),
        optimizer=s2s.OptimizerConfig(learning_rate=5e-3, schedule="cosine", warmup_steps=100, clip_norm=1.0),
        validation=s2s.ValidationConfig(every=250),
    )
