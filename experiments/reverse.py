"""Letters in reverse: the task on which a thought vector fails as lines grow, and attention does not.

Claim: with attention every length seen in training is copied backwards without error; `--model.attention.score none`
shows the bottleneck. The gold alignment is known, so `s2s evaluate` gives an alignment error rate too.
Command: s2s train reverse
"""

from s2s_jax.config import Experiment
from s2s_jax.model.attention.config import AttentionConfig
from s2s_jax.model.decoder.config import DecoderConfig
from s2s_jax.model.encoder import EncoderConfig
from s2s_jax.model.seq2seq import ModelConfig
from s2s_jax.text.batches import BatchConfig
from s2s_jax.text.sources import DataConfig
from s2s_jax.text.tokenizers import TokenizerConfig, TokenizersConfig
from s2s_jax.train.loop import ValidationConfig
from s2s_jax.train.optimizer import OptimizerConfig


def experiment() -> Experiment:
    """A GRU of 64 both ways, general attention."""
    letters = TokenizerConfig(type="word")
    return Experiment(
        steps=1500,
        data=DataConfig(train="task:reverse", train_size=20_000, lengths=(1, 20)),
        tokenizer=TokenizersConfig(source=letters, target=letters),
        batch=BatchConfig(buckets=2),
        model=ModelConfig(
            embedding=32,
            encoder=EncoderConfig(cell="gru", size=64),
            attention=AttentionConfig(score="general"),
            decoder=DecoderConfig(cell="gru", size=128, input_feeding=False),
        ),
        optimizer=OptimizerConfig(learning_rate=5e-3, schedule="cosine", warmup_steps=100, clip_norm=1.0),
        validation=ValidationConfig(every=250),
    )
