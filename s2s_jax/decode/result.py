"""The result of a search: the one type that every search returns."""

from typing import NamedTuple

from jaxtyping import Array, Bool, Float, Int


class SearchResult(NamedTuple):
    """The hypotheses of each sentence, best first; samples as they were drawn; one for greedy search."""

    tokens: Int[Array, "B K T"]  # EOS included, PAD behind it
    log_probs: Float[Array, "B K T"]  # of each token, nats, by the model itself, before the rules; 0 behind EOS
    alignment: Float[Array, "B K T S"]
    scores: Float[Array, "B K"]  # by which hypotheses are ranked; -inf where there is no hypothesis
    truncated: Bool[Array, "B K"]  # cut off at the length bound, without EOS
    log_weights: Float[Array, "B K"]  # log of the weight of each in a mean over them, up to a constant; -inf for none
