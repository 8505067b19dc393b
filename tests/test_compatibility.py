"""Which choices of attention cannot go together, does the advice help, and does all the rest build?"""

import dataclasses
import functools
import itertools
import re

import attention_harness as harness
import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from s2s_jax.model.attention.attention import axes, build_attention, check
from s2s_jax.model.attention.compatibility import RULES, first_violation, violations
from s2s_jax.model.attention.config import VALUES

NEEDS_SIGMOID = (
    "model.attention.constraint={0} reads each weight as a probability of its own, which model.attention.normalizer={1} "
    "does not give; take model.attention.normalizer=sigmoid."
)
NO_KEYS = (
    "model.attention.score={0} has no keys that model.attention.history={1} could mark; "
    "take model.attention.score=location-aware or one of content such as additive, or model.attention.history=none or "
    "intra-temporal, which needs no keys."
)
NOT_LEFT = (
    "model.attention.normalizer=constrained-softmax needs to know how much weight each token has left, "
    "which model.attention.history={0} does not keep; take model.attention.history=coverage or coverage-fertility."
)

# What is refused, in which words, and all that the advice says to do instead; a case or more for each rule, in order.
REFUSED = [
    (
        {"score": "none", "history": "coverage"},
        "model.attention.score=none looks at nothing, so it has no history, constraint or heads; leave those out.",
        [{"history": "none"}],
    ),
    (
        {"score": "none", "history": "previous", "constraint": "window", "heads": 2, "normalizer": "sigmoid"},
        "model.attention.score=none looks at nothing, so it has no history, constraint or heads; leave those out.",
        [{"history": "none", "constraint": "none", "heads": 1}],
    ),
    (
        {"score": "location-aware"},
        "model.attention.score=location-aware looks at past alignments, which model.attention.history=none does not keep; "
        "take model.attention.history=previous, coverage or previous-and-coverage.",
        [{"history": "previous"}, {"history": "coverage"}, {"history": "previous-and-coverage"}],
    ),
    (
        {"score": "dynamic-convolution", "history": "coverage"},
        "model.attention.score=dynamic-convolution convolves the previous alignment, got model.attention.history=coverage; "
        "take model.attention.history=previous.",
        [{"history": "previous"}],
    ),
    (
        {"score": "dynamic-convolution", "history": "previous", "normalizer": "constrained-softmax"},
        "model.attention.score=dynamic-convolution goes with model.attention.history=previous, which does not keep how much "
        "weight model.attention.normalizer=constrained-softmax may still give; take model.attention.normalizer=softmax.",
        [{"normalizer": "softmax"}],
    ),
    (
        {"score": "location", "history": "coverage"},
        NO_KEYS.format("location", "coverage"),
        [{"score": "location-aware"}, {"score": "additive"}, {"history": "none"}, {"history": "intra-temporal"}],
    ),
    (
        {"score": "gaussian-mixture", "history": "coverage-gru"},
        NO_KEYS.format("gaussian-mixture", "coverage-gru"),
        [{"score": "location-aware"}, {"score": "additive"}, {"history": "none"}, {"history": "intra-temporal"}],
    ),
    ({"constraint": "monotonic"}, NEEDS_SIGMOID.format("monotonic", "softmax"), [{"normalizer": "sigmoid"}]),
    (
        {"constraint": "stepwise", "normalizer": "sparsemax"},
        NEEDS_SIGMOID.format("stepwise", "sparsemax"),
        [{"normalizer": "sigmoid"}],
    ),
    (
        {"constraint": "mocha", "normalizer": "sigmoid", "score": "location"},
        "model.attention.constraint=mocha asks a second score what the tokens say, "
        "which model.attention.score=location does not know; take a score of content such as additive or general.",
        [{"score": "additive"}, {"score": "general"}],
    ),
    (
        {"constraint": "milk", "normalizer": "sigmoid", "score": "location-aware", "history": "previous"},
        "model.attention.constraint=milk asks a second score what the tokens say, "
        "which model.attention.score=location-aware does not know; take a score of content such as additive or general.",
        [{"score": "additive"}, {"score": "general"}],
    ),
    (
        {"normalizer": "constrained-softmax"},
        NOT_LEFT.format("none"),
        [{"history": "coverage"}, {"history": "coverage-fertility"}],
    ),
    (
        {"normalizer": "constrained-softmax", "history": "previous"},
        NOT_LEFT.format("previous"),
        [{"history": "coverage"}, {"history": "coverage-fertility"}],
    ),
    (
        {"constraint": "local-p", "window": 0},
        "model.attention.constraint=local-p puts its center between tokens, where model.attention.window=0 reaches none; "
        "make model.attention.window at least 1.",
        [{"window": 1}],
    ),
    (
        {"heads": 3, "size": 4},
        "model.attention.heads=3 does not divide model.attention.size=4; make the one a multiple of the other.",
        [{"size": 6}, {"heads": 2}],
    ),
]
ONE_SIZE = ("dot", "scaled-dot", "cosine", "linear")  # query and keys are multiplied as they are
AXES = axes()
CHOICES = {**AXES, "heads": (1, 2), "values": VALUES}


@pytest.mark.parametrize(("choices", "line", "instead"), REFUSED, ids=[str(number) for number in range(len(REFUSED))])
def test_what_cannot_be_is_refused_and_the_advice_helps(choices, line, instead):
    config = harness.chosen(**choices)
    assert next(violations(config)) == line
    with pytest.raises(ValueError, match="attention") as refused:
        check(config)
    assert str(refused.value) == line
    for advice in instead:
        better = dataclasses.replace(config, **advice)
        assert first_violation(better) is None
        looked(better)


def test_every_rule_is_tested():
    broken = {
        next(number for number, rule in enumerate(RULES) if rule.broken(harness.chosen(**case[0]))) for case in REFUSED
    }
    assert broken == set(range(len(RULES)))


def test_a_name_that_stands_in_no_table_is_refused_with_the_nearest():
    for axis, typo, meant in (
        ("score", "aditive", "additive"),
        ("normalizer", "softmx", "softmax"),
        ("history", "coverag", "coverage"),
        ("constraint", "monotonc", "monotonic"),
    ):
        with pytest.raises(ValueError, match=f"model.attention.{axis} must be one of .*; did you mean '{meant}'"):
            check(harness.chosen(**{axis: typo}))


def looked(config):
    """Ask for one step of an attention, in shapes alone: its own, and those that a scan and a beam count on."""
    batch, tokens, widths = 2, 3, []
    halved = config.values == "split" and config.heads == 1 and config.score in ONE_SIZE
    memory = harness.WIDTH * (2 if halved else 1)

    def look(memory, query):
        attention = build_attention(config, harness.WIDTH, memory.shape[-1], dtype=jnp.float32, rngs=oracles.OneKey())
        widths.append(attention.width)
        keys, mask = attention.prepare(memory), jnp.ones((batch, tokens), bool)
        start, noise = attention.start(keys, mask), jnp.zeros((batch, 2), jnp.uint32)
        values = attention.values(memory)
        return start, attention.attend(attention.step_weights(), start, query, keys, values, mask, noise)

    shapes = (batch, tokens, memory), (batch, harness.WIDTH)
    start, found = jax.eval_shape(look, *(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes))
    assert found.alignment.shape == (batch, tokens)
    assert found.context.shape == (batch, *widths)
    assert all(leaf.shape == (batch, config.heads, tokens) for leaf in jax.tree.leaves(found.heads))
    shapes, after = (jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), state) for state in (start, found.state))
    assert shapes == after
    assert all(leaf.shape[0] == batch for leaf in jax.tree.leaves(start))


def every_pair():
    """All pairs of values of different axes, as (axis, value) twice."""
    values = {axis: [(axis, value) for value in values] for axis, values in CHOICES.items()}
    return [
        pair
        for one, other in itertools.combinations(CHOICES, 2)
        for pair in itertools.product(values[one], values[other])
    ]


def pairs_of(config):
    return set(itertools.combinations([(axis, getattr(config, axis)) for axis in CHOICES], 2))


def filled(random, choices, *, covered):
    """A config with some choices, the others drawn so that many pairs are new; None where no draw goes with them."""
    drawn = ({axis: values[random.integers(len(values))] for axis, values in CHOICES.items()} for _ in range(12))
    configs = (harness.chosen(**{**others, "heads": 1, **choices}) for others in drawn)
    fitting = [config for config in configs if first_violation(config) is None]
    return max(fitting, key=lambda config: len(pairs_of(config) - covered), default=None)


def advised(**choices):
    """A config with some choices, the others as the advice says; None where it says to change these."""
    try:
        return harness.fitted(**choices)
    except AssertionError:
        return None


@functools.cache
def possible():
    """The pairs that some config has, and few configs that have them all between them.

    A pair is filled up with choices drawn at random, where they can go together with it, or as the advice says.
    """
    random, covered, configs, impossible = np.random.default_rng(1), set(), [], set()
    for pair in every_pair():
        if pair in covered:
            continue
        config = filled(random, dict(pair), covered=covered) or advised(**dict(pair))
        # With constrained-softmax alone a history need not mark keys, so that scores without any can have one.
        config = config or advised(**{"normalizer": "constrained-softmax", **dict(pair)})
        if config is None:
            impossible.add(pair)
            continue
        configs.append(config)
        covered |= pairs_of(config)
    assert not covered & impossible
    return impossible, configs


def test_the_pairs_that_cannot_be_are_those_of_the_rules():
    wanted = {(("score", "none"), (axis, value)) for axis in ("history", "constraint") for value in AXES[axis][1:]}
    wanted |= {(("score", "none"), ("heads", 2))}
    walks, seconds = ("monotonic", "mocha", "milk", "stepwise"), ("mocha", "milk")
    soft = set(AXES["normalizer"]) - {"sigmoid"}
    wanted |= {(("normalizer", name), ("constraint", walk)) for name in soft for walk in walks}
    follows, places = ("location-aware", "dynamic-convolution"), ("location", "gaussian-mixture", "gaussian-mixture-v2")
    wanted |= {(("score", name), ("constraint", second)) for name in (*follows, *places) for second in seconds}
    unsaid = ("previous", "coverage-tanh", "coverage-gru")  # with constrained-softmax the other coverages limit
    wanted |= {(("score", name), ("history", history)) for name in places for history in unsaid}
    wanted |= {(("normalizer", "constrained-softmax"), ("history", name)) for name in (*unsaid, "intra-temporal")}
    wanted |= {(("score", "location-aware"), ("history", name)) for name in ("none", "intra-temporal")}
    others = set(AXES["history"]) - {"previous"}
    wanted |= {(("score", "dynamic-convolution"), ("history", name)) for name in others}
    wanted |= {(("score", "dynamic-convolution"), ("normalizer", "constrained-softmax"))}
    impossible, _ = possible()
    assert impossible == wanted


@pytest.mark.wide
def test_every_pair_that_can_be_builds_and_looks():
    for config in possible()[1]:
        looked(config)


@pytest.mark.parametrize(
    ("number", "message"),
    [
        ({"kernel": 4}, "model.attention.kernel must be odd, so that a token stands in its middle, got 4"),
        ({"heads": 0}, "model.attention.heads must be positive, got 0"),
        ({"temperature": 0.0}, "model.attention.temperature must be above 0, got 0.0"),
        ({"values": "splt"}, "did you mean 'split'?"),
        ({"alpha": 1.0, "learned_alpha": True}, "model.attention.alpha must be above 1 where it is learned"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(number, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        harness.chosen(**number)
