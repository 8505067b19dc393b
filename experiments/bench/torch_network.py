"""What do both styles of the opponent share? Parameters read from ours, padded, and one search."""

# pyright: reportMissingImports=false
# torch is no dependency of the project; shapes stand in comments, since jaxtyping need not be there either

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

PAD, BOS = 0, 1  # as in s2s_jax.shapes
GATES = {"lstm": (0, 1, 3, 2), "gru": (0, 1, 2)}  # where PyTorch's gates stand among ours: our LSTM's candidate is last
HOLD = {"lstm": (-1, 1, 0, -1), "gru": (0, 1, 0)}  # which way PyTorch's gates must be pushed so that a state stays
PUSH = 1e4  # brings a sigmoid to exactly 0 or 1
NEVER = -1e9  # a score whose softmax is exactly 0; finite, so that a row of padding gives no NaN
MULTIPLE = 16  # widths that matrix products like
RECURRENT = {"lstm": (nn.LSTM, nn.LSTMCell), "gru": (nn.GRU, nn.GRUCell)}


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
