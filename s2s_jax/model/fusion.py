"""Shallow fusion of a translation model with a language model of the target."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from s2s_jax.model.interface import Memory, Model, Noise, Params, Source, State, StepOutput, Token
from s2s_jax.shapes import EOS, source_tokens


def fuse(model: Model, language: Model, *, weight: float) -> Model:
    """A model whose tokens score log p + weight * log q, and whose parameters are the pair of both models' parameters.

    p is the probability of the model, q that of a language model, which is trained on targets with empty sources.
    Gulcehre et al. 2015, arXiv:1503.03535, 4.1. The sum is not normalized: no log-probability, but never above 0.

    Raises:
        ValueError: the weight is not above 0.
    """
    if not weight > 0:
        raise ValueError(f"search.language_weight must be above 0, got {weight}; for 0 leave the language model out.")

    def init(key: Key[Array, ""]) -> Params:
        model_key, language_key = jax.random.split(key)
        return model.init(model_key), language.init(language_key)

    def encode(params: Params, source: Source, key: Noise = None) -> tuple[Memory, State]:
        memory, state = model.encode(params[0], source, key)
        empty = jnp.full((source_tokens(source).shape[0], 1), EOS, jnp.int32)  # an empty source, as in training
        language_memory, language_state = language.encode(params[1], empty)
        return Memory((memory, language_memory), memory.values, memory.mask), State((state, language_state), (), ())

    def step(params: Params, memory: Memory, state: State, token: Token) -> tuple[State, StepOutput]:
        after, output = model.step(params[0], memory.keys[0], state.carry[0], token)
        language_after, language_output = language.step(params[1], memory.keys[1], state.carry[1], token)
        logits = log_probabilities(output) + weight * log_probabilities(language_output)
        output = output._replace(logits=logits, given_log_normalizer=jnp.zeros(logits.shape[0]))
        return State((after, language_after), (), ()), output

    return Model(init, encode, step)


def log_probabilities(step: StepOutput) -> Float[Array, "B V"]:
    """The log-probabilities of the next token."""
    return step.logits - step.log_normalizer[..., None]
