"""What does a search bring back?"""

from typing import NamedTuple

from jaxtyping import Array, Bool, Float, Int


class SearchResult(NamedTuple):
    """The hypotheses of each sentence, best first; samples as they were drawn; one for greedy search."""

    tokens: Int[Array, "B K T"]  # EOS counted, PAD behind it
    log_probs: Float[Array, "B K T"]  # of each token, nats, as the model itself says it; 0 behind EOS
    alignment: Float[Array, "B K T S"]
    scores: Float[Array, "B K"]  # what hypotheses are ranked by; -inf where there is no such hypothesis
    truncated: Bool[Array, "B K"]  # cut off at the length bound, without EOS
    log_weights: Float[Array, "B K"]  # what each counts in a mean over them, up to a factor; -inf for nobody
