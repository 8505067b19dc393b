"""Write constraints.txt: the version of every package that pip resolves today, for Python 3.11 and for newer ones.

Usage: python scripts/constraints.py python3.11 python3.13   (one interpreter of 3.11, one or more newer ones)
Nothing is installed. A line holds a name and a version, and a marker where the two differ.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
EXTRAS = "test,lint"
HEADER = "# Versions that the tests passed with; made by `make constraints`, ignored by `make test NEWEST=1`.\n"
OLD, NEW = "python_version < '3.12'", "python_version >= '3.12'"


def resolve(python: str) -> tuple[bool, dict[str, str]]:
    """Whether an interpreter is a 3.11, and the version of each package that pip would install for it."""
    with tempfile.TemporaryDirectory() as folder:
        environment, report = Path(folder, "venv"), Path(folder, "report.json")
        subprocess.run([python, "-m", "venv", environment], check=True)  # noqa: S603
        pip = [environment / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check"]
        command = [*pip, "--dry-run", "--ignore-installed", "--report", report, f"{ROOT}[{EXTRAS}]"]
        subprocess.run(command, check=True)  # noqa: S603
        found = json.loads(report.read_text(encoding="utf-8"))
    packages = {item["metadata"]["name"]: item["metadata"]["version"] for item in found["install"]}
    versions = {name.lower().replace("_", "-"): version for name, version in packages.items()}
    versions.pop("s2s-jax")
    return found["environment"]["python_version"] == "3.11", versions


def constraints(old: dict[str, str], new: dict[str, str]) -> list[str]:
    """One line per package and version, by name; a package that one side alone needs is bound on both."""
    lines = []
    for name in sorted({*old, *new}):
        before, now = old.get(name), new.get(name)
        if before is None or now is None or before == now:
            lines.append(f"{name}=={before or now}")
        else:
            lines += [f"{name}=={before} ; {OLD}", f"{name}=={now} ; {NEW}"]
    return lines


def merge(versions: list[dict[str, str]]) -> dict[str, str]:
    """The versions of several newer interpreters, which must agree.

    Raises:
        ValueError: they differ in a package.
    """
    merged: dict[str, str] = {}
    for one in versions:
        differing = [name for name in one if merged.get(name, one[name]) != one[name]]
        if differing:
            raise ValueError(f"the newer interpreters resolve different versions of {', '.join(differing)}")
        merged |= one
    return merged


def main(pythons: list[str]) -> None:
    """Resolve for every interpreter and write the file."""
    resolved = [resolve(python) for python in pythons]
    old, new = (merge([versions for is_old, versions in resolved if is_old == side]) for side in (True, False))
    if not old or not new:
        raise SystemExit("give an interpreter of 3.11 and a newer one: constraints.py python3.11 python3.13")
    (ROOT / "constraints.txt").write_text(HEADER + "\n".join(constraints(old, new)) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
