"""The continuations that are likeliest, with or without a price on what others already say."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from s2s_jax.decode.beam.state import Candidates, OpenHypotheses, Selection, pooled, still_open
from s2s_jax.decode.length_normalization import HypothesisScore
from s2s_jax.decode.top_k import top_k


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True, kw_only=True)
class StandardPolicy:
    """Plain beam search; with a price, a diverse one. Prices bear on the choice of a step, never on a score.

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
        """Chosen by its log-probability."""
        return OpenHypotheses(total, total)

    def select(
        self, live: OpenHypotheses, logits: Float[Array, "R K V"], *, normalizer: Float[Array, "R K"], time: Array
    ) -> Selection:
        """The likeliest continuations of all groups, and the open ones among them."""
        if self.groups == 1 or not self.group_penalty:
            return self._of_group(live.total, logits, normalizer, None)
        rows, _, vocabulary = logits.shape
        batch = rows // self.groups
        total, logits, normalizer = (
            leaf.reshape(batch, self.groups, *leaf.shape[1:]) for leaf in (live.total, logits, normalizer)
        )
        said, picks = jnp.zeros((batch, vocabulary)), []
        for group in range(self.groups):
            picks.append(self._of_group(total[:, group], logits[:, group], normalizer[:, group], said))
            chosen = picks[-1].open
            counts = jnp.where(jnp.isfinite(chosen.total), 1.0, 0.0)
            said = said.at[jnp.arange(batch)[:, None], chosen.token].add(counts)
        return jax.tree.map(lambda *leaves: jnp.stack(leaves, axis=1).reshape(rows, -1), *picks)

    def _of_group(
        self,
        total: Float[Array, "B K"],
        logits: Float[Array, "B K V"],
        normalizer: Float[Array, "B K"],
        said: Float[Array, "B V"] | None,
    ) -> Selection:
        """Found slot by slot first, since a slot can give no more than 2K of them."""
        width = total.shape[1]
        priced = logits if said is None else logits - self.group_penalty * said[:, None]
        worth, token = top_k(priced, min(2 * width, logits.shape[-1]))
        plain = worth if said is None else jnp.take_along_axis(logits, token, axis=-1)
        # log-probabilities, of the few alone
        totals, merit = (total[..., None] + (value - normalizer[..., None]) for value in (plain, worth))
        if self.sibling_penalty:
            merit -= self.sibling_penalty * jnp.arange(token.shape[-1], dtype=merit.dtype)[None, None]
        choice = pooled(Candidates(merit, totals, token, token), width)
        return Selection(choice, still_open(choice, width))

    def value(self, total: Array, merit: Array, length: Array, uncovered: Array) -> Array:
        """The score."""
        return self.scoring.score(total, length, uncovered)

    def bound(self, live: OpenHypotheses, longest: Array) -> Array:
        """The most that a score can still be."""
        return self.scoring.bound(live.total, longest)
