"""Candidates: outputs of the current model, and their log-probabilities with a gradient.

They are drawn by the searches of `decode`, without dropout and without a gradient. One unroll over the given tokens
then gives their log-probabilities; it does not need the rewards.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from s2s_jax.decode.autoregressive import greedy
from s2s_jax.decode.beam.engine import beam
from s2s_jax.decode.sampling import row_keys, sample
from s2s_jax.model.interface import LogitsReader, Model, Noise, Params, Source, shift_right
from s2s_jax.model.ops.logits import chosen_logits
from s2s_jax.shapes import BOS, PAD, real, source_tokens


def samples_of(
    model: Model, params: Params, source: Source, key: Key[Array, ""], *, samples: int, max_length: int
) -> Int[Array, "B N T"]:
    """Independent samples of each sentence; the draws of a row depend on its place alone, not on the rows beside it."""
    keys = row_keys(key, jnp.arange(source_tokens(source).shape[0]))
    return sample(model, _fixed(params), source, keys, samples=samples, max_length=max_length).tokens


def n_best_of(
    model: Model, params: Params, source: Source, *, width: int, max_length: int
) -> tuple[Int[Array, "B N T"], Bool[Array, "B N"]]:
    """The hypotheses of a beam, all different, and which of them exist: a beam can find fewer than its width."""
    found = beam(model, _fixed(params), source, width=width, max_length=max_length)
    return found.tokens, jnp.isfinite(found.scores)


def greedy_of(model: Model, params: Params, source: Source, *, max_length: int) -> Int[Array, "B 1 T"]:
    """The output of greedy search."""
    return greedy(model, _fixed(params), source, max_length=max_length).tokens


def _fixed(params: Params) -> Params:
    return jax.lax.stop_gradient(params)


def log_probs_of(
    model: Model,
    params: Params,
    source: Source,
    candidates: Int[Array, "B N T"],
    key: Noise = None,
    *,
    chunk: int = 0,
) -> Float[Array, "B N"]:
    """The log-probability of each candidate under the distribution that a search draws from, without PAD and BOS.

    Args:
        key: for dropout, the same for all candidates of a sentence.
        chunk: most tokens whose logits are held at once (`loss.vocabulary_chunk`); 0 for all.
    """
    rows, count = candidates.reshape(-1, candidates.shape[2]), candidates.shape[1]
    encoded = model.encode(params, source, key)
    memory, state = jax.tree.map(lambda leaf: jnp.repeat(leaf, count, axis=0), encoded)
    reader = LogitsReader(token_log_probs, rows, chunk) if chunk else None
    _, output = model.unroll(params, memory, state, shift_right(rows), reader=reader)
    each = token_log_probs(output.logits, rows) if reader is None else output.logits
    return jnp.where(real(rows), each, 0.0).sum(-1).reshape(candidates.shape[:2])


def token_log_probs(logits: Float[Array, "*B V"], tokens: Int[Array, "*B"]) -> Float[Array, "*B"]:
    """The log-probability of each token, PAD and BOS left out, since no search chooses them."""
    ids = jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1)
    possible = jnp.where((ids == PAD) | (ids == BOS), -jnp.inf, logits)
    return chosen_logits(logits, tokens) - jax.nn.logsumexp(possible, axis=-1)


def first_occurrences(candidates: Int[Array, "B N T"]) -> Bool[Array, "B N"]:
    """Which candidates of a sentence are no repeats of earlier ones."""
    equal = (candidates[:, :, None] == candidates[:, None]).all(-1)
    return ~(equal & jnp.tril(jnp.ones((candidates.shape[1],) * 2, bool), -1)[None]).any(-1)


def as_wide(ids: Int[Array, "B N T"], width: int) -> Int[Array, "B N W"]:
    """Outputs with padding up to a width."""
    return jnp.pad(ids, ((0, 0), (0, 0), (0, max(width - ids.shape[2], 0))))
