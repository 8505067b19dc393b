"""Anyone's own two files: translation with subwords.

Command: s2s train parallel_text --data.train train.en,train.de --data.validation dev.en,dev.de --run runs/mine
A TSV or JSON-lines file of pairs serves as well: --data.train pairs.tsv. Small data wants smaller vocabularies
(--tokenizer.source.size 2000 --tokenizer.target.size 2000) and more dropout.
"""

from s2s_jax.config import Experiment
from s2s_jax.decode.search import SearchConfig
from s2s_jax.model.attention.config import AttentionConfig
from s2s_jax.model.decoder.config import DecoderConfig
from s2s_jax.model.encoder import EncoderConfig
from s2s_jax.model.seq2seq import ModelConfig
from s2s_jax.text.sources import DataConfig
from s2s_jax.text.tokenizers import TokenizerConfig, TokenizersConfig
from s2s_jax.train.objectives import LossConfig
from s2s_jax.train.optimizer import OptimizerConfig


def experiment() -> Experiment:
    """A bidirectional LSTM of 256, a decoder of 512 with general attention and input feeding."""
    pieces = TokenizerConfig(type="bpe", size=8000)
    return Experiment(
        steps=20_000,
        data=DataConfig(max_length=80, too_long="drop"),
        tokenizer=TokenizersConfig(source=pieces, target=pieces),
        model=ModelConfig(
            embedding=256,
            encoder=EncoderConfig(cell="lstm", size=256, dropout=0.3),
            attention=AttentionConfig(score="general"),
            decoder=DecoderConfig(cell="lstm", size=512, dropout=0.3),
        ),
        loss=LossConfig(label_smoothing=0.1),
        optimizer=OptimizerConfig(learning_rate=1e-3, schedule="cosine", warmup_steps=500),
        search=SearchConfig(beam=5),
    )
