"""Small parallel corpus of Japanese and English: what a first translation model reaches.

Claim: 50,000 pairs of short sentences are enough for a translation model that a laptop trains within 90 minutes.
Source: about 37 BLEU in a user's README (greedy search; neither direction nor script is stated), so this is no more
than a mark.
May differ: the direction, the tokenizer (subwords here) and the script that computed BLEU (sacrebleu here, on the
published tokens, English in lower case).
Command: s2s sweep run published/enja --data.manual-dir DIR  (greedy search: --search.beam 1)
Hardware and time: not measured yet.
Expect: more than 30 BLEU into English.
Seen: not run to its end yet.
"""

import s2s_jax as s2s

DIRECTIONS = {"ja-en": "tfds:small_parallel_enja/ja-en", "en-ja": "tfds:small_parallel_enja/en-ja"}


def base() -> s2s.Experiment:
    """A bidirectional LSTM of 192, a decoder of 384 with general attention and input feeding; subwords."""
    pieces = s2s.TokenizerConfig(type="bpe", size=4000)
    return s2s.Experiment(
        steps=8000,
        data=s2s.DataConfig(train=DIRECTIONS["ja-en"]),
        tokenizer=s2s.TokenizersConfig(source=pieces, target=pieces),
        batch=s2s.BatchConfig(size=64, buckets=4),
        model=s2s.ModelConfig(
            embedding=192,
            encoder=s2s.EncoderConfig(cell="lstm", size=192, dropout=0.3),
            attention=s2s.AttentionConfig(score="general"),
            decoder=s2s.DecoderConfig(cell="lstm", size=384, dropout=0.3),
        ),
        loss=s2s.LossConfig(label_smoothing=0.1),
        optimizer=s2s.OptimizerConfig(
            learning_rate=1.5e-3, schedule="cosine", warmup_steps=400, clip_norm=1.0, ema=0.999
        ),
        validation=s2s.ValidationConfig(every=1000, metric="bleu", sentences=500),
        checkpoint=s2s.CheckpointConfig(every=1000, keep=1),
        search=s2s.SearchConfig(beam=5, batch_size=128),
        evaluation=s2s.EvaluationConfig(bleu_tokenizer="none"),
    )


def sweep() -> s2s.Sweep:
    """Both directions."""
    return s2s.Sweep(
        base=base(),
        axes={"direction": {name: {"data.train": spec} for name, spec in DIRECTIONS.items()}},
        compare="direction",
        baseline="ja-en",
        seeds=range(6),
        metrics=("bleu", "chrf"),
        published=[s2s.Published("ja-en", "bleu", 37.0)],
    )
