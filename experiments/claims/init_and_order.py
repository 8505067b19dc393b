"""The contribution of each part of the encoder-decoder: an ablation.

Claim: source reversal and a bidirectional encoder help the thought vector, attention outweighs both, and with attention
the bridge and input feeding matter little (Sutskever et al. 2014, arXiv:1409.3215; Luong et al. 2015, arXiv:1508.04025;
Britz et al. 2017, arXiv:1703.03906).
Command: s2s sweep run init_and_order --jobs 2
Hardware and time: 2 CPU cores, 17 minutes for 81 runs (partly with other processes running). Smaller: `--seeds 3`.
Expect: all variants with attention are above all without.
Seen: 2026-11-23, nine seeds: exact match of the thought vector 0.178, with a reversed source 0.498, with a
bidirectional encoder 0.541, with attention 0.998. A unidirectional encoder, another bridge, input feeding and
Bahdanau's architecture change that by at most 0.0012, no p below 0.23. With attention no bridge is
needed (zero: 0.998).
"""

import s2s_jax as s2s

WITHOUT = {"model.attention.score": "none", "model.encoder.bidirectional": False}
VARIANTS = {
    "thought vector": WITHOUT,
    "source reversed": WITHOUT | {"model.encoder.reversed": True},
    "bidirectional encoder": {"model.attention.score": "none"},
    "attention": {},
    "attention, unidirectional encoder": {"model.encoder.bidirectional": False},
    "attention, zero bridge": {"model.decoder.bridge": "zero"},
    "attention, mean bridge": {"model.decoder.bridge": "mean"},
    "attention, input feeding": {"model.decoder.input_feeding": True},
    "attention, Bahdanau's architecture": {"model.decoder.architecture": "bahdanau"},
}


def base() -> s2s.Experiment:
    """Copying up to 12 letters with a GRU of 64, where the reading order matters."""
    letters = s2s.TokenizerConfig(type="word")
    return s2s.Experiment(
        steps=500,
        data=s2s.DataConfig(train="task:copy", lengths=(1, 12)),
        tokenizer=s2s.TokenizersConfig(source=letters, target=letters),
        batch=s2s.BatchConfig(buckets=1),
        model=s2s.ModelConfig(
            embedding=32,
            encoder=s2s.EncoderConfig(cell="gru", size=64),
            attention=s2s.AttentionConfig(score="general"),
            decoder=s2s.DecoderConfig(cell="gru", size=64, input_feeding=False),
        ),
        optimizer=s2s.OptimizerConfig(learning_rate=5e-3, schedule="cosine", warmup_steps=50, clip_norm=1.0),
        validation=s2s.ValidationConfig(every=250, sentences=0),
        checkpoint=s2s.CheckpointConfig(every=500, keep=1),
        search=s2s.SearchConfig(batch_size=256, max_length=30),
    )


def sweep() -> s2s.Sweep:
    """All variants; Holm's correction for eight comparisons needs nine seeds."""
    return s2s.Sweep(
        base=base(),
        axes={"model": VARIANTS},
        compare="model",
        baseline="attention",
        seeds=range(9),
        metrics=("exact_match", "token_accuracy"),
    )
