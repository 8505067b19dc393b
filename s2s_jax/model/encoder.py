"""The encoder: one output per source token, which attention reads, and the last state of every layer."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Shaped

from s2s_jax.model.cells import CELLS, Carry, Cell, CellName, Transitions, make_cell
from s2s_jax.model.interface import Noise
from s2s_jax.model.ops.dropout import keep_mask
from s2s_jax.model.ops.scan import scan
from s2s_jax.model.ops.target import launches_cost
from s2s_jax.validation import at_least, check_fields, fraction, one_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """The recurrent network that reads the source."""

    cell: CellName = "lstm"
    """Recurrent cell."""
    size: int = 256
    """Width of the state of one layer in one direction."""
    layers: int = 1
    """Stacked layers."""
    bidirectional: bool = True
    """Read in both directions; the two outputs of a token are concatenated, so the memory is 2 x size wide."""
    reversed: bool = False
    """Read backward only, with bidirectional=false. Sutskever et al. 2014, arXiv:1409.3215."""
    transitions: int = 1
    """Cells that the state of a layer passes through at each token; those after the first have no input."""
    residual_from: int = 0
    """First layer (counted from 1) whose input is added to its output; 0 for none. Wu et al. 2016, section 3.1."""
    dropout: float = 0.0
    """Fraction of a layer's inputs dropped, the same ones at every step of a sentence. Gal & Ghahramani 2016."""
    recurrent_dropout: float = 0.0
    """Fraction of a state dropped before its matrix product, the same ones at every step of a sentence."""

    def __post_init__(self):
        check_fields(self, "model.encoder")
        one_of("model.encoder.cell", self.cell, CELLS)
        at_least("model.encoder.size", self.size, 1)
        at_least("model.encoder.layers", self.layers, 1)
        at_least("model.encoder.transitions", self.transitions, 1)
        at_least("model.encoder.residual_from", self.residual_from, 0)
        fraction("model.encoder.dropout", self.dropout)
        fraction("model.encoder.recurrent_dropout", self.recurrent_dropout)

    @property
    def backward(self) -> tuple[bool, ...]:
        """For each direction whether it reads from the end."""
        return (False, True) if self.bidirectional else (self.reversed,)

    @property
    def directions(self) -> int:
        """The number of directions in which the source is read: 1 or 2."""
        return len(self.backward)


Directions = tuple[Shaped[Array, "S ..."], ...]  # one array per direction, time first, in the order in which it reads


class Encoded(NamedTuple):
    """The result of the encoder."""

    outputs: Float[Array, "B S M"]  # zero on padding
    carries: tuple[Carry, ...]  # the last carry of each layer, leaves [B, D*H]: directions concatenated


class Encoder(nnx.Module):
    """Stacked recurrent layers, exact under padding: the carry is frozen there and the output is zero."""

    def __init__(self, config: EncoderConfig, inputs: int, *, remat: int = 0, dtype: DTypeLike, rngs: nnx.Rngs):
        self.config, self.remat = config, remat
        self.width = config.directions * config.size
        widths = [inputs] + [self.width] * (config.layers - 1)
        self.cells = nnx.List(
            make_cell(
                config.cell,
                width,
                config.size,
                transitions=config.transitions,
                directions=(config.directions,),
                dtype=dtype,
                rngs=rngs,
            )
            for width in widths
        )

    def __call__(self, embedded: Float[Array, "B S E"], mask: Bool[Array, "B S"], key: Noise = None) -> Encoded:
        """Outputs and last carries of padded sentences; a sentence of length 0 keeps the initial state."""
        carries, outputs = [], jnp.where(mask[..., None], embedded, 0.0)  # a residual must not carry padding on
        for layer, cell in enumerate(self.cells):
            layer_key = None if key is None else jax.random.fold_in(key, layer)
            carry, new = self._layer(cell, outputs, mask, layer_key)
            outputs = outputs + new if 0 < self.config.residual_from <= layer + 1 else new
            carries.append(carry)
        return Encoded(outputs, tuple(carries))

    def _layer(self, cell: Cell | Transitions, inputs, mask, key: Noise):
        drop = None
        if key is not None:
            input_key, state_key = jax.random.split(key)
            mask_of_inputs = keep_mask(input_key, self.config.dropout, (inputs.shape[0], 1, inputs.shape[-1]))
            inputs = inputs if mask_of_inputs is None else inputs * mask_of_inputs
            shape = (self.config.directions, inputs.shape[0], cell.size)
            drop = keep_mask(state_key, self.config.recurrent_dropout, shape)
        start = cell.start(self.config.directions, inputs.shape[0])
        ordered = in_reading_order(inputs.swapaxes(0, 1), self.config.backward)
        projected = tuple(cell.project(x, direction=index) for index, x in enumerate(ordered))
        real = in_reading_order(mask.T, self.config.backward)
        carry, outputs = masked_scan(cell, start, projected, real, drop, remat=self.remat)
        concatenated = [jnp.concatenate(list(leaf), axis=-1) for leaf in carry]
        return tuple(concatenated), concat_directions(outputs, self.config.backward)


def masked_scan(
    cell: Cell | Transitions,
    carry: Carry,
    projected: Directions,
    mask: Directions,
    drop: Float[Array, "D B H"] | None,
    *,
    remat: int,
) -> tuple[Carry, Directions]:
    """The last carry and all outputs [S, B, H] of a cell over time; padding keeps the carry and zeroes the output.

    The directions are stacked inside the scan, one step at a time, so that nothing as long as the sentence is copied;
    outside it where launches cost.
    """
    stacked = launches_cost()

    weights = cell.step_weights(hoisted=cell.inputs)

    def body(carry, inputs):
        projected, real = inputs if stacked else (jnp.stack(directions) for directions in inputs)
        real = real[..., None]
        new, output = cell(weights, carry, projected, drop=drop)
        kept = tuple(jnp.where(real, after, before) for after, before in zip(new, carry, strict=True))
        output = jnp.where(real, output, jnp.zeros_like(output))
        return kept, output if stacked else tuple(output)

    inputs = projected, mask
    if stacked:
        inputs = jnp.stack(projected, axis=1), jnp.stack(mask, axis=1)
    carry, outputs = scan(body, carry, inputs, chunk=remat)
    return carry, tuple(outputs[:, index] for index in range(len(mask))) if stacked else outputs


def in_reading_order(x: Shaped[Array, "S ..."], backward: tuple[bool, ...]) -> Directions:
    """The array for each direction, reversed in time for one that reads from the end."""
    return tuple(x[::-1] if from_end else x for from_end in backward)


def concat_directions(outputs: Directions, backward: tuple[bool, ...]) -> Float[Array, "B S M"]:
    """The outputs [S, B, H] of all directions, concatenated per token in the order of the sentence."""
    in_order = [output[::-1] if from_end else output for output, from_end in zip(outputs, backward, strict=True)]
    return jnp.concatenate(in_order, axis=-1).swapaxes(0, 1)
