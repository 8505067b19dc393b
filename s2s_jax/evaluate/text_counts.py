"""Edit distances, n-gram counts and exact matches of hypotheses against one or more references per source.

Edit distances are rapidfuzz's, BLEU and chrF are sacrebleu's; both libraries are imported where they are used.
"""

import functools
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from s2s_jax.validation import one_of

if TYPE_CHECKING:
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

UnitName = Literal["word", "phone"]
BLEU_TOKENIZERS: dict[str, str] = {"word": "13a", "phone": "none"}  # a phone is a token; "." in it is no punctuation
SummedCounts = Float[np.ndarray, "... K"]
MetricValues = Float[np.ndarray, "..."]


class Edits(NamedTuple):
    """A hypothesis against one reference: the token edit distance, and the tokens of that reference."""

    distance: int
    length: int


def edit_distance(hypothesis: str, reference: str) -> Edits:
    """The token edit distance (insertion, deletion, replacement cost 1 each) and the reference's length."""
    from rapidfuzz.distance import Levenshtein

    tokens = space_tokens(reference)
    return Edits(Levenshtein.distance(space_tokens(hypothesis), tokens), len(tokens))


def space_tokens(line: str) -> list[str]:
    """The tokens between ASCII spaces; a no-break space is a character like any other."""
    return [token for token in line.split(" ") if token]


def closest(edits: Iterable[Edits]) -> Edits:
    """The reference at the smallest distance; of several the longest, so that their order does not matter."""
    return min(edits, key=lambda edit: (edit.distance, -edit.length))


def references_by_rank(references: Sequence[Sequence[str]]) -> list[list[Any]]:
    """All first references, all second ones, ...: the layout that sacrebleu expects.

    None stands for "this source has fewer". An empty string would not do: it is a reference of length zero, and
    BLEU's brevity penalty could pick it as the closest. (Any, since sacrebleu's own annotation leaves the None out.)
    """
    most = max(len(lines) for lines in references)
    return [[lines[rank] if rank < len(lines) else None for lines in references] for rank in range(most)]


def check_references(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    """Refuse lists that do not belong together.

    Raises:
        ValueError: no hypotheses, lists of unequal length, a source without reference, a string in place of a list.
    """
    if isinstance(hypotheses, str) or not hypotheses:
        raise ValueError(f"hypotheses must be a list of at least one line, got {hypotheses!r}")
    if len(references) != len(hypotheses):
        raise ValueError(
            f"references must be one list of lines per hypothesis, got {len(references)} for {len(hypotheses)} "
            "hypotheses"
        )
    for index, lines in enumerate(references):
        if isinstance(lines, str):  # a plain string would be taken apart into references of one letter
            raise ValueError(
                f"references[{index}] must be a list of lines, got the string {lines!r}; write [{lines!r}]"
            )
        if not lines:
            raise ValueError(f"references[{index}] must hold at least one line, got none; leave that source out")


@functools.cache
def bleu_scorer(tokenizer: str) -> "BLEU":
    """sacrebleu's BLEU with one of its tokenizers.

    Raises:
        ValueError: sacrebleu has no such tokenizer, or its packages are not installed.
    """
    from sacrebleu.metrics.bleu import BLEU

    one_of("bleu_tokenizer", tokenizer, BLEU.TOKENIZERS)
    try:
        return BLEU(tokenize=tokenizer, force=True)  # force: no log line on hypotheses that end in " ."; no effect else
    except RuntimeError:  # sacrebleu names its own extra in a message of four lines
        remedy = f"pip install 'sacrebleu[{tokenizer[:2]}]'"
        raise ValueError(
            f"evaluation.bleu_tokenizer={tokenizer} needs packages that are not installed; {remedy}."
        ) from None


@functools.cache
def chrf_scorer() -> "CHRF":
    """sacrebleu's chrF2."""
    from sacrebleu.metrics.chrf import CHRF

    return CHRF()


def ngram_counts(scorer: Any, texts: Sequence[str], references: Sequence[Sequence[str]]) -> Float[np.ndarray, "N K"]:
    """The counts from which sacrebleu's own paired tests draw; a law test notices when a release changes them."""
    return np.array(scorer._extract_corpus_statistics(texts, references_by_rank(references)), np.float64)


def signature(scorer: Any, references: Sequence[Sequence[str]]) -> str:
    """sacrebleu's description of how a score was computed; it names the number of references."""
    counts = set(map(len, references))
    scorer.num_refs = counts.pop() if len(counts) == 1 else -1  # as sacrebleu sets it while it counts
    return str(scorer.get_signature())


def bleu_values(sums: SummedCounts) -> MetricValues:
    """BLEU, 0 to 100, of sums (hypothesis length, reference length, 4 matches, 4 n-grams), smoothed exponentially.

    Papineni et al. 2002; an order without a match counts as 1 / (2^k x n-grams), k orders without one so far
    (Chen & Cherry 2014, method 3). The operations and their order are sacrebleu's, and so are the last bits.
    """
    length, reference, matches, ngrams = sums[..., 0], sums[..., 1], sums[..., 2:6], sums[..., 6:10]
    with np.errstate(divide="ignore", invalid="ignore"):
        smoothed = 100.0 / (2.0 ** np.cumsum(matches == 0, axis=-1) * ngrams)
        logs = np.log(np.where(matches > 0, 100.0 * matches / ngrams, smoothed))
        penalty = np.where(length < reference, np.exp(1 - reference / length), 1.0)
        score = penalty * np.exp(logs.sum(-1) / 4)
    defined = (matches > 0).any(-1) & (ngrams > 0).all(-1)
    return np.where(defined, np.minimum(score, 100.0), 0.0)  # sacrebleu's perfect score is 100.00000000000004


def chrf_values(sums: SummedCounts) -> MetricValues:
    """chrF2, 0 to 100, of sums (hypothesis, reference, matched) for character n-grams of 1 to 6. Popović 2015.

    W15-3049; the operations and their order are sacrebleu's.
    """
    hypothesis, reference, matched = (sums[..., start::3] for start in range(3))
    usable = (hypothesis > 0) & (reference > 0)
    orders = np.maximum(usable.sum(-1), 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.where(usable, matched / hypothesis, 0.0).sum(-1) / orders
        recall = np.where(usable, matched / reference, 0.0).sum(-1) / orders
        score = 100 * (5 * precision * recall / (4 * precision + recall))
    return np.where(precision + recall > 0, score, 0.0)
