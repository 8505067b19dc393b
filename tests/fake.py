"""A model of a few lines: a bigram table that also looks at the time and at the first source token.

Drivers know nothing but three functions, so they can be tested with it against brute force.
"""

import jax
import jax.numpy as jnp
import numpy as np

from s2s_jax.model.interface import Memory, Model, State, StepOutput

WORDS = 5  # PAD, BOS, EOS, UNK and one more: two tokens that can stand in a sentence besides EOS


def encode(params, source, key=None):
    batch, length = source.shape
    memory = Memory((), jnp.zeros((batch, length, 1)), source != 0)
    return memory, State((jnp.zeros((batch,), jnp.int32), source[:, 0] % 2), (), ())


def step(params, memory, state, token):
    time, which = state.carry
    logits = params[which, token] + 0.3 * jnp.sin(time.astype(jnp.float32))[:, None] * jnp.arange(float(WORDS))[None]
    alignment = jax.nn.one_hot((token + time) % memory.mask.shape[1], memory.mask.shape[1])
    return State((time + 1, which), (), ()), StepOutput(logits, alignment, jnp.zeros((len(token), 1)))


def log_probs(table: np.ndarray, which: int, time: int, token: int) -> np.ndarray:
    """The same step by hand."""
    logits = np.asarray(table, np.float64)[which, token] + 0.3 * np.sin(time) * np.arange(WORDS)
    return logits - np.log(np.exp(logits).sum())


def table(seed: int = 1):
    return jax.random.normal(jax.random.key(seed), (2, WORDS, WORDS)) * 1.5


MODEL = Model(lambda key: jax.random.normal(key, (2, WORDS, WORDS)), encode, step)
