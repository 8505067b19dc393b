"""The state that a run is trained from: that of its newest good checkpoint, or a new one."""

from collections.abc import Callable

import jax
from jax.sharding import Mesh

from s2s_jax.model.interface import Model, Params
from s2s_jax.training import devices
from s2s_jax.training.checkpoint.checkpoints import Checkpoints
from s2s_jax.training.optimizer import OptimizerConfig, make_optimizer
from s2s_jax.training.step import TrainState, initial_state
from s2s_jax.training.stop_policy import TrainProgress


def abstract_state(model: Model, config: OptimizerConfig, *, steps: int) -> TrainState:
    """The shapes of a run's state; nothing is allocated."""
    return jax.eval_shape(lambda: new_state(model, config, steps=steps, seed=0))


def start_state(
    model: Model,
    config: OptimizerConfig,
    checkpoints: Checkpoints,
    mesh: Mesh,
    print_line: Callable[[str], None],
    *,
    steps: int,
    seed: int,
    start: Callable[[Params], Params] | None = None,
) -> tuple[TrainState, TrainProgress]:
    """The newest good state of a run, or a new one, on the devices of the mesh; and the progress that belongs to it.

    Args:
        start: changes the parameters that the seed gives to a new run.

    Raises:
        CheckpointError: there are checkpoints, and none is good.
    """
    if not checkpoints.steps():
        return devices.place(new_state(model, config, steps=steps, seed=seed, start=start), mesh), TrainProgress()
    restored = checkpoints.restore(devices.abstract(abstract_state(model, config, steps=steps), mesh))
    for line in checkpoints.refused:
        print_line(f"refused: {line}")
    print_line(f"resuming at step {restored.step}")
    return restored.tree, TrainProgress.from_json(restored.about)


def new_state(
    model: Model,
    config: OptimizerConfig,
    *,
    steps: int,
    seed: int,
    start: Callable[[Params], Params] | None = None,
) -> TrainState:
    """The state of a run before its first step; `start` changes the parameters that the seed gives."""
    params = model.init(jax.random.key(seed))
    params = params if start is None else start(params)
    optimizer = make_optimizer(config, steps)
    kept = {"ema": config.ema, "skip_spikes": config.skip_spikes, "plateau": config.schedule == "plateau"}
    return initial_state(params, optimizer, seed=seed, **kept)
