"""Random segmentations of a text into the pieces of a sentencepiece model.

sentencepiece can draw them itself, but its generator differs from process to process whatever its seed is, so a resumed
run would see others.
"""

import itertools
import math
import random
import re
from collections.abc import Iterator, Sequence

KNOWN_CHUNKS = 1 << 16  # whose weights are kept
SPACE = "\u2581"
WORD = re.compile(f"{SPACE}?[^{SPACE}]*")
Arc = tuple[int, float]  # where a piece begins, and the weight of all segmentations that end with it


class Segmenter:
    """Segmentations into the pieces of a model, byte-pair or unigram.

    Args:
        model: the content of a sentencepiece model.
    """

    def __init__(self, model: bytes):
        from sentencepiece.sentencepiece_model_pb2 import ModelProto  # type: ignore[attr-defined]

        proto, kinds = ModelProto(), ModelProto.SentencePiece
        proto.ParseFromString(model)
        self.setting = {1: "sampling_alpha", 2: "dropout"}.get(proto.trainer_spec.model_type, "")
        texts = {n: piece for n, piece in enumerate(proto.pieces) if piece.type in (kinds.NORMAL, kinds.UNUSED)}
        self.numbers = {piece.piece: n for n, piece in texts.items() if piece.type == kinds.NORMAL}
        self.texts = {n: piece for piece, n in self.numbers.items()}  # bytes and symbols are kept as they are
        self._scores = {piece.piece: piece.score for piece in texts.values()}
        self._longest = max(map(len, self._scores), default=0)
        self._by_word = not any(SPACE in text[1:] for text in self._scores)
        self._arcs: dict[tuple[str, float], list[list[Arc]]] = {}

    def redraw(self, numbers: Sequence[int], *, strength: float, seed: int) -> list[int]:
        """The numbers of the pieces of a random segmentation of the same text."""
        rng, drawn = random.Random(seed), []
        draw = self._merged if self.setting == "dropout" else self._sampled
        for is_text, run in itertools.groupby(numbers, lambda number: number in self.texts):
            if not is_text:
                drawn += run
                continue
            run = [*run]
            text = "".join(self.texts[number] for number in run)
            chunks = filter(None, WORD.findall(text)) if self._by_word else [text]
            pieces = [piece for chunk in chunks for piece in draw(chunk, strength, rng)]
            known = all(piece in self.numbers for piece in pieces)  # a model may have no piece of a single letter
            drawn += [self.numbers[piece] for piece in pieces] if known else run
        return drawn

    def _merged(self, chunk: str, dropout: float, rng: random.Random) -> list[str]:
        """Byte pairs merged with dropout. Provilkov et al. 2020, algorithm 1."""
        symbols, parts, scores = [*chunk], {}, self._scores
        while len(symbols) > 1:
            best, place = -math.inf, -1
            for index, (left, right) in enumerate(itertools.pairwise(symbols)):
                score = scores.get(left + right)
                if score is not None and score > best and rng.random() >= dropout:
                    best, place = score, index
            if place < 0:
                break
            pair = symbols[place], symbols[place + 1]
            parts["".join(pair)] = pair
            symbols[place : place + 2] = ["".join(pair)]
        return [piece for symbol in symbols for piece in self._used(symbol, parts)]

    def _used(self, symbol: str, parts: dict[str, tuple[str, str]]) -> Iterator[str]:
        """The symbol, or what it was merged from where it is a rare piece that is not used."""
        if symbol in self.numbers or symbol not in parts:
            yield symbol
        else:
            for part in parts[symbol]:
                yield from self._used(part, parts)

    def _sampled(self, chunk: str, alpha: float, rng: random.Random) -> list[str]:
        """A segmentation, drawn in proportion to its probability to the power alpha. Kudo 2018, section 3.2."""
        arcs = self._arcs.get((chunk, alpha))
        if arcs is None:
            if len(self._arcs) == KNOWN_CHUNKS:
                self._arcs.clear()
            arcs = self._arcs[chunk, alpha] = self._forward(chunk, alpha)
        pieces, end = [], len(chunk)
        while end:
            weights = [weight for _, weight in arcs[end]]
            start, _ = rng.choices(arcs[end], weights)[0] if len(weights) > 1 else arcs[end][0]
            pieces.append(chunk[start:end])
            end = start
        return pieces[::-1]

    def _forward(self, chunk: str, alpha: float) -> list[list[Arc]]:
        """For each place the pieces that end there, with weights scaled so that the largest is 1."""
        totals, arcs = [0.0], [[]]  # log of the summed weights of all segmentations up to a place
        for end in range(1, len(chunk) + 1):
            found = []
            for start in range(max(0, end - self._longest), end):
                piece = chunk[start:end]
                if totals[start] > -math.inf and piece in self.numbers:
                    found.append((start, totals[start] + alpha * self._scores[piece]))
            largest = max((weight for _, weight in found), default=-math.inf)
            scaled = [(start, math.exp(weight - largest)) for start, weight in found]
            totals.append(largest + math.log(sum(weight for _, weight in scaled)) if scaled else -math.inf)
            arcs.append(scaled)
        return arcs
