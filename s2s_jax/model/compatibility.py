"""Which settings of a model cannot be combined, and which have no effect in a combination.

The classes behind the settings declare facts (`has_keys`, `monotonic`, `copies_state`, ...), and the rules here read
those facts, so that a class of the user's is covered too. `ModelConfig` calls `check_model` when it is created.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

from s2s_jax.model.attention.config import NOT_ATTENDING, AttentionConfig
from s2s_jax.model.attention.constraints import CONSTRAINTS, Constraint
from s2s_jax.model.attention.history import HISTORIES, History
from s2s_jax.model.attention.normalizers import NORMALIZERS, NormalizerFacts, normalizer_facts
from s2s_jax.model.attention.scores import SCORES
from s2s_jax.model.attention.scores.base import Score, declared_settings
from s2s_jax.model.bridge import BRIDGES
from s2s_jax.model.cells import CELLS
from s2s_jax.model.copy_mechanism import COPYING
from s2s_jax.model.decoder.architectures import ARCHITECTURES
from s2s_jax.model.decoder.config import DecoderConfig
from s2s_jax.model.encoder import EncoderConfig
from s2s_jax.model.feature_encoders import OF_EMBEDDINGS, FeaturesConfig
from s2s_jax.model.readout import READOUTS
from s2s_jax.validation import one_of

AXES: dict[str, dict[str, Any]] = {
    "score": SCORES,
    "normalizer": NORMALIZERS,
    "history": HISTORIES,
    "constraint": CONSTRAINTS,
}
# Settings of which a value other than the default is refused where it has no effect, and the setting that makes it
# ineffective. Not among them: model.decoder.input_feeding=false, which is true of every architecture without one.
REFUSED_WITHOUT_EFFECT = {
    "model.attention.temperature": "model.attention.normalizer",
    "model.attention.learned_alpha": "model.attention.normalizer",
    "model.attention.renormalized": "model.attention.constraint",
    "model.encoder.residual_from": "model.encoder.layers",
    "model.encoder.bidirectional_layers": "model.encoder.layers",
    "model.encoder.cell_zoneout": "model.encoder.cell",
    "model.decoder.residual_from": "model.decoder.layers",
    "model.decoder.cell_zoneout": "model.decoder.cell",
}

Remedy = dict[str, Any]  # values by full setting name, as on the command line


@runtime_checkable
class ModelSettings(Protocol):
    """What the rules read of a model's config."""

    @property
    def builder(self) -> str:
        """What builds the model; the rules are those of `seq2seq`."""
        ...

    @property
    def embedding(self) -> int:
        """Width of the token embeddings."""
        ...

    @property
    def encoder(self) -> EncoderConfig:
        """The encoder's config."""
        ...

    @property
    def attention(self) -> AttentionConfig:
        """The attention's config."""
        ...

    @property
    def decoder(self) -> DecoderConfig:
        """The decoder's config."""
        ...

    @property
    def features(self) -> FeaturesConfig:
        """The config of the source's features."""
        ...


class Draft(NamedTuple):
    """A model's settings that need not be legal."""

    embedding: int = 256
    encoder: EncoderConfig = EncoderConfig()
    attention: AttentionConfig = AttentionConfig()
    decoder: DecoderConfig = DecoderConfig()
    features: FeaturesConfig = FeaturesConfig()
    builder: str = "seq2seq"


class Violation(NamedTuple):
    """Settings that cannot be combined."""

    rule: str
    reason: str  # with full setting names and their values
    remedies: tuple[Remedy, ...] = ()  # each of them is enough

    def __str__(self) -> str:
        """The reason and the flags of each remedy, in one line."""
        if not self.remedies:
            return self.reason
        return f"{self.reason}; use {' or '.join(map(as_flags, self.remedies))}."


class AttentionFacts(NamedTuple):
    """The declared facts of the choices of attention."""

    score: type[Score] | None  # None without attention
    normalizer: NormalizerFacts
    history: type[History]
    constraint: type[Constraint]

    @property
    def has_features(self) -> bool:
        """Whether the history's features are added to the score's keys."""
        return self.score is not None and self.score.has_keys and self.history.width != 0

    @property
    def is_bounded(self) -> bool:
        """Whether the history limits the normalizer's weights."""
        return "bound" in self.normalizer.parameters and self.history.limits_weight


def attention_facts(config: AttentionConfig) -> AttentionFacts:
    """The facts of the choices of a config, whose names must be in their tables."""
    return AttentionFacts(
        SCORES.get(config.score),
        normalizer_facts(config.normalizer),
        HISTORIES[config.history],
        CONSTRAINTS[config.constraint],
    )


def weights_sum_to_one(config: AttentionConfig) -> bool:
    """Whether the attention weights of a sentence always sum to 1."""
    decided = CONSTRAINTS[config.constraint].sums_to_one(config)
    return normalizer_facts(config.normalizer).sums_to_one if decided is None else decided


def axis_names() -> dict[str, tuple[str, ...]]:
    """The names of each axis of attention, including those that the user has added."""
    return {axis: (*NOT_ATTENDING, *table) if axis == "score" else tuple(table) for axis, table in AXES.items()}


def check_model(config: ModelSettings) -> None:
    """Refuse settings that cannot be combined.

    Raises:
        ValueError: with all violations, one per line: reason and remedies.
    """
    broken = violations(config)
    if broken:
        raise ValueError("\n".join(map(str, broken)))


def violations(config: ModelSettings) -> list[Violation]:
    """All violations of a model's settings.

    Each remedy has been tried: it removes its violation, and adds another only if every remedy does.
    """
    return _with_tried_remedies(config, RULES)


def attention_violations(config: AttentionConfig) -> list[Violation]:
    """All violations that the settings of attention have among themselves."""
    return _with_tried_remedies(Draft(attention=config), ATTENTION_RULES)


def is_legal_attention(config: AttentionConfig) -> bool:
    """Whether the settings of attention can be combined."""
    return next(_violations(Draft(attention=config), ATTENTION_RULES), None) is None


def refused_by_architecture(name: str) -> dict[str, list[str]]:
    """By axis the values of attention that cannot be combined with an architecture of the decoder."""
    decoder = DecoderConfig(architecture=name)  # type: ignore[arg-type]

    def refuses(axis: str, value: str) -> bool:
        draft = Draft(decoder=decoder, attention=AttentionConfig(**{axis: value}))  # type: ignore[arg-type]
        return any(True for _ in _latent_alignment_is_one_softmax(draft))

    return {axis: [value for value in values if refuses(axis, value)] for axis, values in axis_names().items()}


def as_flags(remedy: Remedy) -> str:
    """The remedy as it is written on the command line."""
    return " ".join(f"--{name.replace('_', '-')} {_text(value)}" for name, value in remedy.items())


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _violations(config: ModelSettings, rules: "tuple[Rule, ...]") -> Iterator[Violation]:
    unknown = list(_unknown_names(config.attention))
    if unknown:
        yield from unknown  # the facts of an unknown name are unknown too
        return
    for rule in rules:
        yield from rule(config)


def _unknown_names(config: AttentionConfig) -> Iterator[Violation]:
    for axis, names in axis_names().items():
        try:
            one_of(f"model.attention.{axis}", getattr(config, axis), names)
        except ValueError as error:
            yield Violation(f"name of {axis}", str(error))


def _with_tried_remedies(config: ModelSettings, rules: "tuple[Rule, ...]") -> list[Violation]:
    broken = list(_violations(config, rules))
    before = {violation.rule for violation in broken}
    tried = []
    for violation in broken:
        outcomes = [(remedy, _broken_after(config, remedy, rules)) for remedy in violation.remedies]
        helpful = [(remedy, after) for remedy, after in outcomes if after is not None and violation.rule not in after]
        harmless = [remedy for remedy, after in helpful if after <= before]
        remedies = harmless or [remedy for remedy, _ in helpful]
        smallest = [remedy for remedy in remedies if not any(other.items() < remedy.items() for other in remedies)]
        tried.append(violation._replace(remedies=tuple(smallest)))
    return tried


def _broken_after(config: ModelSettings, remedy: Remedy, rules: "tuple[Rule, ...]") -> set[str] | None:
    """The rules that are broken with a remedy; None if its value is out of range."""
    try:
        changed = _changed(config, remedy)
    except ValueError:
        return None
    return {violation.rule for violation in _violations(changed, rules)}


def _changed(config: ModelSettings, remedy: Remedy) -> Draft:
    draft = Draft(config.embedding, config.encoder, config.attention, config.decoder, config.features)
    for setting, value in remedy.items():
        _, *group, name = setting.split(".")
        changed = dataclasses.replace(getattr(draft, group[0]), **{name: value}) if group else value
        draft = draft._replace(**{group[0] if group else name: changed})
    return draft


# The rules of attention.


def _without_attention(config: ModelSettings) -> Iterator[Violation]:
    attention, defaults = config.attention, {"history": "none", "constraint": "none", "heads": 1}
    unused = {name: default for name, default in defaults.items() if getattr(attention, name) != default}
    if attention.score not in SCORES and unused:
        names = ", ".join(f"model.attention.{name}={getattr(attention, name)}" for name in unused)
        yield Violation(
            "without attention",
            f"model.attention.score={attention.score} is a model without attention, which cannot have {names}",
            (
                {f"model.attention.{name}": default for name, default in unused.items()},
                {"model.attention.score": "general"},
                {"model.attention.score": "additive"},
            ),
        )


def _score_needs_history(config: ModelSettings) -> Iterator[Violation]:
    attention, facts = config.attention, attention_facts(config.attention)
    if facts.score is None or not facts.score.needs_history:
        return
    if facts.score.needs_previous_alignment and not facts.history.is_previous_alignment:
        yield Violation(
            "score needs history",
            f"model.attention.score={attention.score} reads the previous alignment and nothing else, "
            f"which model.attention.history={attention.history} does not give",
            ({"model.attention.history": "previous"}, {"model.attention.score": "location-aware"}),
        )
    elif not facts.history.width:
        yield Violation(
            "score needs history",
            f"model.attention.score={attention.score} reads earlier alignments, "
            f"which model.attention.history={attention.history} does not keep",
            tuple({"model.attention.history": name} for name in ("previous", "coverage", "previous-and-coverage")),
        )


def _history_needs_keys(config: ModelSettings) -> Iterator[Violation]:
    attention, facts = config.attention, attention_facts(config.attention)
    if facts.score is None or facts.score.has_keys or facts.score.needs_history:
        return
    if facts.history.width and not facts.is_bounded:
        yield Violation(
            "history needs keys",
            f"model.attention.history={attention.history} is added to the keys, "
            f"which model.attention.score={attention.score} does not have",
            (
                {"model.attention.history": "none"},
                {"model.attention.score": "additive"},
                {"model.attention.score": "location-aware"},
            ),
        )


def _constraint_needs_probabilities(config: ModelSettings) -> Iterator[Violation]:
    attention, facts = config.attention, attention_facts(config.attention)
    if facts.score is not None and facts.constraint.monotonic and not facts.normalizer.independent:
        yield Violation(
            "constraint needs probabilities",
            f"model.attention.constraint={attention.constraint} reads each weight as an independent probability, "
            f"which model.attention.normalizer={attention.normalizer} does not give",
            ({"model.attention.normalizer": "sigmoid"}, {"model.attention.constraint": "none"}),
        )


def _second_score_needs_content(config: ModelSettings) -> Iterator[Violation]:
    attention, score = config.attention, SCORES.get(config.attention.score)
    if score is None or not CONSTRAINTS[attention.constraint].scores_twice:
        return
    if not score.has_keys or score.needs_history or score.stateful:
        yield Violation(
            "second score needs content",
            f"model.attention.constraint={attention.constraint} has a second score of the tokens' content alone, "
            f"which model.attention.score={attention.score} is not",
            (
                {"model.attention.score": "additive"},
                {"model.attention.score": "general"},
                {"model.attention.constraint": "monotonic"},
            ),
        )


def _normalizer_needs_bound(config: ModelSettings) -> Iterator[Violation]:
    attention, facts = config.attention, attention_facts(config.attention)
    if facts.score is not None and "bound" in facts.normalizer.parameters and not facts.history.limits_weight:
        yield Violation(
            "normalizer needs a bound",
            f"model.attention.normalizer={attention.normalizer} needs the remaining weight of each token, "
            f"which model.attention.history={attention.history} does not keep",
            (
                {"model.attention.history": "coverage"},
                {"model.attention.history": "coverage-fertility"},
                {"model.attention.normalizer": "softmax"},
            ),
        )


def _constraint_needs_window(config: ModelSettings) -> Iterator[Violation]:
    attention = config.attention
    if CONSTRAINTS[attention.constraint].needs_window and not attention.window:
        yield Violation(
            "constraint needs a window",
            f"model.attention.constraint={attention.constraint} has its center between tokens, "
            "and model.attention.window=0 reaches none",
            ({"model.attention.window": 1},),
        )


def _heads_divide_size(config: ModelSettings) -> Iterator[Violation]:
    heads, size = config.attention.heads, config.attention.size
    if size % heads:
        yield Violation(
            "heads divide size",
            f"model.attention.heads={heads} does not divide model.attention.size={size}",
            (
                {"model.attention.size": heads * math.ceil(size / heads)},
                {"model.attention.heads": math.gcd(heads, size)},
            ),
        )


def _learned_alpha_starts_above_one(config: ModelSettings) -> Iterator[Violation]:
    attention = config.attention
    if attention.learned_alpha and attention.alpha == 1:
        yield Violation(
            "learned alpha starts above 1",
            "model.attention.learned_alpha=true starts from model.attention.alpha, which must be above 1, got 1.0",
            ({"model.attention.alpha": 1.5}, {"model.attention.learned_alpha": False}),
        )


# The rules of a model.


def _score_needs_equal_widths(config: ModelSettings) -> Iterator[Violation]:
    attention, score = config.attention, SCORES.get(config.attention.score)
    width = _memory_width(config) // (2 if attention.values == "split" else 1)
    if score and score.needs_equal_widths and attention.heads == 1 and width != config.decoder.size:
        yield Violation(
            "score needs equal widths",
            f"model.attention.score={attention.score} multiplies a decoder state (model.decoder.size="
            f"{config.decoder.size}) by a key {width} wide, of which an encoder state has {_memory_width(config)}",
            ({"model.attention.score": "general"}, {"model.decoder.size": width}),
        )


def _values_split_evenly(config: ModelSettings) -> Iterator[Violation]:
    attention, width = config.attention, _memory_width(config)
    if attention.score in SCORES and attention.values == "split" and attention.heads == 1 and width % 2:
        yield Violation(
            "values split evenly",
            f"model.attention.values=split needs encoder states of an even width, got model.encoder.size={width}",
            ({"model.encoder.size": width + 1}, {"model.attention.values": "projected"}),
        )


def _one_reading_direction(config: ModelSettings) -> Iterator[Violation]:
    if config.encoder.bidirectional and config.encoder.reversed:
        yield Violation(
            "one reading direction",
            "model.encoder.reversed=true needs an encoder that reads in one direction, "
            "and model.encoder.bidirectional=true reads in both",
            ({"model.encoder.bidirectional": False}, {"model.encoder.reversed": False}),
        )


def _two_directions_of_some_layers(config: ModelSettings) -> Iterator[Violation]:
    encoder = config.encoder
    if encoder.bidirectional_layers and not encoder.bidirectional:
        yield Violation(
            "two directions of some layers",
            f"model.encoder.bidirectional_layers={encoder.bidirectional_layers} is the number of layers that read in "
            "both directions, and with model.encoder.bidirectional=false none does",
            ({"model.encoder.bidirectional": True}, {"model.encoder.bidirectional_layers": 0}),
        )
    elif (
        encoder.bidirectional_layers < encoder.layers and 1 < encoder.residual_from <= encoder.bidirectional_layers + 1
    ):
        first = encoder.bidirectional_layers + 1
        yield Violation(
            "residual above two directions",
            f"model.encoder.residual_from={encoder.residual_from} adds the input of layer {first}, of two directions, "
            f"to its output of one (model.encoder.bidirectional_layers={encoder.bidirectional_layers})",
            (
                {"model.encoder.residual_from": first + 1 if first < encoder.layers else 0},
                {"model.encoder.bidirectional_layers": 0},
            ),
        )


def _zoneout_needs_one_cell(config: ModelSettings) -> Iterator[Violation]:
    decoder = config.decoder
    if ARCHITECTURES[decoder.architecture].has_second_cell:
        for name in ("zoneout", "cell_zoneout"):
            if value := getattr(decoder, name):
                yield Violation(
                    f"{name} needs one cell",
                    f"model.decoder.{name}={value} is defined for a layer of one cell, and the lowest layer of "
                    f"model.decoder.architecture={decoder.architecture} has two",
                    ({f"model.decoder.{name}": 0.0}, {"model.decoder.architecture": "luong"}),
                )


def _residual_needs_equal_widths(config: ModelSettings) -> Iterator[Violation]:
    for group, stack, width in (
        ("model.encoder", config.encoder, config.encoder.layer_width(0)),
        ("model.decoder", config.decoder, config.decoder.size),
    ):
        if stack.residual_from == 1 and config.embedding != width:
            yield Violation(
                f"residual of {group}",
                f"{group}.residual_from=1 adds the input of layer 1 (model.embedding={config.embedding}) to its "
                f"output, which is {width} wide",
                (
                    {f"{group}.residual_from": 2 if stack.layers > 1 else 0},
                    {"model.embedding": width},
                ),
            )


def _gate_needs_attentional_vector(config: ModelSettings) -> Iterator[Violation]:
    decoder = config.decoder
    if decoder.context_gate != "none" and not ARCHITECTURES[decoder.architecture].has_attentional_vector:
        gated = [name for name, kind in ARCHITECTURES.items() if kind.has_attentional_vector]
        yield Violation(
            "gate needs an attentional vector",
            f"model.decoder.context_gate={decoder.context_gate} weighs the parts of an attentional vector, "
            f"which model.decoder.architecture={decoder.architecture} does not have",
            (
                *({"model.decoder.architecture": name} for name in gated),
                {"model.decoder.context_gate": "none"},
            ),
        )


def _one_readout(config: ModelSettings) -> Iterator[Violation]:
    decoder = config.decoder
    if decoder.context_gate != "none" and decoder.readout_type != "architecture":
        yield Violation(
            "one readout",
            f"model.decoder.context_gate={decoder.context_gate} is a readout by itself, and "
            f"model.decoder.readout_type={decoder.readout_type} is another",
            ({"model.decoder.readout_type": "architecture"}, {"model.decoder.context_gate": "none"}),
        )


def _context_reaches_the_output(config: ModelSettings) -> Iterator[Violation]:
    decoder, attention = config.decoder, config.attention
    if attention.score == "none" or decoder.readout_kind.reads_context:
        return
    if not ARCHITECTURES[decoder.architecture].context_enters_cells:
        yield Violation(
            "context reaches the output",
            f"model.decoder.readout_type={decoder.readout_type} predicts from the state alone, which no context "
            f"reaches with model.decoder.architecture={decoder.architecture}",
            (
                {"model.decoder.readout_type": "architecture"},
                {"model.decoder.architecture": "gnmt"},
                {"model.attention.score": "none"},
            ),
        )


def _readout_needs_a_width(config: ModelSettings) -> Iterator[Violation]:
    decoder = config.decoder
    if decoder.readout and not decoder.readout_kind.has_width:
        yield Violation(
            "readout needs a width",
            f"model.decoder.readout={decoder.readout} is the width of a vector that {_readout_setting(decoder)} does "
            "not have, whose state predicts",
            ({"model.decoder.readout": 0}, {"model.decoder.readout_type": "attentional"}),
        )


def _readout_setting(decoder: DecoderConfig) -> str:
    """The setting that decides what predicts the token."""
    name = "architecture" if decoder.readout_type == "architecture" else "readout_type"
    return f"model.decoder.{name}={getattr(decoder, name)}"


def _tied_readout_is_as_wide_as_embedding(config: ModelSettings) -> Iterator[Violation]:
    decoder, width = config.decoder, config.decoder.readout_width(config.embedding)
    if not decoder.tied_embeddings or width == config.embedding:
        return
    if decoder.readout_kind.has_width:
        yield Violation(
            "tied embeddings",
            f"model.decoder.tied_embeddings=true needs a readout as wide as model.embedding={config.embedding}, "
            f"got model.decoder.readout={decoder.readout}",
            ({"model.decoder.readout": 0}, {"model.decoder.tied_embeddings": False}),
        )
    else:
        yield Violation(
            "tied embeddings",
            f"model.decoder.tied_embeddings=true with {_readout_setting(decoder)} needs a state "
            f"as wide as model.embedding={config.embedding}, got one {width} wide",
            ({"model.embedding": width}, {"model.decoder.tied_embeddings": False}),
        )


def _bridge_needs_equal_states(config: ModelSettings) -> Iterator[Violation]:
    encoder, decoder, width = config.encoder, config.decoder, _memory_width(config)
    states = CELLS[encoder.cell].states, CELLS[decoder.cell].states
    if BRIDGES[decoder.bridge].copies_state and (width != decoder.size or states[0] != states[1]):
        fitting = {"model.decoder.size": width} if width != decoder.size else {}
        fitting |= {"model.decoder.cell": encoder.cell} if states[0] != states[1] else {}
        yield Violation(
            "bridge needs equal states",
            f"model.decoder.bridge={decoder.bridge} copies the encoder's last state ({states[0]} x {width} wide, "
            f"directions together) to the decoder's ({states[1]} x {decoder.size})",
            ({"model.decoder.bridge": "projected"}, fitting),
        )


def _copying_needs_attention(config: ModelSettings) -> Iterator[Violation]:
    if config.decoder.copy in COPYING and config.attention.score not in SCORES:
        yield Violation(
            "copying needs attention",
            f"model.decoder.copy={config.decoder.copy} copies what attention finds in the source, "
            f"and model.attention.score={config.attention.score} is a model without attention",
            (
                {"model.attention.score": "general"},
                {"model.attention.score": "additive"},
                {"model.decoder.copy": "none"},
            ),
        )


def _copying_needs_softmax(config: ModelSettings) -> Iterator[Violation]:
    decoder = config.decoder
    if decoder.copy in COPYING and decoder.output != "softmax":
        yield Violation(
            "copying needs softmax",
            f"model.decoder.copy={decoder.copy} adds to the probabilities of a softmax, and "
            f"model.decoder.output={decoder.output} is another distribution",
            ({"model.decoder.output": "softmax"}, {"model.decoder.copy": "none"}),
        )


def _copying_needs_distribution(config: ModelSettings) -> Iterator[Violation]:
    attention, copying = config.attention, COPYING.get(config.decoder.copy)
    if copying is None or not copying.needs_distribution or attention.score not in SCORES:
        return
    if not weights_sum_to_one(attention):
        yield Violation(
            "copying needs a distribution",
            f"model.decoder.copy={config.decoder.copy} reads the attention weights as probabilities, but with "
            f"model.attention.normalizer={attention.normalizer} and model.attention.constraint={attention.constraint} "
            "they need not sum to 1",
            (
                {"model.attention.normalizer": "softmax"},
                {"model.attention.renormalized": True},
                {"model.attention.normalizer": "softmax", "model.attention.constraint": "none"},
                {"model.decoder.copy": "copynet"},
            ),
        )


def _prefix_is_all_that_is_read(config: ModelSettings) -> Iterator[Violation]:
    attention, encoder, decoder = config.attention, config.encoder, config.decoder
    if attention.score not in SCORES or not CONSTRAINTS[attention.constraint].reads_prefix:
        return
    readers: list[tuple[str, str, tuple[Any, ...]]] = []  # what reads the rest, its description, other values
    if encoder.bidirectional:
        readers.append(("model.encoder.bidirectional", "reads the source from its end too", (False,)))
    elif encoder.reversed:
        readers.append(("model.encoder.reversed", "reads the source from its end", (False,)))
    if BRIDGES[decoder.bridge].reads_source:
        others = tuple(name for name, bridge in BRIDGES.items() if not bridge.reads_source)
        readers.append(("model.decoder.bridge", "makes the first state of the whole source", others))
    if decoder.copy in COPYING and COPYING[decoder.copy].reads_source:
        others = (*(name for name, copying in COPYING.items() if not copying.reads_source), "none")
        readers.append(("model.decoder.copy", "scores all tokens of the source", others))
    for setting, what, others in readers:
        yield Violation(
            f"prefix and {setting}",
            f"model.attention.constraint={attention.constraint} translates while the source arrives, but "
            f"{setting}={_text(_value(config, setting))} {what}",
            (*({setting: other} for other in others), {"model.attention.constraint": "none"}),
        )


def _latent_alignment_is_one_softmax(config: ModelSettings) -> Iterator[Violation]:
    decoder, score = config.decoder, SCORES.get(config.attention.score)
    if not ARCHITECTURES[decoder.architecture].latent_alignment:
        return
    needed = {"normalizer": "softmax", "history": "none", "constraint": "none", "heads": 1}
    wanted = {f"model.attention.{name}": value for name, value in needed.items()}
    wanted |= {"model.decoder.copy": "none", "model.decoder.output": "softmax"}
    if decoder.readout_kind is not ARCHITECTURES[decoder.architecture].readout:
        wanted["model.decoder.readout_type"] = "architecture"
    if score is None or score.stateful or score.needs_history:
        wanted["model.attention.score"] = "general"
    if config.features.combination not in OF_EMBEDDINGS:
        wanted["model.features.combination"] = "concatenate"
    for setting, value in wanted.items():
        if _value(config, setting) != value:
            yield Violation(
                f"latent alignment and {setting}",
                f"model.decoder.architecture={decoder.architecture} sums over the source token that predicts, which is "
                f"not defined with {setting}={_value(config, setting)}",
                ({setting: value}, {"model.decoder.architecture": "luong"}),
            )


def _first_order_needs_distances(config: ModelSettings) -> Iterator[Violation]:
    kind = ARCHITECTURES[config.decoder.architecture]
    if kind.first_order and not kind.monotonic and not config.attention.window:
        yield Violation(
            "first order needs distances",
            f"model.decoder.architecture={config.decoder.architecture} with model.attention.window=0 has transitions "
            "that do not depend on the previous position",
            ({"model.attention.window": 5}, {"model.decoder.architecture": "hard"}),
        )


def _features_are_attended(config: ModelSettings) -> Iterator[Violation]:
    attention, combination = config.attention, config.features.combination
    if combination in OF_EMBEDDINGS:
        return
    facts = attention_facts(config.attention)
    others = tuple({"model.features.combination": name} for name in OF_EMBEDDINGS)
    if facts.score is None:
        yield Violation(
            "features need attention",
            f"model.features.combination={combination} attends to features, and model.attention.score="
            f"{attention.score} is a model without attention",
            (*others, {"model.attention.score": "general"}, {"model.attention.score": "additive"}),
        )
    elif not facts.score.has_keys or facts.score.needs_history or facts.score.stateful:
        yield Violation(
            "features need a score of content",
            f"model.features.combination={combination} scores features by their content, which model.attention.score="
            f"{attention.score} does not read, or not alone",
            (*others, {"model.attention.score": "additive"}, {"model.attention.score": "general"}),
        )


def _flat_has_no_places(config: ModelSettings) -> Iterator[Violation]:
    attention, facts = config.attention, attention_facts(config.attention)
    if config.features.combination != "flat" or facts.score is None:
        return
    of_places: list[tuple[str, Any]] = [  # settings that read where a token stands, and values that do not
        *([("model.attention.history", "none")] if attention.history != "none" else []),
        *([("model.attention.constraint", "none")] if attention.constraint != "none" else []),
        *([("model.attention.normalizer", "softmax")] if "fusedmax_strength" in facts.normalizer.settings else []),
    ]
    for setting, value in of_places:
        yield Violation(
            f"flat and {setting}",
            "model.features.combination=flat attends to source and features as one set of tokens without places, and "
            f"{setting}={_value(config, setting)} reads the places or the source alone",
            (
                {setting: value},
                {"model.features.combination": "separate"},
                {"model.features.combination": "hierarchical"},
            ),
        )


def _pointer_copies_from_the_source_alone(config: ModelSettings) -> Iterator[Violation]:
    copying = COPYING.get(config.decoder.copy)
    if config.features.combination == "flat" and copying is not None and copying.needs_distribution:
        yield Violation(
            "flat and copying",
            f"model.decoder.copy={config.decoder.copy} reads the attention weights as probabilities of source tokens, "
            "of which model.features.combination=flat gives a part to the features",
            (
                {"model.features.combination": "separate"},
                {"model.features.combination": "hierarchical"},
                {"model.decoder.copy": "copynet"},
            ),
        )


def _shared_encoder_reads_embeddings(config: ModelSettings) -> Iterator[Violation]:
    if config.features.encoder == "shared" and config.features.combination == "concatenate":
        yield Violation(
            "shared encoder",
            "model.features.encoder=shared reads features by the source's encoder, to whose input "
            "model.features.combination=concatenate joins what it makes of them",
            (
                *({"model.features.combination": name} for name in ("sum", "flat", "separate", "hierarchical")),
                {"model.features.encoder": "recurrent"},
            ),
        )


def _settings_have_effect(config: ModelSettings) -> Iterator[Violation]:
    for setting in without_effect(config):
        if config.attention.score not in SCORES and setting.startswith("model.attention."):
            continue  # a model without attention may keep the settings of one with attention
        if setting in REFUSED_WITHOUT_EFFECT:
            cause = REFUSED_WITHOUT_EFFECT[setting]
            yield Violation(
                f"effect of {setting}",
                f"{setting}={_text(_value(config, setting))} has no effect with {cause}={_value(config, cause)}",
                ({setting: _default(config, setting)},),
            )


Rule = Callable[[ModelSettings], Iterator[Violation]]
ATTENTION_RULES: tuple[Rule, ...] = (
    _without_attention,
    _score_needs_history,
    _history_needs_keys,
    _constraint_needs_probabilities,
    _second_score_needs_content,
    _normalizer_needs_bound,
    _constraint_needs_window,
    _heads_divide_size,
    _learned_alpha_starts_above_one,
)
RULES: tuple[Rule, ...] = (
    *ATTENTION_RULES,
    _score_needs_equal_widths,
    _values_split_evenly,
    _one_reading_direction,
    _two_directions_of_some_layers,
    _zoneout_needs_one_cell,
    _residual_needs_equal_widths,
    _gate_needs_attentional_vector,
    _one_readout,
    _context_reaches_the_output,
    _readout_needs_a_width,
    _tied_readout_is_as_wide_as_embedding,
    _bridge_needs_equal_states,
    _copying_needs_attention,
    _copying_needs_softmax,
    _copying_needs_distribution,
    _prefix_is_all_that_is_read,
    _latent_alignment_is_one_softmax,
    _first_order_needs_distances,
    _features_are_attended,
    _flat_has_no_places,
    _pointer_copies_from_the_source_alone,
    _shared_encoder_reads_embeddings,
    _settings_have_effect,
)


def _memory_width(config: ModelSettings) -> int:
    return config.encoder.width


# Settings without effect.

Config = TypeVar("Config", bound=ModelSettings)


def without_effect(config: ModelSettings) -> list[str]:
    """The settings, by full name, that differ from their default and change nothing in this combination."""
    if config.builder != "seq2seq":
        return []  # a builder of the user's may read any setting
    return [name for name in _ineffective(config) if _value(config, name) != _default(config, name)]


def effective(config: Config) -> Config:
    """The config with every setting that has no effect at its default: equal results are identical models."""
    groups: dict[str, dict[str, Any]] = {}
    for setting in without_effect(config):
        _, group, name = setting.split(".")
        groups.setdefault(group, {})[name] = _default(config, setting)
    changed = {group: dataclasses.replace(getattr(config, group), **values) for group, values in groups.items()}
    return dataclasses.replace(config, **changed) if changed else config  # type: ignore[type-var]


def _ineffective(config: ModelSettings) -> Iterator[str]:
    encoder, decoder = config.encoder, config.decoder
    read = _read_settings(config.attention)
    architecture = ARCHITECTURES[decoder.architecture]
    if architecture.first_order:
        read.add("window")
    yield from (f"model.attention.{name}" for name in _names(config.attention) if name not in read)
    if encoder.bidirectional and encoder.bidirectional_layers >= encoder.layers:
        yield "model.encoder.bidirectional_layers"
    for group, stack in (("model.encoder", encoder), ("model.decoder", decoder)):
        if CELLS[stack.cell].states == 1:
            yield f"{group}.cell_zoneout"
    if encoder.residual_from > encoder.layers:
        yield "model.encoder.residual_from"
    if decoder.residual_from > decoder.layers:
        yield "model.decoder.residual_from"
    if READOUTS.get(decoder.readout_type) is architecture.readout:
        yield "model.decoder.readout_type"
    if config.features.encoder == "shared":
        yield "model.features.size"
    if config.features.encoder != "linear" or config.features.combination not in OF_EMBEDDINGS:
        yield "model.features.pooling"
    if not architecture.has_input_feeding:
        yield "model.decoder.input_feeding"
    if decoder.copy not in COPYING:
        yield "model.decoder.copy_slots"
    without_readout = dataclasses.replace(decoder, readout=0)
    if decoder.readout_width(config.embedding) == without_readout.readout_width(config.embedding):
        yield "model.decoder.readout"  # 0 means the same width


def _read_settings(config: AttentionConfig) -> set[str]:
    """The settings of attention that can change something."""
    facts = attention_facts(config)
    if facts.score is None:
        return {"score"}
    declared = [declared_settings(kind) for kind in (facts.score, facts.history, facts.constraint)]
    if any(settings is None for settings in declared):
        return set(_names(config))
    read = {*AXES, "heads", "values", *facts.normalizer.settings, *(name for names in declared for name in names or ())}
    if "alpha" in read:
        read.add("learned_alpha")
    if config.heads > 1 or config.values == "projected":
        read.add("size")
    if facts.is_bounded:
        read.add("fertility")
    if facts.has_features:
        read.add("kernel")
        if config.kernel or facts.score.default_kernel:
            read.add("filters")
    if config.kernel == facts.score.default_kernel:
        read.discard("kernel")  # 0 means the same width
    return read


def _names(config: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(config)]


def _value(config: ModelSettings, setting: str) -> Any:
    _, group, name = setting.split(".")
    return getattr(getattr(config, group), name)


def _default(config: ModelSettings, setting: str) -> Any:
    _, group, name = setting.split(".")
    return getattr(_defaults(type(getattr(config, group))), name)


@functools.cache
def _defaults(kind: type[Any]) -> Any:
    return kind()
