"""The same model in PyTorch: the other side of our benchmark, a worker that answers the requests of another process.

There are two styles, in `torch_styles.py`. `tutorial` has everything inside the loop over steps, as tutorials do.
`fast` is the fastest version we know how to write: what does not feed back is outside the loop, weight gradients are
formed once after it, logits are computed for real tokens only, and on a GPU each train step or search is a CUDA graph.

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

import numpy as np
import torch
from torch import Tensor, nn
from torch_network import RECURRENT
from torch_styles import STYLES

ONLY = {
    **dict.fromkeys(("model.encoder.cell", "model.decoder.cell"), tuple(RECURRENT)),
    **dict.fromkeys(("model.encoder.dropout", "model.encoder.recurrent_dropout"), (0,)),
    **dict.fromkeys(("model.decoder.dropout", "model.decoder.recurrent_dropout"), (0,)),
    "model.attention.score": ("general", "additive"),
    "model.attention.normalizer": ("softmax",),
    "model.decoder.architecture": ("luong",),
    "model.decoder.input_feeding": (True,),
    "model.decoder.bridge": ("projected",),
    "model.decoder.tied_embeddings": (False,),
}


def check(work: dict) -> None:
    """Refuse a model that is not implemented here.

    Raises:
        ValueError: naming the setting.
    """
    settings = {name: work["model"][name.split(".")[1]][name.split(".")[2]] for name in ONLY}
    choices = {"precision": ("float32", "bfloat16"), "style": tuple(STYLES), "device": ("cpu", "cuda")}
    for name, allowed in {**ONLY, **choices}.items():
        got = {**work, **settings}[name]
        if got not in allowed:
            raise ValueError(f"torch_reference implements only {name}={' or '.join(map(str, allowed))}, got {got}")
    if work["compile"] and work["style"] != "fast":
        raise ValueError("compile=true needs style=fast, got style=tutorial")


class Graphs:
    """A function of tensors as one CUDA graph per shape of its inputs."""

    def __init__(self, changed: list[Tensor]):
        self.changed, self.graphs, self.pool = changed, {}, torch.cuda.graph_pool_handle()

    def __call__(self, name: str, function: Callable, batch: tuple[Tensor, ...]) -> Tensor:
        """The result of the function, copied so that the next call does not change it."""
        key = name, *(leaf.shape for leaf in batch)
        if key not in self.graphs:
            self.graphs[key] = self._capture(function, [leaf.clone() for leaf in batch])
        graph, places, result = self.graphs[key]
        for place, leaf in zip(places, batch, strict=True):
            place.copy_(leaf)
        graph.replay()
        return result.clone()

    def _capture(self, function: Callable, places: list[Tensor]) -> tuple:
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
                tensor.copy_(old)  # the warm-up has trained
        return graph, places, result


class Worker:
    """The model, its optimizer and its batches on a device."""

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
        graphs = self.is_fast and self.device.type == "cuda" and work.get("graphs", True)  # false: for debugging
        settings = {"fused": True, "capturable": graphs} if self.is_fast else {}
        self.optimizer = torch.optim.Adam(self.parameters, work["learning_rate"], **settings)
        self.graphs = Graphs(self.parameters + self._moments()) if graphs else None
        if self.is_fast and self.device.type == "cuda":
            torch.set_float32_matmul_precision("high")  # TF32, as JAX multiplies on a GPU by default

    def _moments(self) -> list[Tensor]:
        """The optimizer's tensors, created by a step with zero gradients, which changes nothing else."""
        for parameter in self.parameters:
            parameter.grad = torch.zeros_like(parameter)
        self.optimizer.step()
        moments = [leaf for state in self.optimizer.state.values() for leaf in state.values()]
        for leaf in moments:
            leaf.zero_()
        return moments

    def train(self, *batch: Tensor) -> Tensor:
        """One optimizer step; the loss before it."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(*batch)
        loss.backward()
        self._clip()
        self.optimizer.step()
        return loss.detach()

    def _clip(self) -> None:
        if self.is_fast and self.device.type == "cpu":
            norm = nn.utils.get_total_norm([parameter.grad for parameter in self.parameters])
            if norm <= self.work["clip"]:  # saves a pass over all gradients; a GPU would have to be waited for
                return
        nn.utils.clip_grad_norm_(self.parameters, self.work["clip"])

    def loss(self, *batch: Tensor) -> Tensor:
        """The loss, in the precision of the workload."""
        with torch.autocast(self.device.type, **self.autocast):
            return self.model.loss(*batch)

    def answer(self, request: dict) -> dict:
        """The results of a request, and the seconds until the device was done.

        Raises:
            ValueError: there is no such request.
        """
        width = request.get("width", 1)

        def search(*batch: Tensor) -> Tensor:
            with torch.autocast(self.device.type, **self.autocast):
                return self.model.search(*batch, width=width, length=self.work["max_length"])

        known = {"train": self.train, "loss": torch.no_grad()(self.loss)}
        known |= dict.fromkeys(("greedy", "beam"), torch.no_grad()(search))
        if request["do"] not in known:
            raise ValueError(f"a request must be one of {', '.join(known)}, got {request['do']}")
        function, name = known[request["do"]], f"{request['do']} {width}"
        begin = time.perf_counter()
        batches = [self.batches[number] for number in request["batches"]]
        results = [self.graphs(name, function, batch) if self.graphs else function(*batch) for batch in batches]
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - begin
        if request["do"] in ("train", "loss"):
            return {"seconds": seconds, "losses": torch.stack(results).tolist()}
        return {"seconds": seconds, "tokens": results[0].tolist()}


def keep_freed_memory() -> None:
    """Have glibc keep freed memory: the large tensors of each step would otherwise be mapped and zeroed again."""
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "mallopt"):
        library.mallopt(-4, 0)  # M_MMAP_MAX: large tensors come from the heap
        library.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: never shrink the heap


def main(folder: Path) -> None:
    """Answer requests until the input ends."""
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
