"""SCAN: the splits of Lake & Baroni 2018 (arXiv:1711.00350), each with the architecture that they found best for it.

Claim: a recurrent encoder-decoder learns the commands, goes on to a new primitive where the primitive was shown often
(turn left), and neither to longer commands nor to a primitive that was shown alone (jump).
Source: Lake & Baroni 2018, the best architecture of each experiment, mean of five runs.
May differ: they train on 100,000 single commands drawn with replacement, with Adam at 0.001, gradients clipped at 5,
half of the targets fed back from the model; here 10,000 updates see 32 commands each, and validation chooses one.
Command: s2s sweep run published/scan --data.manual-dir DIR  (vanilla RNN: --function rnn)
Hardware and time: see docs/results.md.
Expect: above 0.998 (simple), 0.208 (length), 0.903 (turn left); jump close to 0.
Seen: see docs/results.md.
"""

import s2s_jax as s2s

WORDS = s2s.TokenizerConfig(type="word")
PLAIN = {"model.encoder.bidirectional": False, "model.decoder.architecture": "bahdanau"}


def network(cell: str, size: int, layers: int, dropout: float) -> dict[str, str | int | float]:
    """The settings of a network by its cell, width, number of layers and dropout."""
    stack = {"cell": cell, "size": size, "layers": layers, "dropout": dropout}
    return {f"model.{side}.{name}": value for side in ("encoder", "decoder") for name, value in stack.items()}


SPLITS = {
    "simple": {"data.train": "tfds:scan/simple", "model.attention.score": "none", **network("lstm", 200, 2, 0.5)},
    "length": {"data.train": "tfds:scan/length", **PLAIN, **network("gru", 50, 1, 0.5)},
    "turn left": {"data.train": "tfds:scan/addprim_turn_left", **PLAIN, **network("gru", 100, 1, 0.1)},
    "jump": {"data.train": "tfds:scan/addprim_jump", **PLAIN, **network("lstm", 100, 1, 0.1)},
}


def base() -> s2s.Experiment:
    """What all splits share: 10,000 updates of 32 commands, the half of the targets fed back from the model."""
    return s2s.Experiment(
        steps=10_000,
        data=s2s.DataConfig(train="tfds:scan/simple"),
        tokenizer=s2s.TokenizersConfig(source=WORDS, target=WORDS),
        batch=s2s.BatchConfig(size=32, buckets=3),
        model=s2s.ModelConfig(
            embedding=200,
            encoder=s2s.EncoderConfig(bidirectional=False),
            attention=s2s.AttentionConfig(score="additive", size=100),
            decoder=s2s.DecoderConfig(input_feeding=False),
        ),
        scheduled_sampling=s2s.ScheduledSamplingConfig(start=0.5),
        optimizer=s2s.OptimizerConfig(learning_rate=1e-3, clip_norm=5.0),
        validation=s2s.ValidationConfig(every=1000, sentences=500, metric="exact_match"),
        checkpoint=s2s.CheckpointConfig(every=1000, keep=1),
        search=s2s.SearchConfig(batch_size=256, max_length=64),
    )


def sweep() -> s2s.Sweep:
    """The four splits, five seeds."""
    return s2s.Sweep(
        base=base(),
        axes={"split": SPLITS},
        compare="split",
        baseline="simple",
        seeds=range(5),
        metrics=("exact_match", "token_accuracy"),
        published=[
            s2s.Published("simple", "exact_match", 0.998),
            s2s.Published("length", "exact_match", 0.208),
            s2s.Published("turn left", "exact_match", 0.903),
            s2s.Published("jump", "exact_match", 0.012),
        ],
    )


def rnn() -> s2s.Sweep:
    """A vanilla RNN on the simple split, with and without attention."""
    variants = {"thought vector": {"model.attention.score": "none"}, "attention": PLAIN}
    return s2s.Sweep(
        base=s2s.override(base(), "data.train=tfds:scan/simple"),
        axes={"connection": {label: network("rnn", 200, 1, 0.0) | extra for label, extra in variants.items()}},
        compare="connection",
        baseline="thought vector",
        seeds=range(6),
        metrics=("exact_match", "token_accuracy"),
        published=[
            s2s.Published("thought vector", "exact_match", 0.015),
            s2s.Published("attention", "exact_match", 0.597),
        ],
    )
