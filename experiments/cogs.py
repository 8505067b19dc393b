"""COGS sentences to logical forms (Kim & Linzen 2020, arXiv:2010.05465).

Claim: attention learns the forms it was shown, and hardly any of those that combine the known anew.
Command: s2s train cogs   (--data.manual-dir DIR where there is no network)
The 21 kinds of generalization: s2s evaluate runs/cogs --data.test tfds:cogs@gen
Hardware and time: 2 CPU cores, 12 minutes beside two other programs.
Expect: exact match on test above 0.9, on gen far below.
Seen: 2026-11-23, one seed: 0.930 of 3,000 on test (0.980 of those of up to 10 words), 0.076 of 21,000 on gen.
"""

from s2s_jax.config import Experiment
from s2s_jax.decode.search import SearchConfig
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
    """A GRU of 96 both ways, a decoder of 192, general attention without input feeding."""
    words = TokenizerConfig(type="word")
    return Experiment(
        steps=5000,
        data=DataConfig(train="tfds:cogs"),
        tokenizer=TokenizersConfig(source=words, target=words),
        batch=BatchConfig(size=32, buckets=4),
        model=ModelConfig(
            embedding=64,
            encoder=EncoderConfig(cell="gru", size=96),
            attention=AttentionConfig(score="general"),
            decoder=DecoderConfig(cell="gru", size=192, input_feeding=False),
        ),
        optimizer=OptimizerConfig(learning_rate=4e-3, schedule="cosine", warmup_steps=100, clip_norm=1.0),
        validation=ValidationConfig(every=1000, sentences=500),
        search=SearchConfig(batch_size=128),
    )
