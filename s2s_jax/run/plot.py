"""Pictures of a run's attention."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from s2s_jax.decode.forced_decoding import ScoredPair
from s2s_jax.decode.lexical_constraints import ConstrainedLine, InputLine
from s2s_jax.evaluate.evaluation import token_links
from s2s_jax.run.loaded_run import Run


def draw(run: Run, pairs: Sequence[ScoredPair], path: Path) -> Path:
    """A picture of the alignments of pairs, gold links outlined where they are known."""
    from s2s_jax.evaluate.plots import Picture, save_grid  # matplotlib is slow to import

    pictures = [
        Picture(
            source=pair.source_tokens,
            target=pair.tokens,
            alignment=pair.alignment,
            title=f"{pair.example.source} → {pair.example.target}",
            gold=None if pair.example.links is None else token_links(pair.example, run.pair.source, run.pair.target),
        )
        for pair in pairs
    ]
    return save_grid(path, pictures)


def own_pairs(run: Run, lines: Iterable[InputLine]) -> list[ScoredPair]:
    """Lines with the run's own translations of them, scored; lines with an empty translation are left out."""
    inputs = [*map(ConstrainedLine.of, lines)]
    translated = zip(inputs, run.stream(inputs), strict=True)
    return list(run.score((each.line, found.text, *each.features) for each, found in translated if found.text))
