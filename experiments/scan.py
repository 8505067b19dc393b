"""SCAN commands to actions (Lake & Baroni 2018, arXiv:1711.00350), the simple split.

Claim: attention learns it to 99 % and more, and a vanilla RNN shows what attention gives: with it most commands are
carried out exactly, without it hardly any.
Command: s2s train scan   (--data.manual-dir DIR where there is no network)
The thought vector: s2s train scan --run runs/scan-none --model.attention.score none
A vanilla RNN: --model.encoder.cell rnn --model.decoder.cell rnn --optimizer.learning-rate 1e-3
Hardware and time: 2 CPU cores, 2 to 3 minutes. Seen: see LOG.md, 2026-11-22.
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
    """An LSTM of 96 both ways, a decoder of 128, additive attention with input feeding."""
    words = TokenizerConfig(type="word")
    return Experiment(
        steps=2000,
        data=DataConfig(train="tfds:scan/simple"),
        tokenizer=TokenizersConfig(source=words, target=words),
        batch=BatchConfig(buckets=3),
        model=ModelConfig(
            embedding=32,
            encoder=EncoderConfig(cell="lstm", size=96),
            attention=AttentionConfig(score="additive", size=64),
            decoder=DecoderConfig(cell="lstm", size=128),
        ),
        optimizer=OptimizerConfig(learning_rate=4e-3, schedule="cosine", warmup_steps=100, clip_norm=1.0),
        validation=ValidationConfig(every=500, sentences=500),
        search=SearchConfig(batch_size=128),
    )
