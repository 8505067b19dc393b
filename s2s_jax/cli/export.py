"""`s2s export`: write a run for those who only translate with it."""

from pathlib import Path

from s2s_jax.cli.arguments import Arguments, UsageError
from s2s_jax.cli.inputs import load_run
from s2s_jax.cli.output import print_json
from s2s_jax.cli.suggestions import flag
from s2s_jax.export.exporter import DEFAULT_BEAM, export_run
from s2s_jax.export.manifest import read_manifest


def export_command(arguments: Arguments) -> None:
    """Write the files and list them."""
    options = arguments.options
    for name, least in (("beam", 1), ("max_length", 0)):
        value = getattr(options, name)
        if value is not None and value < least:
            raise UsageError(f"{flag(name)} must be at least {least}, got {value}")
        if value is not None and options.parameters_only:
            raise UsageError(f"{flag(name)} is for programs, which --parameters-only leaves out; leave one of them out")
    directory = Path(options.output)
    run = load_run(arguments)
    chosen = options.beam is not None or any(each.startswith("search.beam=") for each in arguments.overrides)
    export_run(
        run,
        directory,
        beam=run.experiment.search.beam if chosen else DEFAULT_BEAM,
        max_length=options.max_length or 0,
        programs=not options.parameters_only,
    )
    manifest = read_manifest(directory)
    if options.json:
        print_json({"export": str(directory), "files": manifest["files"]})
        return
    for name, file in manifest["files"].items():
        print(f"{directory / name}: {file['bytes']:,} bytes, sha256 {file['sha256'][:12]}")
    if manifest["searches"]:
        print(f"next: echo 'your line' | s2s translate {directory}")
