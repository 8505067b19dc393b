"""What does the training loop do when a step cannot be taken, and what does it say?"""

import fake_training
import jax.numpy as jnp
import numpy as np
import pytest

from s2s_jax.training.loop import NotFinite


def diverging_at(bad: int):
    """A step that is not finite at the `bad`-th step."""

    def step(state, batch):
        after, metrics = fake_training.take_step(state, batch)
        if int(after.step) == bad:
            return state, metrics._replace(finite=jnp.array(False), norm=jnp.float32(np.inf))
        return after, metrics

    return fake_training.program(step=step)


class Writing(fake_training.Saved):
    """Checkpoints whose write takes until somebody waits for it."""

    def __init__(self):
        super().__init__()
        self.pending: list[int] = []

    def save(self, step, state, **_):
        self.pending.append(step)

    def wait(self):
        self.steps += self.pending
        self.pending = []


@pytest.mark.parametrize(
    ("every", "newest"), [(1, "the newest checkpoint is that of step 1;"), (50, "no checkpoint was written yet;")]
)
def test_a_divergence_names_the_newest_checkpoint_also_one_that_is_being_written(tmp_path, every, newest):
    """Row 28 of the faults."""
    changes = {"checkpoints": Writing(), "checkpoint_every": every, "given": diverging_at(2)}
    with fake_training.training(tmp_path, steps=9, **changes) as (loop, _):
        (failure,) = loop.run()
    assert isinstance(failure, NotFinite)
    assert "step 2: the loss is 1 nats per token, the gradient's norm inf; the step was not taken." in str(failure)
    assert newest in str(failure)
    assert np.load(tmp_path / "not_finite_2.npz")["source"].shape == (1, 2)
