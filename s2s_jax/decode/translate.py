"""Lines in, translations out, in the order of the input."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from s2s_jax.decode.batching import WINDOW, Ready, pad_sources, read_source, run_batches, windows
from s2s_jax.decode.compaction import COMPACTIONS
from s2s_jax.decode.lexical_constraints import ConstrainedLine, InputLine, token_arrays
from s2s_jax.decode.mbr import MBR_METRICS, consensus
from s2s_jax.decode.result import SearchResult
from s2s_jax.decode.search import CompiledSearch, SearchConfig
from s2s_jax.model.interface import Params
from s2s_jax.model.ops.logits import IMPOSSIBLE
from s2s_jax.shapes import PAD, UNK, source_tokens
from s2s_jax.text.copy_vocabulary import PairTokenizer
from s2s_jax.text.files import is_blank


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


class Translator:
    """A search and the tokenizers of both sides, ready to translate lines."""

    def __init__(self, search: CompiledSearch, pair: PairTokenizer, config: SearchConfig):
        """`search` is the search that `config` names, as `compiled_search` makes it."""
        self._search, self.pair, self.config = search, pair, config

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
            if not first and len(read) == full:
                compactions = COMPACTIONS  # there are enough lines to pay for the additional compilation
            yield from self._translate_window(params, read, first, compactions)
            first += len(read)

    def _checked(self, lines: Iterable[InputLine]) -> Iterator[ConstrainedLine]:
        """The lines; constraints that can never be met are refused in their place, after the lines before them."""
        for line in map(ConstrainedLine.of, lines):
            if len(line.features) != len(self.pair.features.tokenizers) and not is_blank(line.line):
                self.pair.features.encode(line.features)  # refused
            if (line.prefix or any(line.phrases)) and not is_blank(line.line):
                token_arrays([line], self.pair, self.config.rules, rows=1)
            yield line

    def _translate_window(
        self, params: Params, lines: list[ConstrainedLine], first: int, compactions: int
    ) -> list[Translation]:
        """The translations of lines; `first` is the number of the first one, which random keys depend on."""
        tokens = {row: self.pair.encode_source(each.line) for row, each in enumerate(lines) if not is_blank(each.line)}
        ids = {row: read_source(line, self.config.max_source) for row, line in tokens.items()}
        features = {row: self.pair.features.with_eos(lines[row].features) for row in tokens}
        rows = list(tokens)

        def compute(batch: list[int]) -> SearchResult:
            members = [rows[place] for place in batch]
            source = pad_sources([(ids[row], *features[row]) for row in members])
            numbers = np.zeros(len(source_tokens(source)), np.int32)
            numbers[: len(members)] = [(first + row) % 2**31 for row in members]
            constraints = token_arrays([lines[row] for row in members], self.pair, self.config.rules, rows=len(numbers))
            return self._search(params, source, numbers, compactions=compactions, **constraints)

        results = {row: Translation(each.line, (), ()) for row, each in enumerate(lines)}
        bounds = {"size": self.config.batch_size, "tokens": self.config.batch_tokens}
        for batch, result in run_batches(
            compute, [(len(ids[row]), *map(len, features[row])) for row in rows], **bounds
        ):
            for place, row in enumerate(rows[member] for member in batch):
                translation = self._translation(lines[row].line, ids[row], result, place)
                unread = len(tokens[row]) + 1 - len(ids[row])
                results[row] = translation._replace(unread=unread)
        return [results[row] for row in range(len(lines))]

    def _translation(self, line: str, ids: np.ndarray, result: SearchResult, row: int) -> Translation:
        slots = np.flatnonzero(np.isfinite(result.scores[row]))
        possible = slots[result.log_probs[row, slots].min(-1, initial=0.0) > IMPOSSIBLE / 2]
        slots = (possible if len(possible) else slots).tolist()  # rules may leave nothing that is possible
        hypotheses = [self._hypothesis(line, result, row, slot, len(ids)) for slot in slots]
        if self.config.mbr_metric != "none" and hypotheses:
            texts = [hypothesis.text for hypothesis in hypotheses]
            order = consensus(texts, result.log_weights[row, slots].tolist(), MBR_METRICS[self.config.mbr_metric])
            hypotheses = [hypotheses[place]._replace(utility=utility) for place, utility in order]
        return Translation(line, tuple(self.pair.source_symbols(ids.tolist(), line)), tuple(hypotheses))

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
