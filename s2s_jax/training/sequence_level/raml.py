"""Reward-augmented maximum likelihood: cross-entropy of targets with random edits, near ones likelier than far ones.

Norouzi et al. 2016, arXiv:1609.00150. A way to make e edits of a target has probability proportional to
exp(-e / temperature), and the tokens that it brings in are uniform. A word of the target can be kept, replaced or
deleted, and one token can be inserted before each word and at the end, so that the sum over all ways factorizes:

    (1 + 2 x)^m (1 + x)^(m + 1) = sum over e of (ways to place e edits) x^e,   x = exp(-1 / temperature),

for m words, and the edits at each place are drawn independently. That is the same as to draw the number of edits by how
many ways there are at each distance, then their places, then their tokens. As in the paper, several ways can lead to
one sequence, which then has the sum of their probabilities.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key

from s2s_jax.decode.sampling import row_keys
from s2s_jax.model.interface import Model, Params
from s2s_jax.shapes import PAD, SPECIAL, Batch, real
from s2s_jax.training.sequence_level.candidates import log_probs_of
from s2s_jax.training.sequence_level.config import SequenceTraining
from s2s_jax.training.sequence_level.estimators import Estimate
from s2s_jax.training.sequence_level.rewards import words


def raml(
    model: Model, params: Params, batch: Batch, key: Key[Array, ""], *, sequence: SequenceTraining, chunk: int
) -> Estimate:
    """-log p of edited targets, the mean over `samples` of them, with dropout as in cross-entropy."""
    config = sequence.config
    for_edits, for_noise = jax.random.split(key)
    keys = jax.vmap(lambda row: row_keys(row, jnp.arange(config.samples)))(
        row_keys(for_edits, jnp.arange(batch.target.shape[0]))
    )
    longest = max(config.longest(batch.target.shape[1]), batch.target.shape[1])
    rates = {"temperature": config.temperature, "vocabulary": sequence.vocabulary, "width": longest}

    def of_row(target: Int[Array, " T"], own: Key[Array, " N"]) -> Int[Array, "N W"]:
        return jax.vmap(lambda each: edited(target, each, **rates))(own)

    candidates = jax.vmap(of_row)(batch.target, keys)
    rewards = sequence.reward(candidates, batch.target)
    log_probs = log_probs_of(model, params, batch.inputs, candidates, for_noise, chunk=chunk)
    return Estimate(-log_probs.mean(-1), rewards.mean(-1))


def edited(
    target: Int[Array, " T"], key: Key[Array, ""], *, temperature: float, vocabulary: int, width: int
) -> Int[Array, " W"]:
    """One target with random edits; insertions that would make it longer than `width` are left out, the last first.

    Args:
        width: at least T.
        vocabulary: ids up to it, less the special ones, are inserted and replace others.
    """
    if vocabulary < len(SPECIAL) + 2:
        raise ValueError(f"loss.objective=raml needs a target vocabulary of 2 tokens or more, got {vocabulary} ids.")
    of_edits, of_insertions, of_tokens, of_inserted = jax.random.split(key, 4)
    chance = jnp.exp(-1 / jnp.float32(temperature))
    is_word = words(target)
    drawn = jax.random.uniform(of_edits, target.shape) * (1 + 2 * chance)
    is_deleted, is_replaced = is_word & (drawn < chance), is_word & (drawn >= chance) & (drawn < 2 * chance)
    tokens = jnp.where(is_deleted, PAD, jnp.where(is_replaced, other_tokens(target, of_tokens, vocabulary), target))
    is_inserted = real(target) & (jax.random.uniform(of_insertions, target.shape) * (1 + chance) < chance)
    room = width - real(tokens).sum()
    is_inserted &= jnp.cumsum(is_inserted) <= room
    inserted = jax.random.randint(of_inserted, target.shape, len(SPECIAL), vocabulary, jnp.int32)
    both = jnp.stack([jnp.where(is_inserted, inserted, PAD), tokens], axis=1).reshape(-1)  # each before its token
    places = jnp.where(real(both), jnp.cumsum(real(both)) - 1, width)
    return jnp.zeros(width, jnp.int32).at[places].set(both, mode="drop")


def other_tokens(target: Int[Array, " T"], key: Key[Array, ""], vocabulary: int) -> Int[Array, " T"]:
    """A token of the vocabulary for each one of the target, uniform over all others that are not special."""
    first, count = len(SPECIAL), vocabulary - len(SPECIAL)
    anywhere, away = jax.random.split(key)
    is_ordinary = (target >= first) & (target < vocabulary)
    at = jnp.where(is_ordinary, target - first, jax.random.randint(anywhere, target.shape, 0, count, jnp.int32))
    return first + (at + jax.random.randint(away, target.shape, 1, count, jnp.int32)) % count
