"""Lines in, translations out: in the order of the input, with memory that does not grow with it.

Lines are decoded in windows, sorted by length inside a window; source lengths and row counts are rounded up to few
shapes, so that little is compiled. Where there are many lines, a batch does not run on, whole, for its last ones
(`decode.loop`). A blank line is answered with an empty line and never reaches the model. While a
device decodes one batch, the host makes lines of the one before.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import jax
import numpy as np
from jaxtyping import Float

from s2s_jax.decode.compaction import COMPACTIONS
from s2s_jax.decode.lexical_constraints import ConstrainedLine, token_arrays
from s2s_jax.decode.mbr import MBR_METRICS, consensus
from s2s_jax.decode.result import SearchResult
from s2s_jax.decode.search import CompiledSearch, SearchConfig
from s2s_jax.model.interface import Params
from s2s_jax.shapes import PAD, UNK
from s2s_jax.text.copy_vocabulary import PairTokenizer
from s2s_jax.text.files import is_blank
from s2s_jax.text.tokenizers import append_eos

WINDOW = 16  # batches sorted together
T = TypeVar("T")


class Hypothesis(NamedTuple):
    """One translation of a line."""

    text: str
    score: float  # by search.length_normalization
    tokens: tuple[str, ...]  # the end token counted, unless it was cut off
    log_probs: tuple[float, ...]  # of each token, nats
    alignment: Float[np.ndarray, "T S"]  # weights of the source tokens for each token
    truncated: bool  # cut off at the length bound, without an end


NOTHING = Hypothesis("", 0.0, (), (), np.zeros((0, 0), np.float32), truncated=False)  # the translation of a blank line


class Translation(NamedTuple):
    """A line and what became of it: the best hypothesis, and all of them."""

    source: str
    source_tokens: tuple[str, ...]  # the end token counted; none of a blank line
    hypotheses: tuple[Hypothesis, ...]  # best first: by score, by search.mbr_metric, or samples as they were drawn
    unread: int = 0  # source tokens that search.max_source left out

    @property
    def best(self) -> Hypothesis:
        """The first hypothesis; one without a token for a blank line, which has none."""
        return self.hypotheses[0] if self.hypotheses else NOTHING

    @property
    def text(self) -> str:
        """The best translation; empty for a blank line."""
        return self.best.text

    @property
    def score(self) -> float:
        """The best one's score, by search.length_normalization."""
        return self.best.score

    @property
    def tokens(self) -> tuple[str, ...]:
        """The best one's tokens, the end token counted."""
        return self.best.tokens

    @property
    def log_probs(self) -> tuple[float, ...]:
        """The log-probability of each of these tokens, nats."""
        return self.best.log_probs

    @property
    def alignment(self) -> Float[np.ndarray, "T S"]:
        """The weights of the source tokens for each of these tokens."""
        return self.best.alignment

    @property
    def truncated(self) -> bool:
        """Whether the best one was cut off at the length bound."""
        return self.best.truncated


class Translator:
    """A search and the tokenizers on both sides of it, ready to translate."""

    def __init__(self, find: CompiledSearch, pair: PairTokenizer, search: SearchConfig):
        """`find` is the search that `search` asks for, as `compiled_search` makes it."""
        self._find, self.pair, self.search = find, pair, search

    def translate(
        self, params: Params, lines: Iterable[str | ConstrainedLine], *, window: int = 0
    ) -> Iterator[Translation]:
        """A translation for each line, in their order.

        Args:
            window: lines that are read before the first of them is answered; 0 for as many as pay.
        """
        lines, first, compactions = iter(lines), 0, 0
        full = self.search.batch_size * WINDOW
        while read := list(itertools.islice(lines, window or full)):
            if not first and len(read) == full:
                compactions = COMPACTIONS  # there are lines enough to pay for what more there is to compile
            yield from self._window(params, [ConstrainedLine.of(line) for line in read], first, compactions)
            first += len(read)

    def _window(self, params: Params, wanted: list[ConstrainedLine], first: int, compactions: int) -> list[Translation]:
        """The translations of lines, `first` being the number of the first one, by which chance differs."""
        lines = [one.line for one in wanted]
        answers = {number: Translation(line, (), ()) for number, line in enumerate(lines) if is_blank(line)}
        tokens = {n: self.pair.encode_source(line) for n, line in enumerate(lines) if n not in answers}
        most = self.search.max_source
        encoded = {number: append_eos(ids[: most - 1] if most else ids) for number, ids in tokens.items()}
        waiting = sorted(encoded, key=lambda number: len(encoded[number]))

        def sent(members: list[int]) -> SearchResult:
            source = filled([encoded[member] for member in members])
            numbers = np.zeros(len(source), np.int32)
            numbers[: len(members)] = [(first + member) % 2**31 for member in members]
            asked = token_arrays([wanted[member] for member in members], self.pair, self.search.rules, rows=len(source))
            return self._find(params, source, numbers, compactions=compactions, **asked)

        size = self.search.batch_size
        batches = [waiting[start : start + size] for start in range(0, len(waiting), size)]
        for members, found in prefetch_one((members, sent(members)) for members in batches):
            found = jax.device_get(found)
            for row, member in enumerate(members):
                unread = len(tokens[member]) + 1 - len(encoded[member])
                answers[member] = self._translate_batch(lines[member], encoded[member], found, row)._replace(
                    unread=unread
                )
        return [answers[number] for number in range(len(lines))]

    def _translate_batch(self, line: str, ids: np.ndarray, found: SearchResult, row: int) -> Translation:
        real = np.flatnonzero(np.isfinite(found.scores[row])).tolist()
        hypotheses = [self._hypothesis(line, found, row, slot, len(ids)) for slot in real]
        if self.search.mbr_metric != "none" and hypotheses:
            texts = [hypothesis.text for hypothesis in hypotheses]
            order = consensus(texts, found.log_weights[row, real].tolist(), MBR_METRICS[self.search.mbr_metric])
            hypotheses = [hypotheses[place] for place, _ in order]
        return Translation(line, tuple(self.pair.source_symbols(ids.tolist(), line)), tuple(hypotheses))

    def _hypothesis(self, line: str, found: SearchResult, row: int, slot: int, length: int) -> Hypothesis:
        count = int((found.tokens[row, slot] != PAD).sum())
        tokens = found.tokens[row, slot, :count].tolist()
        alignment = np.array(found.alignment[row, slot, :count, :length])
        instead = self._looked_at(line, tokens, alignment) if self.search.replace_unknown else ()
        return Hypothesis(
            self.pair.decode(tokens, line, replacements=instead),
            float(found.scores[row, slot]),
            tuple(self.pair.target_symbols(tokens, line, replacements=instead)),
            tuple(found.log_probs[row, slot, :count].tolist()),
            alignment,
            bool(found.truncated[row, slot]),
        )

    def _looked_at(self, line: str, tokens: list[int], alignment: Float[np.ndarray, "T S"]) -> list[str]:
        """For each unknown token the part of the line that weighs most, the end left out. Jean et al. 2015.

        arXiv:1412.2007; before attention, Luong et al. 2015, arXiv:1410.8206.
        """
        spans = self.pair.source.spans(line)
        looking = alignment[:, : len(spans)]
        places = [
            int(weights.argmax()) if token == UNK and weights.any() else None
            for token, weights in zip(tokens, looking, strict=True)
        ]
        return ["" if place is None else line[slice(*spans[place])].strip(" ") for place in places]


def prefetch_one(items: Iterable[T]) -> Iterator[T]:
    """The same items, each handed out when the next one has been begun."""
    for item, _ in itertools.pairwise(itertools.chain(items, [None])):
        yield item  # type: ignore[misc]  # None is never the first of two


def filled(lines: Sequence[np.ndarray]) -> np.ndarray:
    """Encoded lines as one array of padding-filled rows, both sides rounded up so that few shapes occur."""
    ids = np.full((rounded_rows(len(lines)), rounded_length(max(map(len, lines)))), PAD, np.int32)
    for row, line in enumerate(lines):
        ids[row, : len(line)] = line
    return ids


def rounded_rows(rows: int) -> int:
    """The next power of two."""
    return 1 << (rows - 1).bit_length()


def rounded_length(length: int) -> int:
    """The next of 8, 12, 16, 24, 32, 48, 64, ...: at most a third is padding."""
    power = max(8, 1 << (length - 1).bit_length())
    return power * 3 // 4 if power > 8 and length <= power * 3 // 4 else power
