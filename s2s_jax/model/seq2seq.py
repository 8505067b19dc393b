"""The settings of the whole model, and the builders that make its pure functions of them."""

import dataclasses
import difflib
from typing import Any, Literal, Protocol, cast

import jax
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, Key

from s2s_jax.model.attention.config import AttentionConfig
from s2s_jax.model.compatibility import check_model
from s2s_jax.model.copy_mechanism import clip_to_vocabulary, copy_targets, identity_copy_table
from s2s_jax.model.decoder.architectures import ARCHITECTURES
from s2s_jax.model.decoder.config import DecoderConfig
from s2s_jax.model.decoder.hard import HardDecoder, posterior_alignment, unroll_hard
from s2s_jax.model.decoder.step import Decoder
from s2s_jax.model.decoder.unroll import unroll as unroll_decoder
from s2s_jax.model.encoder import Encoder, EncoderConfig
from s2s_jax.model.feature_encoders import FeatureEncoders, FeatureRows, FeaturesConfig, encode_rows
from s2s_jax.model.interface import (
    LogitsReader,
    Memory,
    Model,
    Noise,
    Params,
    Source,
    State,
    StepOutput,
    Token,
    Tokens,
    TokenSampler,
)
from s2s_jax.model.ops import initializers
from s2s_jax.model.ops.dropout import keep_words, word_keys
from s2s_jax.model.ops.matmul import PRECISIONS
from s2s_jax.model.ops.sown import fallow
from s2s_jax.shapes import Batch, Sources, real, source_tokens
from s2s_jax.validation import at_least, check_fields, fraction, one_of

BuilderName = Literal["seq2seq"]
PrecisionName = Literal["float32", "bfloat16"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The whole network."""

    builder: BuilderName = "seq2seq"
    """What builds the model: seq2seq, or an entry of your own in `MODELS`, which may read all settings of `model`."""
    options: str = ""
    """Further settings of a builder of your own, NAME=VALUE,...; it reads them with `ModelConfig.read_options`."""
    embedding: int = 256
    """Width of the token embeddings, source and target."""
    shared_embeddings: bool = False
    """Source and target tokens have the same embeddings, which needs one vocabulary for both; with
    model.decoder.tied_embeddings they predict the target too. Press & Wolf 2017, arXiv:1608.05859, section 3."""
    embedding_dropout: float = 0.0
    """Fraction of the words of each sentence whose embeddings are dropped, at all of their positions, source and
    target. Gal & Ghahramani 2016, arXiv:1512.05287, section 4.2."""
    precision: PrecisionName = "float32"
    """Type to which the factors of a matrix product are rounded; parameters and sums stay float32."""
    remat_every: int = 0
    """Steps between two states that are kept for the backward pass, which recomputes the others; 0 keeps all."""
    encoder: EncoderConfig = EncoderConfig()
    """The recurrent network that reads the source."""
    attention: AttentionConfig = AttentionConfig()
    """How the decoder attends to the source."""
    decoder: DecoderConfig = DecoderConfig()
    """The recurrent network that writes the target."""
    features: FeaturesConfig = FeaturesConfig()
    """How features of the source are read, where data.features names some."""

    def __post_init__(self):
        check_fields(self, "model")
        one_of("model.builder", self.builder, MODELS)
        at_least("model.embedding", self.embedding, 1)
        fraction("model.embedding_dropout", self.embedding_dropout)
        one_of("model.precision", self.precision, PRECISIONS)
        at_least("model.remat_every", self.remat_every, 0)
        if self.builder != "seq2seq":
            return
        if self.options:
            raise ValueError(
                f"model.options={self.options} is for a builder of your own, and model.builder=seq2seq has no options; "
                "leave it out."
            )
        check_model(self)

    def read_options(self, **defaults: int | float | bool | str) -> dict[str, Any]:
        """The `options` as a dict, those that are not given with their defaults, each in the type of its default.

        Raises:
            ValueError: an option has another name, or no value of that type.
        """
        values: dict[str, Any] = dict(defaults)
        for option in filter(None, self.options.split(",")):
            name, _, text = option.partition("=")
            if name not in defaults:
                near = difflib.get_close_matches(name, defaults, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else f", got {option!r}."
                raise ValueError(f"model.options of model.builder={self.builder} are {', '.join(defaults)}{hint}")
            values[name] = _option_value(f"model.options {name}", text, type(defaults[name]))
        return values


def _option_value(setting: str, text: str, kind: type) -> int | float | bool | str:
    try:
        return {"true": True, "false": False}[text.lower()] if kind is bool else kind(text)
    except (KeyError, ValueError):
        raise ValueError(f"{setting} must be of type {kind.__name__}, got {text!r}") from None


class Seq2Seq(nnx.Module):
    """The container of all parameters; used only inside the pure functions of `build_seq2seq`."""

    def __init__(
        self,
        config: ModelConfig,
        *,
        source_vocabulary: int,
        target_vocabulary: int,
        feature_vocabularies: tuple[int, ...] = (),
        rngs: nnx.Rngs,
    ):
        dtype: DTypeLike = PRECISIONS[config.precision]
        if not config.shared_embeddings:
            self.embedding = nnx.Param(initializers.embedding(rngs.params(), source_vocabulary, config.embedding))
        widths = {"embedding": config.embedding, "remat": config.remat_every}
        features = None
        if feature_vocabularies:
            features = FeatureEncoders(
                config.features, config.encoder, feature_vocabularies, **widths, dtype=dtype, rngs=rngs
            )
        self.features: Any = features  # None where there are none
        width = config.embedding + (features.joined_width if features else 0)
        self.encoder = Encoder(config.encoder, width, remat=config.remat_every, dtype=dtype, rngs=rngs)
        self.latent_alignment = ARCHITECTURES[config.decoder.architecture].latent_alignment
        self.decoder = (HardDecoder if self.latent_alignment else Decoder)(
            config.decoder,
            config.attention,
            self.encoder,
            embedding=config.embedding,
            vocabulary=target_vocabulary,
            embedding_dropout=config.embedding_dropout,
            features=features.attended_widths if features else (),
            combination=config.features.combination,
            remat=config.remat_every,
            dtype=dtype,
            rngs=rngs,
        )

    def embed(self, source: Source) -> Float[Array, "B S E"]:
        """The embeddings of the source tokens."""
        table, tokens = self.embedding if hasattr(self, "embedding") else self.decoder.embedding, source_tokens(source)
        with jax.named_scope("embedding"):
            return table[clip_to_vocabulary(tokens, table.shape[0]) if self.decoder.copying else tokens]

    def encode_features(self, features: tuple[Int[Array, "B _"], ...], key: Noise) -> list[FeatureRows]:
        """Each feature, by its own encoder or by that of the source."""
        with jax.named_scope("features"), fallow():  # what is read of the encoder is of the source
            if self.features.config.encoder != "shared":
                return self.features(features, key)
            return [encode_rows(self.encoder, self.embed(tokens), tokens, key) for tokens in features]

    def encode(
        self,
        source: Source,
        embedded: Float[Array, "B S E"],
        copy_table: Int[np.ndarray, " V"] | None,
        key: Noise = None,
    ) -> tuple[Memory, State]:
        """What the decoder attends to, and its first state."""
        tokens = source_tokens(source)
        mask = real(tokens)
        target_ids = None if copy_table is None else copy_targets(tokens, mask, copy_table, self.decoder.width)
        for_encoder, for_decoder = (None, None) if key is None else jax.random.split(key)
        if key is not None and (rate := self.decoder.embedding_dropout):
            keys = word_keys(jax.random.fold_in(key, 0), tokens.shape[0])
            embedded = embedded * keep_words(keys, tokens.T, rate).T[..., None]
        features: list[FeatureRows] = []
        if self.features is not None:
            for_features = None if key is None else jax.random.fold_in(key, 2)
            features = self.encode_features(cast(Sources, source).features, for_features)
            embedded = self.features.combine(embedded, features)
        with jax.named_scope("encoder"):
            encoded = self.encoder(embedded, mask, for_encoder)
        if self.features is not None and self.features.attended_widths:
            encoded = encoded._replace(features=tuple(features))
        return self.decoder.start(encoded, mask, for_decoder, target_ids=target_ids)


def build_seq2seq(
    config: ModelConfig,
    *,
    source_vocabulary: int,
    target_vocabulary: int,
    copy_table: Int[np.ndarray, " V"] | None = None,
    feature_vocabularies: tuple[int, ...] = (),
) -> Model:
    """The recurrent encoder-decoder of this project as pure functions; see `build`."""
    if config.shared_embeddings and source_vocabulary != target_vocabulary:
        raise ValueError(
            f"model.shared_embeddings=true needs one vocabulary on both sides, got {source_vocabulary} source and "
            f"{target_vocabulary} target tokens; set tokenizer.shared=true, or model.shared_embeddings=false."
        )

    def make(rngs: nnx.Rngs) -> Seq2Seq:
        sizes = {"source_vocabulary": source_vocabulary, "target_vocabulary": target_vocabulary}
        return Seq2Seq(config, rngs=rngs, feature_vocabularies=feature_vocabularies, **sizes)

    if config.decoder.copy == "none":
        copy_table = None
    elif copy_table is None:
        copy_table = identity_copy_table(source_vocabulary, target_vocabulary, config.decoder.copy_slots)
    graph, _ = nnx.split(nnx.eval_shape(lambda: make(nnx.Rngs(params=0))))

    def network(params: Params) -> Seq2Seq:
        return nnx.merge(graph, _integer_keys(params))

    def init(key: Key[Array, ""]) -> Params:
        return _string_keys(nnx.to_pure_dict(nnx.state(make(nnx.Rngs(params=key)))))

    def embed(params: Params, source: Source) -> Float[Array, "B S E"]:
        return network(params).embed(source)

    def encode_embedded(
        params: Params, source: Source, embedded: Float[Array, "B S E"], key: Noise = None
    ) -> tuple[Memory, State]:
        return network(params).encode(source, embedded, copy_table, key)

    def encode(params: Params, source: Source, key: Noise = None) -> tuple[Memory, State]:
        model = network(params)
        return model.encode(source, model.embed(source), copy_table, key)

    def step(params: Params, memory: Memory, state: State, token: Token) -> tuple[State, StepOutput]:
        return network(params).decoder.step(memory, state, token)

    def unroll(
        params: Params,
        memory: Memory,
        state: State,
        tokens: Tokens,
        *,
        reader: LogitsReader | None = None,
        sampler: TokenSampler | None = None,
    ) -> tuple[State, StepOutput]:
        model = network(params)
        run: Any = unroll_hard if model.latent_alignment else unroll_decoder
        return run(model.decoder, memory, state, tokens, reader=reader, sampler=sampler)

    def posterior(params: Params, batch: Batch) -> Float[Array, "B T S"]:
        model: Any = network(params)
        memory, state = model.encode(batch.inputs, model.embed(batch.inputs), copy_table)
        return posterior_alignment(model.decoder, memory, state, batch.target)

    latent = ARCHITECTURES[config.decoder.architecture].latent_alignment
    return Model(
        *(jax.jit(init), encode, step, unroll, embed, encode_embedded),
        posterior=posterior if latent else None,
        output=config.decoder.output,
    )


class ModelBuilder(Protocol):
    """A function that makes a model of its settings and the sizes of the two vocabularies."""

    def __call__(
        self,
        config: ModelConfig,
        *,
        source_vocabulary: int,
        target_vocabulary: int,
        copy_table: Int[np.ndarray, " V"] | None = None,
    ) -> Model:
        """The model as pure functions; `copy_table` is that of `build`, and of no use to a model that does not copy."""
        ...


MODELS: dict[str, ModelBuilder] = {"seq2seq": build_seq2seq}


def build(
    config: ModelConfig,
    *,
    source_vocabulary: int,
    target_vocabulary: int,
    copy_table: Int[np.ndarray, " V"] | None = None,
    feature_vocabularies: tuple[int, ...] = (),
) -> Model:
    """The model of `MODELS[config.builder]` as pure functions; nothing is allocated before `init`.

    Args:
        copy_table: for `model.decoder.copy`, the target id of each source id and slot, -1 for none, as
            `PairTokenizer.copy_table` makes it; if it is left out, both sides have one vocabulary.
        feature_vocabularies: the size of the vocabulary of each feature; the model then encodes `Sources`.

    Raises:
        ValueError: two choices cannot go together; with the reason and what to choose instead.
    """
    one_of("model.builder", config.builder, MODELS)
    sizes = {"source_vocabulary": source_vocabulary, "target_vocabulary": target_vocabulary}
    features: dict[str, Any] = {"feature_vocabularies": feature_vocabularies} if feature_vocabularies else {}
    return MODELS[config.builder](config, **sizes, copy_table=copy_table, **features)


def _string_keys(tree: Any) -> Any:
    """Layers named by strings, as checkpoint formats want them."""
    return {str(key): _string_keys(value) for key, value in tree.items()} if isinstance(tree, dict) else tree


def _integer_keys(tree: Any) -> Any:
    """Layers numbered, as flax wants them."""
    if not isinstance(tree, dict):
        return tree
    return {int(key) if key.isdigit() else key: _integer_keys(value) for key, value in tree.items()}
