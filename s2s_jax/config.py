"""What is an experiment, and how is one setting of it changed? The parts' configs, composed; dotted names; JSON."""

import ast
import copy
import dataclasses
import difflib
import functools
import inspect
import itertools
import json
import sys
import textwrap
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from s2s_jax.decode.search import SearchConfig
from s2s_jax.evaluate.evaluation import EvaluationConfig
from s2s_jax.model.seq2seq import ModelConfig
from s2s_jax.text.batches import BatchConfig
from s2s_jax.text.sources import DataConfig
from s2s_jax.text.tokenizers import TokenizersConfig
from s2s_jax.train.checkpoint.checkpoints import CheckpointConfig
from s2s_jax.train.devices import DeviceConfig
from s2s_jax.train.loop import BudgetConfig, ValidationConfig
from s2s_jax.train.metrics_writer import RecordConfig
from s2s_jax.train.objectives import LossConfig
from s2s_jax.train.optimizer import OptimizerConfig
from s2s_jax.train.scheduled_sampling import ScheduledSamplingConfig
from s2s_jax.validation import Traced, at_least

# what may differ when a run is resumed: none of it changes what is learned up to a step
RUNTIME_SETTINGS = (
    *("steps", "device", "record", "checkpoint", "search", "evaluation", "validation", "budget", "batch.prefetch"),
    *("data.directory", "data.manual_dir"),  # the data's own fingerprint is compared instead
)
# numbers that one compiled training step can be told, so that runs that differ in them share it
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
    """Everything that decides what is trained, on what, and how."""

    seed: int = 0
    """Seed of parameters, order of the data, dropout and coins."""
    steps: int = 10_000
    """Training steps."""
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    """What to learn from and what to measure on."""
    tokenizer: TokenizersConfig = dataclasses.field(default_factory=TokenizersConfig)
    """How lines become tokens."""
    batch: BatchConfig = dataclasses.field(default_factory=BatchConfig)
    """How pairs are grouped."""
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    """The network."""
    loss: LossConfig = dataclasses.field(default_factory=LossConfig)
    """What is minimized."""
    scheduled_sampling: ScheduledSamplingConfig = dataclasses.field(default_factory=ScheduledSamplingConfig)
    """What the decoder is fed while it learns."""
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    """How gradients become steps."""
    validation: ValidationConfig = dataclasses.field(default_factory=ValidationConfig)
    """How the run is measured on the way."""
    budget: BudgetConfig = dataclasses.field(default_factory=BudgetConfig)
    """What the run may spend."""
    checkpoint: CheckpointConfig = dataclasses.field(default_factory=CheckpointConfig)
    """When to write a checkpoint, and which ones to keep."""
    search: SearchConfig = dataclasses.field(default_factory=SearchConfig)
    """How translations are looked for."""
    evaluation: EvaluationConfig = dataclasses.field(default_factory=EvaluationConfig)
    """How translations are measured."""
    record: RecordConfig = dataclasses.field(default_factory=RecordConfig)
    """What is told on the way."""
    device: DeviceConfig = dataclasses.field(default_factory=DeviceConfig)
    """Where training runs."""

    def __post_init__(self):
        at_least("seed", self.seed, 0)
        at_least("steps", self.steps, 1)


class Setting(NamedTuple):
    """One field of an experiment."""

    name: str  # dotted
    value: Any
    description: str


def settings(config: Any, prefix: str = "") -> Iterator[Setting]:
    """Every setting of a config, with its value and its meaning, in the order of the fields."""
    meanings = _descriptions(type(config))
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from settings(value, f"{prefix}{field.name}.")
        else:
            yield Setting(prefix + field.name, value, meanings[field.name])


@functools.cache
def _descriptions(kind: type) -> dict[str, str]:
    """The string that stands below each field of a config class."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(kind)))
    body = typing.cast(ast.ClassDef, tree.body[0]).body
    found = {}
    for field, below in itertools.pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            found[typing.cast(ast.Name, field.target).id] = " ".join(str(below.value.value).split())
    return found


def override(experiment: Any, *assignments: str) -> Any:
    """The experiment with settings changed, all at once: `model.attention.score=dot`; hyphens stand for low lines.

    Raises:
        ValueError: there is no such setting, with the nearest name; its value is not of its kind or range; or the
            values cannot go together.
    """
    given = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise ValueError(f"{assignment!r} has no value; write {assignment}=VALUE.")
        given[name] = text
    return with_settings(experiment, given, read=_parsed)


def with_settings(
    experiment: Any, values: Mapping[str, Any], *, read: Callable[[Any, Any, str], Any] | None = None
) -> Any:
    """The experiment with the values of some settings, by dotted name, changed all at once.

    Args:
        read: makes (value, kind of the field, name) a value of that kind; left out, the value must be of it.

    Raises:
        ValueError: as `override`.
    """
    known = [setting.name for setting in settings(experiment)]
    tree: dict[str, Any] = {}
    for name, value in values.items():
        name = name.strip().replace("-", "_")
        if name not in known:
            raise ValueError(f"no setting {name!r}{_nearest(name, known)}")
        *groups, field = name.split(".")
        inside = functools.reduce(lambda branch, group: branch.setdefault(group, {}), groups, tree)
        inside[field] = value
    return _replaced(experiment, tree, read or (lambda value, kind, name: _checked(_listed(value), kind, name)), "")


def without_vmappable(experiment: Experiment) -> Experiment:
    """What an experiment has in common with all that one compiled step can train: seed and told numbers as nobody set
    them.
    """
    usual = {setting.name: setting.value for setting in settings(Experiment())}
    return with_settings(experiment, {name: usual[name] for name in ("seed", *VMAPPABLE_SETTINGS)})


def with_traced(config: Any, numbers: Mapping[str, Any]) -> Any:
    """The config with numbers that jax traces in place of some settings; a tracer's value cannot be looked at."""
    config = copy.copy(config)
    for name, number in numbers.items():
        group, dot, rest = name.partition(".")
        object.__setattr__(
            config, group, with_traced(getattr(config, group), {rest: number}) if dot else Traced(number)
        )
    return config


def _nearest(name: str, known: list[str]) -> str:
    inside = [other for other in known if other.startswith(name + ".")]
    if inside:
        return f"; it is a group: {', '.join(inside)}"
    same_end = [other for other in known if other.split(".")[-1] == name.split(".")[-1]]
    near = same_end or difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if not near:
        last = {other.split(".")[-1]: other for other in known}
        near = [last[end] for end in difflib.get_close_matches(name.split(".")[-1], list(last), n=1)]
    return f"; did you mean {near[0]!r}?" if near else "; s2s train EXPERIMENT --help lists them all."


def _replaced(config: Any, tree: dict[str, Any], read: Callable[[Any, Any, str], Any], prefix: str) -> Any:
    hints, values = _hints(type(config)), {}
    for name, value in tree.items():
        old = getattr(config, name)
        if dataclasses.is_dataclass(old):
            values[name] = _replaced(old, value, read, f"{prefix}{name}.")
        else:
            values[name] = read(value, hints[name], prefix + name)
    return dataclasses.replace(config, **values)


def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind, vars(sys.modules[kind.__module__]))


def _parsed(text: str, kind: Any, name: str) -> Any:
    if kind is str:
        return text
    try:
        value = json.loads(text.lower() if kind is bool else text.replace("_", "") if kind in (int, float) else text)
    except json.JSONDecodeError:
        value = text
    return _checked(value, kind, name)


def _checked(value: Any, kind: Any, name: str) -> Any:
    """A JSON value as a field's kind.

    Raises:
        ValueError: it is of another kind.
    """
    if typing.get_origin(kind) is tuple:
        inner = typing.get_args(kind)
        if isinstance(value, list) and (inner[-1] is Ellipsis or len(value) == len(inner)):
            kinds = [inner[0]] * len(value) if inner[-1] is Ellipsis else inner
            return tuple(_checked(one, of, name) for one, of in zip(value, kinds, strict=True))
    elif kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    elif kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    elif type(value) is kind:
        return value
    wanted = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}.get(kind, "a JSON list")
    raise ValueError(f"{name} must be {wanted}, got {value!r}")


def to_json(experiment: Experiment) -> dict[str, Any]:
    """The experiment as nested dicts that JSON can say."""
    return dataclasses.asdict(experiment)


def from_json(record: dict[str, Any], kind: type = Experiment, prefix: str = "") -> Any:
    """The experiment that a dict describes; settings that it does not name have their defaults.

    Raises:
        ValueError: it names a setting that does not exist, or gives one a value it cannot have.
    """
    hints = _hints(kind)
    known = [field.name for field in dataclasses.fields(kind)]
    values = {}
    for name, value in record.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise ValueError(
                f"no setting {prefix + name!r}" + (f"; did you mean {prefix + near[0]!r}?" if near else "")
            )
        if dataclasses.is_dataclass(hints[name]):
            values[name] = from_json(value, typing.cast(type, hints[name]), f"{prefix}{name}.")
        else:
            values[name] = _checked(_listed(value), hints[name], prefix + name)
    return kind(**values)


def _listed(value: Any) -> Any:
    return [_listed(one) for one in value] if isinstance(value, tuple | list) else value


def differences(before: Experiment, after: Experiment) -> list[str]:
    """The settings in which two experiments differ and that a resumed run may not change, a line each."""
    old = {setting.name: setting.value for setting in settings(before)}
    return [
        f"{setting.name}: {old[setting.name]!r} before, {setting.value!r} now"
        for setting in settings(after)
        if setting.value != old[setting.name] and not setting.name.startswith(RUNTIME_SETTINGS)
    ]
