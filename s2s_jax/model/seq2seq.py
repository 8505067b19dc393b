"""How do encoder, attention and decoder become one model behind three pure functions?"""

import dataclasses
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, Key

from s2s_jax.model.attention.attention import check
from s2s_jax.model.attention.config import AttentionConfig
from s2s_jax.model.copy_mechanism import clip_to_vocabulary, copy_targets, identity_copy_table
from s2s_jax.model.decoder.decoder import Decoder, DecoderConfig
from s2s_jax.model.encoder import Encoder, EncoderConfig
from s2s_jax.model.interface import LogitsReader, Memory, Model, Noise, Params, State, Token, Tokens, TokenSampler
from s2s_jax.model.ops import initializers
from s2s_jax.model.ops.matmul import PRECISIONS
from s2s_jax.shapes import real
from s2s_jax.validation import at_least, check_fields, one_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The whole network."""

    embedding: int = 256
    """Width of the token embeddings, source and target."""
    precision: str = "float32"
    """What factors are rounded to before a matrix product: float32 or bfloat16; parameters and sums stay float32."""
    remat_every: int = 0
    """Steps between two states that are kept for the way back, those between being computed again; 0 keeps all."""
    encoder: EncoderConfig = EncoderConfig()
    """The recurrent network that reads the source."""
    attention: AttentionConfig = AttentionConfig()
    """How the decoder looks at the source."""
    decoder: DecoderConfig = DecoderConfig()
    """The recurrent network that writes the target."""

    def __post_init__(self):
        check_fields(self, "model")
        at_least("model.embedding", self.embedding, 1)
        one_of("model.precision", self.precision, PRECISIONS)
        at_least("model.remat_every", self.remat_every, 0)
        check(self.attention)


class Seq2Seq(nnx.Module):
    """The container of all parameters; used only inside this file's pure functions."""

    def __init__(self, config: ModelConfig, *, source_vocabulary: int, target_vocabulary: int, rngs: nnx.Rngs):
        dtype: DTypeLike = PRECISIONS[config.precision]
        self.embedding = nnx.Param(initializers.embedding(rngs.params(), source_vocabulary, config.embedding))
        self.encoder = Encoder(config.encoder, config.embedding, remat=config.remat_every, dtype=dtype, rngs=rngs)
        self.decoder = Decoder(
            config.decoder,
            config.attention,
            self.encoder,
            embedding=config.embedding,
            vocabulary=target_vocabulary,
            remat=config.remat_every,
            dtype=dtype,
            rngs=rngs,
        )

    def embed(self, source: Int[Array, "B S"]) -> Float[Array, "B S E"]:
        """The embeddings of source tokens."""
        with jax.named_scope("embedding"):
            return self.embedding[
                clip_to_vocabulary(source, self.embedding.shape[0]) if self.decoder.copying else source
            ]

    def encode(
        self,
        source: Int[Array, "B S"],
        copy_table: Int[np.ndarray, " V"] | None,
        key: Noise = None,
        embedded: Float[Array, "B S E"] | None = None,
    ) -> tuple[Memory, State]:
        """Read the source once."""
        mask = real(source)
        target_ids = None if copy_table is None else copy_targets(source, mask, copy_table, self.decoder.width)
        for_encoder, for_decoder = (None, None) if key is None else jax.random.split(key)
        embedded = self.embed(source) if embedded is None else embedded
        with jax.named_scope("encoder"):
            encoded = self.encoder(embedded, mask, for_encoder)
        return self.decoder.start(encoded, mask, for_decoder, target_ids=target_ids)


def build(
    config: ModelConfig,
    *,
    source_vocabulary: int,
    target_vocabulary: int,
    copy_table: Int[np.ndarray, " V"] | None = None,
) -> Model:
    """The model as pure functions; nothing is allocated before `init`.

    Args:
        copy_table: where words are copied, the target id of each source id and slot, -1 for nothing, as
            `PairTokenizer.copy_table` makes it; left out, both sides have one vocabulary.

    Raises:
        ValueError: where two choices cannot go together, with the reason and what to choose instead.
    """

    def make(rngs: nnx.Rngs) -> Seq2Seq:
        sizes = {"source_vocabulary": source_vocabulary, "target_vocabulary": target_vocabulary}
        return Seq2Seq(config, rngs=rngs, **sizes)

    if config.decoder.copy == "none":
        copy_table = None
    elif copy_table is None:
        copy_table = identity_copy_table(source_vocabulary, target_vocabulary, config.decoder.copy_slots)
    graph, _ = nnx.split(nnx.eval_shape(lambda: make(nnx.Rngs(params=0))))

    def bound(params: Params) -> Seq2Seq:
        return nnx.merge(graph, _integer_keys(params))

    def init(key: Key[Array, ""]) -> Params:
        return _string_keys(nnx.to_pure_dict(nnx.state(make(nnx.Rngs(params=key)))))

    def encode(
        params: Params,
        source: Int[Array, "B S"],
        key: Noise = None,
        *,
        embedded: Float[Array, "B S E"] | None = None,
    ) -> tuple[Memory, State]:
        return bound(params).encode(source, copy_table, key, embedded)

    def embed(params: Params, source: Int[Array, "B S"]) -> Float[Array, "B S E"]:
        return bound(params).embed(source)

    def step(params: Params, memory: Memory, state: State, token: Token, key: Noise = None):
        return bound(params).decoder.step(memory, state, token)

    def unroll(
        params: Params,
        memory: Memory,
        state: State,
        tokens: Tokens,
        key: Noise = None,
        reader: LogitsReader | None = None,
        sampler: TokenSampler | None = None,
    ):
        return bound(params).decoder.unroll(memory, state, tokens, reader, sampler)

    return Model(jax.jit(init), encode, step, unroll, embed)


def _string_keys(tree: Any) -> Any:
    """Layers named by strings, as every checkpoint format wants them."""
    return {str(key): _string_keys(value) for key, value in tree.items()} if isinstance(tree, dict) else tree


def _integer_keys(tree: Any) -> Any:
    """Layers numbered, as flax wants them."""
    if not isinstance(tree, dict):
        return tree
    return {int(key) if key.isdigit() else key: _integer_keys(value) for key, value in tree.items()}
