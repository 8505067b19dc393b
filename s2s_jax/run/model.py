"""The model of a run, for the vocabularies of its tokenizers."""

from typing import Any

import jax

from s2s_jax.model.interface import Model, Params
from s2s_jax.model.seq2seq import ModelConfig, build
from s2s_jax.text.copy_vocabulary import PairTokenizer
from s2s_jax.training.optimizer import OptimizerConfig, frozen_mask


def make_model(config: ModelConfig, tokenizers: PairTokenizer) -> Model:
    """The model for the vocabularies of the tokenizers.

    Raises:
        ValueError: both sides are to have the same embeddings, and their tokenizers differ.
    """
    if config.shared_embeddings and not tokenizers.one_vocabulary:
        raise ValueError(
            "model.shared_embeddings=true needs one vocabulary on both sides, and that of the source "
            f"({tokenizers.source.size} tokens) is not that of the target ({tokenizers.target.size} tokens); set "
            "tokenizer.shared=true, or model.shared_embeddings=false."
        )
    sizes = {"source_vocabulary": tokenizers.source.size, "target_vocabulary": tokenizers.target.size}
    features = tuple(each.size for each in tokenizers.features.tokenizers)
    return build(config, **sizes, copy_table=tokenizers.copy_table(), feature_vocabularies=features)


def tokenizer_options(config: ModelConfig) -> dict[str, Any]:
    """What a model's settings say of its tokenizers."""
    return {"copy_slots": copy_slots(config), "share_features": config.features.encoder == "shared"}


def copy_slots(config: ModelConfig) -> int:
    """Words per source sentence that can be copied although its vocabulary does not have them."""
    return config.decoder.copy_slots if config.decoder.copy != "none" else 0


def count_parameters(params: Params) -> int:
    """The number of parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def count_trained(params: Params, config: OptimizerConfig) -> int:
    """The number of parameters that are not frozen (optimizer.freeze)."""
    mask = frozen_mask(config)
    if mask is None:
        return count_parameters(params)
    sizes = jax.tree.map(lambda leaf, still: 0 if still else leaf.size, params, mask(params))
    return sum(jax.tree.leaves(sizes))
