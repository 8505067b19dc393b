"""Our side of a benchmark: training, greedy and beam search on given batches, each pass over them timed as a whole."""

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from s2s_jax.bench.workloads import Workload, build_workload, without_eos
from s2s_jax.decode.autoregressive import greedy
from s2s_jax.decode.beam.engine import beam
from s2s_jax.model.interface import Model, Params
from s2s_jax.shapes import Batch
from s2s_jax.training.objectives import make_loss
from s2s_jax.training.optimizer import OptimizerConfig, make_optimizer
from s2s_jax.training.step import TrainState, TrainStep, initial_state, make_step


def training_program(workload: Workload, model: Model) -> tuple[TrainStep, Callable[[Params], TrainState]]:
    """The compiled train step of a workload, and the function that makes its first state of parameters."""
    optimizer = make_optimizer(OptimizerConfig(), steps=1)
    loss = make_loss(model, workload.loss, workload.scheduled_sampling)
    step = make_step(loss, optimizer, accumulate=workload.accumulate)
    return step, lambda params: initial_state(params, optimizer, seed=0, ema=0.0)


def search_program(workload: Workload, phase: str, model: Model) -> Any:
    """The compiled search of a phase: greedy, or beam with its width behind the word; called with (params, source)."""
    search = greedy if phase == "greedy" else functools.partial(beam, width=int(phase.removeprefix("beam")))
    return jax.jit(functools.partial(search, model, max_length=workload.max_length))


class Runner:
    """A workload whose programs are compiled, so that only their execution is timed.

    Args:
        replicas: so many models are trained at once, each initialized from its own seed; 0 for one that is not mapped.
        compiler_options: of XLA.
    """

    def __init__(
        self,
        workload: Workload,
        phase: str,
        batches: Sequence[Batch],
        *,
        replicas: int = 0,
        compiler_options: Mapping[str, Any] | None = None,
    ):
        self.model, params = build_workload(workload)
        self.compiler_options = dict(compiler_options or {})
        self.batches = [jax.tree.map(jnp.asarray, batch) for batch in batches]
        self.compile_seconds = 0.0
        self.peak_megabytes = 0.0
        if phase == "train":
            self._prepare_training(workload, params, replicas)
        else:
            self._prepare_search(workload, params, phase)
        self.seconds = self._train if phase == "train" else self._search

    def _prepare_training(self, workload: Workload, params: Any, replicas: int) -> None:
        step, first_state = training_program(workload, self.model)
        self.state = first_state(params)
        if replicas:
            params = jax.vmap(self.model.init)(jax.random.split(jax.random.key(0), replicas))
            self.state = jax.vmap(first_state)(params)
            step = jax.jit(jax.vmap(step, in_axes=(0, None)), donate_argnums=0)
        self.programs = self._compile(lambda batch: step.lower(self.state, batch))  # type: ignore[attr-defined]

    def _prepare_search(self, workload: Workload, params: Any, phase: str) -> None:
        self.params = without_eos(params)
        program = search_program(workload, phase, self.model)
        self.programs = self._compile(lambda batch: program.lower(self.params, batch.source))

    def _compile(self, lower) -> dict[Any, Any]:
        """The program of each shape of batch; notes the longest compilation and the largest memory."""
        programs = {}
        for batch in self.batches:
            shape = jax.tree.map(jnp.shape, batch)
            if shape in programs:
                continue
            began = time.perf_counter()
            programs[shape] = lower(batch).compile(self.compiler_options)
            self.compile_seconds = max(self.compile_seconds, time.perf_counter() - began)
            used = programs[shape].memory_analysis()
            needed = used.argument_size_in_bytes + used.output_size_in_bytes + used.temp_size_in_bytes
            self.peak_megabytes = max(self.peak_megabytes, (needed - used.alias_size_in_bytes) / 1e6)
        return programs

    def _train(self) -> float:
        """The seconds of one step per batch, until the last parameters are ready."""
        began = time.perf_counter()
        for batch in self.batches:
            self.state, _ = self.programs[jax.tree.map(jnp.shape, batch)](self.state, batch)
        jax.block_until_ready(self.state)
        return time.perf_counter() - began

    def _search(self) -> float:
        """The seconds of decoding the sources of all batches, until the tokens are on the host."""
        began = time.perf_counter()
        for batch in self.batches:
            result = self.programs[jax.tree.map(jnp.shape, batch)](self.params, batch.source)
            jax.device_get((result.tokens, result.scores))
        return time.perf_counter() - began
