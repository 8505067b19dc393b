"""How much each part of the encoder-decoder gives: an ablation ladder.

Claim: source reversal and reading both ways help the thought vector, attention outweighs both, and with attention the
bridge and input feeding matter little (Sutskever et al. 2014, arXiv:1409.3215; Luong et al. 2015, arXiv:1508.04025;
Britz et al. 2017, arXiv:1703.03906).
Command: s2s sweep run init_and_order --jobs 2
Hardware and time: 2 CPU cores, 17 minutes for 81 runs, beside other work in part. The small form is `--seeds 3`.
Expect: the rungs with attention above all without.
Seen: 2026-11-23, nine seeds: exact match of the thought vector 0.178, of the source read from its end 0.498, read both
ways 0.541, with attention 0.998. One way, another bridge, input feeding and Bahdanau's order change that by 0.0012 at
most, no p below 0.23. The same letters need no bridge at all (zero: 0.998) once attention is there.
"""

from s2s_jax.config import Experiment
from s2s_jax.decode.search import SearchConfig
from s2s_jax.model.attention.config import AttentionConfig
from s2s_jax.model.decoder.decoder import DecoderConfig
from s2s_jax.model.encoder import EncoderConfig
from s2s_jax.model.seq2seq import ModelConfig
from s2s_jax.sweep.sweep import Sweep
from s2s_jax.text.batches import BatchConfig
from s2s_jax.text.sources import DataConfig
from s2s_jax.text.tokenizers import TokenizerConfig, TokenizersConfig
from s2s_jax.train.checkpoint.checkpoints import CheckpointConfig
from s2s_jax.train.loop import ValidationConfig
from s2s_jax.train.optimizer import OptimizerConfig

WITHOUT = {"model.attention.score": "none", "model.encoder.bidirectional": False}
LADDER = {
    "thought vector": WITHOUT,
    "source read from its end": WITHOUT | {"model.encoder.reversed": True},
    "read both ways": {"model.attention.score": "none"},
    "attention": {},
    "attention, one way": {"model.encoder.bidirectional": False},
    "attention, zero bridge": {"model.decoder.bridge": "zero"},
    "attention, mean bridge": {"model.decoder.bridge": "mean"},
    "attention, input feeding": {"model.decoder.input_feeding": True},
    "attention, Bahdanau's order": {"model.decoder.architecture": "bahdanau"},
}


def base() -> Experiment:
    """Copying up to 12 letters with a GRU of 64, where the order of reading tells."""
    letters = TokenizerConfig(type="word")
    return Experiment(
        steps=500,
        data=DataConfig(train="task:copy", lengths=(1, 12)),
        tokenizer=TokenizersConfig(source=letters, target=letters),
        batch=BatchConfig(buckets=1),
        model=ModelConfig(
            embedding=32,
            encoder=EncoderConfig(cell="gru", size=64),
            attention=AttentionConfig(score="general"),
            decoder=DecoderConfig(cell="gru", size=64, input_feeding=False),
        ),
        optimizer=OptimizerConfig(learning_rate=5e-3, schedule="cosine", warmup_steps=50, clip_norm=1.0),
        validation=ValidationConfig(every=250, sentences=0),
        checkpoint=CheckpointConfig(every=500, keep=1),
        search=SearchConfig(batch_size=256, max_length=30),
    )


def sweep() -> Sweep:
    """Eight comparisons, for which Holm's correction needs nine seeds."""
    return Sweep(
        base=base(),
        axes={"model": LADDER},
        compare="model",
        baseline="attention",
        seeds=range(9),
        metrics=("exact_match", "token_accuracy"),
    )
