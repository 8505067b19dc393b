"""One training step: loss, gradient and update in one compiled program over all devices."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PyTree, Shaped, UInt32

from s2s_jax.model.interface import Params
from s2s_jax.model.ops.target import launches_cost
from s2s_jax.shapes import Batch, real
from s2s_jax.training.devices import WHOLE, Layout
from s2s_jax.training.objectives import Loss, LossSums
from s2s_jax.training.parameter_groups import kept_where


class TrainState(NamedTuple):
    """The whole state of training; the position in the data is the step."""

    step: Int[Array, ""]
    params: Params
    opt: PyTree
    ema: Any  # moving average of the parameters, or () where none is kept
    key: UInt32[Array, " 2"]  # raw, as checkpoints store it; every random number is a function of it and the step
    norms: Any = ()  # of the last gradients, Float[Array, " W"], infinite where there is none yet; () without skipping
    rate_factor: Any = ()  # of the learning rate, set after validations, Float[Array, ""]; () where none is

    @property
    def evaluation_params(self) -> Params:
        """The parameters that validation and decoding use."""
        return self.ema or self.params


class Metrics(NamedTuple):
    """Sums of a step's batch, its gradient's norm, and whether the step was taken."""

    sums: LossSums
    norm: Float[Array, ""]  # of the gradient of the mean loss, before clipping
    finite: Bool[Array, ""]  # False: the step was not taken
    spike: Any = ()  # whether the step was skipped as a spike, Bool[Array, ""]; () without skipping


SPIKE_WINDOW = 100  # steps whose gradient norms a spike is compared with
SPIKE_HISTORY = 20  # fewer of them say nothing
TrainStep = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


def initial_state(
    params: Params,
    optimizer: optax.GradientTransformation,
    *,
    seed: int,
    ema: float,
    skip_spikes: float = 0.0,
    plateau: bool = False,
) -> TrainState:
    """The state at step 0."""
    key = jax.random.key_data(jax.random.key(seed, impl="threefry2x32"))
    average = jax.tree.map(jnp.copy, params) if ema else ()
    norms = jnp.full(SPIKE_WINDOW, jnp.inf) if skip_spikes else ()
    factor = jnp.ones(()) if plateau else ()
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), average, key, norms, factor)


def make_step(
    loss: Loss,
    optimizer: optax.GradientTransformation,
    *,
    ema: float = 0.0,
    accumulate: int = 1,
    skip_spikes: float = 0.0,
    frozen: Callable[[Params], PyTree] | None = None,
    layout: Layout = WHOLE,
    compiler_options: Mapping[str, Any] | None = None,
) -> TrainStep:
    """The compiled train step. `state` is donated: do not use it after the call.

    With `accumulate`, the gradients of that many parts of the batch are computed one after another and added: the same
    step in less memory. A step whose loss or gradient is not finite is not taken: the state is unchanged, and the
    metrics say so. With `skip_spikes`, a step whose gradient's norm is more than so many times the median of the last
    ones counts as a step and changes no parameter. `frozen` says of each parameter whether it is one that stays as it
    is: no gradient is computed for it. `layout` decides which arrays are sharded, `compiler_options` are XLA's.
    """

    def mean_objective(params: Params, batch: Batch, step, key, tokens) -> tuple[Float[Array, ""], LossSums]:
        """The objective of a part of the batch over the tokens of the whole batch."""
        params = kept_where(frozen, jax.lax.stop_gradient(params), params) if frozen else params
        sums = loss(params, batch, step, key)
        return sums.objective / tokens, sums

    def gradient_of(params: Params, batch: Batch, step, key) -> tuple[Params, LossSums]:
        of_part = jax.grad(mean_objective, has_aux=True)
        tokens = jnp.maximum(layout.total(real(batch.target).sum()), 1).astype(jnp.float32)
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
        if not isinstance(state.rate_factor, tuple):
            updates = jax.tree.map(lambda change: state.rate_factor * change, updates)
        params = kept_where(frozen, state.params, optax.apply_updates(state.params, updates))
        average = jax.tree.map(lambda old, new: ema * old + (1 - ema) * new, state.ema, params) if ema else ()
        average = kept_where(frozen, state.params, average) if ema else ()
        return state._replace(step=state.step + 1, params=params, opt=opt, ema=average)

    def keep(state: TrainState, _: Params) -> TrainState:
        return state

    def skip(state: TrainState, _: Params) -> TrainState:
        return state._replace(step=state.step + 1, opt=with_next_rate(state.opt))

    def after_spike_check(state: TrainState, gradient: Params, norm, finite) -> tuple[TrainState, Any]:
        spike = finite & is_spike(norm, state.norms, skip_spikes)
        number = jnp.where(finite, 1, 0) + jnp.where(spike, 1, 0)
        after = one_of_branches(number, [keep, update, skip], state, gradient)
        # skipped ones are remembered too: where the norms stay high, the median rises and training goes on
        place = jnp.where(finite, state.step % SPIKE_WINDOW, SPIKE_WINDOW)
        return after._replace(norms=state.norms.at[place].set(norm, mode="drop")), spike

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key, impl="threefry2x32"), state.step)
        of_rows = gradient_of(layout.gather(state.params), batch, state.step, layout.own_key(key))
        gradient, sums = layout.total(of_rows)
        gradient = layout.shard(layout.gather(gradient))  # summed first: no activation is to be moved for its shards
        with jax.named_scope("optimizer"):
            norm = optax.tree.norm(gradient)
            finite = jnp.isfinite(sums.objective) & jnp.isfinite(norm)
            if skip_spikes:
                state, spike = after_spike_check(state, gradient, norm, finite)
                return layout.shard(state), Metrics(sums, norm, finite, spike)
            state = one_of_branches(jnp.where(finite, 1, 0), [keep, update], state, gradient)
        return layout.shard(state), Metrics(sums, norm, finite)

    return jax.jit(step, donate_argnums=0, compiler_options=dict(compiler_options or {}))


def one_of_branches(
    number: Int[Array, ""], branches: Sequence[Callable[[TrainState, Params], TrainState]], *arguments: Any
) -> TrainState:
    """`lax.switch`; where launches cost, the selection among the results of all branches.

    A GPU copies the arguments of a switch, in W1 174 MB a step, and the selection is part of the update's own kernels.
    On a CPU it is the other way round: the selection moves 174 MB, and the switch 74.
    """
    if not launches_cost():
        return jax.lax.switch(number, branches, *arguments)
    results = [branch(*arguments) for branch in branches]
    return jax.tree.map(lambda *leaves: jax.lax.select_n(number, *leaves), *results)


def is_spike(norm: Float[Array, ""], norms: Float[Array, " W"], factor: float) -> Bool[Array, ""]:
    """Whether a gradient's norm is more than `factor` times the (lower) median of the last ones."""
    count = jnp.isfinite(norms).sum()
    median = jnp.sort(norms)[jnp.maximum(count - 1, 0) // 2]
    return (count >= SPIKE_HISTORY) & (norm > factor * median)


def with_next_rate(opt: PyTree) -> PyTree:
    """The state of an optimizer whose learning rate schedule has moved on by a step, and nothing else has."""

    def is_schedule(state: Any) -> bool:
        return isinstance(state, optax.ScaleByScheduleState)

    def advanced(state: Any) -> Any:
        return state._replace(count=optax.safe_increment(state.count)) if is_schedule(state) else state

    return jax.tree.map(advanced, opt, is_leaf=is_schedule)


def dealt(rows: Shaped[Array, "B ..."], parts: int) -> Shaped[Array, "P C ..."]:
    """Rows dealt out to parts one by one, so that each part has rows of each device; padding fills the parts up."""
    filled = jnp.pad(rows, ((0, -len(rows) % parts), *[(0, 0)] * (rows.ndim - 1)))  # PAD is 0, and so is no link
    return filled.reshape(-1, parts, *rows.shape[1:]).swapaxes(0, 1)
