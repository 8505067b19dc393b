"""Recurrent cells.

Every cell has two weight matrices. `input_kernel` multiplies the input that is known before the scan, outside it and
for all steps at once (`project`); `weight`, with the rows `[input of this step | state]`, is multiplied inside it as
one wide product (`step_weights`). They are separate parameters: a slice inside a loop is a copy at every step.
`directions` puts leading axes before everything, so that both directions of an encoder run in one scan.

A cell of your own is a subclass of `Cell` with a method `__call__`, and a line `CELLS["mine"] = Mine`.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from s2s_jax.model.ops import initializers
from s2s_jax.model.ops.layer_norm import layer_norm
from s2s_jax.model.ops.matmul import broadcast_bias, matmul
from s2s_jax.model.ops.sown import sow
from s2s_jax.shapes import Size
from s2s_jax.validation import at_least

CellName = Literal["rnn", "gru", "gru-reset-before", "layer-norm-gru", "lstm", "layer-norm-lstm", "sru"]
Carry = tuple[Float[Array, "*B H"], ...]  # the output comes first
Weights = tuple  # the matrices that a step multiplies by


class Cell(nnx.Module):
    """The vanilla recurrent network, and the base of all cells.

    h' = tanh(W x + U h + b). Elman 1990, "Finding Structure in Time".

    Args:
        inputs: width of the input that is known before the scan (may be 0).
        extra: width of the input that only arrives step by step, such as a context (may be 0).
        size: width H of the state.
        directions: leading axes of every parameter, () or (D,).
    """

    gates = 1  # gates and candidates: the matrices are gates * size wide
    states = 1  # leaves of the carry
    maps_state = True  # whether a matrix is multiplied by the state

    def __init__(
        self, inputs: int, size: int, *, extra: int = 0, directions: tuple[int, ...] = (), dtype: DTypeLike, rngs
    ):
        self.inputs, self.size, self.dtype = inputs, size, dtype
        input_weight = initializers.gates(
            initializers.glorot(rngs.params(), *directions, self.gates, inputs + extra, size)
        )
        recurrent = initializers.gates(initializers.orthogonal(rngs.params(), *directions, self.gates, size, size))
        if inputs:
            self.input_kernel = nnx.Param(input_weight[..., :inputs, :])
        self.weight = nnx.Param(jnp.concatenate([input_weight[..., inputs:, :], recurrent], axis=-2))
        self.bias = nnx.Param(jnp.zeros((*directions, self.gates * size)))

    def start(self, *lead: Size) -> Carry:
        """The zero state for leading axes `lead`."""
        return tuple(jnp.zeros((*lead, self.size)) for _ in range(self.states))

    def project(self, x: Float[Array, "*B I"], *, direction: int | None = None) -> Float[Array, "*B G"]:
        """The input's share of the gates, for any number of steps at once; x has width `inputs` or `inputs + extra`.

        With directions, each is projected by itself: they read their inputs in different orders.
        """
        return self._input_projection(x, direction) + broadcast_bias(_select(self.bias[...], direction), x.ndim)

    def _input_projection(self, x, direction: int | None):
        rows = [self.input_kernel[...]] if self.inputs else []
        if x.shape[-1] > self.inputs:
            rows.append(self.weight[..., : x.shape[-1] - self.inputs, :])
        return matmul(x, _select(jnp.concatenate(rows, axis=-2), direction), self.dtype)

    def without_input(self, *lead: Size) -> Float[Array, "*B G"]:
        """What `project` returns for a cell whose whole input arrives step by step: the bias."""
        zeros = jnp.zeros((*lead, self.bias.shape[-1]))
        return zeros + broadcast_bias(self.bias[...], zeros.ndim)

    def step_weights(self, *, hoisted: int) -> Weights:
        """The weights used at every step, if `project` has read an input that is `hoisted` wide."""
        return (self.weight[..., hoisted - self.inputs :, :],)

    def __call__(
        self,
        weights: Weights,
        carry: Carry,
        projected: Float[Array, "*B G"],
        extra: Float[Array, "*B X"] | None = None,
        *,
        drop=None,
    ) -> tuple[Carry, Float[Array, "*B H"]]:
        """The next carry, and the output.

        Args:
            weights: what `step_weights` returned.
            projected: what `project` or `without_input` returned.
            extra: the input that arrives at this step.
            drop: a dropout mask on the state before its product.
        """
        (state,) = carry
        state = jnp.tanh(projected + self._recurrent(weights, _apply(drop, state), extra))
        return (state,), state

    def _recurrent(self, weights, state, extra):
        """U h plus the extra input's projection, as one product."""
        (weight,) = weights
        return matmul(state if extra is None else jnp.concatenate([extra, state], -1), weight, self.dtype)


class SeparateGates(Cell):
    """The base of cells that use U h apart from W x: the extra input's projection is added to the projected input."""

    def step_weights(self, *, hoisted: int) -> Weights:
        """The weight of the extra input, if there is one, and that of the state."""
        (weight,) = super().step_weights(hoisted=hoisted)
        extra, state = weight[..., : -self.size, :], weight[..., -self.size :, :]
        return (extra, state) if extra.shape[-2] else (state,)

    def _add_extra(self, weights, projected, extra):
        """The projection of the whole input."""
        if extra is None or not extra.shape[-1]:  # a model without attention has a context of width 0
            return projected
        return projected + matmul(extra, weights[0], self.dtype)


class Gru(SeparateGates):
    """Gated recurrent unit, the reset gate applied after the matrix product, as cuDNN and PyTorch compute it.

    r, z = sigmoid(W x + U h + b); n = tanh(W_n x + b_n + r * (U_n h + c_n)); h' = (1 - z) n + z h.
    Cho et al. 2014, arXiv:1406.1078, in the form of the cuDNN manual.
    """

    gates = 3

    def __init__(self, inputs, size, *, extra=0, directions=(), dtype, rngs):
        super().__init__(inputs, size, extra=extra, directions=directions, dtype=dtype, rngs=rngs)
        self.inner_bias = nnx.Param(jnp.zeros((*directions, size)))

    def __call__(self, weights, carry, projected, extra=None, *, drop=None):
        """The next state, as carry and as output."""
        (state,) = carry
        projected = self._add_extra(weights, projected, extra)
        return self._gated(state, projected, matmul(_apply(drop, state), weights[-1], self.dtype))

    def _gated(self, state, projected, recurrent):
        input_gates, input_candidate = jnp.split(projected, [2 * self.size], axis=-1)
        state_gates, inner = jnp.split(recurrent, [2 * self.size], axis=-1)
        reset, update = _split(jax.nn.sigmoid(input_gates + state_gates), 2)
        sow("gates", {"reset": reset, "update": update})
        new = jnp.tanh(input_candidate + reset * (inner + broadcast_bias(self.inner_bias[...], state.ndim)))
        state = new + update * (state - new)
        return (state,), state


class GruResetBefore(SeparateGates):
    """Gated recurrent unit, the reset gate applied to the state before the matrix product, as first published.

    r, z = sigmoid(W x + U h + b); n = tanh(W_n x + U_n (r * h) + b_n); h' = (1 - z) n + z h.
    Cho et al. 2014, arXiv:1406.1078, eq. 5-8. Two products per step, where the other form needs one.
    """

    gates = 3

    def step_weights(self, *, hoisted: int) -> Weights:
        """The weight of the extra input, if there is one, and those of the state for the gates and for n."""
        *extra, state = super().step_weights(hoisted=hoisted)
        return (*extra, state[..., : 2 * self.size], state[..., 2 * self.size :])

    def __call__(self, weights, carry, projected, extra=None, *, drop=None):
        """The next state, as carry and as output."""
        (state,) = carry
        projected = self._add_extra(weights, projected, extra)
        *_, gate_weight, candidate_weight = weights
        input_gates, input_candidate = jnp.split(projected, [2 * self.size], axis=-1)
        kept = _apply(drop, state)
        reset, update = _split(jax.nn.sigmoid(input_gates + matmul(kept, gate_weight, self.dtype)), 2)
        sow("gates", {"reset": reset, "update": update})
        new = jnp.tanh(input_candidate + matmul(reset * kept, candidate_weight, self.dtype))
        state = new + update * (state - new)
        return (state,), state


class NormalizedSums(SeparateGates):
    """The base of cells that normalize W x and U h apart, before a bias. Ba, Kiros & Hinton 2016, arXiv:1607.06450."""

    def __init__(self, inputs, size, *, extra=0, directions=(), dtype, rngs):
        super().__init__(inputs, size, extra=extra, directions=directions, dtype=dtype, rngs=rngs)
        self.input_gain = nnx.Param(jnp.ones((*directions, self.gates * size)))
        self.state_gain = nnx.Param(jnp.ones((*directions, self.gates * size)))

    def project(self, x, *, direction=None):
        """W x alone: the bias comes after the normalization, inside the scan."""
        return self._input_projection(x, direction)

    def without_input(self, *lead):
        """Zeros: no input is known before the scan, and the bias comes later."""
        return jnp.zeros((*lead, self.bias.shape[-1]))


class LayerNormGru(NormalizedSums):
    """Gated recurrent unit with layer normalization of input and recurrent sums, of both gates together and of n.

    r, z = sigmoid(LN(W x) + LN(U h) + b); n = tanh(LN(W_n x) + b_n + r * (LN(U_n h) + c_n)); h' = (1 - z) n + z h.
    Ba, Kiros & Hinton 2016, arXiv:1607.06450, supplement, eq. 22-24, where z and 1 - z are exchanged.
    """

    gates = 3

    def __init__(self, inputs, size, *, extra=0, directions=(), dtype, rngs):
        super().__init__(inputs, size, extra=extra, directions=directions, dtype=dtype, rngs=rngs)
        self.inner_bias = nnx.Param(jnp.zeros((*directions, size)))

    def __call__(self, weights, carry, projected, extra=None, *, drop=None):
        """The next state, as carry and as output."""
        (state,) = carry
        recurrent = matmul(_apply(drop, state), weights[-1], self.dtype)
        of_gates, of_candidate = self._normalized(self._add_extra(weights, projected, extra), self.input_gain)
        state_gates, inner = self._normalized(recurrent, self.state_gain)
        gate_bias, bias = jnp.split(broadcast_bias(self.bias[...], projected.ndim), [2 * self.size], axis=-1)
        reset, update = _split(jax.nn.sigmoid(of_gates + state_gates + gate_bias), 2)
        sow("gates", {"reset": reset, "update": update})
        inner = inner + broadcast_bias(self.inner_bias[...], state.ndim)
        new = jnp.tanh(of_candidate + bias + reset * inner)
        state = new + update * (state - new)
        return (state,), state

    def _normalized(self, sums, gain):
        """The sums of the two gates and that of the candidate, each normalized and times its gain."""
        gains = jnp.split(broadcast_bias(gain[...], sums.ndim), [2 * self.size], axis=-1)
        parts = jnp.split(sums, [2 * self.size], axis=-1)
        return [layer_norm(part) * one for part, one in zip(parts, gains, strict=True)]


class Lstm(Cell):
    """Long short-term memory without peepholes, forget bias 1.

    i, f, o = sigmoid(W x + U h + b); g = tanh(...); c' = f c + i g; h' = o tanh(c').
    Hochreiter & Schmidhuber 1997; forget gate and its bias of 1: Gers et al. 2000, Jozefowicz et al. 2015.
    """

    gates = 4
    states = 2

    def __init__(self, inputs, size, *, extra=0, directions=(), dtype, rngs):
        super().__init__(inputs, size, extra=extra, directions=directions, dtype=dtype, rngs=rngs)
        self.bias[...] = self.bias[...].at[..., size : 2 * size].set(1.0)

    def __call__(self, weights, carry, projected, extra=None, *, drop=None):
        """The next carry (h, c), and the output h."""
        state, cell = carry
        return self._gated(cell, projected + self._recurrent(weights, _apply(drop, state), extra))

    def _gated(self, cell, gates):
        """Gate order: input, forget, output, candidate, so that the three sigmoids are one contiguous stretch."""
        sigmoids, candidate = jnp.split(gates, [3 * self.size], axis=-1)  # its backward pass is one concatenation
        entry, forget, output = _split(jax.nn.sigmoid(sigmoids), 3)
        sow("gates", {"input": entry, "forget": forget, "output": output})
        cell = forget * cell + entry * jnp.tanh(candidate)
        state = output * jnp.tanh(self._exposed(cell))
        return (state, cell), state

    def _exposed(self, cell):
        return cell


class LayerNormLstm(NormalizedSums, Lstm):
    """Long short-term memory with layer normalization of input, recurrent and cell sums.

    gates = LN(W x) + LN(U h) + b; h' = o tanh(LN(c')). Ba, Kiros & Hinton 2016, arXiv:1607.06450, eq. 20-22.
    """

    def __init__(self, inputs, size, *, extra=0, directions=(), dtype, rngs):
        super().__init__(inputs, size, extra=extra, directions=directions, dtype=dtype, rngs=rngs)
        self.cell_gain = nnx.Param(jnp.ones((*directions, size)))
        self.cell_bias = nnx.Param(jnp.zeros((*directions, size)))

    def __call__(self, weights, carry, projected, extra=None, *, drop=None):
        """The next carry (h, c), and the output h."""
        state, cell = carry
        projected = self._add_extra(weights, projected, extra)
        recurrent = matmul(_apply(drop, state), weights[-1], self.dtype)
        gates = layer_norm(projected) * broadcast_bias(self.input_gain[...], projected.ndim)
        gates = (
            gates
            + layer_norm(recurrent) * broadcast_bias(self.state_gain[...], projected.ndim)
            + broadcast_bias(self.bias[...], projected.ndim)
        )
        return self._gated(cell, gates)

    def _exposed(self, cell):
        return layer_norm(cell) * broadcast_bias(self.cell_gain[...], cell.ndim) + broadcast_bias(
            self.cell_bias[...], cell.ndim
        )


class Sru(Cell):
    """Simple recurrent unit: all matrix products are with the input, so that none of a known input is in the scan.

    f, r = sigmoid(W x + v * c + b); c' = f c + (1 - f) W_c x; h' = r c' + (1 - r) W_h x. Lei et al. 2018,
    arXiv:1709.02755, eq. 1-4. W_h maps the input to the width of the state, as the authors' code does where the two
    differ; here it always does.
    """

    gates = 4
    states = 2
    maps_state = False

    def __init__(self, inputs, size, *, extra=0, directions=(), dtype, rngs):
        self.inputs, self.size, self.dtype = inputs, size, dtype
        kernel = initializers.gates(initializers.glorot(rngs.params(), *directions, 4, inputs + extra, size))
        if inputs:
            self.input_kernel = nnx.Param(kernel[..., :inputs, :])
        if extra:
            self.weight = nnx.Param(kernel[..., inputs:, :])
        self.cell_kernel = nnx.Param(initializers.glorot(rngs.params(), *directions, 1, 2 * size)[..., 0, :])
        self.bias = nnx.Param(jnp.zeros((*directions, 2 * size)))

    def project(self, x, *, direction=None):
        """The projection of the input; the biases of the gates come later."""
        return self._input_projection(x, direction)

    def without_input(self, *lead):
        """Zeros: no input is known before the scan."""
        return jnp.zeros((*lead, 4 * self.size))

    def step_weights(self, *, hoisted):
        """The weight of the extra input, if there is one; there is no product with the state."""
        return super().step_weights(hoisted=hoisted) if hasattr(self, "weight") else ()

    def __call__(self, weights, carry, projected, extra=None, *, drop=None):
        """The next carry (h, c), and the output h."""
        if extra is not None and extra.shape[-1]:
            projected = projected + matmul(extra, weights[0], self.dtype)
        _, cell = carry
        seen = _apply(drop, cell)
        of_gates, candidate, shortcut = jnp.split(projected, [2 * self.size, 3 * self.size], axis=-1)
        of_cell = broadcast_bias(self.cell_kernel[...], cell.ndim) * jnp.concatenate([seen, seen], axis=-1)
        gates = jax.nn.sigmoid(of_gates + of_cell + broadcast_bias(self.bias[...], cell.ndim))
        forget, reset = _split(gates, 2)
        sow("gates", {"forget": forget, "reset": reset})
        cell = candidate + forget * (cell - candidate)
        state = shortcut + reset * (cell - shortcut)
        return (state, cell), state


CELLS: dict[str, type[Cell]] = {
    "rnn": Cell,
    "gru": Gru,
    "gru-reset-before": GruResetBefore,
    "layer-norm-gru": LayerNormGru,
    "lstm": Lstm,
    "layer-norm-lstm": LayerNormLstm,
    "sru": Sru,
}


class Transitions(nnx.Module):
    """A deep transition: a cell, and after it cells without input through which the state passes in the same step.

    Pascanu et al. 2014, arXiv:1312.6026; Miceli Barone et al. 2017, arXiv:1707.07631. It is used like a `Cell`.
    """

    def __init__(self, first: Cell, more: list[Cell]):
        self.first, self.more = first, nnx.List(more)
        self.inputs, self.size, self.dtype = first.inputs, first.size, first.dtype

    def start(self, *lead: Size) -> Carry:
        """The zero state for leading axes `lead`."""
        return self.first.start(*lead)

    def project(self, x: Float[Array, "*B I"], *, direction: int | None = None) -> Float[Array, "*B G"]:
        """The first cell's projection of the input."""
        return self.first.project(x, direction=direction)

    def without_input(self, *lead: Size) -> Float[Array, "*B G"]:
        """What `project` returns if the whole input arrives step by step."""
        return self.first.without_input(*lead)

    def step_weights(self, *, hoisted: int) -> Weights:
        """The weights of each cell, used at every step."""
        return (self.first.step_weights(hoisted=hoisted), *(cell.step_weights(hoisted=0) for cell in self.more))

    def __call__(self, weights: Weights, carry: Carry, projected, extra=None, *, drop=None):
        """The carry after all cells, and the output of the last; each cell has the same dropout."""
        carry, output = self.first(weights[0], carry, projected, extra, drop=drop)
        for cell, own in zip(self.more, weights[1:], strict=True):
            carry, output = cell(own, carry, cell.without_input(*projected.shape[:-1]), drop=drop)
        return carry, output


def make_cell(
    name: str,
    inputs: int,
    size: int,
    *,
    transitions: int = 1,
    extra: int = 0,
    directions: tuple[int, ...] = (),
    dtype: DTypeLike,
    rngs: nnx.Rngs,
) -> Cell | Transitions:
    """A cell of `CELLS`, with that many transitions per step."""
    kind, options = CELLS[name], {"directions": directions, "dtype": dtype, "rngs": rngs}
    first = kind(inputs, size, extra=extra, **options)
    more = [kind(0, size, **options) for _ in range(transitions - 1)]
    return Transitions(first, more) if more else first


def check_transitions(group: str, name: str, transitions: int) -> None:
    """Refuse a number of transitions per step that a cell cannot have; `group` is the name of its settings.

    Raises:
        ValueError: with the settings.
    """
    at_least(f"{group}.transitions", transitions, 1)
    if transitions > 1 and not CELLS[name].maps_state:
        raise ValueError(
            f"{group}.transitions={transitions} adds cells without input, and {group}.cell={name} computes nothing but "
            f"a decay without one; set {group}.transitions=1, or {group}.cell=gru."
        )


def _apply(drop, state):
    return state if drop is None else state * drop


def _select(parameter, direction: int | None):
    """The parameter of one direction, or the whole parameter."""
    return parameter if direction is None else parameter[direction]


def _split(gates, parts: int):
    return jnp.split(gates, parts, axis=-1)
