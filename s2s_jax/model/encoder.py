"""The encoder: one output per source token, which attention reads, and the last state of every layer."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Shaped

from s2s_jax.model.cells import CELLS, Carry, Cell, CellName, Transitions, check_transitions, make_cell
from s2s_jax.model.interface import Noise
from s2s_jax.model.ops.dropout import keep_mask
from s2s_jax.model.ops.scan import scan
from s2s_jax.model.ops.sown import sow
from s2s_jax.model.ops.target import launches_cost
from s2s_jax.model.zoneout import Rates, draw_kept, zone_out, zoneout_rates
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
    bidirectional_layers: int = 0
    """Lowest layers that read in both directions, if not all of them (0): 1 is the encoder of GNMT, Wu et al. 2016,
    arXiv:1609.08144, section 3.2. The others read forward, and the memory is `size` wide."""
    reversed: bool = False
    """Read backward only, with bidirectional=false. Sutskever et al. 2014, arXiv:1409.3215."""
    transitions: int = 1
    """Cells that the state of a layer passes through at each token; those after the first have no input."""
    residual_from: int = 0
    """First layer (counted from 1) whose input is added to its output; 0 for none. Wu et al. 2016, section 3.1."""
    learned_start: bool = False
    """The first state of each layer and direction is learned, and zero at first; otherwise it is zero."""
    dropout: float = 0.0
    """Fraction of a layer's inputs dropped, the same ones at every step of a sentence. Gal & Ghahramani 2016."""
    recurrent_dropout: float = 0.0
    """Fraction of a state dropped before its matrix product, the same ones at every step of a sentence."""
    zoneout: float = 0.0
    """Fraction of a layer's output that stays what it was, others at every step. Krueger et al. 2017,
    arXiv:1606.01305."""
    cell_zoneout: float = 0.0
    """The same of the memory cell of lstm, layer-norm-lstm and sru."""

    def __post_init__(self):
        check_fields(self, "model.encoder")
        one_of("model.encoder.cell", self.cell, CELLS)
        at_least("model.encoder.size", self.size, 1)
        at_least("model.encoder.layers", self.layers, 1)
        check_transitions("model.encoder", self.cell, self.transitions)
        at_least("model.encoder.residual_from", self.residual_from, 0)
        at_least("model.encoder.bidirectional_layers", self.bidirectional_layers, 0)
        for name in ("dropout", "recurrent_dropout", "zoneout", "cell_zoneout"):
            fraction(f"model.encoder.{name}", getattr(self, name))

    def backward(self, layer: int) -> tuple[bool, ...]:
        """For each direction of a layer, counted from 0, whether it reads from the end."""
        if not self.bidirectional:
            return (self.reversed,)
        return (False, True) if not self.bidirectional_layers or layer < self.bidirectional_layers else (False,)

    def layer_width(self, layer: int) -> int:
        """Width of the outputs of a layer, counted from 0: of all its directions."""
        return len(self.backward(layer)) * self.size

    @property
    def width(self) -> int:
        """Width M of the memory: of the outputs of the top layer."""
        return self.layer_width(self.layers - 1)


Directions = tuple[Shaped[Array, "S ..."], ...]  # one array per direction, time first, in the order in which it reads


class Encoded(NamedTuple):
    """The result of the encoder."""

    outputs: Float[Array, "B S M"]  # zero on padding
    carries: tuple[Carry, ...]  # the last carry of each layer, leaves [B, M]: directions concatenated
    features: tuple = ()  # the rows of each feature that the decoder attends to, as `FeatureRows`


class Encoder(nnx.Module):
    """Stacked recurrent layers, exact under padding: the carry is frozen there and the output is zero.

    Below layers of one direction, the last carry of a layer of two is that of its backward direction, so that all are
    of one width.
    """

    def __init__(self, config: EncoderConfig, inputs: int, *, remat: int = 0, dtype: DTypeLike, rngs: nnx.Rngs):
        self.config, self.remat, states = config, remat, CELLS[config.cell].states
        self.width, self.rates = config.width, zoneout_rates(config.zoneout, config.cell_zoneout, states)
        widths = [inputs] + [config.layer_width(layer) for layer in range(config.layers - 1)]
        self.cells = nnx.List(
            make_cell(
                config.cell,
                width,
                config.size,
                transitions=config.transitions,
                directions=(len(config.backward(layer)),),
                dtype=dtype,
                rngs=rngs,
            )
            for layer, width in enumerate(widths)
        )
        if config.learned_start:
            directions = (len(config.backward(layer)) for layer in range(config.layers))
            self.starts = nnx.List(nnx.Param(jnp.zeros((states, count, config.size))) for count in directions)

    def __call__(self, embedded: Float[Array, "B S E"], mask: Bool[Array, "B S"], key: Noise = None) -> Encoded:
        """Outputs and last carries of padded sentences; a sentence of length 0 keeps the initial state."""
        carries, outputs = [], jnp.where(mask[..., None], embedded, 0.0)  # a residual must not carry padding on
        for layer in range(self.config.layers):
            layer_key = None if key is None else jax.random.fold_in(key, layer)
            carry, new = self._layer(layer, outputs, mask, layer_key)
            outputs = outputs + new if 0 < self.config.residual_from <= layer + 1 else new
            sow("encoder_layer", outputs)
            carries.append(carry)
        return Encoded(outputs, tuple(carries))

    def _layer(self, layer: int, inputs, mask, key: Noise):
        cell, backward, drop, kept = self.cells[layer], self.config.backward(layer), None, None
        if key is not None:
            input_key, state_key = jax.random.split(key)
            mask_of_inputs = keep_mask(input_key, self.config.dropout, (inputs.shape[0], 1, inputs.shape[-1]))
            inputs = inputs if mask_of_inputs is None else inputs * mask_of_inputs
            shape = (len(backward), inputs.shape[0], cell.size)
            drop = keep_mask(state_key, self.config.recurrent_dropout, shape)
            if self.rates:
                kept = draw_kept(jax.random.fold_in(key, 0), self.rates, (inputs.shape[1], *shape))
        start = cell.start(len(backward), inputs.shape[0])
        if self.config.learned_start:
            start = tuple(
                jnp.broadcast_to(one[:, None], zeros.shape)
                for one, zeros in zip(self.starts[layer][...], start, strict=True)
            )
        ordered = in_reading_order(inputs.swapaxes(0, 1), backward)
        projected = tuple(cell.project(x, direction=index) for index, x in enumerate(ordered))
        real = in_reading_order(mask.T, backward)
        zoneout = self.rates, kept
        carry, outputs = masked_scan(cell, start, projected, real, drop, zoneout, remat=self.remat)
        if len(backward) * cell.size > self.width:
            carry = tuple(leaf[-1:] for leaf in carry)
        concatenated = [jnp.concatenate(list(leaf), axis=-1) for leaf in carry]
        return tuple(concatenated), concat_directions(outputs, backward)


def masked_scan(
    cell: Cell | Transitions,
    carry: Carry,
    projected: Directions,
    mask: Directions,
    drop: Float[Array, "D B H"] | None,
    zoneout: tuple[Rates, tuple[Bool[Array, "S D B H"], ...] | None] = ((), None),
    *,
    remat: int,
) -> tuple[Carry, Directions]:
    """The last carry and all outputs [S, B, H] of a cell over time; padding keeps the carry and zeroes the output.

    The directions are stacked inside the scan, one step at a time, so that nothing as long as the sentence is copied;
    outside it where launches cost.

    Args:
        zoneout: the rates of each leaf of the carry, and where it keeps its old numbers at each step, if that is drawn.
    """
    stacked = launches_cost()

    weights, (rates, drawn) = cell.step_weights(hoisted=cell.inputs), zoneout

    def body(carry, inputs):
        inputs, kept = inputs
        projected, real = inputs if stacked else (jnp.stack(directions) for directions in inputs)
        real = real[..., None]
        new, output = cell(weights, carry, projected, drop=drop)
        if rates:
            new = zone_out(rates, carry, new, kept)
            output = new[0]
        kept = tuple(jnp.where(real, after, before) for after, before in zip(new, carry, strict=True))
        output = jnp.where(real, output, jnp.zeros_like(output))
        return kept, output if stacked else tuple(output)

    inputs = projected, mask
    if stacked:
        inputs = jnp.stack(projected, axis=1), jnp.stack(mask, axis=1)
    carry, outputs = scan(body, carry, (inputs, drawn), chunk=remat)
    return carry, tuple(outputs[:, index] for index in range(len(mask))) if stacked else outputs


def in_reading_order(x: Shaped[Array, "S ..."], backward: tuple[bool, ...]) -> Directions:
    """The array for each direction, reversed in time for one that reads from the end."""
    return tuple(x[::-1] if from_end else x for from_end in backward)


def concat_directions(outputs: Directions, backward: tuple[bool, ...]) -> Float[Array, "B S M"]:
    """The outputs [S, B, H] of all directions, concatenated per token in the order of the sentence."""
    in_order = [output[::-1] if from_end else output for output, from_end in zip(outputs, backward, strict=True)]
    return jnp.concatenate(in_order, axis=-1).swapaxes(0, 1)
