"""Which of the phrases that a translation must hold a hypothesis holds, token by token.

A phrase is a sequence of words where the tokens are pieces of words: it begins where a word begins and ends where one
ends. After a space its first word has other pieces than at the beginning of a line or after a bracket, so that each
phrase has two forms.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from s2s_jax.shapes import PAD, real


class PhraseTokens(NamedTuple):
    """The phrases of a batch as token ids, and what tokens do at the borders of words; NumPy or jax arrays.

    The first form of a phrase fits anywhere, the second one only where a word may begin without a space.
    """

    forms: Any  # Int[B, N, F, L], PAD behind each form, nothing but PAD where there is none
    whole: Any  # Bool[B, N], whether the next token must not continue the last word of the phrase
    begins: Any  # Bool[V], tokens that do not continue the word before; EOS is one
    ends: Any  # Bool[V], tokens behind which a word may begin without a space


def anywhere(tokens: Int[Array, "B N L"]) -> PhraseTokens:
    """Phrases that are sequences of tokens, with no borders to heed; PAD behind each."""
    one = jnp.ones((1,), bool)
    return PhraseTokens(tokens[:, :, None], jnp.zeros(tokens.shape[:2], bool), one, one)


class Begun(NamedTuple):
    """What each hypothesis has of each form."""

    counts: Int[Array, "R N P F"]  # the tokens that it ends with; all, or one more if `whole`, once it held the phrase
    at_border: Bool[Array, "R N"]  # whether a word may begin without a space
    empty: Bool[Array, "R N"]  # whether there is no token yet


class Phrases(NamedTuple):
    """The phrases that each row must hold, and where a phrase that is broken off continues."""

    tokens: Int[Array, "R P F L"]
    length: Int[Array, "R P F"]
    borders: Bool[Array, "R P F L+1 L"]  # at [s, l]: whether the first l tokens of a form may be the last l of s begun
    overlaps: Int[Array, "R P P"]  # at [p, q]: tokens of phrase q that stand at the end of phrase p
    whole: Bool[Array, "R P"]
    begins: Bool[Array, "R V"]
    ends: Bool[Array, "R V"]

    def nothing(self, shape: tuple[int, int]) -> Begun:
        """What empty hypotheses [R, N] have: nothing is begun."""
        yes = jnp.ones(shape, bool)
        return Begun(jnp.zeros((*shape, *self.length.shape[1:]), jnp.int32), yes, yes)

    def after(self, begun: Begun, token: Int[Array, "R N"]) -> Begun:
        """The same after one more token."""
        counts, at_border, _ = begun
        rows, _, phrases, forms = counts.shape
        at = tuple(jnp.arange(size) for size in (rows, phrases, forms))
        at = at[0][:, None, None, None], at[1][None, None, :, None], at[2][None, None, None]
        length = self.length[:, None]
        continues = self.borders[*at, jnp.minimum(counts, length)] & (
            self.tokens[:, None] == token[..., None, None, None]
        )
        # the second form begins at a border alone
        fits = at_border[..., None] | (jnp.arange(forms) == 0)[None, None]
        continues &= fits[:, :, None, :, None] | (jnp.arange(self.tokens.shape[3]) > 0)[None, None, None, None]
        one_more = jnp.arange(1, self.tokens.shape[3] + 1, dtype=jnp.int32)[None, None, None, None]
        whole = self.whole[:, None, :, None]
        held = (counts > length) | ((counts == length) & (~whole | lookup(self.begins, token)[..., None, None]))
        counts = jnp.where(held, length + whole.astype(jnp.int32), jnp.where(continues, one_more, 0).max(-1))
        counts = jnp.where(length > 0, counts, 0)
        return Begun(counts, lookup(self.ends, token), jnp.zeros(token.shape, bool))

    def unmet(self, begun: Begun) -> Bool[Array, "R N P"]:
        """Which phrases a hypothesis does not hold; it holds one that the next token can still break."""
        length = self.length[:, None]
        return real(self.length[..., 0])[:, None] & ~((begun.counts >= length) & (length > 0)).any(-1)

    def to_continue(self, begun: Begun) -> tuple[Int[Array, "R N P F"], Int[Array, "R N P F"]]:
        """How much of each form can be kept, and its next token: nothing where that would break a complete phrase."""
        counts, length = begun.counts, self.length[:, None]
        breakable = ((counts == length) & (length > 0) & self.whole[:, None, :, None]).any((-2, -1))
        breaks = breakable[..., None, None] & ~lookup(self.begins, self.tokens_at(counts))
        counts = jnp.where(breaks, 0, counts)
        return counts, self.tokens_at(counts)

    def may_begin(self, second: Bool[Array, "R N"], begun: Begun) -> Bool[Array, "R N P F"]:
        """Which forms may begin: the second one where `second` is true; the first not at the start, if both exist."""
        exists = self.length[:, None] > 0
        is_first = (jnp.arange(exists.shape[3]) == 0)[None, None, None]
        other_begins = exists[..., -1:] & (exists.shape[3] > 1) & begun.empty[..., None, None]
        return jnp.where(is_first, ~other_begins, exists & second[..., None, None])

    def tokens_at(self, place: Int[Array, "R N P F"]) -> Int[Array, "R N P F"]:
        """The token of each form at a place, of the last one beyond it."""
        place = jnp.minimum(place, self.tokens.shape[3] - 1)
        return jnp.take_along_axis(self.tokens[:, None], place[..., None], axis=-1)[..., 0]

    def missing(self, begun: Begun) -> Int[Array, "R N"]:
        """Tokens that suffice to complete all phrases: one that is begun, then the others, with what they share.

        Each next phrase is one that overlaps most with the last one; the least number over all phrases to begin with.
        For two phrases, neither of which holds the other, there is no shorter way.
        """
        unmet, whole = self.unmet(begun), self.length[..., 0]
        counts, _ = self.to_continue(begun)
        phrases, usable = counts.shape[2], (counts > 0) | self.may_begin(begun.empty, begun)
        most = jnp.iinfo(jnp.int32).max
        needed = jnp.where(usable, self.length[:, None] - counts, most).min(-1)  # by the phrase to begin with
        last = jnp.broadcast_to(jnp.arange(phrases, dtype=jnp.int32)[None, None], unmet.shape)
        left = unmet[:, :, None] & ~jnp.eye(phrases, dtype=bool)[None, None]
        rows = jnp.arange(unmet.shape[0])[:, None, None]
        for _ in range(phrases - 1):
            shared = jnp.where(left, self.overlaps[rows, last], -1)
            chosen, any_left = shared.argmax(-1).astype(jnp.int32), left.any(-1)
            needed += jnp.where(any_left, whole[rows, chosen] - shared.max(-1), 0)
            last = jnp.where(any_left, chosen, last)
            left &= jnp.arange(phrases)[None, None, None] != chosen[..., None]
        return jnp.where(unmet.any(-1), jnp.where(unmet, needed, most).min(-1), 0)

    def following(self, begun: Begun) -> Int[Array, "R K C"]:
        """The next token of each form of each unmet phrase, no token twice; PAD elsewhere."""
        counts, token = self.to_continue(begun)
        fits = (counts > 0) | self.may_begin(begun.at_border, begun)
        token = jnp.where(self.unmet(begun)[..., None] & fits & (counts < self.length[:, None]), token, PAD)
        token = token.reshape(*token.shape[:2], -1)
        before = jnp.tril(jnp.ones((token.shape[-1],) * 2, bool), -1)[None, None]
        return jnp.where((before & (token[..., None] == token[..., None, :])).any(-1), PAD, token)


def lookup(table: Bool[Array, "R V"], token: Int[Array, "R *N"]) -> Bool[Array, "R *N"]:
    """The entry of each token in the table of its row; of the last one for ids beyond it."""
    flat = jnp.minimum(token.reshape(token.shape[0], -1), table.shape[1] - 1)
    return jnp.take_along_axis(table, flat, axis=1).reshape(token.shape)


def phrases_of(given: PhraseTokens) -> Phrases:
    """The phrases with their lengths, and with their borders as in the Knuth-Morris-Pratt algorithm."""
    tokens, whole, *tables = map(jnp.asarray, given)
    begins, ends = (jnp.broadcast_to(table[None], (len(tokens), len(table))) for table in tables)
    forms, longest = tokens.shape[2:]
    begun, head = jnp.arange(longest + 1)[:, None, None], jnp.arange(longest)[None, :, None]
    place = head.swapaxes(1, 2)
    tail = jnp.clip(begun - head + place, 0, longest - 1)
    same = ((tokens[..., tail] == tokens[..., None, None, :]) | (place >= head)[None, None, None]).all(-1)
    begun, head = begun[..., 0], head[..., 0]
    # where the second form begins anew inside itself, a word must begin there
    before = lookup(ends, tokens)[..., jnp.clip(begun - head - 1, 0, longest - 1)]
    anew = (jnp.arange(forms) > 0)[None, None, :, None, None] & ((head > 0) & (head < begun))[None, None, None]
    borders = same & (head <= begun)[None, None, None] & (before | ~anew)
    length = real(tokens).sum(-1).astype(jnp.int32)
    return Phrases(tokens, length, borders, overlaps_of(tokens[:, :, 0], whole, begins), whole, begins, ends)


def overlaps_of(
    tokens: Int[Array, "R P L"], whole: Bool[Array, "R P"], begins: Bool[Array, "R V"]
) -> Int[Array, "R P P"]:
    """At [p, q]: how many first tokens of phrase q are the last ones of phrase p, which q does not break."""
    longest = tokens.shape[2]
    length, count = real(tokens).sum(-1), jnp.arange(longest)
    found = jnp.zeros((*tokens.shape[:2], tokens.shape[1]), jnp.int32)
    for shared in range(1, longest + 1):
        tail = jnp.take_along_axis(
            tokens, jnp.maximum(length[..., None] - shared + count[None, None, :shared], 0), axis=2
        )
        same = (tail[:, :, None] == tokens[:, None, :, :shared]).all(-1)
        next_token = tokens[:, :, min(shared, longest - 1)]
        stays_whole = lookup(begins, next_token)[:, None] | ~whole[..., None] | (length == shared)[:, None]
        fits = same & stays_whole & (length >= shared)[:, None] & (length >= shared)[..., None]
        found = jnp.where(fits, shared, found)
    return jnp.where(jnp.eye(tokens.shape[1], dtype=bool)[None], 0, found)
