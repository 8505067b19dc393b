"""One thought vector for the whole sentence is a bottleneck; attention is not.

Claim: trained on lines of up to 20 letters, tested on up to 40, quality without attention falls with every letter; with
it, only beyond what was seen in training.
Command: s2s sweep run bottleneck --jobs 2      (dates: --function dates; sounds: --function sounds --data.manual-dir DIR)
Hardware and time: 2 CPU cores, 8 minutes beside other work.
Expect: with attention nearly every line of up to 20 letters is right, without it hardly any of more than 14.
Seen: 2026-11-22, 6 seeds: exact match over all lengths 0.531 with attention, 0.177 without (difference 0.353, 95 % from
0.324 to 0.382, p = 0.031, the least that six seeds can give); docs/bottleneck.svg has it by length. Beyond 21 letters
both are near 0: attention does not make a GRU count further than it was taught.
"""

from s2s_jax.config import Experiment, override
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

VARIANTS = {
    "thought vector": {"model.attention.score": "none"},
    "attention": {"model.attention.score": "general"},
}


def base() -> Experiment:
    """Letters in reverse with a GRU of 64."""
    letters = TokenizerConfig(type="word")
    return Experiment(
        steps=1000,
        data=DataConfig(train="task:reverse", lengths=(1, 20), test_lengths=(1, 40)),
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
        search=SearchConfig(batch_size=256, max_length=60),
    )


def sweep() -> Sweep:
    """Six seeds, the fewest with which one comparison can be significant."""
    return Sweep(
        base=base(),
        axes={"encoder and decoder meet in": VARIANTS},
        compare="encoder and decoder meet in",
        baseline="thought vector",
        seeds=range(6),
        metrics=("exact_match", "token_accuracy"),
    )


def dates() -> Sweep:
    """The same on dates in 18 locales, by the letters of the source."""
    changes = ("data.train=task:dates", "data.lengths=[0,0]", "data.test-lengths=[0,0]", "tokenizer.source.type=char")
    reading = override(base(), *changes, "tokenizer.target.type=char")
    return Sweep(
        base=reading,
        axes={"encoder and decoder meet in": VARIANTS},
        compare="encoder and decoder meet in",
        baseline="thought vector",
        seeds=range(6),
        metrics=("exact_match", "token_accuracy"),
    )


def sounds() -> Sweep:
    """The same on CMUdict, by the letters of the word."""
    changes = (
        "data.train=tfds:cmudict_g2p",
        "data.lengths=[0,0]",
        "data.test-lengths=[0,0]",
        "tokenizer.source.type=char",
    )
    sizes = ("model.encoder.size=128", "model.decoder.size=128", "batch.size=128", "evaluation.unit=phone")
    return Sweep(
        base=override(base(), *changes, *sizes, "steps=2000"),
        axes={"encoder and decoder meet in": VARIANTS},
        compare="encoder and decoder meet in",
        baseline="thought vector",
        seeds=range(6),
        metrics=("wer", "per"),
    )
