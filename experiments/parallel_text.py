"""Your own two parallel files: translation with subwords.

Command: s2s train parallel_text --data.train train.en,train.de --data.validation dev.en,dev.de --run runs/mine
A TSV or JSON-lines file of pairs serves as well: --data.train pairs.tsv. Small data needs smaller vocabularies
(--tokenizer.source.size 2000 --tokenizer.target.size 2000) and more dropout.
"""

import s2s_jax as s2s


def experiment() -> s2s.Experiment:
    """A bidirectional LSTM of 256, a decoder of 512 with general attention and input feeding."""
    pieces = s2s.TokenizerConfig(type="bpe", size=8000)
    return s2s.Experiment(
        steps=20_000,
        data=s2s.DataConfig(max_length=80, too_long="drop"),
        tokenizer=s2s.TokenizersConfig(source=pieces, target=pieces),
        model=s2s.ModelConfig(
            embedding=256,
            encoder=s2s.EncoderConfig(cell="lstm", size=256, dropout=0.3),
            attention=s2s.AttentionConfig(score="general"),
            decoder=s2s.DecoderConfig(cell="lstm", size=512, dropout=0.3),
        ),
        loss=s2s.LossConfig(label_smoothing=0.1),
        optimizer=s2s.OptimizerConfig(learning_rate=1e-3, schedule="cosine", warmup_steps=500),
        search=s2s.SearchConfig(beam=5),
    )
