"""The schedules of scheduled sampling: the paper's formulas, their limits, and what is refused."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s2s_jax.training.scheduled_sampling import ScheduledSamplingConfig, predicted_token
from s2s_jax.training.schedules import value_at


def value(config: ScheduledSamplingConfig, step: int) -> float:
    return float(value_at(config, jnp.array(step, jnp.int32)))


STEPS = (0, 1, 7, 500, 5000, 1_000_000)


@pytest.mark.parametrize("step", STEPS)
def test_linear_is_the_papers_formula(step):
    config = ScheduledSamplingConfig(schedule="linear", start=0.9, end=0.1, decay=1000)
    assert value(config, step) == pytest.approx(max(0.1, 0.9 - 0.8 / 1000 * step), abs=1e-6)


@pytest.mark.parametrize("step", STEPS)
def test_exponential_is_k_to_the_step(step):
    k = math.exp(-1 / 300)
    config = ScheduledSamplingConfig(schedule="exponential", decay=300)
    assert value(config, step) == pytest.approx(k**step, rel=1e-3, abs=1e-7)


@pytest.mark.parametrize("step", [0, 1, 7, 500, 5000])
def test_inverse_sigmoid_is_the_papers_formula(step):
    k = 500.0
    config = ScheduledSamplingConfig(schedule="inverse-sigmoid", decay=k)
    assert value(config, step) == pytest.approx(k / (k + math.exp(step / k)), rel=1e-4)


def test_inverse_sigmoid_never_overflows():
    """math.exp raises beyond 709; this is step / k = 2,000."""
    assert value(ScheduledSamplingConfig(schedule="inverse-sigmoid", decay=500), 1_000_000) == 0.0


def test_piecewise_joins_its_points():
    config = ScheduledSamplingConfig(schedule="piecewise", points=((100, 1.0), (200, 0.5), (300, 0.5)))
    assert [value(config, step) for step in (0, 100, 150, 200, 250, 9999)] == [1.0, 1.0, 0.75, 0.5, 0.5, 0.5]


@pytest.mark.parametrize("schedule", ["linear", "exponential", "inverse-sigmoid"])
def test_every_schedule_falls_from_start_to_end_and_recompiles_nothing(schedule):
    config = ScheduledSamplingConfig(schedule=schedule, start=0.8, end=0.2, decay=50)
    compiled = jax.jit(lambda step: value_at(config, step))
    values = [float(compiled(jnp.array(step, jnp.int32))) for step in range(0, 2000, 40)]
    assert values == sorted(values, reverse=True)
    assert values[0] == pytest.approx(0.8, rel=0.05)
    assert values[-1] == pytest.approx(0.2, rel=1e-5)
    assert compiled._cache_size() == 1


def test_own_token_is_the_best_or_a_sample_of_the_models_probabilities():
    logits = jnp.log(jnp.array([[0.1, 0.6, 0.3]]))
    assert int(predicted_token(logits, "argmax", jax.random.key(0))[0]) == 1
    many = predicted_token(jnp.repeat(logits, 20_000, axis=0), "sample", jax.random.key(1))
    shares = np.bincount(np.asarray(many), minlength=3) / 20_000
    np.testing.assert_allclose(shares, [0.1, 0.6, 0.3], atol=0.015)  # 4 standard deviations


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schedule": "liner"}, "did you mean 'linear'"),
        ({"prediction": "sampel"}, "did you mean 'sample'"),
        ({"start": 1.5}, r"scheduled_sampling.start must be a probability in \[0, 1\], got 1.5"),
        ({"temperature": 0.0}, "scheduled_sampling.temperature must be positive, got 0.0"),
        (
            {"prediction": "soft", "parallel_passes": 2},
            "parallel_passes=2 predicts tokens, and scheduled_sampling.prediction=soft feeds weights",
        ),
        ({"decay": 0}, "scheduled_sampling.decay must be positive, got 0"),
        (
            {"schedule": "piecewise"},
            "scheduled_sampling.points and scheduled_sampling.schedule=piecewise need each other",
        ),
        ({"schedule": "piecewise", "points": ((5, 1.0), (2, 0.5))}, "in increasing order of their steps"),
    ],
)
def test_what_makes_no_sense_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ScheduledSamplingConfig(**options)
