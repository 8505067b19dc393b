"""The PyTorch model in two styles: as tutorials write it, and as fast as we know how."""

# pyright: reportMissingImports=false
# torch is no dependency of the project; shapes stand in comments, since jaxtyping need not be there either

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch_network import (
    BOS,
    MULTIPLE,
    NEVER,
    PAD,
    Network,
    additive_scores,
    concat_directions,
    gru_gates,
    lstm_gates,
    nats,
    trimmed,
)


class Tutorial(Network):
    """Everything of a step inside the loop over steps."""

    def inputs(self, source: np.ndarray, target: np.ndarray) -> tuple[Tensor, ...]:
        """A batch as tensors, cut to its longest sentences."""
        return tuple(torch.from_numpy(trimmed(side).astype(np.int64)) for side in (source, target))

    def encode(self, source: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Memory [B, S, M], mask [B, S] and the decoder's first state."""
        mask = source != PAD
        lengths = mask.sum(1).clamp(min=1).cpu()  # a row of padding: PyTorch packs no empty sentence
        outputs, carries = self.source(source), []
        for layer, rnn in enumerate(self.encoder, start=1):
            new, last = rnn(pack_padded_sequence(outputs, lengths, batch_first=True, enforce_sorted=False))
            new = pad_packed_sequence(new, batch_first=True)[0]
            outputs = outputs + new if 0 < self.residual[0] <= layer else new
            carries.append([concat_directions(leaf) for leaf in (last if isinstance(last, tuple) else (last,))])
        return outputs, mask, self.initial_state(carries, len(source))

    def step(self, memory: Tensor, mask: Tensor, state: list[Tensor], token: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits [B, V] and the new state."""
        below, fed, new = self.target(token), state[-1], []
        for layer, cell in enumerate(self.cells):
            inputs = below if layer else torch.cat([below, fed], -1)
            old = state[layer * self.states : (layer + 1) * self.states]
            after = cell(inputs, tuple(old)) if self.states == 2 else (cell(inputs, old[0]),)
            below = after[0] + below if 0 < self.residual[1] <= layer + 1 else after[0]
            new += after
        keys = self.memory_kernel(memory)
        if self.additive:
            scores = torch.tanh(self.query_kernel(below)[:, None] + keys) @ self.energy
        else:
            scores = (keys @ below[..., None])[..., 0]
        weights = functional.softmax(scores.masked_fill(~mask, NEVER), -1)
        context = (weights[:, None] @ memory)[:, 0]
        fed = torch.tanh(self.readout(torch.cat([context, below], -1)))
        return self.output(fed), [*new, fed]

    def loss(self, source: Tensor, target: Tensor) -> Tensor:
        """Nats per real target token."""
        memory, mask, state = self.encode(source)
        token, logits = torch.full_like(target[:, 0], BOS), []
        for position in range(target.shape[1]):
            output, state = self.step(memory, mask, state, token)
            logits.append(output)
            token = target[:, position]
        return nn.CrossEntropyLoss(ignore_index=PAD)(torch.stack(logits, 1).flatten(0, 1), target.flatten())

    def decoder(self, batch: tuple, *, width: int) -> tuple[Callable, list[Tensor]]:
        """As `Network.decoder`, with the memory repeated for each slot."""
        memory, mask, state = self.encode(batch[0].repeat_interleave(width, 0))
        return lambda state, token: self.step(memory, mask, state, token), state


class Gathered(torch.autograd.Function):
    """A matrix whose gradient is one product over all steps, of what their products recorded on a tape."""

    @staticmethod
    def forward(context, weight, tape):
        """The same matrix."""
        context.set_materialize_grads(False)
        context.tape = tape
        return weight.view_as(weight)

    @staticmethod
    def backward(context, *_):
        """The gradient of the matrix; called once, after the backward pass of every step."""
        inputs, gradients = (torch.cat(side, dim=-2) for side in zip(*context.tape, strict=True))
        return gradients.mT @ inputs, None


class Product(torch.autograd.Function):
    """addend + x W^T at one step, for x [B, I] and W [O, I], or x [B, K, I] and W [B, O, I]."""

    @staticmethod
    def forward(context, x, weight, addend, tape):
        """The product."""
        context.save_for_backward(x, weight)
        context.tape, context.is_bias = tape, addend is not None and addend.dim() == 1
        if addend is None:
            return x @ weight.mT
        return (torch.addmm if x.dim() == 2 else torch.baddbmm)(addend, x, weight.mT)

    @staticmethod
    def backward(context, gradient):
        """The gradients of x and of the addend; `Gathered` computes that of W."""
        x, weight = context.saved_tensors
        context.tape.append((x, gradient))
        addend = (gradient.sum(0) if context.is_bias else gradient) if context.needs_input_grad[2] else None
        return gradient @ weight, None, addend, None


class Repeated:
    """A matrix that multiplies at every step."""

    def __init__(self, weight: Tensor, dtype: torch.dtype):
        self.tape, weight = [], weight.to(dtype)
        self.weight = Gathered.apply(weight, self.tape) if torch.is_grad_enabled() else weight

    def __call__(self, x: Tensor, addend: Tensor | None = None) -> Tensor:
        """addend + x W^T."""
        addend = None if addend is None else addend.to(self.weight.dtype)
        return Product.apply(x.to(self.weight.dtype), self.weight, addend, self.tape)


class Inputs(NamedTuple):
    """A batch for the fast style: time first, and everything that depends on the tokens alone."""

    source: Tensor  # [S, B]
    holding: Tensor  # [S, B, 16]: 1 in the first column on padding, where the encoder's state must stay; else 0
    ends: Tensor  # [B], the position of the last real source token
    bias: Tensor  # [B, 1, S], added to scores: NEVER on padding, else 0
    fed: Tensor  # [T, B]
    places: Tensor  # [N], the positions of the real target tokens in [T * B]
    labels: Tensor  # [N], their ids; -100 where N was rounded up
    count: Tensor  # their number


class StepWeights(NamedTuple):
    """What all steps of a batch share."""

    feeding: Tensor  # the first cell's columns for the token, where their product is outside the loop
    cells: list[list[Repeated]]
    keys: Any  # Repeated for the general score, [B, S, A] for the additive one
    query: Repeated | None
    values: Repeated
    bias: Tensor  # [B, 1, S]
    readout: Repeated


class Fast(Network):
    """Products outside the loop where nothing feeds back, and their gradients formed once after it."""

    multiple = MULTIPLE

    def __init__(self, work: dict):
        super().__init__(work)
        ready = torch.compile if work["compile"] else lambda function: function
        self.lstm_gates, self.gru_gates, self.nats = ready(lstm_gates), ready(gru_gates), ready(nats)
        self.additive_scores = ready(additive_scores)
        self.on_gpu = work["device"] == "cuda"
        self.lower_encoder = self.dtype == torch.bfloat16 and (self.on_gpu or self._has_lower_recurrence())

    def _has_lower_recurrence(self) -> bool:
        """Whether this processor has recurrent layers in bfloat16; oneDNN has none without AVX-512."""
        try:
            with torch.autocast("cpu", torch.bfloat16):
                output = self.encoder[0](torch.zeros(1, 1, self.encoder[0].input_size))[0]
            torch.autograd.grad(output.float().sum(), self.encoder[0].weight_hh_l0)
        except RuntimeError:
            return False
        return True

    def inputs(self, source: np.ndarray, target: np.ndarray) -> tuple[Tensor, ...]:
        """A batch, cut to its longest sentences where no CUDA graph is made for each shape."""
        if not self.on_gpu:
            source, target = trimmed(source), trimmed(target)
        source, target = source.T.astype(np.int64), target.T.astype(np.int64)
        holding = np.zeros((*source.shape, self.held_columns), np.float32)
        holding[..., 0] = source == PAD
        places = np.flatnonzero(target != PAD)
        spare = -len(places) % (-(-target.size // 8) if self.on_gpu else 1)  # few shapes: each costs a graph
        ready = Inputs(
            source,
            holding,
            np.maximum((source != PAD).sum(0) - 1, 0),
            np.where(source.T == PAD, np.float32(NEVER), np.float32(0))[:, None],
            np.concatenate([np.full_like(target[:1], BOS), target[:-1]]),
            np.pad(places, (0, spare)),
            np.pad(target.ravel()[places], (0, spare), constant_values=-100),
            np.float32(max(1, len(places))),
        )
        return tuple(torch.from_numpy(np.array(leaf)) for leaf in ready)

    def encode(self, inputs: Inputs) -> tuple[Tensor, list[Tensor]]:
        """Memory [B, S, M] and the decoder's first state.

        PyTorch's recurrent layers read padding, but an input that is 1 there saturates their gates such that an LSTM's
        cell and a GRU's state are kept. So both directions are exact, without packing, and all shapes are known.
        """
        outputs, carries = self.source(inputs.source), []
        ends = inputs.ends[None, :, None].expand(1, -1, self.config["encoder"]["size"])
        for layer, rnn in enumerate(self.encoder, start=1):
            with torch.autocast(inputs.source.device.type, torch.bfloat16, enabled=self.lower_encoder):
                new, last = rnn(torch.cat([outputs, inputs.holding], -1))
            outputs = outputs + new if 0 < self.residual[0] <= layer else new
            if isinstance(last, tuple):  # an LSTM's output is 0 on padding: its last one is before that
                forward = new[..., : rnn.hidden_size].gather(0, ends)
                carries.append([concat_directions(torch.cat([forward, last[0][1:]])), concat_directions(last[1])])
            else:
                carries.append([concat_directions(last)])
        return outputs.transpose(0, 1).contiguous(), [
            leaf.float() for leaf in self.initial_state(carries, len(inputs.ends))
        ]

    def step_weights(self, memory: Tensor, bias: Tensor, *, outside: int) -> StepWeights:
        """What the steps share; the first `outside` inputs of the lowest cell are multiplied outside the loop."""
        feeding, rest = self.cells[0].weight_ih.split([outside, self.cells[0].input_size - outside], 1)
        pairs = [(cell.weight_ih if layer else rest, cell.weight_hh) for layer, cell in enumerate(self.cells)]
        layers = [(torch.cat(pair, 1),) for pair in pairs] if self.states == 2 else pairs
        keys = self.memory_kernel(memory)
        return StepWeights(
            feeding,
            [[Repeated(weight, self.dtype) for weight in layer] for layer in layers],
            keys if self.additive else Repeated(keys, self.dtype),
            Repeated(self.query_kernel.weight, self.dtype) if self.additive else None,
            Repeated(memory.mT, self.dtype),
            bias,
            Repeated(self.readout.weight, self.dtype),
        )

    def advance(
        self, weights: StepWeights, state: list[Tensor], below: Tensor, projected: Tensor | None = None
    ) -> list[Tensor]:
        """The next state, whose last leaf is the readout. Rows are sentences, or the slots of each sentence in turn."""
        inputs, new = [state[-1]] if projected is not None else [below, state[-1]], []
        for layer, (cell, products) in enumerate(zip(self.cells, weights.cells, strict=True)):
            hidden, *inner = state[layer * self.states : (layer + 1) * self.states]
            addend = cell.bias_ih if layer or projected is None else projected
            if inner:
                after = self.lstm_gates(products[0](torch.cat([*inputs, hidden], -1), addend), *inner)
            else:
                feeding, recurrent = products[0](torch.cat(inputs, -1), addend), products[1](hidden, cell.bias_hh)
                after = (self.gru_gates(feeding, recurrent, hidden),)
            below = after[0] + below if 0 < self.residual[1] <= layer + 1 else after[0]
            new, inputs = [*new, *after], [below]
        context = weights.values(functional.softmax(self._scores(weights, below), -1)).flatten(0, 1)
        return [*new, torch.tanh(weights.readout(torch.cat([context, below.to(context.dtype)], -1)))]

    def _scores(self, weights: StepWeights, query: Tensor) -> Tensor:
        slots = len(weights.bias), -1
        if weights.query is None:
            return weights.keys(query.unflatten(0, slots), weights.bias)
        return self.additive_scores(weights.keys, weights.query(query).unflatten(0, slots), self.energy, weights.bias)

    def loss(self, *batch: Tensor) -> Tensor:
        """Nats per real target token."""
        inputs = Inputs(*batch)
        memory, state = self.encode(inputs)
        weights = self.step_weights(memory, inputs.bias, outside=self.target.embedding_dim)
        embedded = self.target(inputs.fed)
        projected = functional.linear(embedded, weights.feeding, self.cells[0].bias_ih)
        vectors = []
        for below, addend in zip(embedded.unbind(), projected.unbind(), strict=True):
            state = self.advance(weights, state, below, addend)
            vectors.append(state[-1])
        chosen = torch.stack(vectors).flatten(0, 1).index_select(0, inputs.places)
        return self.nats(self.output(chosen), inputs.labels) / inputs.count

    def decoder(self, batch: tuple, *, width: int) -> tuple[Callable, list[Tensor]]:
        """As `Network.decoder`, with one memory for all slots of a sentence."""
        inputs = Inputs(*batch)
        memory, state = self.encode(inputs)
        weights = self.step_weights(memory, inputs.bias, outside=0)
        weight, bias = self.output.weight.to(self.dtype), self.output.bias.to(self.dtype)

        def step(state: list[Tensor], token: Tensor) -> tuple[Tensor, list[Tensor]]:
            state = self.advance(weights, state, self.target(token))
            return functional.linear(state[-1].to(self.dtype), weight, bias), state

        return step, [leaf.repeat_interleave(width, 0) for leaf in state]

    def top_k(self, scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """As `Network.top_k`, in two levels: the largest values are in the groups whose maxima are largest."""
        groups = scores.unflatten(1, (MULTIPLE, -1))
        few = min(count, groups.shape[2])
        group = groups.amax(1).topk(few).indices
        best, place = groups.gather(2, group[:, None].expand(-1, MULTIPLE, -1)).flatten(1).topk(count)
        return best, place // few * groups.shape[2] + group.gather(1, place % few)


STYLES = {"tutorial": Tutorial, "fast": Fast}
