"""Our side of a benchmark: train, greedy and beam search on given batches, timed as a whole."""

import functools
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from s2s_jax.bench.workloads import Workload, built, endless
from s2s_jax.decode.autoregressive import greedy
from s2s_jax.decode.beam.engine import beam
from s2s_jax.shapes import Batch
from s2s_jax.train.objectives import make_loss
from s2s_jax.train.optimizer import OptimizerConfig, make_optimizer
from s2s_jax.train.step import initial_state, make_step


class Runner:
    """A work, ready to run; every program is compiled before anything is timed.

    With `replicas`, a training step is one of so many models at once, each from a seed of its own.
    """

    def __init__(self, work: Workload, phase: str, batches: Sequence[Batch], *, replicas: int = 0):
        self.model, params = built(work)
        self.batches = [jax.tree.map(jnp.asarray, batch) for batch in batches]
        self.compile_seconds = 0.0
        self.peak_megabytes = 0.0
        if phase == "train":
            optimizer = make_optimizer(OptimizerConfig(), steps=1)
            self.state = initial_state(params, optimizer, seed=0, ema=0.0)
            step = make_step(make_loss(self.model, work.loss, work.forcing), optimizer, parts=work.parts)
            if replicas:
                params = jax.vmap(self.model.init)(jax.random.split(jax.random.key(0), replicas))
                self.state = jax.vmap(lambda params: initial_state(params, optimizer, seed=0, ema=0.0))(params)
                step = jax.jit(jax.vmap(step, in_axes=(0, None)), donate_argnums=0)
            self.programs = self._compiled(lambda batch: step.lower(self.state, batch))  # type: ignore[attr-defined]
        else:
            self.params = endless(params)
            find = greedy if phase == "greedy" else functools.partial(beam, width=int(phase.removeprefix("beam")))
            found = jax.jit(functools.partial(find, self.model, max_length=work.steps))
            self.programs = self._compiled(lambda batch: found.lower(self.params, batch.source))
        self.seconds = self._train if phase == "train" else self._search

    def _compiled(self, lowered) -> dict[Any, Any]:
        programs = {}
        for batch in self.batches:
            shape = jax.tree.map(jnp.shape, batch)
            if shape in programs:
                continue
            began = time.perf_counter()
            programs[shape] = lowered(batch).compile()
            self.compile_seconds = max(self.compile_seconds, time.perf_counter() - began)
            used = programs[shape].memory_analysis()
            needed = used.argument_size_in_bytes + used.output_size_in_bytes + used.temp_size_in_bytes
            self.peak_megabytes = max(self.peak_megabytes, (needed - used.alias_size_in_bytes) / 1e6)
        return programs

    def _train(self) -> float:
        """One step a batch, in seconds, up to the last parameters."""
        began = time.perf_counter()
        for batch in self.batches:
            self.state, _ = self.programs[jax.tree.map(jnp.shape, batch)](self.state, batch)
        jax.block_until_ready(self.state)
        return time.perf_counter() - began

    def _search(self) -> float:
        """The sources of all batches decoded, in seconds, up to the tokens on the host."""
        began = time.perf_counter()
        for batch in self.batches:
            found = self.programs[jax.tree.map(jnp.shape, batch)](self.params, batch.source)
            jax.device_get((found.tokens, found.scores))
        return time.perf_counter() - began
