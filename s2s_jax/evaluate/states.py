"""The numbers inside a model while it reads a source and writes a target: what probes and analyses are made of."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from s2s_jax.decode.forced_decoding import PairIds, PairScorer
from s2s_jax.decode.search import SearchConfig
from s2s_jax.model.interface import Model, Params, shift_right, time_first
from s2s_jax.model.ops.sown import reaping
from s2s_jax.shapes import Batch
from s2s_jax.text.copy_vocabulary import PairTokenizer
from s2s_jax.text.example import Example


class EncoderStates(NamedTuple):
    """A source as the encoder has read it."""

    source: str
    source_tokens: tuple[str, ...]  # with the end token
    layers: tuple[Float[np.ndarray, "S M"], ...]  # outputs of each layer, lowest first; the last is what is attended to
    start: PyTree  # the decoder's state before its first step: per layer the leaves [H] of the cell's state
    unread: int = 0  # source tokens beyond search.max_source

    @property
    def outputs(self) -> Float[np.ndarray, "S M"]:
        """The outputs of the top layer."""
        return self.layers[-1]


class PairStates(NamedTuple):
    """A source and a target that the model was made to write; index t of a target axis is the step of its token t."""

    example: Example
    source_tokens: tuple[str, ...]  # with the end token
    tokens: tuple[str, ...]  # of the target, with the end token
    encoder: tuple[Float[np.ndarray, "S M"], ...]  # outputs of each layer, lowest first
    start: PyTree  # as in EncoderStates
    decoder: tuple[tuple[Float[np.ndarray, "T H"], ...], ...]  # per layer: h, and c of an LSTM, after the step
    gates: tuple[dict[str, Float[np.ndarray, "T H"]], ...]  # of each cell in the order in which a step runs them
    attention: Float[np.ndarray, "T S"]  # of exact hard attention the prior p(a_t | y_<t), which its steps have
    heads: Float[np.ndarray, "T N S"] | None  # of each head; None with one head
    context: Float[np.ndarray, "T M"]
    log_probs: Float[np.ndarray, " T"]  # of the target's tokens, nats
    unread: int = 0  # source tokens beyond search.max_source


class BatchStates(NamedTuple):
    """The same of a batch, with padding; the batch axis comes first."""

    encoder: tuple[Float[Array, "B S M"], ...]
    start: PyTree
    decoder: PyTree
    gates: tuple[dict[str, Float[Array, "B T H"]], ...]
    attention: Float[Array, "B T S"]
    heads: PyTree
    context: Float[Array, "B T M"]
    log_probs: Float[Array, "B T"]


def states_of(model: Model, params: Params, batch: Batch) -> BatchStates:
    """All states of a batch of pairs, the true token fed at each step, without noise."""
    with reaping() as sown:
        memory, state = model.encode(params, batch.inputs)
    layers = tuple(value for name, value in sown if name == "encoder_layer") or (memory.values,)

    def body(state, inputs):
        token, target = inputs
        with reaping() as sown:
            state, output = model.step(params, memory, state, token)
        gates = tuple(value for name, value in sown if name == "gates")
        log_prob = jnp.take_along_axis(output.logits, target[:, None], axis=-1)[:, 0] - output.log_normalizer
        return state, (state.carry, gates, output.alignment, output.heads, output.context, log_prob)

    inputs = time_first(shift_right(batch.target)), time_first(batch.target)
    steps = jax.tree.map(time_first, jax.lax.scan(body, state, inputs)[1])
    return BatchStates(layers, state.carry, *steps)


class StateReader(PairScorer):
    """A model and the tokenizers of both sides, ready to read states; batches are those of scoring."""

    def __init__(self, model: Model, pair: PairTokenizer, search: SearchConfig):
        super().__init__(model, pair, search)
        self._forced_decoding = jax.jit(functools.partial(states_of, model))

    def _scored_pair(self, example: Example, ids: PairIds, scores: BatchStates, row: int) -> PairStates:
        source, target, unread, _ = ids
        read, written = slice(None, len(source)), slice(None, len(target))
        of_target = functools.partial(jax.tree.map, lambda leaf: np.array(leaf[row, written]))
        heads = scores.heads
        return PairStates(
            example,
            tuple(self.pair.source_symbols(source.tolist(), example.source)),
            tuple(self.pair.target_symbols(target.tolist(), example.source)),
            tuple(np.array(layer[row, read]) for layer in scores.encoder),
            jax.tree.map(lambda leaf: np.array(leaf[row]), scores.start),
            of_target(scores.decoder),
            of_target(scores.gates),
            np.array(scores.attention[row, written, read]),
            None if isinstance(heads, tuple) else np.array(heads[row, written, :, read]),
            np.array(scores.context[row, written]),
            np.array(scores.log_probs[row, written]),
            unread,
        )
