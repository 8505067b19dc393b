"""How does a model of the target language alone have a say in a translation?"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from s2s_jax.model.interface import Memory, Model, Noise, Params, State, StepOutput, Token
from s2s_jax.shapes import EOS


def fused(model: Model, language: Model, *, weight: float) -> Model:
    """A model whose tokens count log p + weight * log q, and whose parameters are a pair: the two models'.

    p is the model's; q is that of a language model, trained on targets with empty sources. Shallow fusion: Gulcehre et
    al. 2015, arXiv:1503.03535, 4.1. The sum is not normalized, so it is no log-probability, but it is never above 0.

    Raises:
        ValueError: the weight is not above 0.
    """
    if not weight > 0:
        raise ValueError(f"search.language_weight must be above 0, got {weight}; for 0 leave the language model out.")

    def init(key: Key[Array, ""]) -> Params:
        one, other = jax.random.split(key)
        return model.init(one), language.init(other)

    def encode(params: Params, source: Int[Array, "B S"], key: Noise = None) -> tuple[Memory, State]:
        memory, state = model.encode(params[0], source, key)
        nothing = jnp.full((source.shape[0], 1), EOS, source.dtype)  # how an empty source looks in training
        memories, states = zip((memory, state), language.encode(params[1], nothing), strict=True)
        return Memory(memories, memory.values, memory.mask), State(states, (), ())

    def step(params: Params, memory: Memory, state: State, token: Token) -> tuple[State, StepOutput]:
        after, said = model.step(params[0], memory.keys[0], state.carry[0], token)
        beside, heard = language.step(params[1], memory.keys[1], state.carry[1], token)
        logits = normal(said) + weight * normal(heard)
        return State((after, beside), (), ()), said._replace(
            logits=logits, given_log_normalizer=jnp.zeros(logits.shape[0])
        )

    return Model(init, encode, step)


def normal(step: StepOutput) -> Float[Array, "B V"]:
    """The log-probabilities of a step."""
    return step.logits - step.log_normalizer[..., None]
