"""A sentence under exploration, and what is found about it as values of JSON."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from s2s_jax.decode.result import SearchResult
from s2s_jax.explore.beam_tree import Node
from s2s_jax.explore.steps import Steps
from s2s_jax.model.ops.logits import IMPOSSIBLE
from s2s_jax.shapes import PAD
from s2s_jax.text.copy_vocabulary import PairTokenizer


class Sentence(NamedTuple):
    """A source as the model reads it, and target tokens as they are shown beside it."""

    pair: PairTokenizer
    line: str
    ids: tuple[np.ndarray, ...]  # of the source and of each feature, with the end tokens
    unread: int = 0  # source tokens beyond search.max_source

    def about(self) -> dict[str, Any]:
        """The sentence itself."""
        symbols = self.pair.source_symbols(self.ids[0].tolist(), self.line)
        return {"source": self.line, "source_tokens": symbols, "unread": self.unread}

    def symbols(self, ids: Sequence[int]) -> list[str]:
        """The text that each target token is shown as."""
        return list(self.pair.target_symbols(ids, self.line))

    def text(self, ids: Sequence[int]) -> str:
        """The line that target tokens, in the model's order, stand for."""
        order = self.pair.reading_order(ids)
        return self.pair.decode([ids[place] for place in order], self.line)

    def tree(self, nodes: Sequence[Node]) -> list[dict[str, Any]]:
        """The nodes of a beam's tree; `parent` is a place in this list."""
        symbols = self.symbols([node.token for node in nodes])
        numbers = [{"log_prob": rounded(node.log_prob), "total": rounded(node.total)} for node in nodes]
        return [
            {"parent": node.parent, "step": node.step, "id": node.token, "token": symbol, **number, "fate": node.fate}
            for node, symbol, number in zip(nodes, symbols, numbers, strict=True)
        ]

    def step_record(self, steps: Steps, row: int, ids: list[int], *, attends: bool) -> dict[str, Any]:
        """What there is to see at each token of one target; of a model without attention, no attention."""
        places, source = slice(None, len(ids)), slice(None, len(self.ids[0]))
        best = steps.best[row, places]
        logs = rounded(steps.best_log_probs[row, places])
        symbols = [self.symbols(each.tolist()) for each in best]
        heads = () if isinstance(steps.heads, tuple) else np.moveaxis(steps.heads[row, places, :, source], 1, 0)
        return {
            "text": self.text(ids),
            "ids": ids,
            "tokens": self.symbols(ids),
            "log_probs": rounded(steps.log_probs[row, places]),
            "rank": steps.rank[row, places].tolist(),
            "entropy": rounded(steps.entropy[row, places]),
            "alternatives": [
                [{"id": number, "token": token, "log_prob": log} for number, token, log in zip(*each, strict=True)]
                for each in zip(best.tolist(), symbols, logs, strict=True)
            ],
            "attention": rounded(steps.alignment[row, places, source]) if attends else [],
            "heads": [rounded(head) for head in heads],
            "coverage": rounded(steps.alignment[row, places, source].sum(0)) if attends else [],
        }


def possible_hypotheses(result: SearchResult) -> list[tuple[list[int], float, bool]]:
    """Tokens, score, and whether it is truncated, of each hypothesis of the first row that is possible."""
    found = []
    for slot in np.flatnonzero(np.isfinite(result.scores[0])):
        tokens = [number for number in result.tokens[0, slot].tolist() if number != PAD]
        if tokens and result.log_probs[0, slot].min() > IMPOSSIBLE / 2:
            found.append((tokens, float(result.scores[0, slot]), bool(result.truncated[0, slot])))
    return found


def rounded(value: Any) -> Any:
    """Numbers with six digits, in lists as arrays have them; None for one that is not finite."""
    if isinstance(value, np.ndarray):
        return [rounded(each) for each in value] if value.ndim else rounded(float(value))
    return float(f"{value:.6g}") if np.isfinite(value) else None
