"""What does `s2s export` show? The files that it has written."""

from pathlib import Path

from s2s_jax.cli.arguments import Given, UsageError
from s2s_jax.cli.inputs import load_run
from s2s_jax.cli.output import show_json
from s2s_jax.export.exporter import export_run
from s2s_jax.export.manifest import read_description


def export(given: Given) -> None:
    """Write a run for those who only translate."""
    options = given.options
    for name, least in (("beam", 1), ("max_length", 0)):
        if getattr(options, name) < least:
            raise UsageError(f"--{name.replace('_', '-')} must be at least {least}, got {getattr(options, name)}")
    directory, wanted = Path(options.output), {"beam": options.beam, "max_length": options.max_length}
    export_run(load_run(given), directory, programs=not options.parameters_only, **wanted)
    said = read_description(directory)
    if options.json:
        show_json({"export": str(directory), "files": said["files"]})
        return
    for name, file in said["files"].items():
        print(f"{directory / name}: {file['bytes']:,} bytes, sha256 {file['sha256'][:12]}")
    if said["searches"]:
        print(f"next: echo 'your line' | s2s translate {directory}")
