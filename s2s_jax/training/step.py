"""One training step: loss, gradient and update in one compiled program over all devices."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PyTree, Shaped, UInt32

from s2s_jax.model.interface import Params
from s2s_jax.shapes import Batch, real
from s2s_jax.training.objectives import Loss, LossSums


class TrainState(NamedTuple):
    """The whole state of training; the position in the data is the step."""

    step: Int[Array, ""]
    params: Params
    opt: PyTree
    ema: Any  # moving average of the parameters, or () where none is kept
    key: UInt32[Array, " 2"]  # raw, as checkpoints store it; every random number is a function of it and the step

    @property
    def evaluation_params(self) -> Params:
        """The parameters that validation and decoding use."""
        return self.ema or self.params


class Metrics(NamedTuple):
    """Sums of a step's batch, its gradient's norm, and whether the step was taken."""

    sums: LossSums
    norm: Float[Array, ""]  # of the gradient of the mean loss, before clipping
    finite: Bool[Array, ""]  # False: the step was not taken


TrainStep = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


def initial_state(params: Params, optimizer: optax.GradientTransformation, *, seed: int, ema: float) -> TrainState:
    """The state at step 0."""
    key = jax.random.key_data(jax.random.key(seed, impl="threefry2x32"))
    average = jax.tree.map(jnp.copy, params) if ema else ()
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), average, key)


def make_step(
    loss: Loss, optimizer: optax.GradientTransformation, *, ema: float = 0.0, accumulate: int = 1
) -> TrainStep:
    """The compiled train step. `state` is donated: do not use it after the call.

    With `accumulate`, the gradients of that many parts of the batch are computed one after another and added: the same
    step in less memory. A step whose loss or gradient is not finite is not taken: the state is unchanged, and the
    metrics say so.
    """

    def mean_objective(params: Params, batch: Batch, step, key, tokens) -> tuple[Float[Array, ""], LossSums]:
        """The objective of a part of the batch over the tokens of the whole batch."""
        sums = loss(params, batch, step, key)
        return sums.objective / tokens, sums

    def gradient_of(params: Params, batch: Batch, step, key) -> tuple[Params, LossSums]:
        of_part = jax.grad(mean_objective, has_aux=True)
        tokens = jnp.maximum(real(batch.target).sum(), 1).astype(jnp.float32)
        if accumulate == 1:
            return of_part(params, batch, step, key, tokens)

        def add(total, part):
            batch, number = part
            return jax.tree.map(
                jnp.add, total, of_part(params, batch, step, jax.random.fold_in(key, number), tokens)
            ), None

        numbers, divided = jnp.arange(accumulate), jax.tree.map(lambda rows: dealt(rows, accumulate), batch)
        first = jax.tree.map(lambda part: part[0], divided)
        zeros = jax.tree.map(
            lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(of_part, params, first, step, key, tokens)
        )
        return jax.lax.scan(add, zeros, (divided, numbers))[0]

    def update(state: TrainState, gradient: Params) -> TrainState:
        updates, opt = optimizer.update(gradient, state.opt, state.params)
        params = optax.apply_updates(state.params, updates)
        average = jax.tree.map(lambda old, new: ema * old + (1 - ema) * new, state.ema, params) if ema else ()
        return TrainState(state.step + 1, params, opt, average, state.key)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key, impl="threefry2x32"), state.step)
        gradient, sums = gradient_of(state.params, batch, state.step, key)
        with jax.named_scope("optimizer"):
            norm = optax.tree.norm(gradient)
            finite = jnp.isfinite(sums.objective) & jnp.isfinite(norm)
            state = jax.lax.cond(finite, update, lambda state, _: state, state, gradient)
        return state, Metrics(sums, norm, finite)

    return jax.jit(step, donate_argnums=0)


def dealt(rows: Shaped[Array, "B ..."], parts: int) -> Shaped[Array, "P C ..."]:
    """Rows dealt out to parts one by one, so that each part has rows of each device; padding fills the parts up."""
    filled = jnp.pad(rows, ((0, -len(rows) % parts), *[(0, 0)] * (rows.ndim - 1)))  # PAD is 0, and so is no link
    return filled.reshape(-1, parts, *rows.shape[1:]).swapaxes(0, 1)
