"""Lines in, translations out: in the order of the input, with memory that does not grow with it.

Lines are decoded in windows, sorted by length inside a window; source lengths and row counts are rounded up to few
shapes, so that little is compiled. A blank line is answered with an empty line and never reaches the model.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from s2s_jax.decode.mbr import UTILITIES, consensus
from s2s_jax.decode.result import Found
from s2s_jax.decode.search_config import SearchConfig, compiled_search
from s2s_jax.decode.wanted import Wanted, phrase_ids, prefix_ids
from s2s_jax.model.fusion import fused
from s2s_jax.model.interface import Model, Params
from s2s_jax.shapes import PAD, UNK
from s2s_jax.text.batches import ended
from s2s_jax.text.lines import is_blank
from s2s_jax.text.own_words import PairTokeniser
from s2s_jax.text.tokenise import Tokeniser

WINDOW = 16  # batches sorted together


class Hypothesis(NamedTuple):
    """One translation of a line."""

    text: str
    score: float  # by search.ranking
    tokens: tuple[str, ...]  # the end token counted, unless it was cut off
    log_probs: tuple[float, ...]  # of each token, nats
    alignment: Float[np.ndarray, "T S"]  # weights of the source tokens for each token
    truncated: bool  # cut off at the length bound, without an end


class Translation(NamedTuple):
    """A line and what became of it; no hypothesis for a blank line."""

    source: str
    source_tokens: tuple[str, ...]  # the end token counted
    hypotheses: tuple[Hypothesis, ...]  # best first: by score, by search.utility, or samples as they were drawn

    @property
    def text(self) -> str:
        """The best translation; empty for a blank line."""
        return self.hypotheses[0].text if self.hypotheses else ""


class Translator:
    """A model with its parameters, tokenisers and search, ready to translate."""

    def __init__(
        self,
        model: Model,
        *,
        source: Tokeniser,
        target: Tokeniser,
        search: SearchConfig,
        max_length: int,
        slots: int = 0,
        language: tuple[Model, Params] | None = None,
    ):
        """Slots: the model's decoder.copy_slots where it copies words. Language: what search.language_model names."""
        self.pair, self.search = PairTokeniser(source, target, slots=slots), search
        longest = search.max_length or max_length
        if language is None:
            self._find = compiled_search(model, search, longest)
            return
        beside, of_beside = language
        find = compiled_search(fused(model, beside, weight=search.language_weight), search, longest)
        self._find = lambda params, *given, **wanted: find((params, of_beside), *given, **wanted)

    def translate(self, params: Params, lines: Iterable[str | Wanted], *, first: int = 0) -> Iterator[Translation]:
        """A translation for each line, in their order; lines are read a window at a time.

        Args:
            first: the number of the first line, by which chance differs from line to line.
        """
        lines = iter(lines)
        while window := list(itertools.islice(lines, self.search.sentences * WINDOW)):
            yield from self._window(params, [Wanted.of(line) for line in window], first)
            first += len(window)

    def _window(self, params: Params, wanted: list[Wanted], first: int) -> list[Translation]:
        lines = [one.line for one in wanted]
        encoded = [ended([]) if is_blank(line) else ended(self.pair.encode_source(line)) for line in lines]
        answers = {number: Translation(line, (), ()) for number, line in enumerate(lines) if is_blank(line)}
        waiting = sorted(set(range(len(lines))) - set(answers), key=lambda number: len(encoded[number]))
        for start in range(0, len(waiting), self.search.sentences):
            members = waiting[start : start + self.search.sentences]
            source = filled([encoded[member] for member in members])
            numbers = np.zeros(len(source), np.int32)
            numbers[: len(members)] = [(first + member) % 2**31 for member in members]
            here = [wanted[member] for member in members]
            prefix = prefix_ids(here, self.pair, len(source))
            phrases = phrase_ids(here, self.pair, len(source), self.search.rules)
            found = jax.device_get(self._find(params, source, numbers, prefix=prefix, phrases=phrases))
            for row, member in enumerate(members):
                answers[member] = self._answer(lines[member], encoded[member], found, row)
        return [answers[number] for number in range(len(lines))]

    def _answer(self, line: str, ids: np.ndarray, found: Found, row: int) -> Translation:
        real = [slot for slot, score in enumerate(found.scores[row]) if np.isfinite(score)]
        hypotheses = [self._hypothesis(line, found, row, slot, len(ids)) for slot in real]
        if self.search.utility != "none" and hypotheses:
            texts = [hypothesis.text for hypothesis in hypotheses]
            order = consensus(texts, found.log_weights[row, real].tolist(), UTILITIES[self.search.utility])
            hypotheses = [hypotheses[place] for place, _ in order]
        return Translation(line, tuple(self.pair.source_symbols(ids.tolist(), line)), tuple(hypotheses))

    def _hypothesis(self, line: str, found: Found, row: int, slot: int, length: int) -> Hypothesis:
        count = int((found.tokens[row, slot] != PAD).sum())
        tokens = found.tokens[row, slot, :count].tolist()
        alignment = np.array(found.alignment[row, slot, :count, :length])
        instead = self._looked_at(line, tokens, alignment) if self.search.replace_unknown else ()
        return Hypothesis(
            self.pair.decode(tokens, line, instead=instead),
            float(found.scores[row, slot]),
            tuple(self.pair.target_symbols(tokens, line, instead=instead)),
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
