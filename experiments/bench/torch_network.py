"""What both PyTorch styles share: the parameters, read from ours and padded, and the search."""

# pyright: reportMissingImports=false
# torch is no dependency of the project; shapes stand in comments, since jaxtyping need not be there either

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

PAD, BOS = 0, 1  # as in s2s_jax.shapes
GATES = {"lstm": (0, 1, 3, 2), "gru": (0, 1, 2)}  # our index of each of PyTorch's gates: our LSTM's candidate is last
HOLD = {"lstm": (-1, 1, 0, -1), "gru": (0, 1, 0)}  # signs that saturate PyTorch's gates so that the state is kept
SATURATING = 1e4  # brings a sigmoid to exactly 0 or 1
NEVER = -1e9  # a score whose softmax is exactly 0; finite, so that a row of padding gives no NaN
MULTIPLE = 16  # widths for which matrix products are fast
RECURRENT = {"lstm": (nn.LSTM, nn.LSTMCell), "gru": (nn.GRU, nn.GRUCell)}


class Network(nn.Module):
    """The parameters, their conversion from ours, and the search; widths are rounded up to `multiple`."""

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
        size = config["attention"]["size"] if self.additive else self.size
        self.memory_kernel = nn.Linear(memory, size, bias=False)
        if self.additive:
            self.query_kernel, self.energy = nn.Linear(self.size, size, bias=False), nn.Parameter(torch.zeros(size))
        self.readout = nn.Linear(memory + self.size, self.readout_size, bias=False)
        self.output = nn.Linear(self.readout_size, -(-work["target_vocabulary"] // self.multiple) * self.multiple)

    @torch.no_grad()
    def read(self, params: dict[str, np.ndarray]) -> None:
        """Copy our parameters.

        Raises:
            ValueError: some of them have no counterpart here.
        """
        remaining = dict(params)
        for parameter in self.parameters():
            parameter.zero_()
        self.output.bias.fill_(NEVER)  # of the columns that only round the vocabulary up
        for part, modules in {"encoder": self.encoder, "decoder": self.cells}.items():
            for layer, module in enumerate(modules):
                self._read_cell(module, remaining, f"{part}/cells/{layer}", self.config[part]["cell"])
        places = {"embedding": self.source.weight, "decoder/embedding": self.target.weight}
        places |= {"decoder/bridge/weight": self.bridge, "decoder/output_bias": self.output.bias}
        places |= {"decoder/readout/weight": self.readout.weight.T, "decoder/output": self.output.weight}
        score = "decoder/attention/score/"
        if self.additive:
            places |= {f"{score}query_kernel": self.query_kernel.weight.T, f"{score}vector": self.energy}
        places[score + ("memory_kernel" if self.additive else "weight")] = self.memory_kernel.weight.T
        for name, place in places.items():
            copy_into(place, remaining.pop(name))
        if remaining:
            raise ValueError(f"params.npz has parameters unknown to torch_reference: {', '.join(sorted(remaining))}")

    def _read_cell(self, module: Any, remaining: dict, name: str, kind: str) -> None:
        weight, bias = remaining.pop(f"{name}/weight"), remaining.pop(f"{name}/bias")
        inner = remaining.pop(f"{name}/inner_bias", None)
        if (input_kernel := remaining.pop(f"{name}/input_kernel", None)) is not None:
            weight = np.concatenate([input_kernel, weight], -2)
        whole = weight.ndim == 3  # the encoder's, with its directions
        order = GATES[kind] if whole or self.multiple == 1 else range(len(GATES[kind]))  # the fast loop keeps our order
        weight, bias = (np.concatenate([np.split(x, len(order), -1)[i] for i in order], -1) for x in (weight, bias))
        size = weight.shape[-1] // len(order)
        for direction, suffix in enumerate(["_l0", "_l0_reverse"][: len(weight)] if whole else [""]):
            index = direction if whole else ...
            feeding = getattr(module, "weight_ih" + suffix)
            copy_into(feeding, weight[index][:-size].T)
            copy_into(getattr(module, "weight_hh" + suffix), weight[index][-size:].T)
            copy_into(getattr(module, "bias_ih" + suffix), bias[index])
            if inner is not None:
                copy_into(getattr(module, "bias_hh" + suffix)[2 * size :], inner[index])
            if whole and self.held_columns:
                feeding[:, -self.held_columns] = SATURATING * torch.tensor(HOLD[kind]).repeat_interleave(size)

    def freeze(self) -> None:
        """Keep PyTorch's second bias at zero where we have one bias: Adam would move the sum of two twice as far."""
        for name, parameter in self.named_parameters():
            kind = self.config["encoder" if name.startswith("encoder") else "decoder"]["cell"]
            if "bias_hh" in name and kind == "lstm":
                parameter.requires_grad_(False)
            elif "bias_hh" in name:
                inner = (torch.arange(len(parameter), device=parameter.device) >= len(parameter) // 3 * 2).float()
                parameter.register_hook(lambda gradient, inner=inner: gradient * inner)

    def initial_state(self, carries: list[list[Tensor]], rows: int) -> list[Tensor]:
        """The decoder's first state: the leaves [B, H] of each layer from the encoder's [B, M], and a zero readout."""
        state = []
        for layer, weights in enumerate(self.bridge):
            carry = carries[min(layer, len(carries) - 1)]
            state += [torch.tanh(carry[min(leaf, len(carry) - 1)] @ weight) for leaf, weight in enumerate(weights)]
        return [*state, self.bridge.new_zeros(rows, self.readout_size)]

    def decoder(self, batch: tuple, *, width: int) -> tuple[Callable, list[Tensor]]:
        """The function (state, token) -> (logits, next state), and the first state; `width` rows per sentence."""
        raise NotImplementedError

    def search(self, *batch: Tensor, width: int, length: int) -> Tensor:
        """The best hypotheses [B, T] of beam search; of greedy search where `width` is 1."""
        step, state = self.decoder(batch, width=width)
        token = torch.full_like(state[-1][:, 0], BOS, dtype=torch.long)
        first = torch.arange(0, len(token), width, device=token.device)[:, None]
        score = torch.full_like(first.float().expand(-1, width), -torch.inf)
        score[:, 0] = 0.0  # all slots hold the same prefix: only one is open
        history, only = [], torch.zeros_like(first)
        for _ in range(length):
            logits, state = step(state, token)
            if width == 1:
                token = mask_unwanted(logits).argmax(-1)
                history.append((token[:, None], only))
                continue
            logits = logits.float()
            log_normalizer = torch.logsumexp(logits, -1, keepdim=True)
            best, tokens = self.top_k(mask_unwanted(logits), width)
            score, place = (score[..., None] + (best - log_normalizer).unflatten(0, (-1, width))).flatten(1).topk(width)
            parent, token = place // width, tokens.reshape(len(score), -1).gather(1, place).flatten()
            state = [leaf.index_select(0, (first + parent).flatten()) for leaf in state]
            history.append((token.view_as(parent), parent))
        slot, tokens = only, []
        for token, parent in reversed(history):
            tokens.append(token.gather(1, slot))
            slot = parent.gather(1, slot)
        return torch.cat(tokens[::-1], 1)

    def top_k(self, scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """The largest values of each row [N, V], and their indices."""
        return scores.topk(count)


def copy_into(place: Tensor, array: np.ndarray) -> None:
    """Copy an array into the leading corner of a tensor that may be larger."""
    place[tuple(slice(count) for count in array.shape)].copy_(torch.from_numpy(np.array(array)))


def trimmed(tokens: np.ndarray) -> np.ndarray:
    """The ids [B, T] without the columns in which no sentence has a token."""
    return tokens[:, : max(1, int((tokens != PAD).sum(1).max()))]


def concat_directions(states: Tensor) -> Tensor:
    """States [D, B, H] of each direction, as [B, D * H]."""
    return torch.cat(list(states), -1)


def mask_unwanted(logits: Tensor) -> Tensor:
    """The logits [N, V], changed in place so that PAD and BOS are never generated."""
    logits[:, : BOS + 1] = -torch.inf
    return logits


def lstm_gates(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """h' and c', from pre-activations in our order: input, forget, output, candidate; c' keeps its precision."""
    size = cell.shape[1]
    sigmoids, candidate = gates.split([3 * size, size], 1)
    entry, forget, output = torch.sigmoid(sigmoids).chunk(3, 1)
    cell = forget * cell + entry * torch.tanh(candidate)
    return (output * torch.tanh(cell)).to(gates.dtype), cell


def gru_gates(fed: Tensor, recurrent: Tensor, state: Tensor) -> Tensor:
    """h', from the pre-activations of the input and of the state."""
    split = [state.shape[1] * 2, state.shape[1]]
    (early, candidate), (late, inner) = fed.split(split, 1), recurrent.split(split, 1)
    reset, update = torch.sigmoid(early + late).chunk(2, 1)
    new = torch.tanh(candidate + reset * inner)
    return new + update * (state - new)


def additive_scores(keys: Tensor, query: Tensor, energy: Tensor, bias: Tensor) -> Tensor:
    """v . tanh(q + k) for keys [B, S, A] and queries [B, K, A]."""
    return torch.tanh(keys[:, None] + query[:, :, None]) @ energy + bias


def nats(logits: Tensor, labels: Tensor) -> Tensor:
    """The sum of negative log-probabilities; labels of -100 are ignored."""
    return functional.cross_entropy(logits.float(), labels, reduction="sum")
