"""The settings that commands take, their groups, and the values of named choices."""

import json
import shlex
import typing
from typing import Any, NamedTuple

import s2s_jax
from s2s_jax.config import Experiment, Setting, settings

# what can still be changed when a trained run is used: settings and groups of settings, per command
_DEVICE = ("device.platform", "device.cache")
OF_LOADED_RUNS = {
    "translate": ("search", "data.encoding_errors", *_DEVICE),
    "score": ("search", "data.encoding_errors", "data.source", "data.target", "data.features", *_DEVICE),
    "evaluate": ("search", "evaluation", "data", *_DEVICE),
    "compare": ("search", "evaluation", "data", *_DEVICE),
    "align": ("search", "data", *_DEVICE),
    "export": ("search", *_DEVICE),
    "serve": ("search", *_DEVICE),
    "explore": ("search", "data.encoding_errors", *_DEVICE),
}
# settings whose values are the names of a table that users extend, and the public name of that table
CHOICE_TABLES = {
    "model.attention.constraint": "CONSTRAINTS",
    "model.attention.history": "HISTORIES",
    "model.attention.normalizer": "NORMALIZERS",
    "model.attention.score": "SCORES",
    "model.builder": "MODELS",
    "model.decoder.architecture": "ARCHITECTURES",
    "model.decoder.bridge": "BRIDGES",
    "model.decoder.cell": "CELLS",
    "model.encoder.cell": "CELLS",
    "loss.objective": "OBJECTIVES",
    "optimizer.name": "OPTIMIZERS",
    "search.method": "SEARCHES",
    "tokenizer.features.type": "TOKENIZERS",
    "tokenizer.source.type": "TOKENIZERS",
    "tokenizer.target.type": "TOKENIZERS",
    "validation.metric": "METRICS",
}
HIDDEN = ("imports", "description")  # --import sets the one, nobody the other


class SettingGroup(NamedTuple):
    """The settings that share a prefix."""

    name: str  # such as model.attention; empty for those without a prefix
    description: str
    settings: list[Setting]


def command_settings(command: str) -> list[Setting]:
    """Every setting that can be overridden in a command, with its default."""
    if command == "bench":
        from s2s_jax.bench.workloads import WORKLOADS

        return [setting for setting in settings(WORKLOADS["W1"]) if setting.name not in HIDDEN]
    known = [setting for setting in settings(Experiment()) if setting.name not in HIDDEN]
    if command in ("train", "sweep"):
        return known
    return [setting for setting in known if _is_among(setting.name, OF_LOADED_RUNS[command])]


def _is_among(name: str, settings: tuple[str, ...]) -> bool:
    return any(f"{name}.".startswith(f"{other}.") for other in settings)


def of_loaded_runs(name: str) -> bool:
    """Whether a setting is in a group of which a command that uses a trained run takes some."""
    groups = {taken.partition(".")[0] for settings in OF_LOADED_RUNS.values() for taken in settings}
    return name.partition(".")[0] in groups


def setting_groups(config: Any) -> list[SettingGroup]:
    """The settings of an experiment or a workload, group by group, the groups in the order of the fields."""
    groups: dict[str, list[Setting]] = {}
    for setting in settings(config):
        if setting.name not in HIDDEN:
            groups.setdefault(setting.name.rpartition(".")[0], []).append(setting)
    return [SettingGroup(name, _description(config, name), members) for name, members in groups.items()]


def _description(config: Any, group: str) -> str:
    """The first line of the docstring of a group's config."""
    for name in group.split(".") if group else ():
        config = getattr(config, name)
    return (type(config).__doc__ or "").strip().split("\n\n")[0]


def choices(setting: Setting) -> tuple[str, ...]:
    """The values of a named choice, those that the user's own code has added among them; empty for other settings."""
    if setting.type is bool:
        return ("true", "false")
    names = typing.get_args(setting.type) if typing.get_origin(setting.type) is typing.Literal else ()
    table = getattr(s2s_jax, CHOICE_TABLES[setting.name], {}) if setting.name in CHOICE_TABLES else {}
    return (*names, *sorted(set(table) - set(names)))


def as_typed(value: Any) -> str:
    """A value as it is typed on a command line."""
    return shlex.quote(value if isinstance(value, str) else json.dumps(value))
