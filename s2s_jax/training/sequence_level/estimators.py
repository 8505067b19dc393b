"""Losses of whole outputs: minimum risk, REINFORCE and self-critical training.

An estimator of your own is a function with the signature of `Estimator`; `OBJECTIVES["name"] = SequenceLevel(function)`
makes a training objective of it, mixed with cross-entropy as the settings say.
"""

from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from s2s_jax.model.interface import Model, Params
from s2s_jax.shapes import Batch, real
from s2s_jax.training.sequence_level.candidates import (
    as_wide,
    first_occurrences,
    greedy_of,
    log_probs_of,
    n_best_of,
    samples_of,
)
from s2s_jax.training.sequence_level.config import SequenceTraining


class Estimate(NamedTuple):
    """The loss of each sentence, and the mean reward of its candidates; rows of padding may hold any number."""

    cost: Float[Array, " B"]  # minimized; its gradient is what counts, its value need not mean anything
    reward: Float[Array, " B"]


@runtime_checkable
class Estimator(Protocol):
    """The signature of a sequence-level loss."""

    def __call__(
        self,
        model: Model,
        params: Params,
        batch: Batch,
        key: Key[Array, ""],
        /,
        *,
        sequence: SequenceTraining,
        chunk: int,
    ) -> Estimate:
        """The losses of the sentences of a batch.

        Args:
            key: for candidates that are drawn.
            sequence: the settings, and the reward.
            chunk: most tokens whose logits are held at once; 0 for all.
        """
        ...


def minimum_risk(
    model: Model, params: Params, batch: Batch, key: Key[Array, ""], *, sequence: SequenceTraining, chunk: int
) -> Estimate:
    """The expected 1 - reward over the candidates, each with weight Q(y) = p(y)^alpha / sum of p^alpha.

    Candidates are different from each other: samples without their repeats, or an n-best list; the target is one more
    where the settings say so. Shen et al. 2016, arXiv:1512.02433, eq. 9 to 12.
    """
    config, longest = sequence.config, sequence.config.longest(batch.target.shape[1])
    if config.candidates == "beam":
        candidates, exists = n_best_of(model, params, batch.inputs, width=config.samples, max_length=longest)
    else:
        numbers = {"samples": config.samples, "max_length": longest}
        candidates = samples_of(model, params, batch.inputs, key, **numbers)
        exists = jnp.ones(candidates.shape[:2], bool)
    if config.reference:
        width = max(longest, batch.target.shape[1])
        candidates = jnp.concatenate([as_wide(batch.target[:, None], width), as_wide(candidates, width)], axis=1)
        exists = jnp.pad(exists, ((0, 0), (1, 0)), constant_values=True)
    counts = (exists & first_occurrences(candidates)).at[:, 0].set(True)  # a row of padding has no hypothesis
    rewards = sequence.reward(candidates, batch.target)
    log_probs = log_probs_of(model, params, batch.inputs, candidates, chunk=chunk)
    return risk(log_probs, rewards, counts, alpha=config.alpha)


def risk(
    log_probs: Float[Array, "B N"], rewards: Float[Array, "B N"], counts: Bool[Array, "B N"], *, alpha: float
) -> Estimate:
    """The expected 1 - reward under Q(y) proportional to p(y)^alpha, over the candidates that count."""
    weights = jax.nn.softmax(jnp.where(counts, alpha * log_probs, -jnp.inf), axis=-1)
    expected = (weights * rewards).sum(-1)
    return Estimate(1 - expected, expected)


def reinforce(
    model: Model, params: Params, batch: Batch, key: Key[Array, ""], *, sequence: SequenceTraining, chunk: int
) -> Estimate:
    """-(reward - baseline) log p(y), the mean over samples y. Williams 1992; Ranzato et al. 2016, arXiv:1511.06732."""
    config, longest = sequence.config, sequence.config.longest(batch.target.shape[1])
    candidates = samples_of(model, params, batch.inputs, key, samples=config.samples, max_length=longest)
    rewards = sequence.reward(candidates, batch.target)
    advantages = rewards - baselines(rewards, real(batch.target).any(-1), config.baseline)
    log_probs = log_probs_of(model, params, batch.inputs, candidates, chunk=chunk)
    return Estimate(policy_loss(log_probs, advantages), rewards.mean(-1))


def self_critical(
    model: Model, params: Params, batch: Batch, key: Key[Array, ""], *, sequence: SequenceTraining, chunk: int
) -> Estimate:
    """As REINFORCE, with the reward of the greedy output as the baseline. Rennie et al. 2017, arXiv:1612.00563."""
    config, longest = sequence.config, sequence.config.longest(batch.target.shape[1])
    candidates = samples_of(model, params, batch.inputs, key, samples=config.samples, max_length=longest)
    best = greedy_of(model, params, batch.inputs, max_length=longest)
    all_rewards = sequence.reward(jnp.concatenate([best, candidates], axis=1), batch.target)
    baseline, rewards = all_rewards[:, :1], all_rewards[:, 1:]
    log_probs = log_probs_of(model, params, batch.inputs, candidates, chunk=chunk)
    return Estimate(policy_loss(log_probs, rewards - baseline), rewards.mean(-1))


def policy_loss(log_probs: Float[Array, "B N"], advantages: Float[Array, "B N"]) -> Float[Array, " B"]:
    """-advantage log p, the mean over samples; no gradient passes through the advantages."""
    return -(jax.lax.stop_gradient(advantages) * log_probs).mean(-1)


def baselines(rewards: Float[Array, "B N"], filled: Bool[Array, " B"], name: str) -> Float[Array, "B N"]:
    """The baseline of each sample; none depends on the sample itself, so that the gradient stays unbiased.

    `batch` stands for the moving average of Ranzato et al.: it estimates the same number, the mean reward of the
    current model, from the samples of this step, and nothing has to be kept from step to step.
    """
    if name == "leave-one-out":
        return (rewards.sum(-1, keepdims=True) - rewards) / max(rewards.shape[1] - 1, 1)
    if name == "batch":
        means = jnp.where(filled, rewards.mean(-1), 0.0)
        others = jnp.maximum(filled.sum() - 1, 1).astype(jnp.float32)
        return jnp.broadcast_to(((means.sum() - means) / others)[:, None], rewards.shape)
    return jnp.zeros_like(rewards)
