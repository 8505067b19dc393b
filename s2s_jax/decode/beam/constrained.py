"""Lexically constrained beam search: the best translations of those that hold given phrases.

Dynamic beam allocation, Post & Vilar 2018, arXiv:1804.06609, 3.2 and 3.3: the slots of a beam are divided among banks,
one per number of phrase tokens produced so far, so that hypotheses that hold many of them are not crowded out by
likelier ones that hold none. A phrase that is begun and not continued starts again.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from s2s_jax.decode.beam.engine import StoppingName, search_with_policy
from s2s_jax.decode.beam.phrases import Phrases, PhraseTokens, phrases_of
from s2s_jax.decode.beam.state import Candidates, OpenHypotheses, Selection
from s2s_jax.decode.length_normalization import LIKELIHOOD, HypothesisScore
from s2s_jax.decode.logits_rules import NO_RULES, LogitsRules, limits_of
from s2s_jax.decode.result import SearchResult
from s2s_jax.decode.top_k import top_k
from s2s_jax.model.interface import Model, Params, Source
from s2s_jax.shapes import EOS, source_tokens


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["phrases", "longest"], meta_fields=["scoring", "groups"]
)
@dataclasses.dataclass(frozen=True, kw_only=True)
class ConstrainedPolicy:
    """The likeliest continuations, with an equal share of the slots per number of phrase tokens produced.

    No hypothesis continues where the length bound leaves too few tokens for its missing phrases, as long as another one
    can. The paper has no such rule, and truncates there.
    """

    phrases: Phrases
    longest: Int[Array, " R"]  # most tokens of each row, the end token included
    scoring: HypothesisScore = HypothesisScore()
    groups: int = 1
    open_last = True

    def first(self, total: Float[Array, "R K"]) -> OpenHypotheses:
        """No phrase is begun; the merit is the log-probability."""
        return OpenHypotheses(total, total, self.phrases.nothing((total.shape[0], total.shape[1])))

    def select(
        self,
        hypotheses: OpenHypotheses,
        logits: Float[Array, "R K V"],
        *,
        normalizer: Float[Array, "R K"],
        time: Int[Array, ""],
    ) -> Selection:
        """The likeliest tokens of each slot and the next tokens of its phrases, allocated by bank."""
        width = hypotheses.total.shape[1]
        token, logit = candidate_tokens(logits, self.phrases.following(hypotheses.policy_state))
        per_slot = token.shape[-1]
        totals = (hypotheses.total[..., None] + (logit - normalizer[..., None])).reshape(len(token), -1)
        token = token.reshape(totals.shape)
        parent = jnp.broadcast_to((jnp.arange(totals.shape[1], dtype=jnp.int32) // per_slot)[None], token.shape)
        before = jax.tree.map(lambda leaf: jnp.repeat(leaf, per_slot, axis=1), hypotheses.policy_state)
        begun = self.phrases.after(before, token)
        missing = self.phrases.missing(begun)
        merit = self._merit(totals, missing, token, time)
        whole = self.phrases.missing(self.phrases.nothing((len(token), 1)))[:, 0]
        met = jnp.clip(whole[:, None] - missing, 0)
        # of equals the first slot and the first token, as in a plain beam
        order = jnp.lexsort((token, parent, -merit), axis=-1)
        merit, token, parent, met = (jnp.take_along_axis(leaf, order, axis=1) for leaf in (merit, token, parent, met))

        def choose(merit: Float[Array, "R N"]) -> tuple[Candidates, Int[Array, "R K"]]:
            place = allocate(merit, met, whole, banks=1 + self.phrases.tokens[0, :, 0].size, width=width)
            merit, *rest = (jnp.take_along_axis(leaf, place, axis=1) for leaf in (merit, token, parent))
            return Candidates(merit, merit, *rest), place

        best, _ = choose(merit)
        kept, place = choose(jnp.where(token == EOS, -jnp.inf, merit))
        place, rows = jnp.take_along_axis(order, place, axis=1), jnp.arange(len(token))[:, None]
        return Selection(best, kept, jax.tree.map(lambda leaf: leaf[rows, place], begun))

    def _merit(
        self, total: Float[Array, "R N"], missing: Int[Array, "R N"], token: Int[Array, "R N"], time: Int[Array, ""]
    ) -> Float[Array, "R N"]:
        """The log-probability; -inf for an end token before all phrases are met, and for what cannot end in time."""
        total = jnp.where((token == EOS) & (missing > 0), -jnp.inf, total)
        constrained = self.phrases.length[..., 0].any(-1, keepdims=True)
        in_time = (token == EOS) | (time + 1 + missing + 1 <= self.longest[:, None]) | ~constrained
        possible = (in_time & jnp.isfinite(total)).any(-1, keepdims=True)
        return jnp.where(in_time | ~possible, total, -jnp.inf)

    def value(self, total: Array, merit: Array, length: Array, coverage: Array) -> Array:
        """The score by `scoring`; the merit is not used."""
        return self.scoring.score(total, length, coverage)

    def bound(self, hypotheses: OpenHypotheses, longest: Array) -> Array:
        """The bound of `scoring`."""
        return self.scoring.bound(hypotheses.total, longest)


def candidate_tokens(
    logits: Float[Array, "R K V"], following: Int[Array, "R K P"]
) -> tuple[Int[Array, "R K C"], Float[Array, "R K C"]]:
    """Tokens of each slot, none twice, with their logits: the K likeliest, those of phrases, and the end token."""
    rows, width, vocabulary = logits.shape
    special = jnp.concatenate([following, jnp.full((rows, width, 1), EOS, jnp.int32)], axis=-1)
    at = jnp.arange(rows)[:, None, None], jnp.arange(width)[None, :, None]
    likely, token = top_k(logits.at[*at, special].set(-jnp.inf), min(width, vocabulary))
    return jnp.concatenate([token, special], axis=-1), jnp.concatenate([likely, logits[*at, special]], axis=-1)


def allocate(
    merit: Float[Array, "R N"], met: Int[Array, "R N"], whole: Int[Array, " R"], *, banks: int, width: int
) -> Int[Array, "R K"]:
    """The places of the `width` candidates that get a slot, of candidates sorted best first.

    Candidates that have met equally many phrase tokens are a bank. All banks from 0 to `whole` have the same share of
    the slots, and the last one the remainder. What a bank cannot fill goes to the bank below, and finally to the best
    candidates of all banks.
    """
    number, possible = jnp.arange(banks, dtype=jnp.int32), jnp.isfinite(merit)
    member = (met[..., None] == number[None, None]) & possible[..., None]
    rank = jnp.take_along_axis(jnp.cumsum(member, axis=1), met[..., None], axis=2)[..., 0]  # from 1
    top = whole[:, None]
    share = jnp.where(number[None] <= top, width // (top + 1), 0) + jnp.where(number[None] == top, width % (top + 1), 0)

    def fill(spare: Int[Array, " R"], bank: tuple) -> tuple[Int[Array, " R"], Int[Array, " R"]]:
        slots, members = bank
        taken = jnp.minimum(slots + spare, members)
        return slots + spare - taken, taken

    _, taken = jax.lax.scan(fill, jnp.zeros_like(whole), (share.T, member.sum(1).T), reverse=True)
    in_share = rank <= jnp.take_along_axis(taken.T, met, axis=1)
    return jnp.argsort(jnp.where(possible, jnp.where(in_share, 0, 1), 2), axis=1, stable=True)[:, :width]


def constrained(
    model: Model,
    params: Params,
    source: Source,
    phrases: PhraseTokens,
    *,
    width: int,
    max_length: int,
    scoring: HypothesisScore = LIKELIHOOD,
    stopping: StoppingName = "full",
    n_best: int | None = None,
    rules: LogitsRules = NO_RULES,
    prefix: Int[Array, "B P"] | None = None,
    compactions: int = 0,
) -> SearchResult:
    """Beam search whose hypotheses end only when they hold each of the phrases, in any order; phrases may overlap.

    A sentence without phrases gets the result of `beam`. Where the length bound, a prefix or the rules make it
    impossible to hold all phrases, hypotheses are truncated at the bound.
    """
    longest = limits_of(rules, source_tokens(source), max_length=max_length).longest
    return search_with_policy(
        model,
        params,
        source,
        ConstrainedPolicy(phrases=phrases_of(phrases), longest=longest, scoring=scoring),
        width=width,
        max_length=max_length,
        coverage=scoring.coverage > 0,
        stopping=stopping,
        n_best=n_best,
        rules=rules,
        prefix=prefix,
        compactions=compactions,
    )
