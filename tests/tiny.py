"""The smallest experiment that learns something: copying up to five letters, in seconds."""

from collections.abc import Callable
from pathlib import Path

from s2s_jax import config
from s2s_jax.model.attention.config import AttentionConfig
from s2s_jax.model.decoder.config import DecoderConfig
from s2s_jax.model.encoder import EncoderConfig
from s2s_jax.model.seq2seq import ModelConfig
from s2s_jax.text.batches import BatchConfig
from s2s_jax.text.sources import DataConfig
from s2s_jax.text.tokenizers import TokenizerConfig, TokenizersConfig
from s2s_jax.training.checkpoint.checkpoints import CheckpointConfig
from s2s_jax.training.devices import DeviceConfig
from s2s_jax.training.metrics_writer import RecordConfig
from s2s_jax.training.optimizer import OptimizerConfig
from s2s_jax.training.stop_policy import ValidationConfig


def experiment(*changes: str) -> config.Experiment:
    """The tiny experiment with overrides."""
    words = TokenizerConfig(type="word")
    tiny = config.Experiment(
        steps=300,
        data=DataConfig(train="task:copy", train_size=3000, eval_size=100, lengths=(1, 5)),
        tokenizer=TokenizersConfig(source=words, target=words),
        batch=BatchConfig(size=64, buckets=1, prefetch=2),
        model=ModelConfig(
            embedding=16,
            encoder=EncoderConfig(cell="gru", size=16),
            attention=AttentionConfig(score="general"),
            decoder=DecoderConfig(cell="gru", size=32, input_feeding=False),
        ),
        optimizer=OptimizerConfig(learning_rate=2e-2, schedule="cosine", warmup_steps=20, clip_norm=1.0),
        validation=ValidationConfig(every=100, sentences=50),
        checkpoint=CheckpointConfig(every=100),
        record=RecordConfig(log_every=50),
        device=DeviceConfig(count=1, cache=""),
    )
    return config.override(tiny, *changes)


def prepare(experiment: config.Experiment, directory: Path, print_line: Callable[[str], None]):
    """The data, tokenizers and pairs of a run, written into its directory as when a training starts."""
    from s2s_jax.run.inputs import read_inputs, write_run  # only now: processes that train import this file too

    inputs = read_inputs(experiment, print_line, resumed=None)
    write_run(experiment, inputs, directory)
    return inputs
