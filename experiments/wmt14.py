"""WMT14 German to English with four decoder layers, after GNMT (arXiv:1609.08144); needs a GPU and a network.

Command: s2s train wmt14 --device.platform gpu
Data: tfds:wmt14_translate/de-en, 4.5 million pairs, which TFDS downloads. Not run here: this project was built on a
machine with neither; its parts are tested with TFDS' mock data.
"""

import s2s_jax as s2s


def experiment() -> s2s.Experiment:
    """Bidirectional LSTM 2 x (512 + 512), decoder 4 x 1024 with residual connections, 32,000 subwords, bfloat16."""
    pieces = s2s.TokenizerConfig(type="bpe", size=32_000)
    return s2s.Experiment(
        steps=340_000,
        data=s2s.DataConfig(train="tfds:wmt14_translate/de-en", max_length=100, too_long="drop"),
        tokenizer=s2s.TokenizersConfig(source=pieces, target=pieces),
        batch=s2s.BatchConfig(size=256, tokens=32_768, buckets=8),
        model=s2s.ModelConfig(
            embedding=512,
            precision="bfloat16",
            encoder=s2s.EncoderConfig(cell="lstm", size=512, layers=2, dropout=0.2),
            attention=s2s.AttentionConfig(score="additive", size=512),
            decoder=s2s.DecoderConfig(cell="lstm", size=1024, layers=4, residual_from=3, dropout=0.2),
        ),
        loss=s2s.LossConfig(label_smoothing=0.1),
        optimizer=s2s.OptimizerConfig(learning_rate=5e-4, schedule="inverse-sqrt", warmup_steps=4000),
        validation=s2s.ValidationConfig(every=5000, metric="bleu", sentences=1000),
        checkpoint=s2s.CheckpointConfig(every=5000, keep=3),
        search=s2s.SearchConfig(beam=5, length_penalty=1.0),
    )
