"""How does a recurrent cell make its next state from its last one and its input?

Every cell keeps two weight matrices. The rows of `known` meet the input that is known before the scan and are
multiplied outside it for all steps at once (`project`); those of `weight`, `[input of this step | state]`, inside it
as one fat product (`inside`). Cut apart once and for all, since a cut inside a loop is a copy at every step.
`directions` puts leading axes before everything, so that both directions of an encoder run in one scan.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from s2s_jax.model.ops import initializers
from s2s_jax.model.ops.layer_norm import layer_norm
from s2s_jax.model.ops.matmul import broadcast_bias, matmul
from s2s_jax.shapes import Size

Carry = tuple[Float[Array, "*B H"], ...]  # what is read out comes first
Weights = tuple  # matrices, or `Delayed` ones inside a scan; each meets one product a step


class Cell(nnx.Module):
    """The vanilla recurrent network, and what all cells share.

    h' = tanh(W x + U h + b). Elman 1990, "Finding Structure in Time".

    Args:
        inputs: width of the input that is known before the scan (may be 0).
        extra: width of the input that only arrives step by step, such as a fed context (may be 0).
        size: width H of the state.
        directions: leading axes of every parameter, () or (D,).
    """

    gates = 1
    states = 1

    def __init__(
        self, inputs: int, size: int, *, extra: int = 0, directions: tuple[int, ...] = (), dtype: DTypeLike, rngs
    ):
        self.inputs, self.size, self.dtype = inputs, size, dtype
        feeding = initializers.gates(initializers.glorot(rngs.params(), *directions, self.gates, inputs + extra, size))
        recurrent = initializers.gates(initializers.orthogonal(rngs.params(), *directions, self.gates, size, size))
        if inputs:
            self.input_kernel = nnx.Param(feeding[..., :inputs, :])
        self.weight = nnx.Param(jnp.concatenate([feeding[..., inputs:, :], recurrent], axis=-2))
        self.bias = nnx.Param(jnp.zeros((*directions, self.gates * size)))

    def start(self, *lead: Size) -> Carry:
        """The zero state for leading axes `lead`."""
        return tuple(jnp.zeros((*lead, self.size)) for _ in range(self.states))

    def project(self, x: Float[Array, "*B I"], *, way: int | None = None) -> Float[Array, "*B G"]:
        """The input's share of the gates, for any number of steps at once; x has width `inputs` or `inputs + extra`.

        Where there are directions, each is projected by itself: they read their inputs in different orders.
        """
        return self._input_projection(x, way) + broadcast_bias(_of(way, self.bias[...]), x.ndim)

    def _input_projection(self, x, way: int | None):
        rows = [self.input_kernel[...]] if self.inputs else []
        if x.shape[-1] > self.inputs:
            rows.append(self.weight[..., : x.shape[-1] - self.inputs, :])
        return matmul(x, _of(way, jnp.concatenate(rows, axis=-2)), self.dtype)

    def without_input(self, *lead: Size) -> Float[Array, "*B G"]:
        """What `project` gives for a cell all of whose input arrives step by step."""
        zeros = jnp.zeros((*lead, self.bias.shape[-1]))
        return zeros + broadcast_bias(self.bias[...], zeros.ndim)

    def step_weights(self, *, hoisted: int) -> Weights:
        """The weights of each step, where `project` has seen an input that was `hoisted` wide."""
        return (self.weight[..., hoisted - self.inputs :, :],)

    def __call__(
        self,
        inside: Weights,
        carry: Carry,
        projected: Float[Array, "*B G"],
        extra: Float[Array, "*B X"] | None = None,
        *,
        drop=None,
    ) -> tuple[Carry, Float[Array, "*B H"]]:
        """The next state, and what the cell shows. `drop` is a dropout mask on the state before its product."""
        (state,) = carry
        state = jnp.tanh(projected + self._from_state(inside, _dropped(state, drop), extra))
        return (state,), state

    def _from_state(self, inside, state, extra):
        """U h, together with the extra input's share, as one product."""
        (weight,) = inside
        return matmul(state if extra is None else jnp.concatenate([extra, state], -1), weight, self.dtype)


class SeparateGates(Cell):
    """What cells share whose state has products of its own: the extra input's share is added to the projected one."""

    def step_weights(self, *, hoisted: int) -> Weights:
        """The weight of the extra input, where there is one, and that of the state."""
        (weight,) = super().step_weights(hoisted=hoisted)
        extra, state = weight[..., : -self.size, :], weight[..., -self.size :, :]
        return (extra, state) if extra.shape[-2] else (state,)

    def _with_extra(self, inside, projected, extra):
        """The whole input's share."""
        if extra is None or not extra.shape[-1]:  # a thought vector feeds a context of width 0
            return projected
        return projected + matmul(extra, inside[0], self.dtype)


class Gru(SeparateGates):
    """Gated recurrent unit, the reset gate applied after the matrix product, as cuDNN and PyTorch compute it.

    r, z = sigmoid(W x + U h + b); n = tanh(W_n x + b_n + r * (U_n h + c_n)); h' = (1 - z) n + z h.
    Cho et al. 2014, arXiv:1406.1078, in the form of the cuDNN manual.
    """

    gates = 3

    def __init__(self, inputs, size, *, extra=0, directions=(), dtype, rngs):
        super().__init__(inputs, size, extra=extra, directions=directions, dtype=dtype, rngs=rngs)
        self.inner_bias = nnx.Param(jnp.zeros((*directions, size)))

    def __call__(self, inside, carry, projected, extra=None, *, drop=None):
        """The next state, twice: as carry and as output."""
        (state,) = carry
        projected = self._with_extra(inside, projected, extra)
        return self._gated(state, projected, matmul(_dropped(state, drop), inside[-1], self.dtype))

    def _gated(self, state, projected, recurrent):
        seen, of_input = jnp.split(projected, [2 * self.size], axis=-1)
        kept, inner = jnp.split(recurrent, [2 * self.size], axis=-1)
        reset, update = _split(jax.nn.sigmoid(seen + kept), 2)
        new = jnp.tanh(of_input + reset * (inner + broadcast_bias(self.inner_bias[...], state.ndim)))
        state = new + update * (state - new)
        return (state,), state


class GruResetBefore(SeparateGates):
    """Gated recurrent unit, the reset gate applied to the state before the matrix product, as first published.

    r, z = sigmoid(W x + U h + b); n = tanh(W_n x + U_n (r * h) + b_n); h' = (1 - z) n + z h.
    Cho et al. 2014, arXiv:1406.1078, eq. 5-8. Two products a step, where the other form needs one.
    """

    gates = 3

    def step_weights(self, *, hoisted: int) -> Weights:
        """The weight of the extra input, where there is one, and those of the state for the gates and for n."""
        *extra, state = super().step_weights(hoisted=hoisted)
        return (*extra, state[..., : 2 * self.size], state[..., 2 * self.size :])

    def __call__(self, inside, carry, projected, extra=None, *, drop=None):
        """The next state, twice: as carry and as output."""
        (state,) = carry
        projected = self._with_extra(inside, projected, extra)
        *_, of_gates, of_new = inside
        seen, of_input = jnp.split(projected, [2 * self.size], axis=-1)
        kept = _dropped(state, drop)
        reset, update = _split(jax.nn.sigmoid(seen + matmul(kept, of_gates, self.dtype)), 2)
        new = jnp.tanh(of_input + matmul(reset * kept, of_new, self.dtype))
        state = new + update * (state - new)
        return (state,), state


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

    def __call__(self, inside, carry, projected, extra=None, *, drop=None):
        """The next (h, c), and h."""
        state, cell = carry
        return self._gated(cell, projected + self._from_state(inside, _dropped(state, drop), extra))

    def _gated(self, cell, gates):
        """Gate order: input, forget, output, candidate, so that the three sigmoids are one contiguous stretch."""
        sigmoids, candidate = jnp.split(gates, [3 * self.size], axis=-1)  # goes back as one concatenation
        entry, forget, output = _split(jax.nn.sigmoid(sigmoids), 3)
        cell = forget * cell + entry * jnp.tanh(candidate)
        state = output * jnp.tanh(self._shown(cell))
        return (state, cell), state

    def _shown(self, cell):
        return cell


class LayerNormLstm(SeparateGates, Lstm):
    """Long short-term memory with layer normalization of input, recurrent and cell sums.

    gates = LN(W x) + LN(U h) + b; h' = o tanh(LN(c')). Ba, Kiros & Hinton 2016, arXiv:1607.06450, eq. 20-22.
    """

    def __init__(self, inputs, size, *, extra=0, directions=(), dtype, rngs):
        super().__init__(inputs, size, extra=extra, directions=directions, dtype=dtype, rngs=rngs)
        self.input_gain = nnx.Param(jnp.ones((*directions, 4 * size)))
        self.state_gain = nnx.Param(jnp.ones((*directions, 4 * size)))
        self.cell_gain = nnx.Param(jnp.ones((*directions, size)))
        self.cell_bias = nnx.Param(jnp.zeros((*directions, size)))

    def project(self, x, *, way=None):
        """W x alone: the bias comes after the normalization, inside the scan."""
        return self._input_projection(x, way)

    def without_input(self, *lead):
        """Zeros: nothing is known before the scan."""
        return jnp.zeros((*lead, self.bias.shape[-1]))

    def __call__(self, inside, carry, projected, extra=None, *, drop=None):
        """The next (h, c), and h."""
        state, cell = carry
        projected = self._with_extra(inside, projected, extra)
        recurrent = matmul(_dropped(state, drop), inside[-1], self.dtype)
        gates = layer_norm(projected) * broadcast_bias(self.input_gain[...], projected.ndim)
        gates = (
            gates
            + layer_norm(recurrent) * broadcast_bias(self.state_gain[...], projected.ndim)
            + broadcast_bias(self.bias[...], projected.ndim)
        )
        return self._gated(cell, gates)

    def _shown(self, cell):
        return layer_norm(cell) * broadcast_bias(self.cell_gain[...], cell.ndim) + broadcast_bias(
            self.cell_bias[...], cell.ndim
        )


CELLS = {
    "rnn": Cell,
    "gru": Gru,
    "gru-reset-before": GruResetBefore,
    "lstm": Lstm,
    "layer-norm-lstm": LayerNormLstm,
}


class Transitions(nnx.Module):
    """A cell after which the state goes through more cells, without input, before the step is over.

    Pascanu et al. 2014, arXiv:1312.6026; Miceli Barone et al. 2017, arXiv:1707.07631. As a cell, it is like any other.
    """

    def __init__(self, first: Cell, more: list[Cell]):
        self.first, self.more = first, nnx.List(more)
        self.inputs, self.size, self.dtype = first.inputs, first.size, first.dtype

    def start(self, *lead: Size) -> Carry:
        """The zero state."""
        return self.first.start(*lead)

    def project(self, x: Float[Array, "*B I"], *, way: int | None = None) -> Float[Array, "*B G"]:
        """The first cell's share of the input."""
        return self.first.project(x, way=way)

    def without_input(self, *lead: Size) -> Float[Array, "*B G"]:
        """What the first cell has where all its input arrives step by step."""
        return self.first.without_input(*lead)

    def step_weights(self, *, hoisted: int) -> Weights:
        """The weights of each cell."""
        return (self.first.step_weights(hoisted=hoisted), *(cell.step_weights(hoisted=0) for cell in self.more))

    def __call__(self, inside: Weights, carry: Carry, projected, extra=None, *, drop=None):
        """The state after all cells, and what the last shows; each cell has the same dropout."""
        carry, output = self.first(inside[0], carry, projected, extra, drop=drop)
        for cell, weights in zip(self.more, inside[1:], strict=True):
            carry, output = cell(weights, carry, cell.without_input(*projected.shape[:-1]), drop=drop)
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
    """A cell of the table, with as many transitions a step as asked for."""
    kind, options = CELLS[name], {"directions": directions, "dtype": dtype, "rngs": rngs}
    first = kind(inputs, size, extra=extra, **options)
    more = [kind(0, size, **options) for _ in range(transitions - 1)]
    return Transitions(first, more) if more else first


def _dropped(state, drop):
    return state if drop is None else state * drop


def _of(way: int | None, parameter):
    """The parameter of one direction; of all, where there is none to choose."""
    return parameter if way is None else parameter[way]


def _split(gates, parts: int):
    return jnp.split(gates, parts, axis=-1)
