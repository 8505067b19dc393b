"""CMUdict: spelling to phones on the g014b2b split of Toshniwal & Livescu 2016 (arXiv:1610.06540).

Claim: an LSTM with global attention reads words as well as the published one, with fewer parameters.
Source: Toshniwal & Livescu 2016: LSTM 3x512 with global attention 21.69 % WER and 5.04 % PER, an ensemble of five 20.24
and 4.69. A Transformer 3x256 has 20.6 % WER.
May differ: the held-out words (every 20th of the training file here), width and layers. The metric is theirs: a word is
right if it equals any of its references, and PER counts edits to the closest.
Command: s2s sweep run published/cmudict --data.manual-dir DIR
Hardware and time: not measured yet.
Expect: at most 0.215 and 0.050 for a single model.
Seen: not run to its end yet.
"""

import s2s_jax as s2s


def base() -> s2s.Experiment:
    """Two bidirectional layers of 256, a decoder of 256 with general attention and input feeding."""
    return s2s.Experiment(
        steps=14_000,
        data=s2s.DataConfig(train="tfds:cmudict_g2p"),
        tokenizer=s2s.TokenizersConfig(
            source=s2s.TokenizerConfig(type="char"), target=s2s.TokenizerConfig(type="word")
        ),
        batch=s2s.BatchConfig(size=128, buckets=6),
        model=s2s.ModelConfig(
            embedding=128,
            encoder=s2s.EncoderConfig(cell="lstm", size=256, layers=2, dropout=0.3),
            attention=s2s.AttentionConfig(score="general"),
            decoder=s2s.DecoderConfig(cell="lstm", size=256, dropout=0.4),
        ),
        loss=s2s.LossConfig(label_smoothing=0.1),
        optimizer=s2s.OptimizerConfig(
            learning_rate=1.5e-3, schedule="cosine", warmup_steps=300, clip_norm=1.0, ema=0.999
        ),
        validation=s2s.ValidationConfig(every=1000, sentences=500),
        checkpoint=s2s.CheckpointConfig(every=1000),
        search=s2s.SearchConfig(beam=5, batch_size=256),
        evaluation=s2s.EvaluationConfig(unit="phone"),
    )


def sweep() -> s2s.Sweep:
    """One model, five seeds."""
    return s2s.Sweep(
        base=base(),
        axes={"model": {"LSTM 2x256": {}}},
        compare="model",
        baseline="LSTM 2x256",
        seeds=range(5),
        metrics=("wer", "per"),
        published=[
            s2s.Published("LSTM 2x256", "wer", 0.2169, aim=0.215),
            s2s.Published("LSTM 2x256", "per", 0.0504, aim=0.05),
        ],
    )
