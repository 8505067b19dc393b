"""What the user typed: the command, its options, the overrides of settings, and whether help is wanted."""

import argparse
from collections.abc import Iterator, Sequence

from s2s_jax.cli.arguments import COMMANDS, WITH_SETTINGS, Arguments, UsageError, command_parsers, make_parser
from s2s_jax.cli.suggestions import did_you_mean, field_name, flag, nearest_flag


def parse(words: Sequence[str]) -> Arguments:
    """The parsed command line; options may stand anywhere, hyphens and underscores are the same in flags.

    Raises:
        UsageError: something is missing or unknown.
    """
    parser = make_parser()
    if not words or words[0].startswith("-"):
        parser.parse_args(words)  # prints help or the version and exits, or raises
    name, *rest = words
    if name not in COMMANDS:
        raise UsageError(f"no command {name!r}{did_you_mean(name, COMMANDS)} (there are {', '.join(COMMANDS)})")
    command = command_parsers(parser)[name]
    words_of_command, overrides, group = _split(rest, name, command)
    if group is not None and name != "train":
        return Arguments(name, argparse.Namespace(), overrides, group)
    options, unexpected = command.parse_known_args(words_of_command)
    if unexpected:
        raise UsageError(f"unexpected argument {unexpected[0]!r}; see s2s {name} --help")
    return Arguments(name, options, overrides, group)


def _split(
    words: Sequence[str], name: str, command: argparse.ArgumentParser
) -> tuple[list[str], list[str], str | None]:
    """The words of the command, options first, the overrides `name=value`, and the group that help is wanted for."""
    options = {option: action for action in command._actions for option in action.option_strings}
    own, positional, overrides, group = [], [], [], None
    remaining = _Remaining(words)
    for word in remaining:
        typed, equals, value = word.partition("=")
        option = flag(field_name(typed)) if typed.startswith("--") else typed
        if word == "--":
            positional += [word, *remaining]
        elif option in ("-h", "--help"):
            group = value or remaining.optional_value()
        elif option in options and options[option].nargs == 0:
            own.append(option + equals + value)
        elif option in options:
            own.append(f"{option}={value if equals else remaining.value_of(typed)}")
        elif typed.startswith("--"):
            _check_setting(field_name(typed), name, [field_name(known) for known in options])
            overrides.append(f"{field_name(typed)}={value if equals else remaining.value_of(typed)}")
        else:
            positional.append(word)
    return own + positional, overrides, group


class _Remaining(Iterator[str]):
    """Words in order, of which the next can be taken as the value of the last."""

    def __init__(self, words: Sequence[str]):
        self.words = list(words)

    def __next__(self) -> str:
        if not self.words:
            raise StopIteration
        return self.words.pop(0)

    def optional_value(self) -> str:
        """The next word, unless it is an option; else nothing."""
        return self.words.pop(0) if self.words and not self.words[0].startswith("-") else ""

    def value_of(self, option: str) -> str:
        """The next word.

        Raises:
            UsageError: there is none, or it is another option.
        """
        if not self.words or self.words[0].startswith("--"):
            raise UsageError(f"{option} has no value; write {option} VALUE")
        return self.words.pop(0)


def _check_setting(name: str, command: str, options: Sequence[str]) -> None:
    """Refuse a flag that is neither an option of the command nor a setting that can be overridden there.

    Raises:
        UsageError: with the flag that was probably meant.
    """
    settings = _setting_names(command)
    if name in settings:
        return
    if command != "bench" and settings and name in _setting_names("train"):
        raise UsageError(_why_not(name, command))
    members = [other for other in settings if other.startswith(name + ".")]
    if members:
        raise UsageError(f"{flag(name)} is a group of settings: {', '.join(map(flag, members))}")
    near = nearest_flag(name, [*options, *settings])
    hint = f"did you mean {flag(near)}?" if near else f"see s2s {command} --help"
    raise UsageError(f"no {'setting' if '.' in name else 'option'} {flag(name)}; {hint}")


def _why_not(name: str, command: str) -> str:
    """Why a setting of an experiment cannot be given to a command."""
    from s2s_jax.cli.settings import of_loaded_runs

    if of_loaded_runs(name):
        return f"{flag(name)} has no effect in s2s {command}; leave it out"
    return f"{flag(name)} is settled when a run is trained; set it in s2s train"


def _setting_names(command: str) -> list[str]:
    """The dotted names of the settings that can be overridden in a command."""
    if command not in WITH_SETTINGS:
        return []
    from s2s_jax.cli.settings import command_settings  # only now: jax is not needed where no setting is named

    return [setting.name for setting in command_settings(command)]
