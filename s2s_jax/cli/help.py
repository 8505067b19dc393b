"""What `--help` prints: the options of a command, and the settings with their values and descriptions."""

import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from s2s_jax.cli.arguments import HELP_WIDTH, WITH_SETTINGS, Arguments, UsageError, command_parsers, make_parser
from s2s_jax.cli.output import print_text
from s2s_jax.cli.suggestions import did_you_mean, field_name, flag

if TYPE_CHECKING:
    from s2s_jax.cli.settings import SettingGroup
    from s2s_jax.config import Setting


def show_help(arguments: Arguments) -> None:
    """Print the help of a command: its options, or the settings of a group; of `train` both."""
    if arguments.command not in WITH_SETTINGS and arguments.help:
        raise UsageError(f"{arguments.command} takes no settings; see s2s {arguments.command} --help")
    lines = []
    if arguments.command == "train" or arguments.help:
        lines = list(_settings_help(arguments))
    if not arguments.help or lines[0].startswith("Settings"):  # not for a single group
        lines = [*command_parsers(make_parser())[arguments.command].format_help().splitlines(), "", *lines]
    print_text("\n".join(lines).rstrip())


def _settings_help(arguments: Arguments) -> Iterator[str]:
    """The lines about the settings that help is wanted for."""
    from s2s_jax.cli.experiments import is_experiment  # only now: these import jax
    from s2s_jax.cli.settings import command_settings, setting_groups

    experiment, group = getattr(arguments.options, "experiment", None), field_name(arguments.help or "")
    if arguments.command == "train" and experiment is None and is_experiment(arguments.help or ""):
        experiment, group = arguments.help, ""  # s2s train --help EXPERIMENT
    known = {setting.name for setting in command_settings(arguments.command)}
    groups = [
        one._replace(settings=settings)
        for one in setting_groups(_config(arguments, experiment))
        if (settings := [setting for setting in one.settings if setting.name in known])
    ]
    chosen = [one for one in groups if not group or f"{one.name}.".startswith(group + ".")]
    if not chosen:
        names = [one.name for one in groups if one.name]
        raise UsageError(f"no group of settings {group!r}{did_you_mean(group, names)} (there are {', '.join(names)})")
    if not group:
        yield f"Settings and their values in {experiment}:" if experiment else "Settings and their defaults:"
    for number, one in enumerate(chosen):
        yield from ([""] if number or not group else [])
        yield from _group_help(one)


def _config(arguments: Arguments, experiment: str | None) -> Any:
    """The experiment or workload whose values are shown."""
    from s2s_jax.config import Experiment, override

    if arguments.command == "bench":
        from s2s_jax.bench.workloads import WORKLOADS

        return override(WORKLOADS["W1"], *arguments.overrides)
    if experiment is None:
        return override(Experiment(), *arguments.overrides)
    from s2s_jax.cli.experiments import find

    return override(find(experiment, None)[0], *arguments.overrides)


def _group_help(group: "SettingGroup") -> Iterator[str]:
    if group.name:
        yield from textwrap.wrap(f"{group.name}: {group.description}", HELP_WIDTH)
    for setting in group.settings:
        yield from _setting_help(setting)


def _setting_help(setting: "Setting") -> Iterator[str]:
    from s2s_jax.cli.settings import as_typed, choices

    yield f"  {flag(setting.name)} {as_typed(setting.value)}"
    values = f" Values: {', '.join(choices(setting))}." if choices(setting) else ""
    indent = " " * 8
    yield from textwrap.wrap(
        setting.description + values,
        HELP_WIDTH,
        initial_indent=indent,
        subsequent_indent=indent,
        break_on_hyphens=False,
    )
