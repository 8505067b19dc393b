"""Which choices of attention cannot go together, why, and what to take instead?"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from s2s_jax.model.attention.config import AttentionConfig
from s2s_jax.model.attention.constraints import CONSTRAINTS
from s2s_jax.model.attention.history import HISTORIES
from s2s_jax.model.attention.scores import SCORES

POSITION_ONLY = ("location", "dynamic-convolution", "gaussian-mixture", "gaussian-mixture-v2")  # their keys say nothing


class Rule(NamedTuple):
    """What cannot be."""

    broken: Callable[[AttentionConfig], bool]
    reason: str  # filled with the config's values
    remedy: str


def _kept_to_itself(config: AttentionConfig) -> bool:
    return config.score == "none" and (config.history, config.constraint, config.heads) != ("none", "none", 1)


RULES = (
    Rule(
        _kept_to_itself,
        "model.attention.score=none looks at nothing, so it has no history, constraint or heads",
        "leave those out",
    ),
    Rule(
        lambda config: config.score == "location-aware" and not HISTORIES[config.history].width,
        "model.attention.score=location-aware looks at past alignments, which model.attention.history={history} does not keep",
        "take model.attention.history=previous, coverage or previous-and-coverage",
    ),
    Rule(
        lambda config: config.score == "dynamic-convolution" and config.history != "previous",
        "model.attention.score=dynamic-convolution convolves the previous alignment, got model.attention.history={history}",
        "take model.attention.history=previous",
    ),
    Rule(
        lambda config: config.score == "dynamic-convolution" and config.normalizer == "constrained-softmax",
        "model.attention.score=dynamic-convolution goes with model.attention.history=previous, "
        "which does not keep how much weight model.attention.normalizer=constrained-softmax may still give",
        "take model.attention.normalizer=softmax",
    ),
    Rule(
        lambda config: (
            config.score in POSITION_ONLY
            and config.score != "dynamic-convolution"
            and HISTORIES[config.history].width != 0
            and config.normalizer != "constrained-softmax"
        ),
        "model.attention.score={score} has no keys that model.attention.history={history} could mark",
        "take model.attention.score=location-aware or one of content such as additive, or model.attention.history=none or "
        "intra-temporal, which needs no keys",
    ),
    Rule(
        lambda config: CONSTRAINTS[config.constraint].monotonic and config.normalizer != "sigmoid",
        "model.attention.constraint={constraint} reads each weight as a probability of its own, "
        "which model.attention.normalizer={normalizer} does not give",
        "take model.attention.normalizer=sigmoid",
    ),
    Rule(
        lambda config: config.constraint in ("mocha", "milk") and (config.score in POSITION_ONLY or _follows(config)),
        "model.attention.constraint={constraint} asks a second score what the tokens say, "
        "which model.attention.score={score} does not know",
        "take a score of content such as additive or general",
    ),
    Rule(
        lambda config: (
            config.score != "none"
            and config.normalizer == "constrained-softmax"
            and config.history not in ("coverage", "previous-and-coverage", "coverage-fertility")
        ),
        "model.attention.normalizer=constrained-softmax needs to know how much weight each token has left, "
        "which model.attention.history={history} does not keep",
        "take model.attention.history=coverage or coverage-fertility",
    ),
    Rule(
        lambda config: config.constraint == "local-p" and not config.window,
        "model.attention.constraint=local-p puts its center between tokens, where model.attention.window=0 reaches none",
        "make model.attention.window at least 1",
    ),
    Rule(
        lambda config: config.heads > 1 and bool(config.size % config.heads),
        "model.attention.heads={heads} does not divide model.attention.size={size}",
        "make the one a multiple of the other",
    ),
)


def _follows(config: AttentionConfig) -> bool:
    return config.score in SCORES and (SCORES[config.score].needs_history or SCORES[config.score].stateful)


def violations(config: AttentionConfig) -> Iterator[str]:
    """Why the choices of a config cannot go together: reason, and what to take instead."""
    values = {name: getattr(config, name) for name in ("score", "history", "normalizer", "constraint", "heads", "size")}
    for rule in RULES:
        if rule.broken(config):
            yield f"{rule.reason.format(**values)}; {rule.remedy}."


def first_violation(config: AttentionConfig) -> str | None:
    """The first reason, or None where there is none."""
    return next(violations(config), None)
