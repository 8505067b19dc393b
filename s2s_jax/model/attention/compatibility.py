"""Which choices of attention cannot go together, why, and what to take instead?"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from s2s_jax.model.attention.config import AttentionConfig
from s2s_jax.model.attention.constraints import CONSTRAINTS
from s2s_jax.model.attention.history import HISTORIES
from s2s_jax.model.attention.scores import SCORES

PLACES_ALONE = ("location", "dynamic-convolution", "gaussian-mixture", "gaussian-mixture-v2")  # their keys say nothing


class Rule(NamedTuple):
    """What cannot be."""

    broken: Callable[[AttentionConfig], bool]
    reason: str  # filled with the config's values
    advice: str


def _kept_to_itself(config: AttentionConfig) -> bool:
    return config.score == "none" and (config.history, config.constraint, config.heads) != ("none", "none", 1)


RULES = (
    Rule(
        _kept_to_itself,
        "attention.score=none looks at nothing, so it has no history, constraint or heads",
        "leave those out",
    ),
    Rule(
        lambda config: config.score == "location-aware" and not HISTORIES[config.history].width,
        "attention.score=location-aware looks at past alignments, which attention.history={history} does not keep",
        "take attention.history=previous, coverage or previous-and-coverage",
    ),
    Rule(
        lambda config: config.score == "dynamic-convolution" and config.history != "previous",
        "attention.score=dynamic-convolution convolves the previous alignment, got attention.history={history}",
        "take attention.history=previous",
    ),
    Rule(
        lambda config: config.score == "dynamic-convolution" and config.normaliser == "constrained-softmax",
        "attention.score=dynamic-convolution goes with attention.history=previous, "
        "which does not keep how much weight attention.normaliser=constrained-softmax may still give",
        "take attention.normaliser=softmax",
    ),
    Rule(
        lambda config: (
            config.score in PLACES_ALONE
            and config.score != "dynamic-convolution"
            and HISTORIES[config.history].width != 0
            and config.normaliser != "constrained-softmax"
        ),
        "attention.score={score} has no keys that attention.history={history} could mark",
        "take attention.score=location-aware or one of content such as additive, or attention.history=none or "
        "intra-temporal, which needs no keys",
    ),
    Rule(
        lambda config: CONSTRAINTS[config.constraint].monotonic and config.normaliser != "sigmoid",
        "attention.constraint={constraint} reads each weight as a probability of its own, "
        "which attention.normaliser={normaliser} does not give",
        "take attention.normaliser=sigmoid",
    ),
    Rule(
        lambda config: config.constraint in ("mocha", "milk") and (config.score in PLACES_ALONE or _follows(config)),
        "attention.constraint={constraint} asks a second score what the tokens say, "
        "which attention.score={score} does not know",
        "take a score of content such as additive or general",
    ),
    Rule(
        lambda config: (
            config.score != "none"
            and config.normaliser == "constrained-softmax"
            and config.history not in ("coverage", "previous-and-coverage", "coverage-fertility")
        ),
        "attention.normaliser=constrained-softmax needs to know how much weight each token has left, "
        "which attention.history={history} does not keep",
        "take attention.history=coverage or coverage-fertility",
    ),
    Rule(
        lambda config: config.constraint == "local-p" and not config.window,
        "attention.constraint=local-p puts its centre between tokens, where attention.window=0 reaches none",
        "make attention.window at least 1",
    ),
    Rule(
        lambda config: config.heads > 1 and bool(config.size % config.heads),
        "attention.heads={heads} does not divide attention.size={size}",
        "make the one a multiple of the other",
    ),
)


def _follows(config: AttentionConfig) -> bool:
    return config.score in SCORES and (SCORES[config.score].follows or SCORES[config.score].remembers)


def refusals(config: AttentionConfig) -> Iterator[str]:
    """Why the choices of a config cannot go together: reason, and what to take instead."""
    values = {name: getattr(config, name) for name in ("score", "history", "normaliser", "constraint", "heads", "size")}
    for rule in RULES:
        if rule.broken(config):
            yield f"{rule.reason.format(**values)}; {rule.advice}."


def refusal(config: AttentionConfig) -> str | None:
    """The first reason, or None where there is none."""
    return next(refusals(config), None)
