"""`s2s export`: write a run for those who only translate with it."""

from pathlib import Path

from s2s_jax.cli.arguments import Arguments, UsageError
from s2s_jax.cli.inputs import load_run
from s2s_jax.cli.output import print_json
from s2s_jax.export.exporter import export_run
from s2s_jax.export.manifest import read_manifest


def export_command(arguments: Arguments) -> None:
    """Write the files and list them."""
    options = arguments.options
    for name, least in (("beam", 1), ("max_length", 0)):
        if getattr(options, name) < least:
            raise UsageError(f"--{name.replace('_', '-')} must be at least {least}, got {getattr(options, name)}")
    directory = Path(options.output)
    export_run(
        load_run(arguments),
        directory,
        beam=options.beam,
        max_length=options.max_length,
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
