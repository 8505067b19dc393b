"""The answers that the page needs for fixed sentences, for a file that opens without a server."""

from collections.abc import Iterable
from typing import Any

from s2s_jax.explore.explorer import Explorer

INFLUENCES = ("saliency", "occlusion")  # of the best hypothesis of each sentence


def record_answers(explorer: Explorer, name: str, pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """What `page.offline_page` takes: every view of each sentence, and of its target where it is not empty.

    Args:
        name: of the run, as the page has it.
        pairs: lines with their targets.

    Raises:
        ValueError: as the explorer's methods; naming the number of the line.
    """
    answers: list[dict[str, Any]] = []
    for number, (line, target) in enumerate(pairs, 1):
        try:
            answers += _of_pair(explorer, line, target)
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from None
    return {"models": [{"name": name, "explores": True}], "answers": answers}


def _of_pair(explorer: Explorer, line: str, target: str) -> list[dict[str, Any]]:
    trace = explorer.trace(line)
    answers = [{"path": "trace", "body": {"line": line}, "answer": trace}]
    if trace["hypotheses"]:
        ids = trace["hypotheses"][0]["ids"]
        for method in INFLUENCES if explorer.run.model.embed is not None else ("occlusion",):
            body = {"line": line, "ids": ids, "method": method}
            answers.append({"path": "influence", "body": body, "answer": explorer.influence(**body)})
    if target:
        body = {"line": line, "target": target}
        answers.append({"path": "forced", "body": body, "answer": explorer.forced(**body)})
    return answers
