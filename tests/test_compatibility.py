"""Are illegal combinations refused, all at once, with remedies that work; does everything else build?"""

import dataclasses
import functools
import itertools
import re
import typing
from pathlib import Path

import attention_harness as harness
import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from jax.interpreters import partial_eval

from s2s_jax.config import Experiment, override
from s2s_jax.model import compatibility
from s2s_jax.model.attention import config as attention_config
from s2s_jax.model.attention.attention import WITHOUT_ATTENTION
from s2s_jax.model.attention.config import AttentionConfig
from s2s_jax.model.attention.constraints import CONSTRAINTS
from s2s_jax.model.attention.heads import build_attention
from s2s_jax.model.attention.history import HISTORIES
from s2s_jax.model.attention.normalizers import NORMALIZERS
from s2s_jax.model.attention.scores import SCORES
from s2s_jax.model.compatibility import (
    attention_violations,
    axis_names,
    effective,
    is_legal_attention,
    violations,
    without_effect,
)
from s2s_jax.model.copy_mechanism import COPYING, CopyName
from s2s_jax.model.interface import scan_of_step
from s2s_jax.model.seq2seq import ModelConfig, build

# The rule that is broken, settings that break it, and the whole message where it is pinned.
BROKEN = [
    (
        "without attention",
        {"attention.score": "none", "attention.history": "coverage"},
        "model.attention.score=none is a model without attention, which cannot have "
        "model.attention.history=coverage; use "
        "--model.attention.history none or --model.attention.score general or --model.attention.score additive.",
    ),
    (
        "without attention",
        {"attention.score": "none", "attention.history": "previous", "attention.constraint": "window"},
        "model.attention.score=none is a model without attention, which cannot have model.attention.history=previous, "
        "model.attention.constraint=window; use --model.attention.history none --model.attention.constraint none or "
        "--model.attention.score general or --model.attention.score additive.",
    ),
    (
        "score needs history",
        {"attention.score": "location-aware"},
        "model.attention.score=location-aware reads earlier alignments, which model.attention.history=none does not "
        "keep; use --model.attention.history previous or --model.attention.history coverage or "
        "--model.attention.history previous-and-coverage.",
    ),
    (
        "score needs history",
        {"attention.score": "dynamic-convolution", "attention.history": "coverage"},
        "model.attention.score=dynamic-convolution reads the previous alignment and nothing else, which "
        "model.attention.history=coverage does not give; use --model.attention.history previous or "
        "--model.attention.score location-aware.",
    ),
    (
        "history needs keys",
        {"attention.score": "location", "attention.history": "coverage"},
        "model.attention.history=coverage is added to the keys, which model.attention.score=location does not have; "
        "use --model.attention.history none or --model.attention.score additive or --model.attention.score "
        "location-aware.",
    ),
    ("history needs keys", {"attention.score": "gaussian-mixture", "attention.history": "coverage-gru"}, None),
    (
        "constraint needs probabilities",
        {"attention.constraint": "monotonic"},
        "model.attention.constraint=monotonic reads each weight as an independent probability, which "
        "model.attention.normalizer=softmax does not give; use --model.attention.normalizer sigmoid or "
        "--model.attention.constraint none.",
    ),
    (
        "second score needs content",
        {"attention.constraint": "mocha", "attention.normalizer": "sigmoid", "attention.score": "location"},
        "model.attention.constraint=mocha has a second score of the tokens' content alone, which "
        "model.attention.score=location is not; use --model.attention.score additive or --model.attention.score "
        "general or --model.attention.constraint monotonic.",
    ),
    (
        "second score needs content",
        {
            "attention.constraint": "milk",
            "attention.normalizer": "sigmoid",
            "attention.score": "location-aware",
            "attention.history": "previous",
        },
        None,
    ),
    (
        "normalizer needs a bound",
        {"attention.normalizer": "constrained-softmax"},
        "model.attention.normalizer=constrained-softmax needs the remaining weight of each token, which "
        "model.attention.history=none does not keep; use --model.attention.history coverage or "
        "--model.attention.history coverage-fertility or --model.attention.normalizer softmax.",
    ),
    (
        "normalizer needs a bound",  # a history that limits weights would not be the previous alignment
        {
            "attention.score": "dynamic-convolution",
            "attention.history": "previous",
            "attention.normalizer": "constrained-softmax",
        },
        "model.attention.normalizer=constrained-softmax needs the remaining weight of each token, which "
        "model.attention.history=previous does not keep; use --model.attention.normalizer softmax.",
    ),
    (
        "constraint needs a window",
        {"attention.constraint": "local-p", "attention.window": 0},
        "model.attention.constraint=local-p has its center between tokens, and model.attention.window=0 reaches "
        "none; use --model.attention.window 1.",
    ),
    (
        "heads divide size",
        {"attention.heads": 3, "attention.size": 4},
        "model.attention.heads=3 does not divide model.attention.size=4; use --model.attention.size 6 or "
        "--model.attention.heads 1.",
    ),
    (
        "learned alpha starts above 1",
        {"attention.normalizer": "alpha-entmax", "attention.learned_alpha": True, "attention.alpha": 1.0},
        "model.attention.learned_alpha=true starts from model.attention.alpha, which must be above 1, got 1.0; use "
        "--model.attention.alpha 1.5 or --model.attention.learned-alpha false.",
    ),
    (
        "score needs equal widths",
        {"attention.score": "dot", "decoder.size": 100},
        "model.attention.score=dot multiplies a decoder state (model.decoder.size=100) by a key 512 wide, of which an "
        "encoder state has 512; use --model.attention.score general or --model.decoder.size 512.",
    ),
    ("score needs equal widths", {"attention.score": "cosine", "attention.values": "split"}, None),
    (
        "values split evenly",
        {"attention.values": "split", "encoder.bidirectional": False, "encoder.size": 5},
        "model.attention.values=split needs encoder states of an even width, got model.encoder.size=5; use "
        "--model.encoder.size 6 or --model.attention.values projected.",
    ),
    (
        "one reading direction",
        {"encoder.reversed": True},
        "model.encoder.reversed=true needs an encoder that reads in one direction, and "
        "model.encoder.bidirectional=true "
        "reads in both; use --model.encoder.bidirectional false or --model.encoder.reversed false.",
    ),
    (
        "residual of model.encoder",
        {"encoder.residual_from": 1},
        "model.encoder.residual_from=1 adds the input of layer 1 (model.embedding=256) to its output, which is 512 "
        "wide; use --model.encoder.residual-from 0 or --model.embedding 512.",
    ),
    (
        "residual of model.decoder",
        {"decoder.residual_from": 1, "decoder.layers": 2},
        "model.decoder.residual_from=1 adds the input of layer 1 (model.embedding=256) to its output, which is 512 "
        "wide; use --model.decoder.residual-from 2 or --model.embedding 512.",
    ),
    (
        "gate needs an attentional vector",
        {"decoder.context_gate": "both", "decoder.architecture": "bahdanau"},
        "model.decoder.context_gate=both weighs the parts of an attentional vector, which "
        "model.decoder.architecture=bahdanau does not have; use --model.decoder.architecture luong or "
        "--model.decoder.architecture conditional or --model.decoder.context-gate none.",
    ),
    (
        "readout needs a width",
        {"decoder.architecture": "gnmt", "decoder.readout": 5},
        "model.decoder.readout=5 is the width of a vector that model.decoder.architecture=gnmt does not have, whose "
        "state predicts; use --model.decoder.readout 0 or --model.decoder.readout-type attentional.",
    ),
    (
        "one readout",
        {"decoder.context_gate": "both", "decoder.readout_type": "deep"},
        "model.decoder.context_gate=both is a readout by itself, and model.decoder.readout_type=deep is another; use "
        "--model.decoder.readout-type architecture or --model.decoder.context-gate none.",
    ),
    (
        "context reaches the output",
        {"decoder.readout_type": "state"},
        "model.decoder.readout_type=state predicts from the state alone, which no context reaches with "
        "model.decoder.architecture=luong; use --model.decoder.readout-type architecture or "
        "--model.decoder.architecture gnmt or --model.attention.score none.",
    ),
    (
        "two directions of some layers",
        {"encoder.bidirectional": False, "encoder.bidirectional_layers": 1, "encoder.layers": 2},
        "model.encoder.bidirectional_layers=1 is the number of layers that read in both directions, and with "
        "model.encoder.bidirectional=false none does; use --model.encoder.bidirectional true or "
        "--model.encoder.bidirectional-layers 0.",
    ),
    (
        "residual above two directions",
        {"encoder.bidirectional_layers": 1, "encoder.layers": 4, "encoder.residual_from": 2},
        "model.encoder.residual_from=2 adds the input of layer 2, of two directions, to its output of one "
        "(model.encoder.bidirectional_layers=1); use --model.encoder.residual-from 3 or "
        "--model.encoder.bidirectional-layers 0.",
    ),
    (
        "zoneout needs one cell",
        {"decoder.zoneout": 0.1, "decoder.architecture": "conditional"},
        "model.decoder.zoneout=0.1 is defined for a layer of one cell, and the lowest layer of "
        "model.decoder.architecture=conditional has two; use --model.decoder.zoneout 0.0 or "
        "--model.decoder.architecture luong.",
    ),
    ("cell_zoneout needs one cell", {"decoder.cell_zoneout": 0.1, "decoder.architecture": "conditional"}, None),
    (
        "effect of model.encoder.cell_zoneout",
        {"encoder.cell_zoneout": 0.1, "encoder.cell": "gru"},
        "model.encoder.cell_zoneout=0.1 has no effect with model.encoder.cell=gru; use "
        "--model.encoder.cell-zoneout 0.0.",
    ),
    ("effect of model.decoder.cell_zoneout", {"decoder.cell_zoneout": 0.1, "decoder.cell": "gru"}, None),
    ("effect of model.encoder.bidirectional_layers", {"encoder.bidirectional_layers": 1}, None),
    (
        "tied embeddings",
        {"decoder.architecture": "gnmt", "decoder.tied_embeddings": True},
        "model.decoder.tied_embeddings=true with model.decoder.architecture=gnmt needs a state as wide as "
        "model.embedding=256, got one 512 wide; use --model.embedding 512 or --model.decoder.tied-embeddings false.",
    ),
    ("gate needs an attentional vector", {"decoder.context_gate": "source", "decoder.architecture": "gnmt"}, None),
    (
        "tied embeddings",
        {"decoder.tied_embeddings": True, "decoder.readout": 100},
        "model.decoder.tied_embeddings=true needs a readout as wide as model.embedding=256, got "
        "model.decoder.readout=100; use --model.decoder.readout 0 or --model.decoder.tied-embeddings false.",
    ),
    (
        "bridge needs equal states",
        {"decoder.bridge": "last", "decoder.cell": "gru", "encoder.size": 100},
        "model.decoder.bridge=last copies the encoder's last state (2 x 200 wide, directions together) to the "
        "decoder's (1 x 512); use --model.decoder.bridge projected or --model.decoder.size 200 --model.decoder.cell "
        "lstm.",
    ),
    (
        "copying needs attention",
        {"decoder.copy": "copynet", "attention.score": "none"},
        "model.decoder.copy=copynet copies what attention finds in the source, and model.attention.score=none is a "
        "model without attention; use --model.attention.score general or --model.attention.score additive or "
        "--model.decoder.copy none.",
    ),
    (
        "latent alignment and model.decoder.output",
        {"decoder.architecture": "hard", "decoder.output": "sparsemax"},
        None,
    ),
    (
        "latent alignment and model.decoder.readout_type",
        {"decoder.architecture": "hard", "decoder.readout_type": "deep"},
        None,
    ),
    (
        "copying needs softmax",
        {"decoder.copy": "pointer", "decoder.output": "sparsemax"},
        "model.decoder.copy=pointer adds to the probabilities of a softmax, and model.decoder.output=sparsemax is "
        "another distribution; use --model.decoder.output softmax or --model.decoder.copy none.",
    ),
    (
        "copying needs a distribution",
        {"decoder.copy": "pointer", "attention.normalizer": "sigmoid"},
        "model.decoder.copy=pointer reads the attention weights as probabilities, but with "
        "model.attention.normalizer=sigmoid and model.attention.constraint=none they need not sum to 1; use "
        "--model.attention.normalizer softmax or --model.decoder.copy copynet.",
    ),
    ("copying needs a distribution", {"decoder.copy": "pointer", "attention.constraint": "local-p"}, None),
    (
        "copying needs a distribution",
        {"decoder.copy": "pointer", "attention.constraint": "mocha", "attention.normalizer": "sigmoid"},
        None,
    ),
    (
        "prefix and model.encoder.bidirectional",
        {"attention.constraint": "wait-k", "decoder.bridge": "zero"},
        "model.attention.constraint=wait-k translates while the source arrives, but model.encoder.bidirectional=true "
        "reads the source from its end too; use --model.encoder.bidirectional false or --model.attention.constraint "
        "none.",
    ),
    (
        "prefix and model.encoder.reversed",
        {
            "attention.constraint": "wait-k",
            "decoder.bridge": "zero",
            "encoder.bidirectional": False,
            "encoder.reversed": True,
        },
        None,
    ),
    (
        "prefix and model.decoder.bridge",
        {"attention.constraint": "wait-k", "encoder.bidirectional": False},
        "model.attention.constraint=wait-k translates while the source arrives, but model.decoder.bridge=projected "
        "makes the first state of the whole source; use --model.decoder.bridge zero or --model.decoder.bridge learned "
        "or --model.attention.constraint none.",
    ),
    (
        "prefix and model.decoder.copy",
        {
            "attention.constraint": "wait-k",
            "decoder.bridge": "zero",
            "encoder.bidirectional": False,
            "decoder.copy": "copynet",
        },
        "model.attention.constraint=wait-k translates while the source arrives, but model.decoder.copy=copynet scores "
        "all tokens of the source; use --model.decoder.copy pointer or --model.decoder.copy none or "
        "--model.attention.constraint none.",
    ),
    (
        "latent alignment and model.attention.normalizer",
        {"decoder.architecture": "hard", "attention.normalizer": "sparsemax"},
        "model.decoder.architecture=hard sums over the source token that predicts, which is not defined with "
        "model.attention.normalizer=sparsemax; use --model.attention.normalizer softmax or "
        "--model.decoder.architecture luong.",
    ),
    (
        "latent alignment and model.attention.score",
        {"decoder.architecture": "hard", "attention.score": "gaussian-mixture"},
        None,
    ),
    (
        "latent alignment and model.attention.history",
        {"decoder.architecture": "hard-monotonic", "attention.history": "coverage"},
        None,
    ),
    (
        "latent alignment and model.attention.constraint",
        {"decoder.architecture": "hard-monotonic", "attention.constraint": "window"},
        None,
    ),
    (
        "latent alignment and model.attention.heads",
        {"decoder.architecture": "hard-first-order", "attention.heads": 2},
        None,
    ),
    (
        "latent alignment and model.features.combination",
        {"decoder.architecture": "hard", "features.combination": "separate"},
        None,
    ),
    (
        "latent alignment and model.decoder.output",
        {"decoder.architecture": "hard", "decoder.output": "sparsemax"},
        None,
    ),
    (
        "latent alignment and model.decoder.copy",
        {"decoder.architecture": "hard-first-order", "decoder.copy": "copynet"},
        None,
    ),
    (
        "latent alignment and model.decoder.readout_type",
        {"decoder.architecture": "hard-first-order", "decoder.readout_type": "deep"},
        None,
    ),
    (
        "first order needs distances",
        {"decoder.architecture": "hard-first-order", "attention.window": 0},
        "model.decoder.architecture=hard-first-order with model.attention.window=0 has transitions that do not depend "
        "on the previous position; use --model.attention.window 5 or --model.decoder.architecture hard.",
    ),
    (
        "effect of model.attention.temperature",
        {"attention.temperature": 2.0, "attention.normalizer": "sparsemax"},
        "model.attention.temperature=2.0 has no effect with model.attention.normalizer=sparsemax; use "
        "--model.attention.temperature 1.0.",
    ),
    ("effect of model.attention.learned_alpha", {"attention.learned_alpha": True}, None),
    ("effect of model.attention.renormalized", {"attention.renormalized": True}, None),
    (
        "effect of model.encoder.residual_from",
        {"encoder.residual_from": 3, "encoder.layers": 2},
        "model.encoder.residual_from=3 has no effect with model.encoder.layers=2; use --model.encoder.residual-from 0.",
    ),
    ("effect of model.decoder.residual_from", {"decoder.residual_from": 2}, None),
    (
        "effect of model.decoder.residual_from",
        {"attention.score": "none", "decoder.residual_from": 5},
        "model.decoder.residual_from=5 has no effect with model.decoder.layers=1; use --model.decoder.residual-from 0.",
    ),
    ("effect of model.encoder.residual_from", {"attention.score": "none", "encoder.residual_from": 5}, None),
    (
        "features need attention",
        {"attention.score": "none", "features.combination": "hierarchical"},
        "model.features.combination=hierarchical attends to features, and model.attention.score=none is a model "
        "without attention; use --model.features.combination concatenate or --model.features.combination sum or "
        "--model.attention.score general or --model.attention.score additive.",
    ),
    (
        "features need a score of content",
        {"attention.score": "location-aware", "attention.history": "previous", "features.combination": "separate"},
        None,
    ),
    ("flat and model.attention.history", {"attention.history": "coverage", "features.combination": "flat"}, None),
    ("flat and model.attention.constraint", {"attention.constraint": "window", "features.combination": "flat"}, None),
    ("flat and model.attention.normalizer", {"attention.normalizer": "fusedmax", "features.combination": "flat"}, None),
    ("flat and copying", {"decoder.copy": "pointer", "features.combination": "flat"}, None),
    (
        "shared encoder",
        {"features.encoder": "shared"},
        "model.features.encoder=shared reads features by the source's encoder, to whose input "
        "model.features.combination=concatenate joins what it makes of them; use --model.features.combination sum or "
        "--model.features.combination flat or --model.features.combination separate or "
        "--model.features.combination hierarchical or --model.features.encoder recurrent.",
    ),
]
EVERY_BROKEN = pytest.mark.parametrize(
    ("rule", "settings", "message"), BROKEN, ids=[f"{rule}-{number}" for number, (rule, *_) in enumerate(BROKEN)]
)
AXES = axis_names()
CHOICES = {**AXES, "heads": (1, 2), "values": attention_config.VALUES}


def draft(settings):
    """Settings of a model that need not be legal."""
    groups = {group: {} for group in ("encoder", "attention", "decoder", "features")}
    for name, value in settings.items():
        group, _, field = name.partition(".")
        groups[group][field] = value
    default = compatibility.Draft()
    return default._replace(
        **{name: dataclasses.replace(getattr(default, name), **group) for name, group in groups.items()}
    )


def assignments(settings):
    """The settings as on the command line."""
    return [f"{name}={str(value).lower() if isinstance(value, bool) else value}" for name, value in settings.items()]


@EVERY_BROKEN
def test_what_cannot_be_combined_is_refused_with_all_remedies(rule, settings, message):
    (violation,) = violations(draft(settings))
    assert violation.rule == rule
    assert violation.remedies
    assert str(violation) == (message or str(violation))
    with pytest.raises(ValueError, match="model") as refused:
        override(Experiment(), *assignments({f"model.{name}": value for name, value in settings.items()}))
    assert str(refused.value) == str(violation)


@EVERY_BROKEN
def test_every_remedy_works_when_it_is_pasted_into_the_command_line(rule, settings, message):
    broken = {f"model.{name}": value for name, value in settings.items()}
    (violation,) = violations(draft(settings))
    flags = str(violation).rpartition("; use ")[2].rstrip(".").split(" or ")
    assert len(flags) == len(violation.remedies)
    for flag in flags:
        pasted = dict(re.findall(r"--(\S+) (\S+)", flag))
        assert pasted
        fixed = {**broken, **{name.replace("-", "_"): value for name, value in pasted.items()}}
        override(Experiment(), *assignments(fixed))  # does not raise


def test_every_rule_has_a_broken_case():
    """So that the remedies of every rule are pasted."""
    reached = {rule for rule, *_ in BROKEN}
    names = {
        match
        for match in re.findall(r'Violation\(\s*f?"([^"{]+)', Path(compatibility.__file__).read_text())
        if not match.startswith("name of")
    }
    assert {name for name in names if not any(rule.startswith(name) for rule in reached)} == set()
    refused = {f"effect of {setting}" for setting in compatibility.REFUSED_WITHOUT_EFFECT}
    assert refused <= reached
    broken = [draft(settings) for _, settings, _ in BROKEN]
    assert [rule.__name__ for rule in compatibility.RULES if not any(any(rule(config)) for config in broken)] == []


def test_every_remedy_of_a_rule_is_offered_in_a_broken_case():
    written, offered = set(), set()
    for _, settings, _ in BROKEN:
        config = draft(settings)
        raw = [violation for rule in compatibility.RULES for violation in rule(config)]
        for remedies, found in ((written, raw), (offered, violations(config))):
            remedies |= {(violation.rule, *sorted(remedy)) for violation in found for remedy in violation.remedies}
    assert written == offered


def test_all_violations_are_listed_at_once():
    with pytest.raises(ValueError, match="model.attention.normalizer") as refused:
        override(
            Experiment(),
            *("model.attention.constraint=mocha", "model.encoder.reversed=true", "model.decoder.tied_embeddings=true"),
            "model.decoder.readout=7",
        )
    lines = str(refused.value).splitlines()
    assert [line.split("=")[0] for line in lines] == [
        "model.attention.constraint",
        "model.encoder.reversed",
        "model.decoder.tied_embeddings",
    ]


def test_a_remedy_that_breaks_another_rule_is_not_offered():
    config = draft({"attention.score": "location", "attention.constraint": "mocha", "attention.normalizer": "softmax"})
    remedies = {violation.rule: violation.remedies for violation in violations(config)}
    assert {"model.attention.constraint": "monotonic"} in remedies["second score needs content"]
    config = draft({"attention.score": "location", "attention.history": "coverage", "attention.constraint": "mocha"})
    for violation in violations(config):
        for remedy in violation.remedies:
            after = {name.rpartition("model.")[2]: value for name, value in remedy.items()}
            changed = {"attention.score": "location", "attention.history": "coverage", "attention.constraint": "mocha"}
            assert violation.rule not in {left.rule for left in violations(draft({**changed, **after}))}


def test_a_remedy_whose_value_is_out_of_range_is_not_offered():
    settings = {
        "encoder.bidirectional": False,
        "encoder.size": 1,
        "attention.score": "dot",
        "attention.values": "split",
    }
    widths, even = violations(draft(settings))
    assert (widths.rule, even.rule) == ("score needs equal widths", "values split evenly")
    assert widths.remedies == ({"model.attention.score": "general"},)
    remedies = {**settings, "attention.score": "general", "encoder.size": even.remedies[0]["model.encoder.size"]}
    override(Experiment(), *assignments({f"model.{name}": value for name, value in remedies.items()}))


def test_an_unknown_name_is_refused_with_the_nearest():
    for axis, typo, meant in (
        ("score", "aditive", "additive"),
        ("normalizer", "softmx", "softmax"),
        ("history", "coverag", "coverage"),
        ("constraint", "monotonc", "monotonic"),
    ):
        with pytest.raises(ValueError, match=f"model.attention.{axis} must be one of .*; did you mean '{meant}'"):
            ModelConfig(attention=harness.small_config(**{axis: typo}))


def test_the_literals_are_the_tables():
    assert typing.get_args(attention_config.ScoreName) == (*WITHOUT_ATTENTION, *SCORES)
    assert tuple(WITHOUT_ATTENTION) == attention_config.NOT_ATTENDING
    assert typing.get_args(attention_config.NormalizerName) == tuple(NORMALIZERS)
    assert typing.get_args(attention_config.HistoryName) == tuple(HISTORIES)
    assert typing.get_args(attention_config.ConstraintName) == tuple(CONSTRAINTS)
    assert typing.get_args(attention_config.ValuesName) == attention_config.VALUES
    assert typing.get_args(CopyName) == ("none", *COPYING)


# Settings without effect.

INEFFECTIVE = [
    ({"attention.score": "none", "attention.size": 8, "attention.normalizer": "top-k"}, ["normalizer", "size"]),
    ({"attention.score": "dot", "attention.size": 8}, ["size"]),
    ({"attention.score": "dot", "attention.size": 8, "attention.heads": 2}, []),
    ({"attention.score": "dot", "attention.size": 8, "attention.values": "projected"}, []),
    (
        {"attention.score": "additive", "attention.size": 8, "attention.bias": True, "attention.mixtures": 3},
        ["mixtures"],
    ),
    ({"attention.score": "normalized-additive", "attention.bias": True}, ["bias"]),
    ({"attention.score": "location", "attention.positions": 8, "attention.kernel": 3}, ["kernel"]),
    ({"attention.history": "coverage", "attention.kernel": 3, "attention.filters": 2}, []),
    ({"attention.history": "coverage", "attention.filters": 2, "attention.fertility": 3.0}, ["filters", "fertility"]),
    (
        {"attention.history": "coverage", "attention.normalizer": "constrained-softmax", "attention.fertility": 3.0},
        [],
    ),
    (
        {"attention.history": "coverage-fertility", "attention.fertility": 3.0, "attention.coverage_size": 3},
        ["coverage_size"],
    ),
    ({"attention.score": "location-aware", "attention.history": "previous", "attention.filters": 2}, []),
    ({"attention.score": "location-aware", "attention.history": "previous", "attention.kernel": 31}, ["kernel"]),
    (
        {
            "attention.normalizer": "top-k",
            "attention.top_k": 2,
            "attention.alpha": 2.0,
            "attention.fusedmax_strength": 1.0,
        },
        ["alpha", "fusedmax_strength"],
    ),
    (
        {
            "attention.constraint": "mocha",
            "attention.normalizer": "sigmoid",
            "attention.mocha_chunk": 2,
            "attention.wait_k": 1,
            "attention.window": 3,
            "attention.monotonic_noise": 0.5,
        },
        ["window", "wait_k"],
    ),
    ({"attention.constraint": "local-p", "attention.window": 3, "attention.size": 8}, []),
]


@pytest.mark.parametrize(("settings", "expected"), INEFFECTIVE, ids=map(str, range(len(INEFFECTIVE))))
def test_settings_without_effect_are_listed(settings, expected):
    assert without_effect(draft(settings)) == [f"model.attention.{name}" for name in expected]


def test_settings_of_the_decoder_without_effect_are_listed():
    config = draft({"decoder.copy_slots": 3, "decoder.readout": 512})
    assert without_effect(config) == ["model.decoder.copy_slots", "model.decoder.readout"]
    config = draft({"decoder.architecture": "gnmt", "decoder.readout": 3, "decoder.input_feeding": False})
    assert without_effect(config) == ["model.decoder.input_feeding", "model.decoder.readout"]
    assert without_effect(draft({"decoder.readout_type": "attentional"})) == ["model.decoder.readout_type"]


def program(config):
    """The traced program of an encoder and decoder steps in training: all operations that lead to a result, as text."""
    model = build(config, source_vocabulary=9, target_vocabulary=9)
    params = jax.eval_shape(model.init, jax.random.key(0))
    source, tokens = jnp.ones((2, 3), jnp.int32), jnp.ones((2, 2), jnp.int32)

    def decode(params, key):
        memory, state = model.encode(params, source, key)
        return scan_of_step(model.step)(params, memory, state, tokens)

    traced = jax.make_jaxpr(decode)(params, jax.random.key(0)).jaxpr
    used, _ = partial_eval.dce_jaxpr(traced, [True] * len(traced.outvars))
    return re.sub("0x[0-9a-f]+", "", str(used))


SMALL = {"encoder.size": 4, "decoder.size": 8, "encoder.cell": "rnn", "decoder.cell": "rnn"}


@pytest.mark.parametrize("settings", [settings for settings, _ in INEFFECTIVE], ids=map(str, range(len(INEFFECTIVE))))
def test_the_effective_config_is_the_same_program(settings):
    """And has no setting left that has no effect."""
    fields = assignments({f"model.{name}": value for name, value in {**SMALL, **settings}.items()})
    config = override(Experiment(), *fields).model
    plain = effective(config)
    assert without_effect(plain) == []
    assert effective(plain) == plain
    if plain != config:
        assert program(plain) == program(config)


def test_settings_with_effect_change_the_program():
    """Each setting of attention, in a config that reads it."""
    cases = {
        "size": ({"score": "additive"}, 6),
        "bias": ({"score": "additive"}, True),
        "positions": ({"score": "location"}, 7),
        "mixtures": ({"score": "gaussian-mixture"}, 2),
        "temperature": ({}, 2.0),
        "alpha": ({"normalizer": "alpha-entmax"}, 2.0),
        "fusedmax_strength": ({"normalizer": "fusedmax"}, 0.5),
        "top_k": ({"normalizer": "top-k"}, 2),
        "kernel": ({"history": "coverage"}, 3),
        "filters": ({"score": "location-aware", "history": "previous"}, 3),
        "coverage_size": ({"history": "coverage-gru"}, 2),
        "fertility": ({"history": "coverage-fertility"}, 3.0),
        "window": ({"constraint": "local-m"}, 1),
        "mocha_chunk": ({"constraint": "mocha", "normalizer": "sigmoid"}, 2),
        "wait_k": ({"constraint": "wait-k"}, 1),
        "monotonic_noise": ({"constraint": "monotonic", "normalizer": "sigmoid"}, 0.5),
        "monotonic_hard": ({"constraint": "monotonic", "normalizer": "sigmoid"}, False),
        "monotonic_bias": ({"constraint": "stepwise", "normalizer": "sigmoid"}, -4.0),
        "learned_alpha": ({"normalizer": "alpha-entmax"}, True),
        "renormalized": ({"constraint": "local-p"}, True),
    }
    names = {*AXES, "heads", "values"}
    assert {*cases, *names} == {field.name for field in dataclasses.fields(AttentionConfig)}
    for setting, (choices, value) in cases.items():
        changed = AttentionConfig(**choices, **{setting: value})
        assert f"model.attention.{setting}" not in without_effect(compatibility.Draft(attention=changed)), setting


@pytest.mark.parametrize("architecture", ["bahdanau", "conditional", "gnmt"])
@pytest.mark.parametrize("score", ["general", "none"])
def test_no_input_feeding_is_legal_in_an_architecture_without_it(architecture, score):
    fields = (f"model.decoder.architecture={architecture}", "model.decoder.input_feeding=false")
    config = override(Experiment(), f"model.attention.score={score}", *fields).model
    assert without_effect(config) == ["model.decoder.input_feeding"]
    assert effective(config) == dataclasses.replace(
        config, decoder=dataclasses.replace(config.decoder, input_feeding=True)
    )


def test_bahdanau_with_the_default_input_feeding_is_legal():
    config = override(Experiment(), "model.decoder.architecture=bahdanau").model
    assert without_effect(config) == []
    assert effective(config) == config


# Everything that is legal builds.


def attend_once(config):
    """One step of an attention, in shapes alone, checked against what a scan and a beam expect."""
    batch, tokens, widths = 2, 3, []
    score = SCORES.get(config.score)
    halved = config.values == "split" and config.heads == 1 and score is not None and score.needs_equal_widths
    memory = harness.WIDTH * (2 if halved else 1)

    def attend(memory, query):
        attention = build_attention(config, harness.WIDTH, memory.shape[-1], dtype=jnp.float32, rngs=oracles.OneKey())
        widths.append(attention.width)
        keys, mask = attention.prepare(memory), jnp.ones((batch, tokens), bool)
        start, noise = attention.start(keys, mask), jnp.zeros((batch, 2), jnp.uint32)
        values = attention.values(memory)
        return start, attention.attend(attention.step_weights(), start, query, keys, values, mask, noise)

    shapes = (batch, tokens, memory), (batch, harness.WIDTH)
    start, output = jax.eval_shape(attend, *(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes))
    assert output.alignment.shape == (batch, tokens)
    assert output.context.shape == (batch, *widths)
    assert all(leaf.shape == (batch, config.heads, tokens) for leaf in jax.tree.leaves(output.heads))
    before, after = (jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), state) for state in (start, output.state))
    assert before == after
    assert all(leaf.shape[0] == batch for leaf in jax.tree.leaves(start))


def every_pair():
    """All pairs of values of different axes, as (axis, value) twice."""
    values = {axis: [(axis, value) for value in values] for axis, values in CHOICES.items()}
    return [
        pair
        for first, second in itertools.combinations(CHOICES, 2)
        for pair in itertools.product(values[first], values[second])
    ]


def pairs_of(config):
    return set(itertools.combinations([(axis, getattr(config, axis)) for axis in CHOICES], 2))


def with_random_choices(random, choices, *, covered):
    """A legal config with some choices, the rest drawn so that many pairs are new; None where no draw is legal."""
    drawn = ({axis: values[random.integers(len(values))] for axis, values in CHOICES.items()} for _ in range(12))
    configs = (harness.small_config(**{**others, "heads": 1, **choices}) for others in drawn)
    legal = [config for config in configs if is_legal_attention(config)]
    return max(legal, key=lambda config: len(pairs_of(config) - covered), default=None)


def with_remedies(**choices):
    """A config with some choices, the rest by the remedies; None where every remedy changes these choices."""
    try:
        return harness.legal_config(**choices)
    except AssertionError:
        return None


@functools.cache
def possible():
    """The pairs that no config has, and a few configs that have all other pairs.

    A pair is completed with choices drawn at random, where they are legal, or by the remedies.
    """
    random, covered, configs, impossible = np.random.default_rng(1), set(), [], set()
    for pair in every_pair():
        if pair in covered:
            continue
        config = with_random_choices(random, dict(pair), covered=covered) or with_remedies(**dict(pair))
        # With constrained-softmax a history need not be added to keys, so that scores without keys can have one.
        config = config or with_remedies(**{"normalizer": "constrained-softmax", **dict(pair)})
        if config is None:
            impossible.add(pair)
            continue
        configs.append(config)
        covered |= pairs_of(config)
    assert not covered & impossible
    return impossible, configs


def test_the_impossible_pairs_are_those_of_the_rules():
    without = attention_config.NOT_ATTENDING
    expected = {
        (("score", score), (axis, value))
        for score in without
        for axis in ("history", "constraint")
        for value in AXES[axis][1:]
    }
    expected |= {(("score", score), ("heads", 2)) for score in without}
    monotonic, two_scores = ("monotonic", "mocha", "milk", "stepwise"), ("mocha", "milk")
    dependent = set(AXES["normalizer"]) - {"sigmoid"}
    expected |= {(("normalizer", name), ("constraint", kind)) for name in dependent for kind in monotonic}
    follows, no_content = (
        ("location-aware", "dynamic-convolution"),
        ("uniform", "location", "gaussian-mixture", "gaussian-mixture-v2"),
    )
    expected |= {(("score", name), ("constraint", kind)) for name in (*follows, *no_content) for kind in two_scores}
    unbounded = ("previous", "coverage-tanh", "coverage-gru")  # with constrained-softmax the other coverages limit
    expected |= {(("score", name), ("history", history)) for name in no_content for history in unbounded}
    expected |= {(("normalizer", "constrained-softmax"), ("history", name)) for name in (*unbounded, "intra-temporal")}
    expected |= {(("score", "location-aware"), ("history", name)) for name in ("none", "intra-temporal")}
    others = set(AXES["history"]) - {"previous"}
    expected |= {(("score", "dynamic-convolution"), ("history", name)) for name in others}
    expected |= {(("score", "dynamic-convolution"), ("normalizer", "constrained-softmax"))}
    impossible, _ = possible()
    assert impossible == expected


@pytest.mark.wide
def test_every_possible_pair_builds_and_attends():
    for config in possible()[1]:
        attend_once(config)


@pytest.mark.parametrize("number", range(0, len(BROKEN), 3))
def test_the_remedies_of_attention_build(number):
    _, settings, _ = BROKEN[number]
    own = {name.partition(".")[2]: value for name, value in settings.items() if name.startswith("attention.")}
    config = harness.small_config(**own)
    for violation in attention_violations(config):
        for remedy in violation.remedies:
            attend_once(dataclasses.replace(config, **{name.split(".")[-1]: value for name, value in remedy.items()}))


@pytest.mark.parametrize(
    ("number", "message"),
    [
        ({"kernel": 4}, "model.attention.kernel must be odd or 0, got 4; use 5."),
        ({"heads": 0}, "model.attention.heads must be positive, got 0"),
        ({"temperature": 0.0}, "model.attention.temperature must be above 0, got 0.0"),
        ({"alpha": 0.5}, "model.attention.alpha must be at least 1, got 0.5"),
        ({"alpha": float("inf")}, "model.attention.alpha must be a finite number, got inf"),
        ({"fusedmax_strength": float("inf")}, "model.attention.fusedmax_strength must be a finite number, got inf"),
        ({"values": "splt"}, "did you mean 'split'?"),
    ],
)
def test_numbers_out_of_range_are_refused(number, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        harness.small_config(**number)
