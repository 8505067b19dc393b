"""All steps of the decoder at once: what the scan of `Decoder.step` computes, with less work inside the scan.

Three ways, chosen by what the model and the driver need: `run_parallel` where nothing of attention enters the cells,
`scan_given` over given tokens, `scan_sampled` over tokens that are sampled from the logits on the way.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, PyTree

from s2s_jax.model.copy_mechanism import Copied
from s2s_jax.model.decoder.architectures import add_residual, apply_mask
from s2s_jax.model.decoder.step import Decoder, DecoderOutput
from s2s_jax.model.interface import (
    LogitsReader,
    Memory,
    State,
    StepOutput,
    Tokens,
    TokenSampler,
    time_first,
)
from s2s_jax.model.ops.scan import scan
from s2s_jax.model.zoneout import zone_out


def unroll(
    decoder: Decoder,
    memory: Memory,
    state: State,
    tokens: Tokens,
    *,
    reader: LogitsReader | None = None,
    sampler: TokenSampler | None = None,
) -> tuple[State, StepOutput]:
    """The scan of `step` over given or sampled tokens, with what does not feed back taken out of the scan.

    The tokens' share of the gates and the vocabulary product are always taken out; attention and readout are too where
    nothing of attention feeds back. With a sampler only gradients are taken out; see `scan_sampled`.
    """
    product = None
    if sampler is None:
        embedded = decoder.embed(memory, time_first(tokens))
        run = run_parallel if _is_parallel(decoder) else scan_given
        state, output = run(decoder, memory, state, embedded, time_first(tokens))
    else:
        keep = reader is None
        state, output, sampled, product = scan_sampled(decoder, memory, state, tokens[:, 0], sampler, keep=keep)
        embedded = decoder.embed(memory, sampled)
    copied = decoder.copy_scores(memory, output, embedded)
    output, product, copied = jax.tree.map(time_first, (output, product, copied))
    scores = ()
    if reader is None:
        logits = decoder.logits(output.features, copied, product)
        scores = decoder.scores(output.features, product) if decoder.is_sparse else ()
    else:
        logits = _read_logits(decoder, output.features, copied, reader)
    return state, StepOutput(logits, output.alignment, output.context, output.heads, scores=scores)


def _is_parallel(decoder: Decoder) -> bool:
    copying_reads = decoder.copying is not None and decoder.copying.reads
    feeds_back = decoder.config.feeds_back or decoder.attention.stateful or copying_reads
    return decoder.architecture.is_parallel and not feeds_back


@jax.named_scope("decoder")
def run_parallel(
    decoder: Decoder,
    memory: Memory,
    state: State,
    embedded: Float[Array, "T B E"],
    tokens: Int[Array, "T B"] | Float[Array, "T B V"],
) -> tuple[State, DecoderOutput]:
    """The last state and all outputs, time first: one scan per layer, then attention and readout of all steps."""
    outputs, carries, masks, steps = embedded, [], memory.noise, len(embedded)
    kept = None
    if decoder.zoneout:
        kept = jax.vmap(lambda step: decoder.kept_states(memory, state.time + step))(jnp.arange(steps))
    for layer, cell in enumerate(decoder.cells):
        below = apply_mask(outputs, masks.inputs[layer] if masks and layer else None)  # embeddings have had their mask
        drop = masks.states[layer] if masks else None

        weights = cell.step_weights(hoisted=below.shape[-1])

        def body(carry, inputs, cell=cell, weights=weights, drop=drop):
            projected, kept = inputs
            new, output = cell(weights, carry, projected, drop=drop)
            if not decoder.zoneout:
                return new, output
            new = zone_out(decoder.zoneout, carry, new, kept)
            return new, new[0]

        inputs = cell.project(below), None if kept is None else kept[layer]
        carry, new = scan(body, state.carry[layer], inputs, chunk=decoder.remat)
        outputs = add_residual(decoder.config.residual_from, layer, outputs, new)
        carries.append(carry)
    weights = decoder.step_weights()
    attended = jax.vmap(lambda query: decoder.attend(weights, memory, state, query))(outputs)
    last_states, predicting = decoder.self_attend(weights, state, outputs)
    vectors = decoder.read_out(weights, memory, attended.context, predicting, embedded)
    copy_features = decoder.copying.features(memory.copyable, predicting) if decoder.copying else ()
    output = DecoderOutput(vectors, attended.alignment, attended.context, attended.heads, copy_features)
    time = state.time + steps if decoder.zoneout else ()
    return State(tuple(carries), (), (), self_attention=last_states, time=time), output


@jax.named_scope("decoder")
def scan_given(
    decoder: Decoder,
    memory: Memory,
    state: State,
    embedded: Float[Array, "T B E"],
    tokens: Int[Array, "T B"] | Float[Array, "T B V"],
) -> tuple[State, DecoderOutput]:
    """The last state and all outputs, time first: one scan over given tokens."""

    weights = decoder.step_weights()

    def body(state, inputs):
        return decoder.advance(weights, memory, state, *inputs)

    return scan(body, state, (decoder.cells[0].project(embedded), embedded, tokens), chunk=decoder.remat)


@jax.named_scope("decoder")
def scan_sampled(
    decoder: Decoder, memory: Memory, state: State, first: Int[Array, " B"], sampler: TokenSampler, *, keep: bool
) -> tuple[State, DecoderOutput, Int[Array, "T B"], Float[Array, "T B V"] | None]:
    """The last state, all outputs, the tokens that were read and, to keep, the vocabulary products, time first.

    A token is known only inside the scan, and so is its share of the gates. The gradients of the embedding and of that
    share would be accumulated there, whole, at every step. They are computed once instead, after the backward scan,
    from the cotangents of zeros that are added to both.
    """
    graph, params = nnx.split(decoder)

    def embed_token(params, memory, token):
        decoder = nnx.merge(graph, params)
        embedded = decoder.embed(memory, token)
        return decoder.cells[0].project(embedded), embedded

    def run(params, memory, state, zeros, first, sampler_inputs, key):
        decoder, constants = nnx.merge(graph, params), jax.lax.stop_gradient((params, memory))
        constant_decoder, keyed_sampler = nnx.merge(graph, constants[0]), sampler._replace(key=key)
        weights = decoder.step_weights()

        def body(carry, inputs):
            state, token = carry
            zeros, sampler_inputs, time = inputs
            projected, embedded = jax.tree.map(jnp.add, embed_token(*constants, token), zeros)
            state, output = decoder.advance(weights, memory, state, projected, embedded, token)
            constant_output, embedded = jax.lax.stop_gradient((output, embedded))
            product = constant_decoder.vocabulary_product(constant_output.features)
            copied = constant_decoder.copy_scores(constants[1], constant_output, embedded)
            logits = constant_decoder.logits(constant_output.features, copied, product)
            next_token = keyed_sampler.next_token(logits, sampler_inputs, time)
            return (state, next_token), (output, token, product if keep else None)

        steps = zeros, sampler_inputs, jnp.arange(len(zeros[0]))
        (state, _), outputs = scan(body, (state, first), steps, chunk=decoder.remat)
        return state, *outputs

    @jax.custom_vjp
    def differentiable(params, memory, state, *constants):
        return run(params, memory, state, zeros, *constants)

    def forward(params, memory, state, *constants):
        arguments = params, memory, state, zeros
        outputs, pull_back = jax.vjp(lambda *arguments: run(*arguments, *constants), *arguments)
        return outputs, (pull_back, params, memory, outputs[2])

    def backward(residuals, cotangents):
        pull_back, params, memory, tokens = residuals
        params_cotangent, memory_cotangent, state_cotangent, zeros_cotangent = pull_back(cotangents)
        _, pull_tokens = jax.vjp(lambda params: embed_token(params, memory, tokens), params)
        (embedding_cotangent,) = pull_tokens(zeros_cotangent)
        params_cotangent = jax.tree.map(jnp.add, params_cotangent, embedding_cotangent)
        return params_cotangent, memory_cotangent, state_cotangent, None, None, None

    differentiable.defvjp(forward, backward)
    sampler_inputs = sampler.shifted_inputs()
    steps = len(jax.tree.leaves(sampler_inputs)[0])
    shapes = jax.eval_shape(embed_token, params, memory, first)
    zeros = jax.tree.map(lambda leaf: jnp.zeros((steps, *leaf.shape), leaf.dtype), shapes)
    return differentiable(params, memory, state, first, sampler_inputs, sampler.key)


def _read_logits(
    decoder: Decoder, vectors: Float[Array, "B T R"], copied: Copied | None, reader: LogitsReader
) -> PyTree:
    """What the reader makes of the logits of all steps, of which only some tokens' are held at once."""

    @jax.checkpoint
    def read(chunk):
        vector, copied, wanted = chunk
        of_scores = reader.reads_scores and decoder.is_sparse
        return reader.read(decoder.scores(vector) if of_scores else decoder.logits(vector, copied), wanted)

    shape = vectors.shape[:2]
    total = math.prod(shape)
    tokens = min(reader.tokens, total)

    def split(leaf):
        flat = leaf.reshape(total, *leaf.shape[2:])
        flat = jnp.pad(flat, [(0, -len(flat) % tokens), *[(0, 0)] * (flat.ndim - 1)])
        return flat.reshape(-1, tokens, *flat.shape[1:])

    outputs = jax.lax.map(read, jax.tree.map(split, (vectors, copied, reader.wanted)))
    return jax.tree.map(lambda leaf: leaf.reshape(-1)[:total].reshape(shape), outputs)
