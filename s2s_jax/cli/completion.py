"""Scripts that complete commands, options and settings in a shell, made by shtab."""

import argparse

import shtab

from s2s_jax.cli.arguments import WITH_SETTINGS, Arguments, UsageError, command_parsers, make_parser
from s2s_jax.cli.experiments import known_experiments
from s2s_jax.cli.output import print_text
from s2s_jax.cli.settings import choices, command_settings
from s2s_jax.cli.suggestions import flag

FILE_OPTIONS = ("imports", "input", "prefix", "constraints", "file", "n_best", "python")
DIRECTORY_OPTIONS = ("run", "ensemble", "profile", "output", "out")
EXPERIMENT_FUNCTIONS = {
    "bash": '_s2s_experiments() {{ compgen -W \'{names}\' -- "$1"; compgen -f -- "$1"; }}',
    "zsh": "_s2s_experiments() {{ _alternative 'names:experiment:({names})' 'files:file:_files' }}",
    "tcsh": "",
}


def completion_command(arguments: Arguments) -> None:
    """Print the script; `eval "$(s2s completion bash)"` in a startup file makes a shell read it."""
    if arguments.options.json:
        raise UsageError("completion has no JSON, only a script; leave --json out")
    shell = arguments.options.shell
    parser = make_parser()
    for name, command in command_parsers(parser).items():
        _add_completers(command)
        if name in WITH_SETTINGS:
            _add_settings(name, command)
    functions = EXPERIMENT_FUNCTIONS[shell].format(names=" ".join(known_experiments()))
    print_text(shtab.complete(parser, shell, preamble=functions))


def _add_completers(command: argparse.ArgumentParser) -> None:
    for action in command._actions:
        if action.dest == "experiment":
            action.complete = {"bash": "_s2s_experiments", "zsh": "_s2s_experiments", "tcsh": "f"}  # type: ignore[attr-defined]
        elif action.dest in FILE_OPTIONS and action.type is not int:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
        elif action.dest in DIRECTORY_OPTIONS:
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]


def _add_settings(name: str, command: argparse.ArgumentParser) -> None:
    """Every setting as an option, with the values of named choices."""
    for setting in command_settings(name):
        description = setting.description.split(". ")[0].rstrip(".").replace("%", "%%")
        command.add_argument(
            flag(setting.name), choices=choices(setting) or None, metavar="VALUE", help=description, dest=setting.name
        )
