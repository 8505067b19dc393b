"""The policies of plain and of diverse beam search."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from s2s_jax.decode.beam.state import Candidates, OpenHypotheses, Selection, keep_open, pool_slots
from s2s_jax.decode.length_normalization import HypothesisScore
from s2s_jax.decode.top_k import top_k


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True, kw_only=True)
class StandardPolicy:
    """Plain beam search; diverse beam search with penalties, which affect the choice of a step, never a score.

    Groups choose one after another in each step, and a token costs `group_penalty` for each slot of the groups before
    that chose it in this step (Vijayakumar et al. 2018, arXiv:1610.02424, 4, Hamming). Within a beam, the i-th best
    continuation of one slot costs `sibling_penalty` times i - 1 (Li et al. 2016, arXiv:1611.08562, 3.1).
    """

    scoring: HypothesisScore = HypothesisScore()
    groups: int = 1
    group_penalty: float = 0.0
    sibling_penalty: float = 0.0
    open_last = True

    def first(self, total: Array) -> OpenHypotheses:
        """The merit of a hypothesis is its log-probability."""
        return OpenHypotheses(total, total)

    def select(
        self, hypotheses: OpenHypotheses, logits: Float[Array, "R K V"], *, normalizer: Float[Array, "R K"], time: Array
    ) -> Selection:
        """The likeliest continuations of each group, and the open ones among them."""
        if self.groups == 1 or not self.group_penalty:
            return self._select_group(hypotheses.total, logits, normalizer, None)
        rows, _, vocabulary = logits.shape
        batch = rows // self.groups
        total, logits, normalizer = (
            leaf.reshape(batch, self.groups, *leaf.shape[1:]) for leaf in (hypotheses.total, logits, normalizer)
        )
        counts, selections = jnp.zeros((batch, vocabulary)), []
        for group in range(self.groups):
            selections.append(self._select_group(total[:, group], logits[:, group], normalizer[:, group], counts))
            chosen = selections[-1].open
            filled = jnp.where(jnp.isfinite(chosen.total), 1.0, 0.0)
            counts = counts.at[jnp.arange(batch)[:, None], chosen.token].add(filled)
        return jax.tree.map(lambda *leaves: jnp.stack(leaves, axis=1).reshape(rows, -1), *selections)

    def _select_group(
        self,
        total: Float[Array, "B K"],
        logits: Float[Array, "B K V"],
        normalizer: Float[Array, "B K"],
        counts: Float[Array, "B V"] | None,
    ) -> Selection:
        """The 2K best per slot first, since no slot can contribute more; then the best of these.

        `counts` is how many slots of the preceding groups chose each token.
        """
        width = total.shape[1]
        penalized = logits if counts is None else logits - self.group_penalty * counts[:, None]
        worth, token = top_k(penalized, min(2 * width, logits.shape[-1]))
        plain = worth if counts is None else jnp.take_along_axis(logits, token, axis=-1)
        # log-probabilities, of these few tokens only
        totals, merit = (total[..., None] + (value - normalizer[..., None]) for value in (plain, worth))
        if self.sibling_penalty:
            merit -= self.sibling_penalty * jnp.arange(token.shape[-1], dtype=merit.dtype)[None, None]
        best = pool_slots(Candidates(merit, totals, token, token), width)
        return Selection(best, keep_open(best, width))

    def value(self, total: Array, merit: Array, length: Array, coverage: Array) -> Array:
        """The score by `scoring`; the merit is not used."""
        return self.scoring.score(total, length, coverage)

    def bound(self, hypotheses: OpenHypotheses, longest: Array) -> Array:
        """The bound of `scoring`."""
        return self.scoring.bound(hypotheses.total, longest)
