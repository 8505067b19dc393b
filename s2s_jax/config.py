"""The whole experiment as one config: the parts' configs composed, dotted names for settings, JSON in and out."""

import ast
import copy
import dataclasses
import difflib
import functools
import inspect
import itertools
import json
import textwrap
import typing
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from s2s_jax.decode.search import SearchConfig
from s2s_jax.evaluate.config import EvaluationConfig
from s2s_jax.evaluate.metrics import METRICS
from s2s_jax.model.seq2seq import ModelConfig
from s2s_jax.text.batches import BatchConfig
from s2s_jax.text.sources import DataConfig
from s2s_jax.text.tokenizers import TokenizersConfig
from s2s_jax.training.checkpoint.checkpoints import CheckpointConfig
from s2s_jax.training.devices import DeviceConfig
from s2s_jax.training.metrics_writer import RecordConfig
from s2s_jax.training.objectives import LossConfig
from s2s_jax.training.optimizer import OptimizerConfig, reads_steps
from s2s_jax.training.scheduled_sampling import ScheduledSamplingConfig
from s2s_jax.training.sequence_level.config import OF_TEXT, SequenceTrainingConfig
from s2s_jax.training.stop_policy import BudgetConfig, ValidationConfig
from s2s_jax.training.warm_start import WarmStartConfig
from s2s_jax.validation import Traced, at_least, check_fields, field_types, one_of

# settings that may differ when a run is resumed: none of them changes what is learned up to a step
RUNTIME_SETTINGS = (
    *(
        "steps",
        "epochs",
        "imports",
        "device",
        "record",
        "checkpoint",
        "search",
        "evaluation",
        *("validation.every", "validation.sentences", "validation.patience"),  # costs of two metrics do not compare
        "budget",
        "batch.prefetch",
    ),
    *("data.directory", "data.manual_dir", "data.cache", "data.workers", "data.test", "data.test_alignment"),
)
# where data and tokenizers lie, which may change; their fingerprints, which may not, are compared instead
LOCATION_SETTINGS = (
    *("data.train", "data.validation", "data.alignment", "data.validation_alignment"),
    *("tokenizer.source.file", "tokenizer.target.file", "tokenizer.source.vocabulary", "tokenizer.target.vocabulary"),
    "tokenizer.features.file",
)
# runtime settings that decide, with a plateau schedule, when the learning rate decays
PLATEAU_SETTINGS = ("validation.every", "validation.sentences", "search", "evaluation")
# numbers that enter the compiled training step as traced values, so that runs that differ in them share one program
VMAPPABLE_SETTINGS = (
    *(
        "optimizer.learning_rate",
        "loss.label_smoothing",
        "scheduled_sampling.start",
        "scheduled_sampling.end",
        "scheduled_sampling.decay",
    ),
    *("model.encoder.dropout", "model.encoder.recurrent_dropout"),
    *("model.decoder.dropout", "model.decoder.recurrent_dropout"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """Everything that decides what is trained, on what data, and how."""

    seed: int = 0
    """Seed of the parameters, the order of the data, dropout and sampling."""
    steps: int = 10_000
    """Training steps."""
    epochs: int = 0
    """Passes over the training data, instead of steps, which become so many times the batches of an epoch when the data
    has been read; 0 for steps. Whoever changes steps alone sets it to 0."""
    imports: tuple[str, ...] = ()
    """Files or modules of yours that add to the tables (scores, cells, metrics, ...), imported before training."""
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    """Training, validation and test data."""
    tokenizer: TokenizersConfig = dataclasses.field(default_factory=TokenizersConfig)
    """How lines become tokens."""
    batch: BatchConfig = dataclasses.field(default_factory=BatchConfig)
    """How pairs are grouped into batches."""
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    """The network."""
    warm_start: WarmStartConfig = dataclasses.field(default_factory=WarmStartConfig)
    """Parameters of another run to start from."""
    loss: LossConfig = dataclasses.field(default_factory=LossConfig)
    """What is minimized."""
    scheduled_sampling: ScheduledSamplingConfig = dataclasses.field(default_factory=ScheduledSamplingConfig)
    """Which tokens the decoder is fed during training."""
    sequence_training: SequenceTrainingConfig = dataclasses.field(default_factory=SequenceTrainingConfig)
    """How whole outputs are weighed, where loss.objective is sequence-level."""
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    """The optimizer and its learning rate."""
    validation: ValidationConfig = dataclasses.field(default_factory=ValidationConfig)
    """When and by which metric the run is validated."""
    budget: BudgetConfig = dataclasses.field(default_factory=BudgetConfig)
    """Bounds on tokens and time."""
    checkpoint: CheckpointConfig = dataclasses.field(default_factory=CheckpointConfig)
    """When to write a checkpoint, and which ones to keep."""
    search: SearchConfig = dataclasses.field(default_factory=SearchConfig)
    """How translations are searched."""
    evaluation: EvaluationConfig = dataclasses.field(default_factory=EvaluationConfig)
    """How translations are evaluated."""
    record: RecordConfig = dataclasses.field(default_factory=RecordConfig)
    """What is logged during training."""
    device: DeviceConfig = dataclasses.field(default_factory=DeviceConfig)
    """Devices that training runs on."""

    def __post_init__(self):
        check_fields(self, "")
        at_least("seed", self.seed, 0)
        at_least("steps", self.steps, 1)
        at_least("epochs", self.epochs, 0)
        one_of("validation.metric", self.validation.metric, METRICS)
        if metric := self.sequence_training.of_text:
            one_of(f"sequence_training.reward={OF_TEXT}METRIC: METRIC", metric, METRICS)


class Setting(NamedTuple):
    """One field of an experiment."""

    name: str  # dotted, such as model.attention.score
    value: Any
    description: str
    type: Any  # the annotation of the field


def settings(config: Any, prefix: str = "") -> Iterator[Setting]:
    """Every setting of a config with its value, description and type, in the order of the fields."""
    types, descriptions = field_types(type(config)), field_descriptions(type(config))
    for name, annotation in types.items():
        value = getattr(config, name)
        if dataclasses.is_dataclass(value):
            yield from settings(value, f"{prefix}{name}.")
        else:
            yield Setting(prefix + name, value, descriptions[name], annotation)


@functools.cache
def field_descriptions(kind: type) -> dict[str, str]:
    """The string below each field of a config class."""
    descriptions = dict(field_descriptions(kind.__base__)) if dataclasses.is_dataclass(kind.__base__) else {}
    tree = ast.parse(textwrap.dedent(inspect.getsource(kind)))
    body = typing.cast(ast.ClassDef, tree.body[0]).body
    for field, below in itertools.pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            descriptions[typing.cast(ast.Name, field.target).id] = " ".join(str(below.value.value).split())
    return descriptions


def override(experiment: Any, *assignments: str) -> Any:
    """The experiment with settings changed, all at once: `model.attention.score=dot`; hyphens stand for underscores.

    A list of words or numbers is typed as `A,B` or, as any other list, in JSON.

    Raises:
        ValueError: there is no such setting (the nearest name is suggested), a value has the wrong type or range, or
            the values cannot be combined.
    """
    types = {setting.name: setting.type for setting in settings(experiment)}
    values = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise ValueError(f"{assignment!r} has no value; write {assignment}=VALUE.")
        values[name] = _parsed(text, types.get(_field_name(name)))
    return with_settings(experiment, values)


def with_settings(experiment: Any, values: Mapping[str, Any]) -> Any:
    """The experiment with the values of some settings, by dotted name, changed all at once.

    Raises:
        ValueError: as `override`.
    """
    known = [setting.name for setting in settings(experiment)]
    values = {_field_name(name): value for name, value in values.items()}
    if "steps" in values and "epochs" in known:
        if values.get("epochs"):
            raise ValueError(
                f"steps={values['steps']} and epochs={values['epochs']} both say how long to train; leave one out."
            )
        values = {"epochs": 0, **values}
    if values.get("warm_start.run") and "optimizer.extended" in known:
        values = {"optimizer.extended": (), **values}  # what other runs have been through is not the new one's
    tree: dict[str, Any] = {}
    for name, value in values.items():
        if name not in known:
            raise ValueError(f"no setting {name!r}{_nearest(name, known)}")
        *groups, field = name.split(".")
        branch = functools.reduce(lambda branch, group: branch.setdefault(group, {}), groups, tree)
        branch[field] = value
    return _replaced(experiment, tree)


def without_vmappable(experiment: Experiment) -> Experiment:
    """The experiment with the default seed and default values of all vmappable settings.

    Experiments for which this is equal can be trained by one compiled step.
    """
    defaults = {setting.name: setting.value for setting in settings(Experiment())}
    return with_settings(experiment, {name: defaults[name] for name in ("seed", *VMAPPABLE_SETTINGS)})


def with_traced(config: Any, numbers: Mapping[str, Any]) -> Any:
    """The config with traced numbers in place of some settings; they are not checked, since tracers have no value."""
    config = copy.copy(config)
    for name, number in numbers.items():
        group, dot, rest = name.partition(".")
        object.__setattr__(
            config, group, with_traced(getattr(config, group), {rest: number}) if dot else Traced(number)
        )
    return config


def _field_name(name: str) -> str:
    return name.strip().replace("-", "_")


def _nearest(name: str, known: list[str]) -> str:
    members = [other for other in known if other.startswith(name + ".")]
    if members:
        return f"; it is a group: {', '.join(members)}"
    same_end = [other for other in known if other.split(".")[-1] == name.split(".")[-1]]
    near = same_end or difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if not near:
        last = {other.split(".")[-1]: other for other in known}
        near = [last[end] for end in difflib.get_close_matches(name.split(".")[-1], list(last), n=1)]
    return f"; did you mean {near[0]!r}?" if near else "; s2s train EXPERIMENT --help lists them all."


def _replaced(config: Any, tree: Mapping[str, Any]) -> Any:
    """The config with the values of a tree of groups and fields; each config checks its own (`check_fields`)."""
    values = {}
    for name, value in tree.items():
        old = getattr(config, name)
        values[name] = _replaced(old, value) if dataclasses.is_dataclass(old) else value
    return dataclasses.replace(config, **values)


def _parsed(text: str, annotation: Any) -> Any:
    """The value that a text means for a field; of the wrong type where it cannot be read, which the config refuses."""
    if annotation is str or typing.get_origin(annotation) is typing.Literal:
        return text
    item = None if text.lstrip().startswith("[") else _item_kind(annotation)
    if item is str:
        return tuple(word.strip() for word in text.split(",") if word.strip())
    if annotation is bool:
        text = text.lower()
    elif annotation in (int, float):
        text = text.replace("_", "")
    try:
        return json.loads(f"[{text}]" if item and "," in text else text)
    except ValueError:  # no JSON, or a number of thousands of digits
        return text


def _item_kind(annotation: Any) -> Any:
    """The type of the items of a list of texts, names or numbers; None for any other field."""
    kinds = typing.get_args(annotation) if typing.get_origin(annotation) is tuple else ()
    if kinds and typing.get_origin(kinds[0]) is typing.Literal:
        return str
    return kinds[0] if kinds and kinds[0] in (str, int, float) else None


def to_json(experiment: Experiment) -> dict[str, Any]:
    """The experiment as nested dicts that JSON can represent."""
    return dataclasses.asdict(experiment)


def from_json(record: dict[str, Any], kind: type = Experiment, prefix: str = "") -> Any:
    """The experiment that nested dicts describe; settings that are left out have their defaults.

    Raises:
        ValueError: there is no setting of a name, or a value is not allowed.
    """
    types = field_types(kind)
    values = {}
    if not isinstance(record, dict):
        raise ValueError(f"{prefix.rstrip('.')} must be a group of settings, got {record!r}")
    for name, value in record.items():
        if name not in types:
            near = difflib.get_close_matches(name, types, n=1)
            raise ValueError(
                f"no setting {prefix + name!r}" + (f"; did you mean {prefix + near[0]!r}?" if near else "")
            )
        nested = dataclasses.is_dataclass(types[name])
        values[name] = from_json(value, types[name], f"{prefix}{name}.") if nested else value
    return kind(**values)


def learned_settings(experiment: Experiment) -> dict[str, Any]:
    """The settings that decide what is learned, by dotted name, with values as JSON gives them back.

    The number of steps is one of them where the learning rate schedule reads it, and so is what decides about
    validations where it reads those.
    """
    learned = {it.name: it.value for it in settings(experiment) if not it.name.startswith(RUNTIME_SETTINGS)}
    if reads_steps(experiment.optimizer):
        learned["steps"] = experiment.steps
    if experiment.optimizer.schedule == "plateau":
        read = (it for it in settings(experiment) if it.name.startswith(PLATEAU_SETTINGS))
        learned |= {it.name: it.value for it in read}
    return json.loads(json.dumps(learned))


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The learned settings in which two runs differ, by name, with both values; one that is missing has its default.

    One that has none, since it is learned with some schedules alone, does not differ: the schedule does.
    """
    defaults = learned_settings(Experiment())
    each = {
        name: tuple(learned.get(name, defaults.get(name)) for learned in (before, after))
        for name in {**before, **after}
        if name in defaults or (name in before and name in after)
    }
    return {name: (old, new) for name, (old, new) in each.items() if old != new}


def with_epochs(experiment: Experiment, per_epoch: int) -> Experiment:
    """The experiment with the steps of its epochs, of so many batches each."""
    return dataclasses.replace(experiment, steps=experiment.epochs * per_epoch) if experiment.epochs else experiment


def as_of(experiment: Experiment, step: int) -> Experiment:
    """The experiment as it was when a step was trained: before the run was extended after it."""
    parts = experiment.optimizer.extended
    for index, (end, steps) in enumerate(parts):
        if step <= end:
            return with_settings(experiment, {"steps": steps, "optimizer.extended": parts[:index]})
    return experiment
