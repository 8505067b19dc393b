"""WMT14 German to English with four decoder layers, after GNMT (arXiv:1609.08144), for those with a GPU and a network.

Command: s2s train wmt14 --device.platform gpu
Data: tfds:wmt14_translate/de-en, 4.5 million pairs, which TFDS downloads. Not run here: this project was built on a
machine with neither; its parts are tested with TFDS' mock data.
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
from s2s_jax.train.checkpoint.checkpoints import CheckpointConfig
from s2s_jax.train.loop import ValidationConfig
from s2s_jax.train.objectives import LossConfig
from s2s_jax.train.optimizer import OptimizerConfig


def experiment() -> Experiment:
    """Bidirectional LSTM 2 x (512 + 512), decoder 4 x 1024 with residual connections, 32,000 subwords, bfloat16."""
    pieces = TokenizerConfig(type="bpe", size=32_000)
    return Experiment(
        steps=340_000,
        data=DataConfig(train="tfds:wmt14_translate/de-en", max_length=100, too_long="drop"),
        tokenizer=TokenizersConfig(source=pieces, target=pieces),
        batch=BatchConfig(size=256, tokens=32_768, buckets=8),
        model=ModelConfig(
            embedding=512,
            precision="bfloat16",
            encoder=EncoderConfig(cell="lstm", size=512, layers=2, dropout=0.2),
            attention=AttentionConfig(score="additive", size=512),
            decoder=DecoderConfig(cell="lstm", size=1024, layers=4, residual_from=3, dropout=0.2),
        ),
        loss=LossConfig(label_smoothing=0.1),
        optimizer=OptimizerConfig(learning_rate=5e-4, schedule="inverse-sqrt", warmup_steps=4000),
        validation=ValidationConfig(every=5000, metric="bleu", sentences=1000),
        checkpoint=CheckpointConfig(every=5000, keep=3),
        search=SearchConfig(beam=5, length_penalty=1.0),
    )
