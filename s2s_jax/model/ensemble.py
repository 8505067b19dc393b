"""How do several models say one thing? What they say of the next token is mixed, and where they look is averaged.

The models need nothing in common but the target vocabulary, so they are kept as a list and each is run as it is.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from s2s_jax.model.interface import Memory, Model, Noise, Params, State, StepOutput, Token
from s2s_jax.validation import one_of


def log_linear(logits: Sequence[Float[Array, "B V"]]) -> Float[Array, "B V"]:
    """The geometric mean of the distributions. That of logits is it too: a constant a row is what logits leave open."""
    return sum(logits[1:], logits[0]) / len(logits)


def linear(logits: Sequence[Float[Array, "B V"]]) -> Float[Array, "B V"]:
    """The logarithm of the arithmetic mean of the distributions."""
    each = jnp.stack([jax.nn.log_softmax(one) for one in logits])
    return jax.nn.logsumexp(each, axis=0) - jnp.log(len(logits))


ENSEMBLE_AVERAGES: dict[str, Callable[[Sequence[Array]], Array]] = {"log-linear": log_linear, "linear": linear}


def ensemble(models: Sequence[Model], *, mixing: str = "log-linear") -> Model:
    """One model of several, whose parameters are a list of theirs.

    Its alignment is the mean of theirs; one without attention looks nowhere, and takes its share of the weight along.

    Raises:
        ValueError: there is no model, or no such mixing.
    """
    if not models:
        raise ValueError("an ensemble needs at least one model, got none.")
    one_of("mixing", mixing, ENSEMBLE_AVERAGES)

    def init(key: Key[Array, ""]) -> Params:
        return [model.init(own) for model, own in zip(models, jax.random.split(key, len(models)), strict=True)]

    def encode(params: Params, source: Int[Array, "B S"], key: Noise = None) -> tuple[Memory, State]:
        told = zip(models, params, _keys(key, len(models)), strict=True)
        memories, states = zip(*(model.encode(own, source, noise) for model, own, noise in told), strict=True)
        return Memory(memories, memories[0].values, memories[0].mask), State(states, (), ())

    def step(params: Params, memory: Memory, state: State, token: Token) -> tuple[State, StepOutput]:
        members = zip(models, params, memory.keys, state.carry, strict=True)
        outputs = [model.step(own, keys, carry, token) for model, own, keys, carry in members]
        states, steps = zip(*outputs, strict=True)
        context = jnp.concatenate([one.context for one in steps], axis=-1)
        alignment = jnp.stack([one.alignment for one in steps]).mean(0)
        return State(states, (), ()), StepOutput(
            ENSEMBLE_AVERAGES[mixing]([one.logits for one in steps]), alignment, context
        )

    return Model(init, encode, step)


def _keys(key: Noise, count: int) -> list[Noise]:
    return [None] * count if key is None else list(jax.random.split(key, count))
