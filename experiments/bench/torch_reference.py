"""How fast is the same model in PyTorch? The opponent of our benchmark, as a worker that another process talks to.

Two styles. `tutorial` is what a PyTorch tutorial writes: everything inside the Python loop over steps. `fast` is the
strongest opponent we know how to write: what does not feed back stands outside the loop, weight gradients are formed
once after it, the vocabulary sees real tokens only, and on a GPU each train step or search is one CUDA graph.

Command: python experiments/bench/torch_reference.py FOLDER, with work.json, params.npz and batches.npz in FOLDER; then
one JSON line in, one JSON line out, until the input ends. It needs NumPy and PyTorch alone, 2.11 or newer.
"""

# pyright: reportMissingImports=false
# torch is no dependency of the project; shapes stand in comments, since jaxtyping need not be there either

import ctypes
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

PAD, BOS = 0, 1  # as in s2s_jax.shapes
GATES = {"lstm": (0, 1, 3, 2), "gru": (0, 1, 2)}  # where PyTorch's gates stand among ours: our LSTM's candidate is last
HOLD = {"lstm": (-1, 1, 0, -1), "gru": (0, 1, 0)}  # which way PyTorch's gates must be pushed so that a state stays
PUSH = 1e4  # brings a sigmoid to exactly 0 or 1
NEVER = -1e9  # a score whose softmax is exactly 0; finite, so that a row of padding gives no NaN
MULTIPLE = 16  # widths that matrix products like
RECURRENT = {"lstm": (nn.LSTM, nn.LSTMCell), "gru": (nn.GRU, nn.GRUCell)}
ONLY = {
    **dict.fromkeys(("encoder.cell", "decoder.cell"), tuple(RECURRENT)),
    **dict.fromkeys(("encoder.dropout", "encoder.recurrent_dropout"), (0,)),
    **dict.fromkeys(("decoder.dropout", "decoder.recurrent_dropout"), (0,)),
    "attention.score": ("general", "additive"),
    "attention.normaliser": ("softmax",),
    "decoder.order": ("luong",),
    "decoder.input_feeding": (True,),
    "decoder.bridge": ("projected",),
    "decoder.tied_embeddings": (False,),
}


def check(work: dict) -> None:
    """Refuse what this file does not compute.

    Raises:
        ValueError: naming the setting.
    """
    given = {name: work["model"][name.split(".")[0]][name.split(".")[1]] for name in ONLY}
    choices = {"precision": ("float32", "bfloat16"), "style": tuple(STYLES), "device": ("cpu", "cuda")}
    for name, allowed in {**ONLY, **choices}.items():
        got = {**work, **given}[name]
        if got not in allowed:
            raise ValueError(f"torch_reference knows {name}={' or '.join(map(str, allowed))} only, got {got}")
    if work["compile"] and work["style"] != "fast":
        raise ValueError("compile=true needs style=fast, got style=tutorial: tutorials compile nothing")


class Network(nn.Module):
    """All parameters, how ours are read, and search; `multiple` is what fast products round widths up to."""

    multiple = 1

    def __init__(self, work: dict):
        super().__init__()
        self.config = config = work["model"]
        encoder, decoder = config["encoder"], config["decoder"]
        self.dtype = torch.bfloat16 if work["precision"] == "bfloat16" else torch.float32
        self.residual = encoder["residual_from"], decoder["residual_from"]
        embedding, self.size = config["embedding"], decoder["size"]
        memory, self.readout_size = encoder["size"] * (1 + encoder["bidirectional"]), decoder["readout"] or self.size
        self.held_columns = self.multiple if self.multiple > 1 else 0
        self.source = nn.Embedding(work["source_vocabulary"], embedding)
        self.target = nn.Embedding(work["target_vocabulary"], embedding)
        whole, cell = RECURRENT[encoder["cell"]][0], RECURRENT[decoder["cell"]][1]
        inputs = [embedding] + [memory] * (encoder["layers"] - 1)
        directions = {"bidirectional": encoder["bidirectional"]}
        self.encoder = nn.ModuleList(
            whole(width + self.held_columns, encoder["size"], **directions) for width in inputs
        )
        inputs = [embedding + self.readout_size] + [self.size] * (decoder["layers"] - 1)
        self.cells = nn.ModuleList(cell(width, self.size) for width in inputs)
        self.states = 2 if decoder["cell"] == "lstm" else 1
        self.bridge = nn.Parameter(torch.zeros(decoder["layers"], self.states, memory, self.size))
        self.additive = config["attention"]["score"] == "additive"
        met = config["attention"]["size"] if self.additive else self.size
        self.of_memory = nn.Linear(memory, met, bias=False)
        if self.additive:
            self.of_query, self.energy = nn.Linear(self.size, met, bias=False), nn.Parameter(torch.zeros(met))
        self.readout = nn.Linear(memory + self.size, self.readout_size, bias=False)
        self.output = nn.Linear(self.readout_size, -(-work["target_vocabulary"] // self.multiple) * self.multiple)

    @torch.no_grad()
    def read(self, params: dict[str, np.ndarray]) -> None:
        """Fill in our parameters.

        Raises:
            ValueError: naming those that have no place here.
        """
        left = dict(params)
        for parameter in self.parameters():
            parameter.zero_()
        self.output.bias.fill_(NEVER)  # of the columns that only round the vocabulary up
        for part, modules in {"encoder": self.encoder, "decoder": self.cells}.items():
            for layer, module in enumerate(modules):
                self._read_cell(module, left, f"{part}/cells/{layer}", self.config[part]["cell"])
        places = {"embedding": self.source.weight, "decoder/embedding": self.target.weight}
        places |= {"decoder/bridge/weight": self.bridge, "decoder/output_bias": self.output.bias}
        places |= {"decoder/readout/weight": self.readout.weight.T, "decoder/output": self.output.weight}
        score = "decoder/attention/score/"
        if self.additive:
            places |= {f"{score}of_query": self.of_query.weight.T, f"{score}vector": self.energy}
        places[score + ("of_memory" if self.additive else "weight")] = self.of_memory.weight.T
        for name, place in places.items():
            put(place, left.pop(name))
        if left:
            raise ValueError(f"torch_reference does not know these of params.npz: {', '.join(sorted(left))}")

    def _read_cell(self, module: Any, left: dict, name: str, kind: str) -> None:
        weight, bias, inner = left.pop(f"{name}/weight"), left.pop(f"{name}/bias"), left.pop(f"{name}/inner_bias", None)
        if (known := left.pop(f"{name}/known", None)) is not None:
            weight = np.concatenate([known, weight], -2)
        whole = weight.ndim == 3  # the encoder's, with its directions
        order = GATES[kind] if whole or self.multiple == 1 else range(len(GATES[kind]))  # the fast loop keeps our order
        weight, bias = (np.concatenate([np.split(x, len(order), -1)[i] for i in order], -1) for x in (weight, bias))
        size = weight.shape[-1] // len(order)
        for way, suffix in enumerate(["_l0", "_l0_reverse"][: len(weight)] if whole else [""]):
            here = way if whole else ...
            feeding = getattr(module, "weight_ih" + suffix)
            put(feeding, weight[here][:-size].T)
            put(getattr(module, "weight_hh" + suffix), weight[here][-size:].T)
            put(getattr(module, "bias_ih" + suffix), bias[here])
            if inner is not None:
                put(getattr(module, "bias_hh" + suffix)[2 * size :], inner[here])
            if whole and self.held_columns:
                feeding[:, -self.held_columns] = PUSH * torch.tensor(HOLD[kind]).repeat_interleave(size)

    def freeze(self) -> None:
        """Keep PyTorch's second biases at zero where ours has one: Adam would move the sum of two twice as far."""
        for name, parameter in self.named_parameters():
            kind = self.config["encoder" if name.startswith("encoder") else "decoder"]["cell"]
            if "bias_hh" in name and kind == "lstm":
                parameter.requires_grad_(False)
            elif "bias_hh" in name:
                inner = (torch.arange(len(parameter), device=parameter.device) >= len(parameter) // 3 * 2).float()
                parameter.register_hook(lambda gradient, inner=inner: gradient * inner)

    def started(self, carries: list[list[Tensor]], rows: int) -> list[Tensor]:
        """The decoder's first state: each layer's leaves [B, H] from the encoder's [B, M], and nothing fed yet."""
        state = []
        for layer, weights in enumerate(self.bridge):
            carry = carries[min(layer, len(carries) - 1)]
            state += [torch.tanh(carry[min(leaf, len(carry) - 1)] @ weight) for leaf, weight in enumerate(weights)]
        return [*state, self.bridge.new_zeros(rows, self.readout_size)]

    def begun(self, batch: tuple, *, width: int) -> tuple[Callable, list[Tensor]]:
        """What says logits and the next state of a state and a token, and the first state; `width` rows a sentence."""
        raise NotImplementedError

    def search(self, *batch: Tensor, width: int, length: int) -> Tensor:
        """The likeliest sentences [B, T] as far as the `width` best beginnings tell; with one, the likeliest tokens."""
        say, state = self.begun(batch, width=width)
        token = torch.full_like(state[-1][:, 0], BOS, dtype=torch.long)
        first = torch.arange(0, len(token), width, device=token.device)[:, None]
        score = torch.full_like(first.float().expand(-1, width), -torch.inf)
        score[:, 0] = 0.0  # all slots hold the same beginning: one of them lives
        history, alone = [], torch.zeros_like(first)
        for _ in range(length):
            logits, state = say(state, token)
            if width == 1:
                token = speakable(logits).argmax(-1)
                history.append((token[:, None], alone))
                continue
            logits = logits.float()
            whole = torch.logsumexp(logits, -1, keepdim=True)
            best, tokens = self.largest(speakable(logits), width)
            score, place = (score[..., None] + (best - whole).unflatten(0, (-1, width))).flatten(1).topk(width)
            parent, token = place // width, tokens.reshape(len(score), -1).gather(1, place).flatten()
            state = [leaf.index_select(0, (first + parent).flatten()) for leaf in state]
            history.append((token.view_as(parent), parent))
        slot, tokens = alone, []
        for token, parent in reversed(history):
            tokens.append(token.gather(1, slot))
            slot = parent.gather(1, slot)
        return torch.cat(tokens[::-1], 1)

    def largest(self, scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """The largest of each row [N, V], and their places."""
        return scores.topk(count)


def put(place: Tensor, array: np.ndarray) -> None:
    """Copy into the first corner of a tensor that may be larger."""
    place[tuple(slice(count) for count in array.shape)].copy_(torch.from_numpy(np.array(array)))


def trimmed(tokens: np.ndarray) -> np.ndarray:
    """Without the columns in which no sentence has a token."""
    return tokens[:, : max(1, int((tokens != PAD).sum(1).max()))]


def side_by_side(states: Tensor) -> Tensor:
    """[D, B, H] as [B, D * H]."""
    return torch.cat(list(states), -1)


def speakable(logits: Tensor) -> Tensor:
    """The logits [N, V], changed in place so that PAD and BOS are never said."""
    logits[:, : BOS + 1] = -torch.inf
    return logits


class Tutorial(Network):
    """All of a step inside the loop over steps."""

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
            carries.append([side_by_side(leaf) for leaf in (last if isinstance(last, tuple) else (last,))])
        return outputs, mask, self.started(carries, len(source))

    def step(self, memory: Tensor, mask: Tensor, state: list[Tensor], token: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits [B, V] and the new state."""
        below, fed, new = self.target(token), state[-1], []
        for layer, cell in enumerate(self.cells):
            inputs = below if layer else torch.cat([below, fed], -1)
            old = state[layer * self.states : (layer + 1) * self.states]
            after = cell(inputs, tuple(old)) if self.states == 2 else (cell(inputs, old[0]),)
            below = after[0] + below if 0 < self.residual[1] <= layer + 1 else after[0]
            new += after
        keys = self.of_memory(memory)
        if self.additive:
            scores = torch.tanh(self.of_query(below)[:, None] + keys) @ self.energy
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
        for now in range(target.shape[1]):
            said, state = self.step(memory, mask, state, token)
            logits.append(said)
            token = target[:, now]
        return nn.CrossEntropyLoss(ignore_index=PAD)(torch.stack(logits, 1).flatten(0, 1), target.flatten())

    def begun(self, batch: tuple, *, width: int) -> tuple[Callable, list[Tensor]]:
        """With the memory repeated for each slot."""
        memory, mask, state = self.encode(batch[0].repeat_interleave(width, 0))
        return lambda state, token: self.step(memory, mask, state, token), state


def lstm_gates(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """h' and c', from sums in our order: input, forget, output, candidate; c' keeps its precision."""
    size = cell.shape[1]
    sigmoids, candidate = gates.split([3 * size, size], 1)
    entry, forget, output = torch.sigmoid(sigmoids).chunk(3, 1)
    cell = forget * cell + entry * torch.tanh(candidate)
    return (output * torch.tanh(cell)).to(gates.dtype), cell


def gru_gates(fed: Tensor, recurrent: Tensor, state: Tensor) -> Tensor:
    """h', from the input's and the state's sums."""
    split = [state.shape[1] * 2, state.shape[1]]
    (early, candidate), (late, inner) = fed.split(split, 1), recurrent.split(split, 1)
    reset, update = torch.sigmoid(early + late).chunk(2, 1)
    new = torch.tanh(candidate + reset * inner)
    return new + update * (state - new)


def additive_scores(keys: Tensor, query: Tensor, energy: Tensor, bias: Tensor) -> Tensor:
    """v . tanh(q + k) for keys [B, S, A] and queries [B, K, A]."""
    return torch.tanh(keys[:, None] + query[:, :, None]) @ energy + bias


def nats(logits: Tensor, labels: Tensor) -> Tensor:
    """The sum of minus log-probabilities; a label of -100 counts for nothing."""
    return functional.cross_entropy(logits.float(), labels, reduction="sum")


class Gathered(torch.autograd.Function):
    """A matrix; its gradient is one product over all steps, from what the steps' products wrote on the tape."""

    @staticmethod
    def forward(context, weight, tape):
        """The same matrix."""
        context.set_materialize_grads(False)
        context.tape = tape
        return weight.view_as(weight)

    @staticmethod
    def backward(context, *_):
        """Called once, when all steps have been walked back."""
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
        """To x and the addend; `Gathered` sees to W."""
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
    """A batch as the fast style wants it: time first, and everything that only depends on the tokens."""

    source: Tensor  # [S, B]
    holding: Tensor  # [S, B, 16]: 1 in the first column on padding, where the encoder's state must stay; else 0
    ends: Tensor  # [B], the place of the last real source token
    bias: Tensor  # [B, 1, S], added to scores: NEVER on padding, else 0
    fed: Tensor  # [T, B]
    places: Tensor  # [N], where in [T * B] a real target token stands
    labels: Tensor  # [N], what it is; -100 where N was rounded up
    count: Tensor  # how many they are


class Held(NamedTuple):
    """What all steps of a batch share."""

    feeding: Tensor  # the first cell's columns for the token, where they stand outside the loop
    cells: list[list[Repeated]]
    keys: Any  # Repeated for the general score, [B, S, A] for the additive one
    query: Repeated | None
    values: Repeated
    bias: Tensor  # [B, 1, S]
    readout: Repeated


class Fast(Network):
    """As fast as we know how to write it."""

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
                said = self.encoder[0](torch.zeros(1, 1, self.encoder[0].input_size))[0]
            torch.autograd.grad(said.float().sum(), self.encoder[0].weight_hh_l0)
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

        The library's recurrent layers see padding, but an input that is 1 there pushes their gates such that an LSTM's
        cell and a GRU's state stay. So both directions are exact, without packing, and all shapes are known.
        """
        outputs, carries = self.source(inputs.source), []
        ends = inputs.ends[None, :, None].expand(1, -1, self.config["encoder"]["size"])
        for layer, rnn in enumerate(self.encoder, start=1):
            with torch.autocast(inputs.source.device.type, torch.bfloat16, enabled=self.lower_encoder):
                new, last = rnn(torch.cat([outputs, inputs.holding], -1))
            outputs = outputs + new if 0 < self.residual[0] <= layer else new
            if isinstance(last, tuple):  # an LSTM's output is closed on padding: its last one stands before that
                forward = new[..., : rnn.hidden_size].gather(0, ends)
                carries.append([side_by_side(torch.cat([forward, last[0][1:]])), side_by_side(last[1])])
            else:
                carries.append([side_by_side(last)])
        return outputs.transpose(0, 1).contiguous(), [leaf.float() for leaf in self.started(carries, len(inputs.ends))]

    def held(self, memory: Tensor, bias: Tensor, *, outside: int) -> Held:
        """What the steps share; the first `outside` inputs of the lowest cell are multiplied outside the loop."""
        feeding, rest = self.cells[0].weight_ih.split([outside, self.cells[0].input_size - outside], 1)
        weights = [(cell.weight_ih if layer else rest, cell.weight_hh) for layer, cell in enumerate(self.cells)]
        fat = [(torch.cat(pair, 1),) for pair in weights] if self.states == 2 else weights
        keys = self.of_memory(memory)
        return Held(
            feeding,
            [[Repeated(weight, self.dtype) for weight in layer] for layer in fat],
            keys if self.additive else Repeated(keys, self.dtype),
            Repeated(self.of_query.weight, self.dtype) if self.additive else None,
            Repeated(memory.mT, self.dtype),
            bias,
            Repeated(self.readout.weight, self.dtype),
        )

    def advance(self, held: Held, state: list[Tensor], below: Tensor, projected: Tensor | None = None) -> list[Tensor]:
        """The next state; what it feeds predicts. Rows are sentences, or the slots of each in a row."""
        inputs, new = [state[-1]] if projected is not None else [below, state[-1]], []
        for layer, (cell, products) in enumerate(zip(self.cells, held.cells, strict=True)):
            hidden, *inner = state[layer * self.states : (layer + 1) * self.states]
            addend = cell.bias_ih if layer or projected is None else projected
            if inner:
                after = self.lstm_gates(products[0](torch.cat([*inputs, hidden], -1), addend), *inner)
            else:
                feeding, recurrent = products[0](torch.cat(inputs, -1), addend), products[1](hidden, cell.bias_hh)
                after = (self.gru_gates(feeding, recurrent, hidden),)
            below = after[0] + below if 0 < self.residual[1] <= layer + 1 else after[0]
            new, inputs = [*new, *after], [below]
        context = held.values(functional.softmax(self._scores(held, below), -1)).flatten(0, 1)
        return [*new, torch.tanh(held.readout(torch.cat([context, below.to(context.dtype)], -1)))]

    def _scores(self, held: Held, query: Tensor) -> Tensor:
        slots = len(held.bias), -1
        if held.query is None:
            return held.keys(query.unflatten(0, slots), held.bias)
        return self.additive_scores(held.keys, held.query(query).unflatten(0, slots), self.energy, held.bias)

    def loss(self, *batch: Tensor) -> Tensor:
        """Nats per real target token."""
        inputs = Inputs(*batch)
        memory, state = self.encode(inputs)
        held = self.held(memory, inputs.bias, outside=self.target.embedding_dim)
        embedded = self.target(inputs.fed)
        projected = functional.linear(embedded, held.feeding, self.cells[0].bias_ih)
        vectors = []
        for now in zip(embedded.unbind(), projected.unbind(), strict=True):
            state = self.advance(held, state, *now)
            vectors.append(state[-1])
        chosen = torch.stack(vectors).flatten(0, 1).index_select(0, inputs.places)
        return self.nats(self.output(chosen), inputs.labels) / inputs.count

    def begun(self, batch: tuple, *, width: int) -> tuple[Callable, list[Tensor]]:
        """With one memory for all slots of a sentence."""
        inputs = Inputs(*batch)
        memory, state = self.encode(inputs)
        held = self.held(memory, inputs.bias, outside=0)
        weight, bias = self.output.weight.to(self.dtype), self.output.bias.to(self.dtype)

        def say(state: list[Tensor], token: Tensor) -> tuple[Tensor, list[Tensor]]:
            state = self.advance(held, state, self.target(token))
            return functional.linear(state[-1].to(self.dtype), weight, bias), state

        return say, [leaf.repeat_interleave(width, 0) for leaf in state]

    def largest(self, scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """In two levels: the groups whose best are largest hold the largest."""
        groups = scores.unflatten(1, (MULTIPLE, -1))
        few = min(count, groups.shape[2])
        group = groups.amax(1).topk(few).indices
        best, place = groups.gather(2, group[:, None].expand(-1, MULTIPLE, -1)).flatten(1).topk(count)
        return best, place // few * groups.shape[2] + group.gather(1, place % few)


STYLES = {"tutorial": Tutorial, "fast": Fast}


class Graphs:
    """A function of tensors as one CUDA graph for each shape of its inputs."""

    def __init__(self, changed: list[Tensor]):
        self.changed, self.held, self.pool = changed, {}, torch.cuda.graph_pool_handle()

    def __call__(self, name: str, function: Callable, batch: tuple[Tensor, ...]) -> Tensor:
        """What the function returns, as a copy that the next call leaves alone."""
        key = name, *(leaf.shape for leaf in batch)
        if key not in self.held:
            self.held[key] = self._captured(function, [leaf.clone() for leaf in batch])
        graph, places, result = self.held[key]
        for place, leaf in zip(places, batch, strict=True):
            place.copy_(leaf)
        graph.replay()
        return result.clone()

    def _captured(self, function: Callable, places: list[Tensor]) -> tuple:
        before, side = [tensor.detach().clone() for tensor in self.changed], torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                function(*places)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool):
            result = function(*places)
        with torch.no_grad():
            for tensor, old in zip(self.changed, before, strict=True):
                tensor.copy_(old)  # warming up has trained
        return graph, places, result


class Worker:
    """The model, its optimiser and its batches on a device, and the answers to orders."""

    def __init__(self, folder: Path):
        self.work = work = json.loads((folder / "work.json").read_text())
        check(work)
        self.device, self.is_fast = torch.device(work["device"]), work["style"] == "fast"
        self.model = STYLES[work["style"]](work)
        with np.load(folder / "params.npz") as params:
            self.model.read(dict(params))
        self.model.to(self.device).freeze()
        with np.load(folder / "batches.npz") as stored:
            batches = [self.model.inputs(stored[f"source_{i}"], stored[f"target_{i}"]) for i in range(len(stored) // 2)]
        self.batches = [tuple(leaf.to(self.device) for leaf in batch) for batch in batches]
        self.parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.autocast = {"dtype": torch.bfloat16, "enabled": self.model.dtype == torch.bfloat16}
        graphs = self.is_fast and self.device.type == "cuda" and work.get("graphs", True)  # false: to look for a fault
        settings = {"fused": True, "capturable": graphs} if self.is_fast else {}
        self.optimiser = torch.optim.Adam(self.parameters, work["learning_rate"], **settings)
        self.graphs = Graphs(self.parameters + self._moments()) if graphs else None
        if self.is_fast and self.device.type == "cuda":
            torch.set_float32_matmul_precision("high")  # TF32, as JAX multiplies on a GPU by default

    def _moments(self) -> list[Tensor]:
        """The optimiser's tensors, which exist after a first step: one without gradient changes nothing else."""
        for parameter in self.parameters:
            parameter.grad = torch.zeros_like(parameter)
        self.optimiser.step()
        moments = [leaf for state in self.optimiser.state.values() for leaf in state.values()]
        for leaf in moments:
            leaf.zero_()
        return moments

    def train(self, *batch: Tensor) -> Tensor:
        """One optimiser step; the loss before it."""
        self.optimiser.zero_grad(set_to_none=True)
        loss = self.loss(*batch)
        loss.backward()
        self._clip()
        self.optimiser.step()
        return loss.detach()

    def _clip(self) -> None:
        if self.is_fast and self.device.type == "cpu":
            norm = nn.utils.get_total_norm([parameter.grad for parameter in self.parameters])
            if norm <= self.work["clip"]:  # no device waits for this answer, and a pass over all gradients is saved
                return
        nn.utils.clip_grad_norm_(self.parameters, self.work["clip"])

    def loss(self, *batch: Tensor) -> Tensor:
        """The loss, in the precision asked for."""
        with torch.autocast(self.device.type, **self.autocast):
            return self.model.loss(*batch)

    def answer(self, order: dict) -> dict:
        """What one order did, and how long it took until the device was done.

        Raises:
            ValueError: for an order that there is not.
        """
        width = order.get("width", 1)

        def search(*batch: Tensor) -> Tensor:
            with torch.autocast(self.device.type, **self.autocast):
                return self.model.search(*batch, width=width, length=self.work["max_length"])

        known = {"train": self.train, "loss": torch.no_grad()(self.loss)}
        known |= dict.fromkeys(("greedy", "beam"), torch.no_grad()(search))
        if order["do"] not in known:
            raise ValueError(f"torch_reference can do {', '.join(known)}, got {order['do']}")
        function, name = known[order["do"]], f"{order['do']} {width}"
        begin = time.perf_counter()
        batches = [self.batches[number] for number in order["batches"]]
        said = [self.graphs(name, function, batch) if self.graphs else function(*batch) for batch in batches]
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - begin
        if order["do"] in ("train", "loss"):
            return {"seconds": seconds, "losses": torch.stack(said).tolist()}
        return {"seconds": seconds, "tokens": said[0].tolist()}


def keep_freed_memory() -> None:
    """Have glibc keep what is freed: a step's large tensors are otherwise mapped and zeroed anew, page by page."""
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "mallopt"):
        library.mallopt(-4, 0)  # M_MMAP_MAX: no block of its own for a large tensor
        library.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: give nothing back


def main(folder: Path) -> None:
    """Answer orders until there are no more."""
    try:
        worker = Worker(folder)
    except ValueError as error:
        raise SystemExit(str(error)) from None
    if worker.is_fast:
        keep_freed_memory()
    name = torch.cuda.get_device_name() if worker.device.type == "cuda" else "cpu"
    answer: dict = {"ready": True, "torch": torch.__version__, "threads": torch.get_num_threads(), "device": name}
    while True:
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
        line = sys.stdin.readline()
        if not line:
            return
        answer = worker.answer(json.loads(line))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
