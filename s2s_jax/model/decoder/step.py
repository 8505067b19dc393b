"""The decoder's parameters and its step; every driver decodes with this step, or with an unroll that equals it."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, PyTree

from s2s_jax.model.attention.attention import AttentionOutput
from s2s_jax.model.attention.config import AttentionConfig
from s2s_jax.model.attention.heads import build_attention
from s2s_jax.model.bridge import BRIDGES
from s2s_jax.model.cells import CELLS, make_cell
from s2s_jax.model.copy_mechanism import COPYING, Copied, CopyWidths, clip_to_vocabulary
from s2s_jax.model.decoder.architectures import ARCHITECTURES, DropoutMasks, Layers, StepWeights, apply_mask
from s2s_jax.model.decoder.config import DecoderConfig
from s2s_jax.model.decoder_self_attention import DecoderSelfAttention
from s2s_jax.model.encoder import Encoded, Encoder
from s2s_jax.model.feature_attention import FEATURE_ATTENTIONS
from s2s_jax.model.interface import Memory, Noise, State, StepOutput, Token
from s2s_jax.model.ops import initializers
from s2s_jax.model.ops.dropout import keep_mask, keep_words, word_keys
from s2s_jax.model.ops.matmul import broadcast_bias, matmul_transposed
from s2s_jax.model.output_distribution import SPARSE_OUTPUTS, log_probabilities
from s2s_jax.model.zoneout import draw_kept_at, zoneout_rates
from s2s_jax.shapes import Size


class DecoderOutput(NamedTuple):
    """One step before the product with the vocabulary; an unroll has the same with a time axis in front."""

    features: Float[Array, "*B R"]  # the readout vector
    alignment: Float[Array, "*B S"]
    context: Float[Array, "*B M"]
    heads: PyTree
    copy_features: PyTree  # what copying keeps of the step; () in a model that does not copy


class Decoder(nnx.Module):
    """Embedding, stacked cells, attention, readout, vocabulary."""

    def __init__(
        self,
        config: DecoderConfig,
        attention: AttentionConfig,
        encoder: Encoder,
        *,
        embedding: int,
        vocabulary: int,
        embedding_dropout: float = 0.0,
        features: tuple[int, ...] = (),
        combination: str = "",
        remat: int = 0,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        """`features` are the widths of those that are attended to, by the attention that `combination` names."""
        self.config, self.remat, self.dtype, self.embedding_size = config, remat, dtype, embedding
        self.embedding_dropout = embedding_dropout
        size, kind = config.size, ARCHITECTURES[config.architecture]
        self.embedding = nnx.Param(initializers.embedding(rngs.params(), vocabulary, embedding))
        if features:
            kind_of_attention = FEATURE_ATTENTIONS[combination]
            self.attention = kind_of_attention(attention, size, encoder.width, features, dtype=dtype, rngs=rngs)
        else:
            self.attention = build_attention(attention, size, encoder.width, dtype=dtype, rngs=rngs)
        self.readout_size = config.readout_width(embedding)
        window = config.self_attention_window
        self.self_attention = DecoderSelfAttention(size, window, dtype=dtype, rngs=rngs) if window else None
        sizes = CopyWidths(encoder.width, self.attention.width, config.state_width, embedding)
        slots, copies = config.copy_slots, config.copy != "none"
        self.copying = COPYING[config.copy](sizes, slots=slots, dtype=dtype, rngs=rngs) if copies else None
        self.vocabulary, self.width = vocabulary, vocabulary + slots * copies
        make = functools.partial(make_cell, config.cell, size=size, dtype=dtype, rngs=rngs)
        extra = self.attention.width * kind.bottom_reads_context + self.readout_size * config.feeds_back
        extra += self.copying.width if self.copying else 0
        first = make(inputs=embedding, extra=extra, transitions=config.transitions)
        below = size + self.attention.width * kind.upper_reads_context
        upper = [make(inputs=0, extra=below, transitions=config.transitions) for _ in range(config.layers - 1)]
        self.cells = nnx.List([first, *upper])
        self.architecture = kind(make, self.attention.width)
        self.zoneout = zoneout_rates(config.zoneout, config.cell_zoneout, CELLS[config.cell].states)
        remembered = 0 if kind.remembers is None else kind.remembers % config.layers + 1  # counted from 1
        self.keeps_output = 0 < config.residual_from <= remembered  # otherwise the output is the state
        self.bridge = BRIDGES[config.bridge](
            end=encoder.width,
            ends=encoder.config.layers,
            end_states=CELLS[encoder.config.cell].states,
            layers=config.layers,
            size=size,
            states=CELLS[config.cell].states,
            dtype=dtype,
            rngs=rngs,
        )
        widths = self.attention.width, config.state_width, embedding, self.readout_size
        self.readout = config.readout_kind(*widths, dtype=dtype, rngs=rngs)
        if not config.tied_embeddings:
            self.output = nnx.Param(initializers.glorot(rngs.params(), vocabulary, self.readout_size))
        self.output_bias = nnx.Param(jnp.zeros((vocabulary,)))

    def start(
        self,
        encoded: Encoded,
        mask: Bool[Array, "B S"],
        key: Noise = None,
        *,
        target_ids: Int[Array, "B S"] | None = None,
    ) -> tuple[Memory, State]:
        """What is fixed for these sentences, and the state before the first token.

        Args:
            target_ids: in a model that copies, the target id of each source token.
        """
        encoded = encoded._replace(outputs=jnp.where(mask[..., None], encoded.outputs, 0.0))  # 0 x NaN would be NaN
        of_features: tuple[Any, ...] = (mask, encoded.features) if encoded.features else ()
        keys = self.attention.prepare(encoded.outputs, *of_features)
        noise = () if key is None else self._draw_masks(key, mask.shape[0])
        feedback = jnp.zeros((mask.shape[0], self.readout_size)) if self.config.feeds_back else ()
        last_states = self.self_attention.start(mask.shape[0]) if self.self_attention else ()
        attention = self.attention.start(keys, mask)
        state = State(self.bridge(encoded, mask), feedback, attention, self_attention=last_states)
        if self.keeps_output:
            state = state._replace(output=state.carry[self.architecture.remembers][0])
        if self.zoneout:
            state = state._replace(time=jnp.zeros(mask.shape[0], jnp.int32))
        outputs = encoded.carries[-1][0][:, None] if self.attention.reads_last_state else encoded.outputs
        memory = Memory(keys, self.attention.values(outputs), mask, noise)
        if self.copying is None:
            return memory, state
        memory = memory._replace(copyable=self.copying.prepare(encoded.outputs, target_ids))
        return memory, state._replace(copying=self.copying.start(target_ids))

    def _draw_masks(self, key, batch: Size) -> DropoutMasks:
        config, keys = self.config, jax.random.split(key, 4)
        widths = [self.embedding_size] + [config.size] * (config.layers - 1)

        def draw(key, rate, widths):
            keys = jax.random.split(key, len(widths))
            return tuple(keep_mask(key, rate, (batch, width)) for key, width in zip(keys, widths, strict=True))

        return DropoutMasks(
            draw(keys[0], config.dropout, widths),
            draw(keys[1], config.recurrent_dropout, [config.size] * config.layers),
            keep_mask(keys[2], config.dropout, (batch, self.readout_size)),
            jax.random.key_data(jax.random.split(keys[3], batch)) if self.attention.noisy else None,
            jax.random.key_data(jax.random.split(jax.random.fold_in(key, 0), batch)) if self.zoneout else None,
            word_keys(jax.random.fold_in(key, 1), batch) if self.embedding_dropout else None,
        )

    def kept_states(self, memory: Memory, time: PyTree) -> PyTree:
        """For each layer and leaf of its carry what zoneout keeps at a step; None where that is not drawn."""
        if not self.zoneout or not memory.noise:
            return None
        return draw_kept_at(memory.noise.zoneout, time, self.zoneout, self.config.layers, self.config.size)

    def step(self, memory: Memory, state: State, token: Token) -> tuple[State, StepOutput]:
        """The next state, and the logits of the token after `token`."""
        embedded = self.embed(memory, token)
        projected = self.cells[0].project(embedded)
        state, output = self.advance(self.step_weights(), memory, state, projected, embedded, token)
        logits = self.logits(output.features, self.copy_scores(memory, output, embedded))
        scores = self.scores(output.features) if self.is_sparse else ()
        return state, StepOutput(logits, output.alignment, output.context, output.heads, scores=scores)

    def embed(self, memory: Memory, tokens: Int[Array, "*B"] | Float[Array, "*B V"]) -> Float[Array, "*B E"]:
        """The embeddings of target tokens, or the means that weights over the vocabulary make; with dropout."""
        with jax.named_scope("embedding"):
            keys = memory.noise.words if memory.noise else None
            if jnp.issubdtype(tokens.dtype, jnp.floating):
                if keys is not None:
                    every = jnp.broadcast_to(jnp.arange(self.vocabulary)[:, None], (self.vocabulary, len(keys)))
                    tokens = apply_mask(tokens, keep_words(keys, every, self.embedding_dropout).T)
                embedded = jnp.einsum("...v,ve->...e", tokens, self.embedding[...])
            else:
                embedded = self.embedding[clip_to_vocabulary(tokens, self.vocabulary) if self.copying else tokens]
                if keys is not None:
                    embedded = embedded * keep_words(keys, tokens, self.embedding_dropout)[..., None]
        return apply_mask(embedded, memory.noise.inputs[0] if memory.noise else None)

    def step_weights(self) -> StepWeights:
        """The weights of each step; the token's share of the gates is computed outside the scan."""
        widths = [self.embedding_size] + [0] * (self.config.layers - 1)
        cells = (cell.step_weights(hoisted=width) for cell, width in zip(self.cells, widths, strict=True))
        return StepWeights(
            tuple(cells),
            self.architecture.step_weights(),
            self.attention.step_weights(),
            self.self_attention.step_weights() if self.self_attention else (),
            self.readout.step_weights(),
        )

    def advance(
        self,
        weights: StepWeights,
        memory: Memory,
        state: State,
        projected: Float[Array, "B G"],
        embedded: Float[Array, "B E"],
        token: Token,
    ) -> tuple[State, DecoderOutput]:
        """One step up to the vector that predicts."""
        feedback, copied = state.feedback if self.config.feeds_back else None, None
        if self.copying and self.copying.reads:
            copied = self.copying.read(memory.copyable, memory.values, state.copying, token)
        known = self.config.residual_from, embedded, projected, feedback, copied, self._previous_output(state)
        kept = self.kept_states(memory, state.time)
        layers = Layers(self.cells, weights, memory.noise, *known, self.zoneout, kept)
        attend = functools.partial(self.attend, weights, memory, state)
        carries, attended, predicting, last = self.architecture.advance(layers, state.carry, attend)
        last = last if self.keeps_output else ()
        last_states, predicting = self.self_attend(weights, state, predicting)
        vector = self.read_out(weights, memory, attended.context, predicting, embedded)
        copy_features = self.copying.features(memory.copyable, predicting) if self.copying else ()
        copying = copy_features if self.copying and self.copying.reads else ()
        output = DecoderOutput(vector, attended.alignment, attended.context, attended.heads, copy_features)
        feedback, time = vector if self.config.feeds_back else (), state.time + 1 if self.zoneout else ()
        return State(carries, feedback, attended.state, copying, last_states, last, time), output

    def _previous_output(self, state: State) -> Float[Array, "B H"] | None:
        """The last output of the layer that the architecture remembers; None if it remembers none."""
        if self.keeps_output:
            return state.output
        layer = self.architecture.remembers
        return None if layer is None else state.carry[layer][0]

    def attend(self, weights: StepWeights, memory: Memory, state: State, query: Float[Array, "B H"]) -> AttentionOutput:
        """The attention of one query over the source."""
        noise = memory.noise.attention if memory.noise else None
        with jax.named_scope("attention"):
            sentence = memory.keys, memory.values, memory.mask
            return self.attention.attend(weights.attention, state.attention, query, *sentence, noise)

    def self_attend(
        self, weights: StepWeights, state: State, output: Float[Array, "*T B H"]
    ) -> tuple[PyTree, Float[Array, "*T B W"]]:
        """The last states to carry on, and the state that predicts with their context concatenated to it."""
        if self.self_attention is None:
            return state.self_attention, output
        last_states, context = self.self_attention(weights.self_attention, state.self_attention, output)
        return last_states, jnp.concatenate([output, context], axis=-1)

    def read_out(
        self,
        weights: StepWeights,
        memory: Memory,
        context: Float[Array, "*T B M"],
        state: Float[Array, "*T B W"],
        embedded: Float[Array, "*T B E"],
    ) -> Float[Array, "*T B R"]:
        """The vector that predicts the token, with dropout."""
        vector = self.readout(weights.readout, context, state, embedded)
        return apply_mask(vector, memory.noise.readout if memory.noise else None)

    def copy_scores(self, memory: Memory, output: DecoderOutput, embedded: Float[Array, "*T B E"]) -> Copied | None:
        """What copying adds to the logits of one step, or of all of them; None in a model that does not copy."""
        if self.copying is None:
            return None
        target_ids = jnp.broadcast_to(memory.copyable.target_ids, output.alignment.shape)
        with jax.named_scope("copying"):
            features = output.copy_features, output.alignment, output.context
            return self.copying.copied(target_ids, *features, embedded)

    @property
    def is_sparse(self) -> bool:
        """Whether most tokens have a probability of 0, so that their scores are no logits."""
        return self.config.output in SPARSE_OUTPUTS

    def scores(self, vector: Float[Array, "*B R"], product: Float[Array, "*B V"] | None = None) -> Float[Array, "*B V"]:
        """The scores of the vocabulary, of which the output distribution makes probabilities."""
        return self.vocabulary_product(vector, product) + broadcast_bias(self.output_bias[...], vector.ndim)

    def logits(
        self, vector: Float[Array, "*B R"], copied: Copied | None, product: Float[Array, "*B V"] | None = None
    ) -> Float[Array, "*B W"]:
        """Logits of the vocabulary, or log-probabilities where it is sparse or, with the slots, in a model that copies.

        Args:
            product: the product with the vocabulary, if it has been computed before.
        """
        logits = self.scores(vector, product)
        if self.is_sparse:
            return log_probabilities(self.config.output, logits)
        if self.copying is None:
            return logits
        with jax.named_scope("copying"):
            return self.copying.log_probs(logits, copied)

    def vocabulary_product(
        self, vector: Float[Array, "*B R"], known: Float[Array, "*B V"] | None = None
    ) -> Float[Array, "*B V"]:
        """The product with the vocabulary; if it is `known`, only its gradients are computed."""
        rows = self.embedding if self.config.tied_embeddings else self.output  # one row per token
        with jax.named_scope("vocabulary"):
            return matmul_transposed(vector, rows[...], self.dtype, known)
