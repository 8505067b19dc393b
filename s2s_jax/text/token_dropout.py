"""Noise in the tokens of training pairs: other segmentations of the same text, and words hidden from the model.

Pairs are kept as ids of their best segmentation; when a batch is read, the text of its ids is segmented again at
random. What is drawn is a function of (seed, step), as the batch itself: nothing of it has to be saved, and all
processes draw the same. A batch has the lengths of its bucket whatever is drawn, so buckets are chosen for lengths with
room for longer segmentations, and one that is longer still is drawn again.

BPE dropout: Provilkov et al. 2020, arXiv:1910.13267, section 3. Subword regularization: Kudo 2018, arXiv:1804.10959,
section 3. Word dropout, by UNK: Bowman et al. 2016, arXiv:1511.06349, section 3.1.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from s2s_jax.shapes import EOS, UNK
from s2s_jax.text.ragged import Ragged
from s2s_jax.text.tagged_tokenizer import untagged
from s2s_jax.text.tokenizers import Tokenizer, TokenizerConfig

ATTEMPTS = 8  # segmentations that are drawn until one fits its bucket; then the best one is used, which does
SAMPLE = 1000  # pairs whose segmentations are drawn to estimate lengths
DEVIATIONS = 2  # of a length from its expectation that a bucket has room for
SEEDS = 2**31
Row = Int[np.ndarray, " S"]


class TokenDropout(NamedTuple):
    """The noise of one side; `strength` is 0 where segmentations are not drawn.

    Attributes:
        redraw: (ids, strength, seed) -> the ids of a random segmentation of the same text.
        ordinary: ids from here on are tags and copied words, which are kept.
        rate: probability that a token is replaced by UNK.
        reverses: whether rows are written from their last token to the first.
    """

    redraw: Callable[..., list[int]] | None
    ordinary: int
    strength: float
    rate: float
    reverses: bool = False

    def lengths(self, rows: Ragged) -> Int[np.ndarray, " N"]:
        """Lengths that most segmentations of each row stay within, and that the best one does."""
        plain = rows.lengths
        if not self.strength:
            return plain
        some = np.unique(np.linspace(0, len(rows) - 1, SAMPLE).astype(np.int64))
        rng = np.random.default_rng(0)  # lengths are the same for all seeds
        drawn = np.array([len(self._drawn(rows[int(index)], int(rng.integers(SEEDS)))) for index in some])
        known = plain[some]
        growth = max(1.0, drawn.sum() / known.sum())
        deviation = np.sqrt((((drawn - growth * known) ** 2) / known).mean())
        wanted = growth * plain + DEVIATIONS * deviation * np.sqrt(plain)
        return np.maximum(plain, np.ceil(wanted).astype(plain.dtype))

    def segmented(self, rows: Ragged, rng: np.random.Generator, *, longest: int) -> Ragged:
        """Other segmentations of the rows, none longer than that."""
        if not self.strength:
            return rows
        seeds = rng.integers(SEEDS, size=(len(rows), ATTEMPTS)).tolist()
        drawn = []
        for row, attempts in zip(rows, seeds, strict=True):
            others = (self._drawn(row, seed) for seed in attempts)
            drawn.append(next((other for other in others if len(other) <= longest), row))
        return Ragged.of(drawn)

    def hidden(self, rows: Ragged, rng: np.random.Generator) -> Ragged:
        """The rows with some tokens replaced by UNK; EOS, tags and copied words stay."""
        ids = rows.numbers()
        chosen = (rng.random(len(ids)) < self.rate) & (ids > UNK) & (ids < self.ordinary)
        return Ragged(np.where(chosen, UNK, ids).astype(np.int32), rows.lengths)

    def _drawn(self, row: Row, seed: int) -> Sequence[int] | Row:
        """A random segmentation of a row, with its tag; the row itself where it has copied words."""
        order = -1 if self.reverses else 1
        ids = row[:-1].tolist()[::order]
        tags = int(bool(ids) and ids[0] >= self.ordinary)
        kept, ids = ids[:tags], ids[tags:]
        if not ids or max(ids) >= self.ordinary:
            return row
        assert self.redraw is not None
        return [*[*kept, *self.redraw(ids, strength=self.strength, seed=seed)][::order], EOS]


def token_dropout(
    tokenizer: Tokenizer, config: TokenizerConfig, group: str, *, guided: float, reverses: bool = False
) -> TokenDropout | None:
    """The noise of a side that its settings, whose full names begin with `group`, ask for; None where there is none.

    Args:
        guided: weight of a loss that needs to know which tokens are linked.
        reverses: whether rows are written from their last token to the first.

    Raises:
        ValueError: the tokenizer has no such noise, or it does not go with that loss.
    """
    inner: Any = untagged(tokenizer)
    offered = getattr(inner, "redrawn_by", "")
    config.check_redrawn(group, kind=inner.type, offered=offered)
    strength = getattr(config, offered) if offered else 0.0
    if strength and guided:
        raise ValueError(
            f"{group}.{offered}={strength} changes the tokens that loss.guided={guided} has gold links of; set "
            f"{group}.{offered}=0 or loss.guided=0."
        )
    redraw = inner.redraw if strength else None
    noise = TokenDropout(redraw, inner.size, strength, config.word_dropout, reverses)
    return noise if strength or config.word_dropout else None
