"""Attention improves translation: Japanese and English, thought vector against attention.

Claim: with equal parameters and equal updates, a decoder that attends translates better than one that is given a single
vector, and the more so the longer the sentence (Bahdanau et al. 2015, arXiv:1409.0473; Luong et al. 2015,
arXiv:1508.04025). The thought vector is the best of a search (`--function search`): the last state as first state
(Sutskever et al. 2014, arXiv:1409.3215), given at every step (Cho et al. 2014, arXiv:1406.1078), the mean state, a
reversed source, two layers, a wider decoder.
Command: s2s sweep run translation --data.manual-dir DIR  (en-ja: --function en_ja; the search: --function search)
Hardware and time: not measured yet.
Expect: several BLEU between them; the thought vector falls with source length, attention hardly.
Seen: not run to its end yet.
"""

import s2s_jax as s2s

SCORE = "model.attention.score"
WIDTH = "model.decoder.size"


def base() -> s2s.Experiment:
    """A bidirectional GRU of 128, a decoder of 256; subwords; 50,000 pairs of 4 to 16 words."""
    pieces = s2s.TokenizerConfig(type="bpe", size=2000)
    return s2s.Experiment(
        steps=6000,
        data=s2s.DataConfig(train="tfds:small_parallel_enja/ja-en"),
        tokenizer=s2s.TokenizersConfig(source=pieces, target=pieces),
        batch=s2s.BatchConfig(size=64, buckets=4),
        model=s2s.ModelConfig(
            embedding=128,
            encoder=s2s.EncoderConfig(cell="gru", size=128, dropout=0.2),
            attention=s2s.AttentionConfig(score="dot"),
            decoder=s2s.DecoderConfig(cell="gru", size=256, dropout=0.2),
        ),
        loss=s2s.LossConfig(label_smoothing=0.1),
        optimizer=s2s.OptimizerConfig(
            learning_rate=2e-3, schedule="cosine", warmup_steps=300, clip_norm=1.0, ema=0.998
        ),
        validation=s2s.ValidationConfig(every=1000),
        checkpoint=s2s.CheckpointConfig(every=1000, keep=1),
        search=s2s.SearchConfig(beam=5, batch_size=128),
        evaluation=s2s.EvaluationConfig(bleu_tokenizer="none"),
    )


THOUGHT_VECTORS = {
    "first state": {SCORE: "none"},
    "at every step": {SCORE: "last-state"},
    "mean at every step": {SCORE: "uniform"},
    "source reversed": {
        SCORE: "last-state",
        "model.encoder.bidirectional": False,
        "model.encoder.reversed": True,
        "model.encoder.size": 192,
    },
    "two layers": {SCORE: "last-state", "model.encoder.layers": 2, "model.decoder.layers": 2},
    "wider": {SCORE: "last-state", "model.decoder.size": 384},
}
CONNECTIONS = {
    "thought vector": THOUGHT_VECTORS["at every step"],
    "dot": {SCORE: "dot"},
    "additive": {SCORE: "additive", "model.attention.size": 64},
}


def compared(experiment: s2s.Experiment) -> s2s.Sweep:
    """The best thought vector against two scores; parameters differ by less than 3 %."""
    return s2s.Sweep(
        base=experiment,
        axes={"connection": CONNECTIONS},
        compare="connection",
        baseline="thought vector",
        seeds=range(7),
        metrics=("bleu", "chrf", "perplexity"),
    )


def sweep() -> s2s.Sweep:
    """Japanese to English."""
    return compared(base())


def en_ja() -> s2s.Sweep:
    """English to Japanese."""
    return compared(s2s.override(base(), "data.train=tfds:small_parallel_enja/en-ja"))


def search() -> s2s.Sweep:
    """The thought vectors among themselves, judged on validation data; the last two have more parameters."""
    return s2s.Sweep(
        base=base(),
        axes={"thought vector": THOUGHT_VECTORS},
        compare="thought vector",
        baseline="first state",
        seeds=range(8),
        metrics=("bleu", "chrf", "perplexity"),
        split="validation",
    )
