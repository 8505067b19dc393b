"""English spelling to phones (CMUdict, g014b2b split): attention on real data that a laptop can train.

Claim: one bidirectional layer with attention comes within a few points of much larger models
(published: LSTM 2x512 without attention 23.3 WER; 3x512 with global attention 21.69 WER, 5.04 PER).
Command: s2s train cmudict   (--data.manual-dir DIR where there is no network)
Then: s2s evaluate runs/cmudict --beam 5
"""

from s2s_jax.config import Experiment
from s2s_jax.decode.search import SearchConfig
from s2s_jax.evaluate.evaluation import EvaluationConfig
from s2s_jax.model.attention.config import AttentionConfig
from s2s_jax.model.decoder.config import DecoderConfig
from s2s_jax.model.encoder import EncoderConfig
from s2s_jax.model.seq2seq import ModelConfig
from s2s_jax.text.batches import BatchConfig
from s2s_jax.text.sources import DataConfig
from s2s_jax.text.tokenizers import TokenizerConfig, TokenizersConfig
from s2s_jax.train.checkpoint.checkpoints import CheckpointConfig
from s2s_jax.train.loop import ValidationConfig
from s2s_jax.train.objectives import LossConfig
from s2s_jax.train.optimizer import OptimizerConfig


def experiment() -> Experiment:
    """A bidirectional LSTM of 256, general attention with input feeding."""
    return Experiment(
        steps=7000,
        data=DataConfig(train="tfds:cmudict_g2p"),
        tokenizer=TokenizersConfig(source=TokenizerConfig(type="char"), target=TokenizerConfig(type="word")),
        batch=BatchConfig(size=256, buckets=4),
        model=ModelConfig(
            embedding=128,
            encoder=EncoderConfig(cell="lstm", size=256, dropout=0.2),
            attention=AttentionConfig(score="general"),
            decoder=DecoderConfig(cell="lstm", size=256, dropout=0.3),
        ),
        loss=LossConfig(label_smoothing=0.1),
        optimizer=OptimizerConfig(learning_rate=2e-3, schedule="cosine", warmup_steps=300, clip_norm=1.0, ema=0.998),
        validation=ValidationConfig(every=1000, sentences=500),
        checkpoint=CheckpointConfig(every=500),
        search=SearchConfig(batch_size=256),
        evaluation=EvaluationConfig(unit="phone"),
    )
