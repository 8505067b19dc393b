"""How features of a source are encoded, and how what they say reaches the network that reads the source.

Features are further texts beside a source line, such as tags, or the line in other languages (`data.features`). Each
has rows, one per token, and a vector that summarizes it. The vectors enter the source's embeddings, or the decoder
attends to the rows (`feature_attention`).
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from s2s_jax.model.encoder import Encoder, EncoderConfig
from s2s_jax.model.interface import Noise
from s2s_jax.model.ops import initializers
from s2s_jax.model.ops.matmul import matmul
from s2s_jax.shapes import real
from s2s_jax.validation import at_least, check_fields, one_of

FeatureEncoderName = Literal["linear", "recurrent", "shared"]
FeaturePooling = Literal["sum", "mean"]
CombinationName = Literal["concatenate", "sum", "flat", "separate", "hierarchical"]
OF_EMBEDDINGS = ("concatenate", "sum")  # combinations by which features enter the source's embeddings


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeaturesConfig:
    """How features (`data.features`) are encoded and combined with the source."""

    encoder: FeatureEncoderName = "linear"
    """linear (an embedding per token, in no order), recurrent (a bidirectional network of the source encoder's cell and
    dropout), or shared (the source's own embeddings and encoder, with one vocabulary for source and features)."""
    size: int = 64
    """Width of a feature's embeddings, and of the state of a recurrent encoder in each direction."""
    pooling: FeaturePooling = "sum"
    """What makes a vector of the embeddings of a linear encoder: their sum or their mean, end token included. The
    vector of other encoders is their last state, as the bridge reads it."""
    combination: CombinationName = "concatenate"
    """concatenate (the vector is joined to every source embedding), sum (a learned map of it is added to them), or
    attention to all rows: flat (one softmax over source and features), separate (an attention for each, whose contexts
    are concatenated) or hierarchical (a second attention over those contexts). Libovicky & Helcl 2017,
    arXiv:1704.06567."""

    def __post_init__(self):
        check_fields(self, "model.features")
        one_of("model.features.encoder", self.encoder, get_args(FeatureEncoderName))
        one_of("model.features.pooling", self.pooling, get_args(FeaturePooling))
        one_of("model.features.combination", self.combination, get_args(CombinationName))
        at_least("model.features.size", self.size, 1)


class FeatureRows(NamedTuple):
    """One encoded feature."""

    rows: Float[Array, "B F W"]  # zero on padding
    mask: Bool[Array, "B F"]
    vector: Float[Array, "B W"]


class LinearFeature(nnx.Module):
    """Rows are embeddings, and the vector is their sum or mean: the order of the tokens does not matter."""

    def __init__(self, config: FeaturesConfig, vocabulary: int, *, rngs: nnx.Rngs):
        self.config, self.width = config, config.size
        self.embedding = nnx.Param(initializers.embedding(rngs.params(), vocabulary, config.size))

    def __call__(self, tokens: Int[Array, "B F"], key: Noise = None) -> FeatureRows:
        """The embeddings, and their sum or mean over real tokens."""
        mask = real(tokens)
        rows = jnp.where(mask[..., None], self.embedding[tokens], 0.0)
        vector = rows.sum(1)
        if self.config.pooling == "mean":
            vector /= jnp.maximum(mask.sum(-1, keepdims=True), 1).astype(vector.dtype)
        return FeatureRows(rows, mask, vector)


class RecurrentFeature(nnx.Module):
    """Rows are the outputs of an encoder with embeddings of its own, and the vector is its last state."""

    def __init__(self, config: EncoderConfig, size: int, vocabulary: int, *, remat: int, dtype: DTypeLike, rngs):
        self.embedding = nnx.Param(initializers.embedding(rngs.params(), vocabulary, size))
        self.encoder = Encoder(config, size, remat=remat, dtype=dtype, rngs=rngs)
        self.width = self.encoder.width

    def __call__(self, tokens: Int[Array, "B F"], key: Noise = None) -> FeatureRows:
        """The outputs and the last state of the top layer."""
        return encode_rows(self.encoder, self.embedding[tokens], tokens, key)


def encode_rows(
    encoder: Encoder, embedded: Float[Array, "B F E"], tokens: Int[Array, "B F"], key: Noise = None
) -> FeatureRows:
    """The outputs of an encoder, and the last state of its top layer."""
    encoded = encoder(embedded, real(tokens), key)
    return FeatureRows(encoded.outputs, real(tokens), encoded.carries[-1][0])


def recurrent_config(source: EncoderConfig, size: int) -> EncoderConfig:
    """The encoder of a feature: one bidirectional layer of the source encoder's cell, with its dropout."""
    config = EncoderConfig(cell=source.cell, size=size)
    for name in ("dropout", "recurrent_dropout"):  # which may be traced
        object.__setattr__(config, name, getattr(source, name))
    return config


class FeatureEncoders(nnx.Module):
    """The encoders of all features, and the part of the source's embeddings that their vectors make."""

    def __init__(
        self,
        config: FeaturesConfig,
        source: EncoderConfig,
        vocabularies: Sequence[int],
        *,
        embedding: int,
        remat: int,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        self.config, self.dtype, count = config, dtype, len(vocabularies)
        if config.encoder == "linear":
            self.encoders = nnx.List(LinearFeature(config, each, rngs=rngs) for each in vocabularies)
        elif config.encoder == "recurrent":
            own, options = recurrent_config(source, config.size), {"remat": remat, "dtype": dtype, "rngs": rngs}
            self.encoders = nnx.List(RecurrentFeature(own, config.size, each, **options) for each in vocabularies)
        shared = config.encoder == "shared"
        width = source.width if shared else self.encoders[0].width
        self.widths = (width,) * count  # of the rows and the vector of each feature
        if config.combination == "sum":
            self.maps = nnx.Param(initializers.glorot(rngs.params(), count, width, embedding))

    @property
    def joined_width(self) -> int:
        """The width that source embeddings grow by."""
        return sum(self.widths) if self.config.combination == "concatenate" else 0

    @property
    def attended_widths(self) -> tuple[int, ...]:
        """The width of the rows of each feature that the decoder attends to."""
        return () if self.config.combination in OF_EMBEDDINGS else self.widths

    def __call__(self, features: Sequence[Int[Array, "B _"]], key: Noise = None) -> list[FeatureRows]:
        """Each feature encoded by its own encoder."""
        keys = [None] * len(features) if key is None else list(jax.random.split(key, len(features)))
        return [encode(tokens, own) for encode, tokens, own in zip(self.encoders, features, keys, strict=True)]

    def combine(self, embedded: Float[Array, "B S E"], features: Sequence[FeatureRows]) -> Float[Array, "B S J"]:
        """The source embeddings with the vectors of the features; unchanged where the decoder attends to the rows."""
        if self.config.combination == "concatenate":
            vectors = jnp.concatenate([feature.vector for feature in features], axis=-1)
            repeated = jnp.broadcast_to(vectors[:, None], (*embedded.shape[:2], vectors.shape[-1]))
            return jnp.concatenate([embedded, repeated], axis=-1)
        if self.config.combination == "sum":
            mapped = [matmul(one.vector, self.maps[number], self.dtype) for number, one in enumerate(features)]
            return embedded + sum(mapped[1:], mapped[0])[:, None]
        return embedded
