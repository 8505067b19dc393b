"""What does the model say when it takes its likeliest next token, again and again?"""

from jaxtyping import Array, Int

from s2s_jax.decode.autoregressive import walk
from s2s_jax.decode.length_normalization import LIKELIHOOD, Ranking
from s2s_jax.decode.logits_rules import FREE, Rules
from s2s_jax.decode.result import Found
from s2s_jax.decode.top_k import likeliest
from s2s_jax.model.interface import Model, Params


def greedy(
    model: Model,
    params: Params,
    source: Int[Array, "B S"],
    *,
    max_length: int,
    ranking: Ranking = LIKELIHOOD,
    rules: Rules = FREE,
    prefix: Int[Array, "B P"] | None = None,
    halvings: int = 0,
) -> Found:
    """The token of highest probability at each step, until all sentences have ended or `max_length` tokens stand."""
    return walk(
        model,
        params,
        source,
        lambda logits, *_: likeliest(logits),
        max_length=max_length,
        ranking=ranking,
        rules=rules,
        prefix=prefix,
        halvings=halvings,
    )
