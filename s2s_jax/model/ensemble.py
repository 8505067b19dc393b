"""Several models as one: their distributions of the next token and their alignments are averaged.

The models need only share the target vocabulary, so they are kept as a list and each one runs as it is.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from s2s_jax.model.interface import Memory, Model, Noise, Params, Source, State, StepOutput, Token
from s2s_jax.validation import one_of


def log_linear(logits: Sequence[Float[Array, "B V"]]) -> Float[Array, "B V"]:
    """The geometric mean of the distributions: the mean of the logits, which are defined up to one constant per row."""
    return sum(logits[1:], logits[0]) / len(logits)


def linear(logits: Sequence[Float[Array, "B V"]]) -> Float[Array, "B V"]:
    """The logarithm of the arithmetic mean of the distributions."""
    log_probs = jnp.stack([jax.nn.log_softmax(member) for member in logits])
    return jax.nn.logsumexp(log_probs, axis=0) - jnp.log(len(logits))


ENSEMBLE_AVERAGES: dict[str, Callable[[Sequence[Array]], Array]] = {"log-linear": log_linear, "linear": linear}


def ensemble(models: Sequence[Model], *, average: str = "log-linear") -> Model:
    """One model made of several, whose parameters are the list of theirs.

    Its alignment is the mean of theirs. A model without attention has an alignment of zeros, so the mean sums to less
    than 1.

    Raises:
        ValueError: there is no model, or no such average.
    """
    if not models:
        raise ValueError("an ensemble needs at least one model, got none.")
    one_of("average", average, ENSEMBLE_AVERAGES)

    def init(key: Key[Array, ""]) -> Params:
        return [model.init(own) for model, own in zip(models, jax.random.split(key, len(models)), strict=True)]

    def encode(params: Params, source: Source, key: Noise = None) -> tuple[Memory, State]:
        members = zip(models, params, _keys(key, len(models)), strict=True)
        memories, states = zip(*(model.encode(own, source, noise) for model, own, noise in members), strict=True)
        return Memory(memories, memories[0].values, memories[0].mask), State(states, (), ())

    def step(params: Params, memory: Memory, state: State, token: Token) -> tuple[State, StepOutput]:
        members = zip(models, params, memory.keys, state.carry, strict=True)
        outputs = [model.step(own, keys, carry, token) for model, own, keys, carry in members]
        states, steps = zip(*outputs, strict=True)
        context = jnp.concatenate([output.context for output in steps], axis=-1)
        alignment = jnp.stack([output.alignment for output in steps]).mean(0)
        logits = ENSEMBLE_AVERAGES[average]([output.logits for output in steps])
        return State(states, (), ()), StepOutput(logits, alignment, context)

    return Model(init, encode, step)


def _keys(key: Noise, count: int) -> list[Noise]:
    return [None] * count if key is None else list(jax.random.split(key, count))
