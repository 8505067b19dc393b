"""What does the model say when it takes its likeliest next token, again and again?"""

from jaxtyping import Array, Int

from s2s_jax.decode.autoregressive import decode_autoregressively
from s2s_jax.decode.length_normalization import LIKELIHOOD, HypothesisScore
from s2s_jax.decode.logits_rules import NO_RULES, LogitsRules
from s2s_jax.decode.result import SearchResult
from s2s_jax.decode.top_k import argmax
from s2s_jax.model.interface import Model, Params


def greedy(
    model: Model,
    params: Params,
    source: Int[Array, "B S"],
    *,
    max_length: int,
    ranking: HypothesisScore = LIKELIHOOD,
    rules: LogitsRules = NO_RULES,
    prefix: Int[Array, "B P"] | None = None,
    halvings: int = 0,
) -> SearchResult:
    """The token of highest probability at each step, until all sentences have ended or `max_length` tokens stand."""
    return decode_autoregressively(
        model,
        params,
        source,
        lambda logits, *_: argmax(logits),
        max_length=max_length,
        ranking=ranking,
        rules=rules,
        prefix=prefix,
        halvings=halvings,
    )
