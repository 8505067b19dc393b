"""How does one decoder step turn the last token and what it sees of the source into scores of the next token?"""

import dataclasses
import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, PyTree

from s2s_jax.model.attention.attention import AttentionOutput
from s2s_jax.model.attention.config import AttentionConfig
from s2s_jax.model.attention.heads import build_attention
from s2s_jax.model.bridge import BRIDGES
from s2s_jax.model.cells import CELLS, Carry, Weights, make_cell
from s2s_jax.model.copy_mechanism import COPYING, Copied, Sizes, clip_to_vocabulary
from s2s_jax.model.decoder_self_attention import DecoderSelfAttention
from s2s_jax.model.encoder import Encoded, Encoder
from s2s_jax.model.interface import (
    LogitsReader,
    Memory,
    Noise,
    State,
    StepOutput,
    Token,
    Tokens,
    TokenSampler,
    time_first,
)
from s2s_jax.model.ops import initializers
from s2s_jax.model.ops.dropout import keep_mask
from s2s_jax.model.ops.matmul import broadcast_bias, matmul_transposed
from s2s_jax.model.ops.scan import scan
from s2s_jax.model.readout import GATES, Deep, Readout, WithToken
from s2s_jax.shapes import Size
from s2s_jax.validation import at_least, check_fields, fraction, one_of

ARCHITECTURES = ("luong", "bahdanau", "conditional")
QUERY_LAYERS = ("top", "bottom")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """The recurrent network that writes the target."""

    cell: str = "lstm"
    """Recurrent cell: rnn, gru, gru-reset-before, lstm or layer-norm-lstm."""
    size: int = 512
    """Width of the state of one layer."""
    layers: int = 1
    """Stacked layers."""
    transitions: int = 1
    """Cells that a layer's state goes through at each token, those after the first without input."""
    architecture: str = "luong"
    """luong: the new state asks, and an attentional vector predicts; bahdanau: the last state asks, the context enters
    the cell, and a deep output predicts; conditional: the state after the token asks, and the context makes the state
    after a second cell, the conditional GRU of Nematus. Sennrich et al. 2017, arXiv:1703.04357, section 2."""
    query_layer: str = "top"
    """Whose state asks: that of the top layer or of the bottom one. Wu et al. 2016 (GNMT), arXiv:1609.08144."""
    context_to_all: bool = False
    """The context enters every upper layer beside what the layer below says, as in GNMT."""
    context_gate: str = "none"
    """Context gate between source and target in the vector that predicts: none, source, target or both. Tu et al.
    2017, arXiv:1608.06043."""
    input_feeding: bool = True
    """Luong order only: the attentional vector enters the cell at the next step. Luong et al. 2015, section 3.3."""
    bridge: str = "projected"
    """What the first state is made of: zero, last, projected (from the last state) or mean (of all outputs)."""
    readout: int = 0
    """Width of the vector that predicts the token; 0 means model.decoder.size, or the embedding's when they are tied."""
    self_attention_window: int = 0
    """How many of its own last states the decoder attends to; what it finds stands beside the state that predicts. 0
    for none. Paulus et al. 2018, arXiv:1705.04304, section 2.2 (intra-decoder attention), over the whole past there."""
    tied_embeddings: bool = False
    """Predict with the target embeddings instead of an own matrix. Press & Wolf 2017, arXiv:1608.05859."""
    residual_from: int = 0
    """First layer (counted from 1) whose input is added to its output; 0 for none."""
    dropout: float = 0.0
    """Share of a layer's inputs and of the readout dropped, the same ones at every step of a sentence."""
    recurrent_dropout: float = 0.0
    """Share of a state dropped before its matrix product, the same ones at every step of a sentence."""
    copy: str = "none"
    """How words are said that only the source has: none, pointer (See et al. 2017) or copynet (Gu et al. 2016). For
    tokenizer.SIDE.type word or char: bpe and unigram know every word, so that only tokens that both sides know are copied."""
    copy_slots: int = 16
    """Most distinct words of one source sentence that its vocabulary does not know and that can be copied."""

    def __post_init__(self):
        check_fields(self, "model.decoder")
        one_of("model.decoder.cell", self.cell, CELLS)
        one_of("model.decoder.architecture", self.architecture, ARCHITECTURES)
        one_of("model.decoder.bridge", self.bridge, BRIDGES)
        one_of("model.decoder.copy", self.copy, ("none", *COPYING))
        at_least("model.decoder.size", self.size, 1)
        one_of("model.decoder.query_layer", self.query_layer, QUERY_LAYERS)
        one_of("model.decoder.context_gate", self.context_gate, ("none", *GATES))
        at_least("model.decoder.layers", self.layers, 1)
        at_least("model.decoder.transitions", self.transitions, 1)
        at_least("model.decoder.readout", self.readout, 0)
        at_least("model.decoder.self_attention_window", self.self_attention_window, 0)
        at_least("model.decoder.residual_from", self.residual_from, 0)
        at_least("model.decoder.copy_slots", self.copy_slots, 0)
        fraction("model.decoder.dropout", self.dropout)
        fraction("model.decoder.recurrent_dropout", self.recurrent_dropout)

    @property
    def context_first(self) -> bool:
        """Whether the context is known before the upper layers run."""
        return self.architecture != "luong" or self.query_layer == "bottom"

    @property
    def feeds_back(self) -> bool:
        """Whether the attentional vector is fed back; bahdanau order feeds the context instead, in the same step."""
        return self.input_feeding and self.architecture == "luong"


class DropoutMasks(NamedTuple):
    """Dropout masks of one sentence, the same at every step: every leaf [B, width]."""

    inputs: tuple[Float[Array, "B I"], ...]  # of each layer
    states: tuple[Float[Array, "B H"], ...]  # of each layer
    readout: Float[Array, "B R"]
    attention: PyTree  # a raw key a row, where attention is noisy while it learns; else None


class DecoderOutput(NamedTuple):
    """What one step target_ids, before the vocabulary; an unroll has the same with a time axis in front."""

    features: Float[Array, "*B R"]
    alignment: Float[Array, "*B S"]
    context: Float[Array, "*B M"]
    heads: PyTree
    copy_features: PyTree  # what copying keeps of the step; () where nothing is copied


class StepWeights(NamedTuple):
    """The weights whose products stay inside the scan; each meets one product a step."""

    cells: tuple[Weights, ...]  # of each layer
    attention: Weights
    second: Weights  # of the conditional order's second cell, else ()
    self_attention: Weights  # of attention over the decoder's own states, else ()
    readout: Weights


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
        remat: int = 0,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        self.config, self.remat, self.dtype, self.embedding_size = config, remat, dtype, embedding
        size, states = config.size, CELLS[config.cell].states
        make = functools.partial(make_cell, config.cell, size=size, dtype=dtype, rngs=rngs)
        self.embedding = nnx.Param(initializers.embedding(rngs.params(), vocabulary, embedding))
        self.attention = build_attention(attention, size, encoder.width, dtype=dtype, rngs=rngs)
        self.readout_size = config.readout or (embedding if config.tied_embeddings else size)
        seen = size * (
            1 + bool(config.self_attention_window)
        )  # what predicts of the target: the state, and what it sees of its past
        self.self_attention = (
            DecoderSelfAttention(size, config.self_attention_window, dtype=dtype, rngs=rngs)
            if config.self_attention_window
            else None
        )
        sizes, slots = Sizes(encoder.width, self.attention.width, seen, embedding), config.copy_slots
        copies = config.copy != "none"
        self.copying = COPYING[config.copy](sizes, slots=slots, dtype=dtype, rngs=rngs) if copies else None
        self.vocabulary, self.width = vocabulary, vocabulary + slots * copies
        per_step = self.attention.width if config.architecture == "bahdanau" else self.readout_size * config.feeds_back
        per_step += self.copying.width if self.copying else 0
        first = make(inputs=embedding, extra=per_step, transitions=config.transitions)
        above = size + self.attention.width * config.context_to_all
        upper = [make(inputs=0, extra=above, transitions=config.transitions) for _ in range(config.layers - 1)]
        self.cells = nnx.List([first, *upper])
        if config.architecture == "conditional":
            self.second = make(inputs=0, extra=self.attention.width)
        self.bridge = BRIDGES[config.bridge](
            end=encoder.width,
            ends=encoder.config.layers,
            end_states=CELLS[encoder.config.cell].states,
            layers=config.layers,
            size=size,
            states=states,
            dtype=dtype,
            rngs=rngs,
        )
        widths = self.attention.width, seen, embedding, self.readout_size
        self.readout = self._readout()(*widths, dtype=dtype, rngs=rngs)
        if not config.tied_embeddings:
            self.output = nnx.Param(initializers.glorot(rngs.params(), vocabulary, self.readout_size))
        self.output_bias = nnx.Param(jnp.zeros((vocabulary,)))

    def _readout(self) -> type[Readout]:
        if self.config.context_gate != "none":
            return GATES[self.config.context_gate]
        return {"luong": Readout, "bahdanau": Deep, "conditional": WithToken}[self.config.architecture]

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
            target_ids: where words are copied, the target id of each source token.
        """
        encoded = encoded._replace(outputs=jnp.where(mask[..., None], encoded.outputs, 0.0))  # 0 x NaN would be NaN
        keys = self.attention.prepare(encoded.outputs)
        noise = () if key is None else self._dropout_masks(key, mask.shape[0])
        fed = jnp.zeros((mask.shape[0], self.readout_size)) if self.config.feeds_back else ()
        past = self.self_attention.start(mask.shape[0]) if self.self_attention else ()
        state = State(self.bridge(encoded, mask), fed, self.attention.start(keys, mask), self_attention=past)
        memory = Memory(keys, self.attention.values(encoded.outputs), mask, noise)
        if self.copying is None:
            return memory, state
        memory = memory._replace(copyable=self.copying.prepare(encoded.outputs, target_ids))
        return memory, state._replace(copying=self.copying.start(target_ids))

    def _dropout_masks(self, key, batch: Size) -> DropoutMasks:
        config, keys = self.config, jax.random.split(key, 4)
        widths = [self.embedding_size] + [config.size] * (config.layers - 1)

        def layers(key, rate, widths):
            keys = jax.random.split(key, len(widths))
            return tuple(keep_mask(key, rate, (batch, width)) for key, width in zip(keys, widths, strict=True))

        return DropoutMasks(
            layers(keys[0], config.dropout, widths),
            layers(keys[1], config.recurrent_dropout, [config.size] * config.layers),
            keep_mask(keys[2], config.dropout, (batch, self.readout_size)),
            jax.random.key_data(jax.random.split(keys[3], batch)) if self.attention.noisy else None,
        )

    def embed(self, tokens: Int[Array, "*B"] | Float[Array, "*B V"]) -> Float[Array, "*B E"]:
        """The embeddings of target tokens, or, of weights over the vocabulary, the mean that they make."""
        with jax.named_scope("embedding"):
            if jnp.issubdtype(tokens.dtype, jnp.floating):
                return jnp.einsum("...v,ve->...e", tokens, self.embedding[...])
            return self.embedding[clip_to_vocabulary(tokens, self.vocabulary) if self.copying else tokens]

    def step(self, memory: Memory, state: State, token: Token) -> tuple[State, StepOutput]:
        """The decoder step: everything that decodes, decodes with this."""
        embedded = self._drop_inputs(memory, self.embed(token))
        projected = self.cells[0].project(embedded)
        state, said = self._advance(self.step_weights(), memory, state, projected, embedded, token)
        return state, StepOutput(self._logits(said.features, self._copy_scores(memory, said, embedded)), *said[1:-1])

    def unroll(
        self,
        memory: Memory,
        state: State,
        tokens: Tokens,
        *,
        reader: LogitsReader | None = None,
        sampler: TokenSampler | None = None,
    ) -> tuple[State, StepOutput]:
        """The scan of `step` over given tokens, with what does not feed back taken out of the scan.

        The token's share of the gates and the vocabulary product always leave it; where nothing that attention
        finds feeds back, attention and readout leave it too and see all steps at once. With a picking only gradients
        leave it: see `_picked`.
        """
        words = None
        if sampler is None:
            embedded = self._drop_inputs(memory, self.embed(time_first(tokens)))
            state, said = self._unroll_given(memory, state, embedded, time_first(tokens))
        else:
            state, said, picked, words = self._unroll_sampled(memory, state, tokens[:, 0], sampler, keep=reader is None)
            embedded = self._drop_inputs(memory, self.embed(picked))
        said, words, copied = jax.tree.map(time_first, (said, words, self._copy_scores(memory, said, embedded)))
        if reader is None:
            return state, StepOutput(self._logits(said.features, copied, words), *said[1:-1])
        return state, StepOutput(self._read_logits(said.features, copied, reader), *said[1:-1])

    @jax.named_scope("decoder")
    def _unroll_given(
        self,
        memory: Memory,
        state: State,
        embedded: Float[Array, "T B E"],
        tokens: Int[Array, "T B"] | Float[Array, "T B V"],
    ) -> tuple[State, DecoderOutput]:
        """The last state, and what all steps said, time first."""
        reads = self.copying is not None and self.copying.reads
        if not (self.config.context_first or self.config.feeds_back or self.attention.stateful or reads):
            return self._unroll_parallel(memory, state, embedded)

        def body(inside, state, now):
            return self._advance(inside, memory, state, *now)

        inputs, rows = (self.cells[0].project(embedded), embedded, tokens), embedded.shape[1:-1]
        return scan(body, self.step_weights(), state, inputs, rows=rows, dtype=self.dtype, chunk=self.remat)

    @jax.named_scope("decoder")
    def _unroll_sampled(
        self, memory: Memory, state: State, first: Int[Array, " B"], sampler: TokenSampler, *, keep: bool
    ) -> tuple[State, DecoderOutput, Int[Array, "T B"], Float[Array, "T B V"] | None]:
        """The last state, what all steps said, what they were fed, and, to keep, their vocabulary products, time first.

        A token is known only inside the scan, and so is its share of the gates. Gradients of the embedding and of that
        share would be added up there, whole, at every step. They are formed once instead, after the backward scan, from
        the cotangents of zeros that are added to both.
        """
        graph, weights = nnx.split(self)

        def of_token(weights, memory, token):
            own = nnx.merge(graph, weights)
            embedded = own._drop_inputs(memory, own.embed(token))
            return own.cells[0].project(embedded), embedded

        def scanned(weights, memory, state, zeros, first, given, key):
            own, still = nnx.merge(graph, weights), jax.lax.stop_gradient((weights, memory))
            speaker, now_picking = nnx.merge(graph, still[0]), sampler._replace(key=key)

            def body(inside, last, now):
                state, token = last
                zeros, given, time = now
                projected, embedded = jax.tree.map(jnp.add, of_token(*still, token), zeros)
                state, said = own._advance(inside, memory, state, projected, embedded, token)
                heard, embedded = jax.lax.stop_gradient((said, embedded))
                words = speaker.vocabulary_product(heard.features)
                logits = speaker._logits(heard.features, speaker._copy_scores(still[1], heard, embedded), words)
                return (state, now_picking.next_token(logits, given, time)), (said, token, words if keep else None)

            steps, rows = (zeros, given, jnp.arange(len(zeros[0]))), first.shape
            (state, _), told = scan(
                body, own.step_weights(), (state, first), steps, rows=rows, dtype=self.dtype, chunk=self.remat
            )
            return state, *told

        @jax.custom_vjp
        def run(weights, memory, state, *fixed):
            return scanned(weights, memory, state, zeros, *fixed)

        def run_forward(weights, memory, state, *fixed):
            told, back = jax.vjp(lambda *given: scanned(*given, *fixed), weights, memory, state, zeros)
            return told, (back, weights, memory, told[2])

        def run_backward(kept, cotangents):
            back, weights, memory, tokens = kept
            of_weights, of_memory, of_state, of_zeros = back(cotangents)
            (rest,) = jax.vjp(lambda weights: of_token(weights, memory, tokens), weights)[1](of_zeros)
            return jax.tree.map(jnp.add, of_weights, rest), of_memory, of_state, None, None, None

        run.defvjp(run_forward, run_backward)
        given = sampler.shifted_inputs()
        steps = len(jax.tree.leaves(given)[0])
        shapes = jax.eval_shape(of_token, weights, memory, first)
        zeros = jax.tree.map(lambda leaf: jnp.zeros((steps, *leaf.shape), leaf.dtype), shapes)
        return run(weights, memory, state, first, given, sampler.key)

    def _read_logits(self, vectors: Float[Array, "B T R"], copied: Copied | None, reader: LogitsReader) -> PyTree:
        """What the reading makes of the logits of all steps, no more than some tokens' held at once."""

        @jax.checkpoint
        def read(now):
            vector, copied, wanted = now
            return reader.read(self._logits(vector, copied), wanted)

        shape = vectors.shape[:2]
        total = math.prod(shape)
        tokens = min(reader.tokens, total)

        def chunks(leaf):
            flat = leaf.reshape(total, *leaf.shape[2:])
            flat = jnp.pad(flat, [(0, -len(flat) % tokens), *[(0, 0)] * (flat.ndim - 1)])
            return flat.reshape(-1, tokens, *flat.shape[1:])

        said = jax.lax.map(read, jax.tree.map(chunks, (vectors, copied, reader.wanted)))
        return jax.tree.map(lambda leaf: leaf.reshape(-1)[:total].reshape(shape), said)

    def _copy_scores(self, memory: Memory, said: DecoderOutput, embedded: Float[Array, "*T B E"]) -> Copied | None:
        """What copying adds to the logits of a step, or of all of them."""
        if self.copying is None:
            return None
        target_ids = jnp.broadcast_to(memory.copyable.target_ids, said.alignment.shape)
        with jax.named_scope("copying"):
            return self.copying.copied(target_ids, said.copy_features, said.alignment, said.context, embedded)

    def _logits(
        self, vector: Float[Array, "*B R"], copied: Copied | None, words: Float[Array, "*B W"] | None = None
    ) -> Float[Array, "*B V"]:
        """A score for each token that can be said: logits of the vocabulary, or log-probabilities where one copies.

        Args:
            words: the product with the vocabulary, where it is known.
        """
        logits = self.vocabulary_product(vector, words) + broadcast_bias(self.output_bias[...], vector.ndim)
        if self.copying is None:
            return logits
        with jax.named_scope("copying"):
            return self.copying.log_probs(logits, copied)

    def vocabulary_product(
        self, vector: Float[Array, "*B R"], known: Float[Array, "*B V"] | None = None
    ) -> Float[Array, "*B V"]:
        """The product with the vocabulary; of one that is known only gradients are formed."""
        rows = self.embedding if self.config.tied_embeddings else self.output  # a row a token
        with jax.named_scope("vocabulary"):
            return matmul_transposed(vector, rows[...], self.dtype, known)

    def step_weights(self) -> StepWeights:
        """The weights of each step, the token's share of the gates having been computed outside."""
        widths = [self.embedding_size] + [0] * (self.config.layers - 1)
        cells = (cell.step_weights(hoisted=width) for cell, width in zip(self.cells, widths, strict=True))
        second = self.second.step_weights(hoisted=0) if self.config.architecture == "conditional" else ()
        past = self.self_attention.step_weights() if self.self_attention else ()
        return StepWeights(tuple(cells), self.attention.step_weights(), second, past, self.readout.step_weights())

    def _advance(
        self,
        inside: StepWeights,
        memory: Memory,
        state: State,
        projected: Float[Array, "B G"],
        embedded: Float[Array, "B E"],
        token: Token,
    ) -> tuple[State, DecoderOutput]:
        """One step up to the vector that predicts."""
        carry, fed = state.carry, state.feedback if self.config.feeds_back else None
        if self.config.architecture == "bahdanau":
            query = carry[-1 if self.config.query_layer == "top" else 0][0]
            found = self._attend(inside, memory, state, query)
            extra = self._extra_input(memory, state, token, found.context)
            bottom, output = self._layer(0, inside, memory, carry[0], embedded, projected, extra)
            upper, _ = self._upper_layers(inside, memory, carry[1:], output, found.context)
            carry, output = (bottom, *upper), carry[-1][0]
        else:
            extra = self._extra_input(memory, state, token, fed)
            bottom, output = self._layer(0, inside, memory, carry[0], embedded, projected, extra)
            if self.config.context_first:
                found = self._attend(inside, memory, state, output)
                bottom, output = self._second_cell(inside, memory, bottom, output, found.context)
                upper, output = self._upper_layers(inside, memory, carry[1:], output, found.context)
            else:
                upper, output = self._upper_layers(inside, memory, carry[1:], output)
                found = self._attend(inside, memory, state, output)
            carry = bottom, *upper
        past, seen = self._self_attend(inside, state, output)
        vector = self._read_out(inside, memory, found.context, seen, embedded)
        fed = vector if self.config.feeds_back else ()
        looked = self.copying.look(memory.copyable, seen) if self.copying else ()
        remembered = looked if self.copying and self.copying.reads else ()
        said = DecoderOutput(vector, found.alignment, found.context, found.heads, looked)
        return State(carry, fed, found.state, remembered, past), said

    def _extra_input(self, memory: Memory, state: State, token: Token, extra: Float[Array, "B X"] | None):
        """What enters the lowest cell beside the token: `extra`, and what the source says of the token, where read."""
        if self.copying is None or not self.copying.reads:
            return extra
        read = self.copying.read(memory.copyable, memory.values, state.copying, token)
        return read if extra is None else jnp.concatenate([extra, read], axis=-1)

    def _layer(self, layer: int, inside: StepWeights, memory: Memory, carry: Carry, below, projected, extra):
        """One layer one step on: what it carries, and what it shows with the residual added."""
        drop = memory.noise.states[layer] if memory.noise else None
        carry, output = self.cells[layer](inside.cells[layer], carry, projected, extra, drop=drop)
        return carry, self._residual(layer, below, output)

    def _second_cell(self, inside: StepWeights, memory: Memory, carry: Carry, output, context):
        """The conditional order's second cell, whose input is the context; other orders have none."""
        if self.config.architecture != "conditional":
            return carry, output
        drop = memory.noise.states[0] if memory.noise else None
        return self.second(inside.second, carry, self.second.without_input(context.shape[0]), context, drop=drop)

    def _upper_layers(self, inside: StepWeights, memory: Memory, carries: tuple[Carry, ...], output, context=None):
        """All layers above the lowest one step on."""
        new = []
        for layer, carry in enumerate(carries, start=1):
            below = output
            extra = self._drop_inputs(memory, below, layer)
            if self.config.context_to_all and context is not None:
                extra = jnp.concatenate([extra, context], -1)
            projected = self.cells[layer].without_input(below.shape[0])
            carry, output = self._layer(layer, inside, memory, carry, below, projected, extra)
            new.append(carry)
        return tuple(new), output

    def _unroll_parallel(self, memory: Memory, state: State, embedded: Float[Array, "T B E"]):
        """All steps at once, layer by layer, for a decoder to which nothing that attention finds feeds back."""
        outputs, carries = embedded, []
        for layer, cell in enumerate(self.cells):
            below = outputs if layer == 0 else self._drop_inputs(memory, outputs, layer)
            drop = memory.noise.states[layer] if memory.noise else None

            def body(inside, carry, projected, cell=cell, drop=drop):
                return cell(inside, carry, projected, drop=drop)

            weights, inputs = cell.step_weights(hoisted=below.shape[-1]), cell.project(below)
            carry, new = scan(
                body, weights, state.carry[layer], inputs, rows=below.shape[1:-1], dtype=self.dtype, chunk=self.remat
            )
            outputs = self._residual(layer, outputs, new)
            carries.append(carry)
        inside = self.step_weights()
        found = jax.vmap(lambda query: self._attend(inside, memory, state, query))(outputs)
        past, seen = self._self_attend(inside, state, outputs)
        vectors = self._read_out(inside, memory, found.context, seen, embedded)
        looked = self.copying.look(memory.copyable, seen) if self.copying else ()
        said = DecoderOutput(vectors, found.alignment, found.context, found.heads, looked)
        return State(tuple(carries), (), (), self_attention=past), said

    def _self_attend(self, inside: StepWeights, state: State, output: Float[Array, "*T B H"]):
        """What is kept of the states so far, and what predicts of the target: the state, and what it sees of them."""
        if self.self_attention is None:
            return state.self_attention, output
        past, found = self.self_attention(inside.self_attention, state.self_attention, output)
        return past, jnp.concatenate([output, found], axis=-1)

    def _residual(self, layer: int, below, output):
        return output + below if 0 < self.config.residual_from <= layer + 1 else output

    def _attend(self, inside: StepWeights, memory: Memory, state: State, query) -> AttentionOutput:
        noise = memory.noise.attention if memory.noise else None
        with jax.named_scope("attention"):
            given = state.attention, query, memory.keys, memory.values, memory.mask
            return self.attention.attend(inside.attention, *given, noise)

    def _read_out(self, inside: StepWeights, memory: Memory, context, state, embedded):
        vector = self.readout(inside.readout, context, state, embedded)
        return _apply_mask(vector, memory.noise.readout if memory.noise else None)

    def _drop_inputs(self, memory: Memory, inputs: Float[Array, "*B I"], layer: int = 0) -> Float[Array, "*B I"]:
        return _apply_mask(inputs, memory.noise.inputs[layer] if memory.noise else None)


def _apply_mask(x: Float[Array, "*T B I"], drop: Float[Array, "B I"] | None) -> Float[Array, "*T B I"]:
    """One step or all of them, with what is dropped dropped at each."""
    return x if drop is None else x * drop.reshape((1,) * (x.ndim - drop.ndim) + drop.shape)
