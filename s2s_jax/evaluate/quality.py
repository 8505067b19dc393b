"""How close are the hypotheses to what people wrote, also where a source has several right answers?

Edit distances are rapidfuzz's, BLEU and chrF are sacrebleu's. A rate without anything to divide by is None, never 0/0.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from rapidfuzz.distance import Levenshtein
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

UNITS = ("word", "phone")
TOKENIZERS = {"word": "13a", "phone": "none"}  # BLEU's: a phone is a token already and must not be cut at a sign


class Edits(NamedTuple):
    """A hypothesis held against one reference: the tokens that had to change, and the tokens of that reference."""

    distance: int
    length: int


class LengthBucket(NamedTuple):
    """Quality over the sources of one length: a row of the table and a point of the curve."""

    label: str
    sources: int
    exact_match: float
    error_rate: float | None
    bleu: float


def quality(
    hypotheses: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    unit: str = "word",
    bleu_tokenizer: str | None = None,
) -> dict[str, float | str | None]:
    """Exact match, BLEU, chrF, WER and PER by two rules: against the closest reference, and per reference line.

    The closest reference has the smallest token edit distance; of several, the longest. The keys that end in
    `_per_line` hold each hypothesis against each of its references in turn, so a source with three references
    counts three times. Rates are fractions (a WER can pass 1), BLEU and chrF lie in 0..100. BLEU knows no smaller
    corpus than one n-gram of four tokens: below that it is 0 even for a perfect answer.

    Args:
        hypotheses: one a source.
        references: one or more a source, in the order of the hypotheses; an empty string is a legal one.
        unit: what the target's tokens, cut at ASCII spaces only, are. "word": `wer` is the edit distance over the
            reference tokens and `per` does not apply (None). "phone" (grapheme to phoneme): that ratio is `per`, and
            `wer` is the share of items whose phones are not exactly a reference's.
        bleu_tokenizer: sacrebleu's name, such as "zh" or "char"; left out, "13a" for words and "none" for phones.

    Raises:
        ValueError: no hypotheses, lists of unequal length, a source without reference, an unknown unit or tokenizer.
    """
    check(hypotheses, references)
    if unit not in UNITS:
        raise ValueError(f"unit must be one of {', '.join(UNITS)}, got {unit!r}")
    edits = [
        [compare(hypothesis, line) for line in lines] for hypothesis, lines in zip(hypotheses, references, strict=True)
    ]
    best = [closest(choices) for choices in edits]
    lines = [edit for choices in edits for edit in choices]
    phones = unit == "phone"
    bleu, bleu_signature = corpus_bleu(hypotheses, references, tokenizer=bleu_tokenizer or TOKENIZERS[unit])
    chrf = CHRF()
    return {
        "exact_match": exact_match(hypotheses, references),
        "exact_match_per_line": mean(
            hypothesis == line for hypothesis, lines in zip(hypotheses, references, strict=True) for line in lines
        ),
        "bleu": bleu,
        "bleu_signature": bleu_signature,
        "chrf": chrf.corpus_score(hypotheses, by_rank(references)).score,
        "chrf_signature": str(chrf.get_signature()),
        "wer": mean(edit.distance > 0 for edit in best) if phones else error_rate(best),
        "wer_per_line": mean(edit.distance > 0 for edit in lines) if phones else error_rate(lines),
        "per": error_rate(best) if phones else None,
        "per_per_line": error_rate(lines) if phones else None,
    }


def by_length(
    lengths: Sequence[int],
    hypotheses: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    edges: Sequence[int] = (10, 20, 30, 40, 50, 60),
    bleu_tokenizer: str = "13a",
) -> list[LengthBucket]:
    """Quality by source length, shortest first; a bucket that holds no source is left out.

    Args:
        lengths: the source's length, one a hypothesis, in whatever unit the caller reports.
        hypotheses: one a source.
        references: one or more a source.
        edges: the longest length of each bucket, rising; what is longer than the last goes into one more.
        bleu_tokenizer: sacrebleu's name; "none" for phones.

    Raises:
        ValueError: edges that do not rise, and whatever `quality` refuses.
    """
    check(hypotheses, references)
    if len(lengths) != len(hypotheses):
        raise ValueError(f"lengths must be one a hypothesis, got {len(lengths)} for {len(hypotheses)} hypotheses")
    if list(edges) != sorted(set(edges)):
        raise ValueError(f"edges must rise, got {tuple(edges)}")
    lows = [0, *(edge + 1 for edge in edges)]
    labels = [*(f"{low}-{high}" for low, high in zip(lows, edges, strict=False)), f"{lows[-1]}+"]
    rows = []
    for label, low, high in zip(labels, lows, [*edges, float("inf")], strict=True):
        chosen = [index for index, length in enumerate(lengths) if low <= length <= high]
        if chosen:
            pairs = [hypotheses[index] for index in chosen], [references[index] for index in chosen]
            rate = error_rate(
                [closest([compare(said, line) for line in lines]) for said, lines in zip(*pairs, strict=True)]
            )
            bleu, _ = corpus_bleu(*pairs, tokenizer=bleu_tokenizer)
            rows.append(LengthBucket(label, len(chosen), exact_match(*pairs), rate, bleu))
    return rows


def compare(hypothesis: str, reference: str) -> Edits:
    """The token edit distance (insert, delete, replace cost 1 each) and the reference's length."""
    wanted = tokens(reference)
    return Edits(Levenshtein.distance(tokens(hypothesis), wanted), len(wanted))


def tokens(line: str) -> list[str]:
    """What stands between ASCII spaces; a no-break space is a character like any other."""
    return [token for token in line.split(" ") if token]


def closest(choices: Iterable[Edits]) -> Edits:
    """The reference at the smallest distance; of several the longest, so that their order does not matter."""
    return min(choices, key=lambda edit: (edit.distance, -edit.length))


def error_rate(edits: Sequence[Edits]) -> float | None:
    """Edits over reference tokens, summed before dividing; None where the references hold no token."""
    length = sum(edit.length for edit in edits)
    return sum(edit.distance for edit in edits) / length if length else None


def exact_match(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """The share of hypotheses that equal one of their references, character for character."""
    return mean(hypothesis in lines for hypothesis, lines in zip(hypotheses, references, strict=True))


def mean(values: Iterable[bool]) -> float:
    """The share of values that hold."""
    counted = list(values)
    return sum(counted) / len(counted)


def corpus_bleu(hypotheses: Sequence[str], references: Sequence[Sequence[str]], *, tokenizer: str) -> tuple[float, str]:
    """The corpus BLEU in 0..100 and the signature that says how it was taken."""
    if tokenizer not in BLEU.TOKENIZERS:
        raise ValueError(f"bleu_tokenizer must be one of {', '.join(BLEU.TOKENIZERS)}, got {tokenizer!r}")
    bleu = BLEU(tokenize=tokenizer, force=True)  # force: no log line on hypotheses that end in " ."; the score is same
    score = bleu.corpus_score(hypotheses, by_rank(references)).score
    return min(score, 100.0), str(bleu.get_signature())  # sacrebleu's perfect score is 100.00000000000004


def by_rank(references: Sequence[Sequence[str]]) -> list[list[Any]]:
    """All first references, all second ones, ...: the layout of sacrebleu.

    None stands for "this source has fewer". An empty string would not do: it is a reference of length zero, and
    BLEU's brevity penalty could pick it as the closest. (Any, since sacrebleu's own annotation leaves the None out.)
    """
    most = max(len(lines) for lines in references)
    return [[lines[rank] if rank < len(lines) else None for lines in references] for rank in range(most)]


def check(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    """Refuses lists that do not belong together."""
    if isinstance(hypotheses, str) or not hypotheses:
        raise ValueError(f"hypotheses must be a list of at least one line, got {hypotheses!r}")
    if len(references) != len(hypotheses):
        raise ValueError(
            f"references must be one list of lines a hypothesis, got {len(references)} for {len(hypotheses)} hypotheses"
        )
    for index, lines in enumerate(references):
        if isinstance(lines, str):  # a plain string would be taken apart into references of one letter
            raise ValueError(
                f"references[{index}] must be a list of lines, got the string {lines!r}; write [{lines!r}]"
            )
        if not lines:
            raise ValueError(f"references[{index}] must hold at least one line, got none; leave that source out")
