"""`s2s serve`: runs and exported runs behind an HTTP interface."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from s2s_jax.cli.arguments import Arguments, UsageError
from s2s_jax.cli.inputs import check_not_a_file, use_device
from s2s_jax.cli.output import flush, print_json, print_line
from s2s_jax.cli.suggestions import flag
from s2s_jax.export.manifest import is_exported
from s2s_jax.extras import needs_extra
from s2s_jax.serve.config import ServeConfig
from s2s_jax.serve.models import ServedModel, load_model
from s2s_jax.serve.service import Service
from s2s_jax.training.devices import DeviceConfig, keep_freed_memory

OF_SERVER = ("search.batch_size", "search.batch_invariant")


def serve_command(arguments: Arguments) -> None:
    """Load the runs, print the address, and serve until a signal."""
    options = arguments.options
    config = ServeConfig(**{name: getattr(options, name) for name in ServeConfig.__dataclass_fields__})
    try:
        from s2s_jax.serve.server import serve
    except ModuleNotFoundError as error:
        if error.name not in ("starlette", "uvicorn"):
            raise
        raise UsageError(needs_extra("s2s serve", "serve")) from None
    keep_freed_memory()
    values: dict[str, Any] = dict(each.split("=", 1) for each in arguments.overrides)
    device = {name.removeprefix("device."): value for name, value in values.items() if name.startswith("device.")}
    use_device(arguments, DeviceConfig(**device))
    names = model_names(options.runs)
    models = [_load(run, name, config, arguments) for run, name in zip(options.runs, names, strict=True)]

    def announce(address: str) -> None:
        if options.json:
            print_json({"address": address, "models": names})
        else:
            print_line(f"{', '.join(names)}: {address} (ready when {address}/ready says so; Ctrl-C ends)")
        flush()

    serve(Service(models, config), announce)


def _load(run: str, name: str, config: ServeConfig, arguments: Arguments) -> ServedModel:
    check_not_a_file(run)
    also = [_settings(text) for text in arguments.options.also]
    searches = [each for each in arguments.overrides if each.startswith("search.")]
    for setting in (each.partition("=")[0] for each in searches):
        if setting in OF_SERVER:
            raise UsageError(f"{flag(setting)} is decided by the server; give --rows instead")
    if all(is_exported(Path(each)) for each in arguments.options.runs) and (also or searches):
        option = "--also" if also else flag(searches[0].partition("=")[0])
        raise UsageError(f"the searches of exported runs were settled by s2s export; leave {option} out")
    return load_model(run, name, config, changes=searches, also=also)


def model_names(runs: Sequence[str]) -> list[str]:
    """The names of the runs' folders; a number behind those that occur again."""
    names: list[str] = []
    for run in runs:
        name = Path(run).resolve().name
        count = sum(Path(other).resolve().name == name for other in runs[: len(names)])
        names.append(f"{name}-{count + 1}" if count else name)
    return names


def _settings(text: str) -> dict[str, Any]:
    """The settings of a search, of `beam=5,length_penalty=1`."""
    settings: dict[str, Any] = {}
    for each in text.split(","):
        name, equals, value = each.partition("=")
        if not equals or not name or not value:
            raise UsageError(
                f"--also must be settings of a search such as beam=5 or method=sample,samples=4, got {text!r}"
            )
        settings[name.strip().replace("-", "_").removeprefix("search.")] = _number(value.strip())
    return settings


def _number(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(text, text)
