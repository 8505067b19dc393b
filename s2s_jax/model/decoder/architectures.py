"""The order of cells and attention in a decoder step, as a table of classes.

An architecture of your own is a subclass of `Architecture` with a method `advance`, and a line
`ARCHITECTURES["mine"] = Mine`.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PyTree

from s2s_jax.model.attention.attention import AttentionOutput
from s2s_jax.model.cells import Carry, Cell, Transitions, Weights
from s2s_jax.model.readout import Deep, Readout, StateReadout, WithToken
from s2s_jax.model.zoneout import Rates, zone_out

MakeCell = Callable[..., Cell | Transitions]  # (inputs=, extra=) -> a cell as model.decoder sets it


class StepWeights(NamedTuple):
    """The weights whose products are inside the scan."""

    cells: tuple[Weights, ...]  # of each layer
    architecture: Weights  # of what the architecture adds to the layers
    attention: Weights
    self_attention: Weights  # of attention over the decoder's own states, else ()
    readout: Weights


class DropoutMasks(NamedTuple):
    """Dropout masks of one sentence, the same at every step: [B, width], or None where nothing is dropped."""

    inputs: tuple[Float[Array, "B I"] | None, ...]  # of each layer
    states: tuple[Float[Array, "B H"] | None, ...]  # of each layer
    readout: Float[Array, "B R"] | None
    attention: PyTree  # one raw key per sentence, if attention is noisy in training; else None
    zoneout: PyTree = None  # one raw key per sentence, if the states are zoned out; else None
    words: PyTree = None  # one raw key per sentence, if the embeddings of whole words are dropped; else None


class Layers(NamedTuple):
    """The stacked cells at one step, with dropout and residual connections, for an architecture to run in its order."""

    cells: Sequence[Cell | Transitions]
    weights: StepWeights
    masks: DropoutMasks | tuple[()]
    residual_from: int
    embedded: Float[Array, "B E"]  # the last token
    projected: Float[Array, "B G"]  # its product with the lowest cell's input weights
    feedback: Float[Array, "B R"] | None  # the last readout vector, with input feeding
    copied: Float[Array, "B M"] | None  # what the copy mechanism reads of the source for the last token
    previous: PyTree  # the last output [B, H] of the layer that the architecture `remembers`; None if it has none
    zoneout: Rates = ()  # of each leaf of a carry
    kept: PyTree = None  # for each layer and leaf of its carry what zoneout keeps [B, H]; None for the expectation

    def state_mask(self, layer: int) -> Float[Array, "B H"] | None:
        """The dropout mask of a layer's state."""
        return self.masks.states[layer] if self.masks else None

    def bottom(self, carry: Carry, extra: Float[Array, "B X"] | None = None) -> tuple[Carry, Float[Array, "B H"]]:
        """The next carry and the output of the lowest layer, which reads the last token and `extra`."""
        if self.copied is not None:
            extra = self.copied if extra is None else jnp.concatenate([extra, self.copied], axis=-1)
        return self._layer(0, carry, self.embedded, self.projected, extra)

    def upper(
        self,
        carries: tuple[Carry, ...],
        output: Float[Array, "B H"],
        context: Float[Array, "B M"] | None = None,
    ) -> tuple[tuple[Carry, ...], Float[Array, "B H"]]:
        """The next carries of the layers above the lowest, and the top output; each reads the one below and context."""
        new = []
        for layer, carry in enumerate(carries, start=1):
            extra = apply_mask(output, self.masks.inputs[layer] if self.masks else None)
            if context is not None:
                extra = jnp.concatenate([extra, context], -1)
            projected = self.cells[layer].without_input(output.shape[0])
            carry, output = self._layer(layer, carry, output, projected, extra)
            new.append(carry)
        return tuple(new), output

    def _layer(self, layer: int, carry: Carry, below, projected, extra):
        weights, mask = self.weights.cells[layer], self.state_mask(layer)
        new, output = self.cells[layer](weights, carry, projected, extra, drop=mask)
        if self.zoneout:
            new = zone_out(self.zoneout, carry, new, None if self.kept is None else self.kept[layer])
            output = new[0]
        return new, self.add_residual(layer, below, output)

    def add_residual(self, layer: int, below: Float[Array, "B I"], output: Float[Array, "B H"]) -> Float[Array, "B H"]:
        """The output of a layer, with its input added where model.decoder.residual_from says so."""
        return add_residual(self.residual_from, layer, below, output)


class Advanced(NamedTuple):
    """What an architecture computes at one step."""

    carries: tuple[Carry, ...]  # one per layer
    attended: AttentionOutput
    state: Float[Array, "B H"]  # the state that predicts the token, together with the context
    output: PyTree = ()  # of the layer that the architecture `remembers`


Attend = Callable[[Float[Array, "B H"]], AttentionOutput]  # of a query


class Architecture(nnx.Module):
    """The base of all architectures: which state queries, where the context enters, and which state predicts.

    Args:
        make_cell: makes a further cell, `make_cell(inputs=0, extra=context)`.
        context: width of the context.
    """

    readout: type[Readout] = Readout  # the vector that predicts
    has_attentional_vector = False  # the readout is tanh(W [context; state]), for which there are context gates
    has_input_feeding = False  # the lowest layer reads `layers.feedback` if model.decoder.input_feeding is set
    is_parallel = (
        False  # without feedback, all steps of the cells run before all steps of attention, in `Luong`'s order
    )
    context_enters_cells = False  # of some layer, so that it reaches the state that predicts the token
    bottom_reads_context = False  # the context is the lowest layer's extra input
    upper_reads_context = False  # and that of the layers above
    has_second_cell = False  # the lowest layer has two cells, so that its carry is not that of one step of one cell
    remembers: int | None = None  # the layer whose last output is `layers.previous`: 0 the lowest, -1 the top
    latent_alignment = False  # one source token predicts, and which one is summed out (`decoder.hard`)
    first_order = False  # the latent alignment depends on the one before
    monotonic = False  # and never goes back

    def __init__(self, make_cell: MakeCell, context: int):
        self.build(make_cell, context)

    def build(self, make_cell: MakeCell, context: int) -> None:
        """Make further cells, if there are any."""

    def step_weights(self) -> Weights:
        """The weights of further cells, for `layers.weights.architecture`."""
        return ()

    def advance(self, layers: Layers, carries: tuple[Carry, ...], attend: Attend) -> Advanced:
        """One step of all layers and of attention.

        Args:
            carries: what each layer carries, from the lowest; the first leaf of each is its state.
            attend: the attention, to be called once.
        """
        raise NotImplementedError


class Luong(Architecture):
    """The new top state queries; it and the context predict. Luong et al. 2015, arXiv:1508.04025, section 3."""

    has_attentional_vector = True
    has_input_feeding = True
    is_parallel = True

    def advance(self, layers, carries, attend):
        """Cells first, then attention."""
        bottom, output = layers.bottom(carries[0], layers.feedback)
        upper, output = layers.upper(carries[1:], output)
        return Advanced((bottom, *upper), attend(output), output)


class Bahdanau(Architecture):
    """The previous top state queries, and it and the context predict. Bahdanau et al. 2015, arXiv:1409.0473, A.1-2.

    Where the top layer has a residual connection, its previous output takes the place of its previous state.
    """

    readout = Deep
    context_enters_cells = True
    bottom_reads_context = True
    remembers = -1

    def predicting_state(self, layers: Layers, output: Float[Array, "B H"]) -> Float[Array, "B H"]:
        """The previous output of the top layer; `output` is the new one."""
        return layers.previous

    def advance(self, layers, carries, attend):
        """Attention first, then the cells, the lowest of which reads the context."""
        attended = attend(layers.previous)
        bottom, lowest = layers.bottom(carries[0], attended.context)
        upper, top = layers.upper(carries[1:], lowest, attended.context if self.upper_reads_context else None)
        predicting = self.predicting_state(layers, top)
        return Advanced((bottom, *upper), attended, predicting, lowest if self.remembers == 0 else top)


class BahdanauNewState(Bahdanau):
    """As `Bahdanau`, but the new top state predicts, which has read the last token and the context."""

    def predicting_state(self, layers, output):
        """The new output of the top layer."""
        return output


class Gnmt(BahdanauNewState):
    """The lowest layer's previous state queries, all layers read the context, and the new top state alone predicts.

    Wu et al. 2016, arXiv:1609.08144, section 3 and figure 1.
    """

    readout = StateReadout
    upper_reads_context = True
    remembers = 0


class Conditional(Architecture):
    """The lowest layer has two cells: the state after the token queries, and the second cell reads the context.

    The conditional GRU of Nematus. Sennrich et al. 2017, arXiv:1703.04357, section 2. A residual connection of that
    layer adds the token to the output of the second cell.
    """

    readout = WithToken
    has_attentional_vector = True
    has_second_cell = True
    context_enters_cells = True

    def build(self, make_cell, context):
        """The second cell."""
        self.second_cell = make_cell(inputs=0, extra=context)

    def step_weights(self):
        """Those of the second cell."""
        return self.second_cell.step_weights(hoisted=0)

    def advance(self, layers, carries, attend):
        """The first cell, attention, the second cell, and then the layers above."""
        bottom, _ = layers.bottom(carries[0])
        attended = attend(bottom[0])
        projected = self.second_cell.without_input(bottom[0].shape[0])
        weights, mask = layers.weights.architecture, layers.state_mask(0)
        bottom, output = self.second_cell(weights, bottom, projected, attended.context, drop=mask)
        upper, output = layers.upper(carries[1:], layers.add_residual(0, layers.embedded, output))
        return Advanced((bottom, *upper), attended, output)


class Hard(Luong):
    """p(y_t) = sum_i softmax(score)_i p(y_t | s_t, h_i): one source token predicts, and all are summed over exactly.

    Exact hard attention of order 0. Wu et al. 2018, arXiv:1808.10024, eq. 5.
    """

    has_attentional_vector = False
    has_input_feeding = False
    latent_alignment = True


class HardFirstOrder(Hard):
    """p(a_t = i | a_{t-1} = j) = softmax_i(score_i + U_{i-j} [s_t; h_j]): a hidden Markov model over source tokens.

    U has a row for each distance up to model.attention.window, longer ones share the outermost; a_0 is the first token.
    Exact hard attention of order 1. Wu & Cotterell 2019, arXiv:1905.06319, section 3.
    """

    first_order = True


class HardMonotonic(HardFirstOrder):
    """p(a_t = i | a_{t-1} = j) = softmax_{i >= j}(score_i + U_{i-j} [s_t; h_j]): the alignment never goes back.

    Exact hard monotonic attention, with model.attention.window=0 (no U) the papers' 0-MONO, otherwise a form of 1-MONO.
    Wu & Cotterell 2019, arXiv:1905.06319, section 3.
    """

    monotonic = True


ARCHITECTURES: dict[str, type[Architecture]] = {
    "luong": Luong,
    "bahdanau": Bahdanau,
    "bahdanau-new-state": BahdanauNewState,
    "conditional": Conditional,
    "gnmt": Gnmt,
    "hard": Hard,
    "hard-first-order": HardFirstOrder,
    "hard-monotonic": HardMonotonic,
}


def add_residual(residual_from: int, layer: int, below: Float[Array, "*T B I"], output: Float[Array, "*T B H"]):
    """The output of a layer, with its input added from the layer `residual_from` on, which counts from 1."""
    return output + below if 0 < residual_from <= layer + 1 else output


def apply_mask(x: Float[Array, "*T B I"], mask: Float[Array, "B I"] | None) -> Float[Array, "*T B I"]:
    """One step or all of them, times the same dropout mask at each."""
    return x if mask is None else x * mask.reshape((1,) * (x.ndim - mask.ndim) + mask.shape)
