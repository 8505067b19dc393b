"""Exposure bias: the loss when the decoder is fed its own predictions, against the loss under teacher forcing."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from s2s_jax.decode.batching import pad_rows, run_batches
from s2s_jax.model.interface import Model, Params, shift_right
from s2s_jax.shapes import Batch, real
from s2s_jax.text.batches import Pairs
from s2s_jax.training.objectives import token_losses
from s2s_jax.training.scheduled_sampling import ScheduledSamplingConfig, scheduled_sampling


def free_running_nats(model: Model, params: Params, batch: Batch) -> Float[Array, " B"]:
    """The loss of each target, in nats, when each step is fed the likeliest token of the preceding one.

    Its difference from the loss under teacher forcing is the exposure gap. Ranzato et al. 2016, arXiv:1511.06732.
    """
    memory, state = model.encode(params, batch.inputs)
    feed = scheduled_sampling(model, params, epsilon=jnp.zeros(()), config=ScheduledSamplingConfig(start=0.0))
    fed = feed(memory, state, shift_right(batch.target), jax.random.key(0))
    _, steps = model.unroll(params, memory, state, fed.tokens, sampler=fed.sampler)
    nats = token_losses(steps.logits, batch.target).nats
    return jnp.where(real(batch.target), nats, 0.0).sum(1)


def free_running_losses(
    model: Model, params: Params, pairs: Pairs, *, size: int, tokens: int
) -> Float[np.ndarray, " N"]:
    """`free_running_nats` of encoded pairs, in their order.

    Args:
        size, tokens: most rows and most positions of a batch, as in `plan_batches`.
    """
    compiled = jax.jit(functools.partial(free_running_nats, model))

    def compute(rows: list[int]) -> Array:
        source, target, *features = (pad_rows([side[row] for row in rows]) for side in sides)
        return compiled(params, Batch(source, target, features=tuple(features)))

    sides = pairs.sources, pairs.targets, *pairs.features
    lengths = [tuple(map(len, rows)) for rows in zip(*sides, strict=True)]
    losses = np.zeros(len(lengths))
    for rows, nats in run_batches(compute, lengths, size=size, tokens=tokens):
        losses[rows] = np.asarray(nats, np.float64)[: len(rows)]
    return losses
