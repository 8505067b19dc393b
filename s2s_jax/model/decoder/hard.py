"""The decoder of exact hard attention: the alignment is summed out of every prediction (`model.hard_attention`).

The cells read target tokens alone, so that their states do not depend on the alignment. Step and unroll give the
logarithm of the marginal probability of each token as its logit: cross-entropy of it is the exact negative marginal
log-likelihood, and every search sums over alignments. The alignment of a step is the prior, p(a_t | y_<t).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, PyTree

from s2s_jax.model.attention.attention import Attention, AttentionOutput
from s2s_jax.model.attention.config import AttentionConfig
from s2s_jax.model.copy_mechanism import safe_log
from s2s_jax.model.decoder.architectures import ARCHITECTURES
from s2s_jax.model.decoder.config import DecoderConfig
from s2s_jax.model.decoder.step import Decoder
from s2s_jax.model.decoder.unroll import run_parallel, scan_given
from s2s_jax.model.encoder import Encoder
from s2s_jax.model.hard_attention import (
    Chain,
    Potentials,
    all_priors,
    attendable,
    first_position,
    log_distribution,
    log_transitions,
    mixture,
    predict,
    update,
)
from s2s_jax.model.interface import (
    LogitsReader,
    Memory,
    State,
    StepOutput,
    Token,
    Tokens,
    TokenSampler,
    scan_of_step,
    shift_right,
    time_first,
)
from s2s_jax.model.ops.initializers import glorot
from s2s_jax.model.ops.matmul import broadcast_bias, contract, matmul
from s2s_jax.shapes import real


class HardKeys(NamedTuple):
    """What is prepared of the memory, once per sentence."""

    scores: PyTree  # the keys of the attention
    emission: Float[Array, "B S R"]  # each source token's share of the readout vector that it predicts with
    jumps: PyTree  # [B, S, K], its share of the potentials of the distances from it; () where they do not matter


class LastStep(NamedTuple):
    """What the update by the token that was chosen needs of the last step, for a transition of order 1."""

    prior: Float[Array, "B S"]
    features: Float[Array, "B R"]  # the state's share of the readout vectors
    log_normalizer: Float[Array, "B S"]  # of the vocabulary, given each source token


class HardDecoder(Decoder):
    """A decoder of an architecture with a latent alignment."""

    attention: Attention  # one head, without history and constraint

    def __init__(self, config: DecoderConfig, attention: AttentionConfig, encoder: Encoder, *, rngs: nnx.Rngs, **sizes):
        super().__init__(config, attention, encoder, rngs=rngs, **sizes)
        kind, window = ARCHITECTURES[config.architecture], attention.window
        self.first_order, self.monotonic, self.temperature = kind.first_order, kind.monotonic, attention.temperature
        self.distances = (1 + window * (1 if kind.monotonic else 2)) * bool(kind.first_order and window)
        if self.distances:
            self.state_jumps = nnx.Param(glorot(rngs.params(), config.state_width, self.distances))
            self.source_jumps = nnx.Param(glorot(rngs.params(), self.attention.width, self.distances))
            self.jump_bias = nnx.Param(jnp.zeros((self.distances,)))

    def start(self, encoded, mask, key=None, *, target_ids=None):
        """What is fixed for these sentences, and the state before the first token."""
        memory, state = super().start(encoded, mask, key, target_ids=target_ids)
        emission = matmul(memory.values, self.readout.weight[: self.attention.width], self.dtype)
        jumps = ()
        if self.distances:
            jumps = matmul(memory.values, self.source_jumps[...], self.dtype)
            jumps += broadcast_bias(self.jump_bias[...], jumps.ndim)
        memory = memory._replace(keys=HardKeys(memory.keys, emission, jumps))
        if self.first_order:
            features, normalizer = jnp.zeros((mask.shape[0], self.readout_size)), jnp.zeros(mask.shape)
            state = state._replace(attention=LastStep(first_position(mask), features, normalizer))
        return memory, state

    def attend(self, weights, memory, state, query):
        """The scores in place of weights, and no context: what follows from them is computed after all cells."""
        with jax.named_scope("attention"):
            scores = self.attention.plain_scores(weights.attention, query, memory.keys.scores) / self.temperature
        return AttentionOutput(memory.values[:, 0, :0], scores, state.attention)

    def read_out(self, weights, memory, context, state, embedded):
        """The state's share of the readout vectors and of the potentials of distances, concatenated."""
        kernel = self.readout.weight[self.attention.width :]
        if self.distances:
            kernel = jnp.concatenate([kernel, self.state_jumps[...]], axis=-1)
        return matmul(state, kernel, self.dtype)

    def split(
        self, features: Float[Array, "*T B F"], scores: Float[Array, "*T B S"]
    ) -> tuple[Float[Array, "*T B R"], Potentials]:
        """The share of the readout vectors, and the potentials."""
        jumps = features[..., self.readout_size :] if self.distances else ()
        return features[..., : self.readout_size], Potentials(scores, jumps)

    def chain(self, memory: Memory) -> Chain:
        """What the transitions read of a sentence."""
        return Chain(attendable(memory.mask), memory.keys.jumps, self.monotonic)

    def filtered(self, memory: Memory, last: PyTree, token: Token) -> PyTree:
        """The filtered distribution after a token has been chosen, from which the next step starts; () in order 0."""
        if not self.first_order:
            return ()
        vectors = self.vectors(memory, last.features)
        if jnp.issubdtype(token.dtype, jnp.floating):
            probabilities = jax.nn.softmax(self.logits(vectors, None))
            emission = safe_log(jnp.einsum("bsv,bv->bs", probabilities, token))
        else:
            rows = self.embedding if self.config.tied_embeddings else self.output
            true = contract("bsr,br->bs", vectors, rows[token], self.dtype) + self.output_bias[token][:, None]
            emission = true - last.log_normalizer
        return update(last.prior, emission, attendable(memory.mask))

    def priors(
        self, memory: Memory, filtered: PyTree, potentials: Potentials, emissions: PyTree
    ) -> Float[Array, "T B S"]:
        """The priors of all steps, from what is filtered before the first of them.

        Args:
            emissions: [T, B, S], log p(y_t | a_t); order 0 does not read them.
        """
        chain = self.chain(memory)
        if self.first_order:
            return all_priors(filtered, potentials, emissions, chain, remat=self.remat)
        return log_distribution(potentials.scores, jnp.broadcast_to(chain.mask, potentials.scores.shape))

    def vectors(self, memory: Memory, features: Float[Array, "*T B R"]) -> Float[Array, "*T B S R"]:
        """The readout vector tanh(W [h_i; state]) of each source token, with dropout."""
        over_steps = lambda leaf: leaf.reshape((1,) * (features.ndim - 2) + leaf.shape)  # noqa: E731
        vectors = jnp.tanh(over_steps(memory.keys.emission) + features[..., None, :])
        mask = memory.noise.readout if memory.noise else None
        return vectors if mask is None else vectors * over_steps(mask[:, None])

    def output_of(self, memory: Memory, prior: Float[Array, "*T B S"], logits: PyTree) -> StepOutput:
        """The output of one step or of all: logits, prior and the expected context."""
        alignment = jnp.where(jnp.broadcast_to(memory.mask, prior.shape), jnp.exp(prior), 0.0)
        return StepOutput(logits, alignment, jnp.einsum("...bs,bsm->...bm", alignment, memory.values))

    def step(self, memory, state, token):
        """The next state, and the logarithm of the marginal probability of each token after `token`."""
        filtered, embedded = self.filtered(memory, state.attention, token), self.embed(memory, token)
        projected = self.cells[0].project(embedded)
        after, output = self.advance(self.step_weights(), memory, state, projected, embedded, token)
        features, potentials = self.split(output.features, output.alignment)
        chain = self.chain(memory)
        logits = self.logits(self.vectors(memory, features), None)
        if self.first_order:
            prior = predict(filtered, log_transitions(potentials, chain))
            after = after._replace(attention=LastStep(prior, features, jax.nn.logsumexp(logits, axis=-1)))
        else:
            prior = log_distribution(potentials.scores, chain.mask)
        return after, self.output_of(memory, prior, mixture(prior, logits))


def unroll_hard(
    decoder: HardDecoder,
    memory: Memory,
    state: State,
    tokens: Tokens,
    *,
    reader: LogitsReader | None = None,
    sampler: TokenSampler | None = None,
) -> tuple[State, StepOutput]:
    """The scan of `step`, for given tokens with all cells first, then all emissions, the priors and the mixtures.

    A reader bounds how many rows of logits are held at once, of which there is one per source token.
    """
    if sampler is not None or jnp.issubdtype(tokens.dtype, jnp.floating):
        step = lambda _, memory, state, token: decoder.step(memory, state, token)  # noqa: E731
        return scan_of_step(step)((), memory, state, tokens, reader=reader, sampler=sampler)
    given = time_first(tokens)
    filtered = decoder.filtered(memory, state.attention, given[0])
    after, output = run_parallel(decoder, memory, state, decoder.embed(memory, given), given)
    features, potentials = decoder.split(output.features, output.alignment)
    rows = memory.mask.size
    each_step = emission_reader(decoder, memory, features, steps=0 if reader is None else max(1, reader.tokens // rows))
    if decoder.first_order:  # the token that is read next is the one that was emitted
        normalizers, emissions = each_step(read_token, jnp.roll(given, -1, axis=0))
        prior = decoder.priors(memory, filtered, potentials, emissions)
        after = after._replace(attention=LastStep(prior[-1], features[-1], normalizers[-1]))
    else:
        prior = decoder.priors(memory, filtered, potentials, ())
    if reader is None:
        logits = each_step(lambda logits, prior: mixture(prior, logits), prior)
    else:
        read = lambda logits, prior, wanted: reader.read(mixture(prior, logits), wanted)  # noqa: E731
        logits = each_step(read, prior, jax.tree.map(time_first, reader.wanted))
    return after, jax.tree.map(time_first, decoder.output_of(memory, prior, logits))


def read_token(
    logits: Float[Array, "B S V"], token: Int[Array, " B"]
) -> tuple[Float[Array, "B S"], Float[Array, "B S"]]:
    """The log-normalizer given each source token, and the log-probability of a token."""
    normalizer = jax.nn.logsumexp(logits, axis=-1)
    return normalizer, jnp.take_along_axis(logits, token[:, None, None], axis=-1)[..., 0] - normalizer


def emission_reader(
    decoder: HardDecoder, memory: Memory, features: Float[Array, "T B R"], *, steps: int
) -> Callable[..., Any]:
    """A function that applies another to the logits [B, S, V] of each step and to further arguments [T, ...].

    Args:
        steps: of how many steps logits are held at once; they are computed again for each use. 0 for all.
    """
    compute = lambda features: decoder.logits(decoder.vectors(memory, features), None)  # noqa: E731
    if not 0 < steps < features.shape[0]:
        logits = compute(features)
        return lambda function, *arguments: jax.vmap(function)(logits, *arguments)

    def each_step(function, *arguments):
        one = jax.checkpoint(lambda inputs: function(compute(inputs[0]), *inputs[1:]))
        return jax.lax.map(one, (features, *arguments), batch_size=steps if steps > 1 else None)

    return each_step


def posterior_alignment(
    decoder: HardDecoder, memory: Memory, state: State, target: Int[Array, "B T"]
) -> Float[Array, "B T S"]:
    """p(a_t | y_1..T) of whole targets; 0 on padding.

    It is the gradient of the log-likelihood with respect to log p(y_t | a_t), which is what the backward algorithm
    computes. Eisner 2016, "Inside-Outside and Forward-Backward Algorithms Are Just Backprop".
    """
    given, wanted = time_first(shift_right(target)), time_first(target)
    filtered = decoder.filtered(memory, state.attention, given[0])
    _, output = scan_given(decoder, memory, state, decoder.embed(memory, given), given)
    features, potentials = decoder.split(output.features, output.alignment)
    _, emissions = emission_reader(decoder, memory, features, steps=1)(read_token, wanted)
    counted = real(wanted)

    def log_likelihood(emissions):
        prior = decoder.priors(memory, filtered, potentials, emissions)
        return jnp.where(counted, jax.nn.logsumexp(prior + emissions, axis=-1), 0.0).sum()

    posterior = jax.grad(log_likelihood)(jnp.where(counted[..., None], emissions, 0.0))
    return time_first(jnp.where(counted[..., None] & memory.mask[None], posterior, 0.0))
