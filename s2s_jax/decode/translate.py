"""Lines in, translations out, in the order of the input."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from s2s_jax.decode.batching import WINDOW, Ready, Shape, pad_sources, read_source, run_batches, windows
from s2s_jax.decode.compaction import COMPACTIONS
from s2s_jax.decode.lexical_constraints import ConstrainedLine, InputLine, array_sizes, empty_arrays, token_arrays
from s2s_jax.decode.mbr import MBR_METRICS, consensus
from s2s_jax.decode.result import SearchResult
from s2s_jax.decode.search import CompiledSearch, SearchConfig
from s2s_jax.model.interface import Params
from s2s_jax.model.ops.logits import IMPOSSIBLE
from s2s_jax.shapes import PAD, UNK, source_tokens
from s2s_jax.text.copy_vocabulary import PairTokenizer
from s2s_jax.text.files import is_blank
from s2s_jax.text.tokenizers import append_eos


class Hypothesis(NamedTuple):
    """One translation of a line."""

    text: str
    score: float  # by search.length_normalization
    tokens: tuple[str, ...]  # the end token included, unless it was cut off
    log_probs: tuple[float, ...]  # of each token, nats
    alignment: Float[np.ndarray, "T S"]  # weights of the source tokens per target token
    truncated: bool  # cut off at the length bound, without an end
    utility: float | None = None  # expected, by search.mbr_metric; None where that is none

    @property
    def log_probability(self) -> float:
        """Of the whole hypothesis by the model itself, nats."""
        return float(sum(self.log_probs))


# the translation of a blank line
EMPTY_HYPOTHESIS = Hypothesis("", 0.0, (), (), np.zeros((0, 0), np.float32), truncated=False)


class Translation(NamedTuple):
    """A line with its hypotheses."""

    source: str
    source_tokens: tuple[str, ...]  # the end token included; empty for a blank line
    hypotheses: tuple[Hypothesis, ...]  # best first, by score or search.mbr_metric; samples as they were drawn
    unread: int = 0  # source tokens beyond search.max_source

    @property
    def best(self) -> Hypothesis:
        """The first hypothesis; for a blank line, which has none, one without tokens."""
        return self.hypotheses[0] if self.hypotheses else EMPTY_HYPOTHESIS

    @property
    def text(self) -> str:
        """The best translation; empty for a blank line."""
        return self.best.text

    @property
    def score(self) -> float:
        """The score of the best hypothesis, by search.length_normalization."""
        return self.best.score

    @property
    def tokens(self) -> tuple[str, ...]:
        """The tokens of the best hypothesis, the end token included."""
        return self.best.tokens

    @property
    def log_probs(self) -> tuple[float, ...]:
        """The log-probability of each token of the best hypothesis, nats."""
        return self.best.log_probs

    @property
    def alignment(self) -> Float[np.ndarray, "T S"]:
        """The attention weights of the source tokens per token of the best hypothesis."""
        return self.best.alignment

    @property
    def truncated(self) -> bool:
        """Whether the best hypothesis was cut off at the length bound."""
        return self.best.truncated


class EncodedLine(NamedTuple):
    """A line as a model reads it."""

    line: ConstrainedLine
    ids: tuple[np.ndarray, ...] = ()  # of the source and of each feature, the end tokens included; () for a blank line
    unread: int = 0  # source tokens beyond search.max_source
    sizes: tuple[int, ...] = ()  # of the arrays of its constraints, in an invariant batch

    @property
    def lengths(self) -> tuple[int, ...]:
        """The tokens of each side."""
        return tuple(map(len, self.ids))


class Translator:
    """A search and the tokenizers of both sides, ready to translate lines."""

    def __init__(self, search: CompiledSearch, pair: PairTokenizer, config: SearchConfig):
        """`search` is the search that `config` names, as `compiled_search` makes it."""
        self.search, self.pair, self.config = search, pair, config

    def translate(
        self, params: Params, lines: Iterable[InputLine], *, window: int = 0, ready: Ready | None = None
    ) -> Iterator[Translation]:
        """One translation per line, in the order of the input.

        Lines are read one window at a time, so that memory does not grow with their number. A blank line gets an
        empty translation and never reaches the model.

        Args:
            window: most lines that are read before the first of them is translated; 0 for 16 full batches.
            ready: whether another line comes at once; where none does, those that were read are translated.
        """
        first, compactions = 0, 0
        full = self.config.batch_size * WINDOW
        for read in windows(self._checked(lines), window or full, ready):
            if not first and len(read) == full and not self.config.batch_invariant:
                compactions = COMPACTIONS  # there are enough lines to pay for the additional compilation
            numbers = range(first, first + len(read))
            yield from self.translate_encoded(params, list(map(self.encode, read)), numbers, compactions=compactions)
            first += len(read)

    def _checked(self, lines: Iterable[InputLine]) -> Iterator[ConstrainedLine]:
        """The lines; constraints that can never be met are refused in their place, after the lines before them."""
        for line in map(ConstrainedLine.of, lines):
            self.check(line)
            yield line

    def check(self, line: ConstrainedLine) -> None:
        """Refuse a line with other features than the model reads, or with constraints that can never be met.

        Raises:
            ValueError: with what to do.
        """
        if is_blank(line.line):
            return
        if len(line.features) != len(self.pair.features.tokenizers):
            self.pair.features.encode(line.features)  # refused
        if line.prefix or any(line.phrases):
            token_arrays([line], self.pair, self.config.rules, rows=1)

    def encode(self, line: ConstrainedLine) -> EncodedLine:
        """The tokens of a line."""
        if is_blank(line.line):
            return EncodedLine(line)
        tokens = self.pair.encode_source(line.line)
        ids = read_source(tokens, self.config.max_source)
        constrained = self.config.batch_invariant and (line.prefix or any(line.phrases))
        sizes = array_sizes(line, self.pair, self.config.rules) if constrained else ()
        return EncodedLine(line, (ids, *self.pair.features.with_eos(line.features)), len(tokens) + 1 - len(ids), sizes)

    def compile(self, params: Params, shape: Shape, sizes: tuple[int, ...] = ()) -> None:
        """Compile the program of an invariant batch, by searching for the translations of nothing.

        Args:
            sizes: of the arrays of constraints (`array_sizes`).
        """
        empty = (append_eos([]),) * (1 + len(self.pair.features.tokenizers))
        constraints = empty_arrays(sizes, self.pair, rows=shape.rows)
        numbers = np.zeros(shape.rows, np.int32)
        jax.block_until_ready(self.search(params, pad_sources([empty], shape), numbers, compactions=0, **constraints))

    def translate_encoded(
        self, params: Params, lines: Sequence[EncodedLine], numbers: Sequence[int], *, compactions: int = 0
    ) -> list[Translation]:
        """The translations of lines, in order; random keys depend on their numbers."""
        results = [Translation(each.line.line, (), ()) for each in lines]
        groups: dict[tuple[int, ...], list[int]] = {}
        for row, each in enumerate(lines):
            if each.ids:
                groups.setdefault(each.sizes, []).append(row)
        for rows in groups.values():
            members = [lines[row] for row in rows]
            found = self._translate_group(params, members, [numbers[row] for row in rows], compactions)
            for row, translation in zip(rows, found, strict=True):
                results[row] = translation
        return results

    def _translate_group(
        self, params: Params, lines: Sequence[EncodedLine], numbers: Sequence[int], compactions: int
    ) -> list[Translation]:
        """The translations of lines, none of them blank, that can share a batch."""

        def compute(batch: list[int]) -> SearchResult:
            members = [lines[row] for row in batch]
            source = pad_sources([each.ids for each in members], self.config.batch_shape(members[0].lengths))
            of_rows = np.zeros(len(source_tokens(source)), np.int32)
            of_rows[: len(members)] = [numbers[row] % 2**31 for row in batch]
            constraints = token_arrays(
                [each.line for each in members],
                self.pair,
                self.config.rules,
                rows=len(of_rows),
                coarse=self.config.batch_invariant,
            )
            return self.search(params, source, of_rows, compactions=compactions, **constraints)

        results: dict[int, Translation] = {}
        for batch, result in run_batches(compute, [each.lengths for each in lines], **self.config.batching):
            for place, row in enumerate(batch):
                results[row] = self._translation(lines[row], result, place)
        return [results[row] for row in range(len(lines))]

    def _translation(self, encoded: EncodedLine, result: SearchResult, row: int) -> Translation:
        line, ids = encoded.line.line, encoded.ids[0]
        slots = np.flatnonzero(np.isfinite(result.scores[row]))
        possible = slots[result.log_probs[row, slots].min(-1, initial=0.0) > IMPOSSIBLE / 2]
        slots = (possible if len(possible) else slots).tolist()  # rules may leave nothing that is possible
        hypotheses = [self._hypothesis(line, result, row, slot, len(ids)) for slot in slots]
        if self.config.mbr_metric != "none" and hypotheses:
            texts = [hypothesis.text for hypothesis in hypotheses]
            order = consensus(texts, result.log_weights[row, slots].tolist(), MBR_METRICS[self.config.mbr_metric])
            hypotheses = [hypotheses[place]._replace(utility=utility) for place, utility in order]
        symbols = tuple(self.pair.source_symbols(ids.tolist(), line))
        return Translation(line, symbols, tuple(hypotheses), encoded.unread)

    def _hypothesis(self, line: str, result: SearchResult, row: int, slot: int, length: int) -> Hypothesis:
        count = int((result.tokens[row, slot] != PAD).sum())
        order = self.pair.reading_order(result.tokens[row, slot, :count].tolist())
        tokens = result.tokens[row, slot, order].tolist()
        alignment = np.array(result.alignment[row, slot, order, :length])
        replacements = self._replacements(line, tokens, alignment) if self.config.replace_unknown else ()
        return Hypothesis(
            self.pair.decode(tokens, line, replacements=replacements),
            float(result.scores[row, slot]),
            tuple(self.pair.target_symbols(tokens, line, replacements=replacements)),
            tuple(result.log_probs[row, slot, order].tolist()),
            alignment,
            bool(result.truncated[row, slot]),
        )

    def _replacements(self, line: str, tokens: list[int], alignment: Float[np.ndarray, "T S"]) -> list[str]:
        """For each unknown token the source word of the largest attention weight; empty for known tokens.

        Jean et al. 2015, arXiv:1412.2007; before attention, Luong et al. 2015, arXiv:1410.8206.
        """
        spans = self.pair.source.spans(line)
        alignment = alignment[:, :-1]  # without the end token; words beyond it were not read
        places = [
            int(weights.argmax()) if token == UNK and weights.any() else None
            for token, weights in zip(tokens, alignment, strict=True)
        ]
        return ["" if place is None else line[slice(*spans[place])].strip(" ") for place in places]
