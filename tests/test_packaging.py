"""What is installed: a wheel that works on its own, pinned versions, and imports that stay light."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = ("s2s_jax", "experiments", "setup.py", "pyproject.toml", "README.md", "LICENSE")
HEAVY = {"tensorflow_datasets", "grain", "babel", "matplotlib", "rapidfuzz"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The folder of an unpacked wheel, built from a copy of the source tree."""
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tree / name)
    code = f"from setuptools import build_meta; build_meta.build_wheel({str(out)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=tree, check=True, capture_output=True)
    with zipfile.ZipFile(next(out.glob("*.whl"))) as archive:
        archive.extractall(out / "unpacked")
    return out / "unpacked"


def python(*words: str, path: Path = ROOT, folder: Path | None = None) -> str:
    """Run Python with a folder on its path; its output."""
    environment = {**os.environ, "PYTHONPATH": str(path), "XLA_FLAGS": ""}
    done = subprocess.run(
        [sys.executable, *words], env=environment, cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_wheel_holds_the_experiments_and_trains_one_in_an_empty_folder(wheel, tmp_path):
    where = python(
        "-c",
        "import s2s_jax, s2s_jax.experiments.dates as d; print(s2s_jax.__file__, d.__file__)",
        path=wheel,
        folder=tmp_path,
    )
    assert all(Path(file).is_relative_to(wheel) for file in where.split())
    settings = ("--data.train-size", "40", "--data.eval-size", "10", "--validation.sentences", "4", "--batch.size", "4")
    sizes = ("--model.encoder.size", "6", "--model.decoder.size", "12", "--model.attention.size", "5")
    words = ("-m", "s2s_jax", "train", "dates", "--steps", "2", "--batch.buckets", "1", "--device.cache", "")
    python(*words, *settings, *sizes, path=wheel, folder=tmp_path)
    assert (tmp_path / "runs" / "dates" / "config.json").exists()


def test_a_wheel_holds_every_file_that_the_package_needs(wheel):
    for folder, installed in ((ROOT / "s2s_jax", "s2s_jax"), (ROOT / "experiments", "s2s_jax/experiments")):
        for path in folder.rglob("*"):
            if path.is_file() and path.suffix in (".py", ".json", ".typed", ".sh"):
                assert (wheel / installed / path.relative_to(folder)).is_file(), path


def pinned(python_version: str) -> dict[str, str]:
    """The version of each package in constraints.txt, for one version of Python."""
    versions = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines()[1:]:
        name, version, marker = re.fullmatch(
            r"([a-z0-9.\-]+)==([\w.]+)(?: ; python_version (.* '3\.12'))?", line
        ).groups()
        if marker is None or marker.startswith("<") == (python_version == "3.11"):
            assert name not in versions
            versions[name] = version
    return versions


@pytest.mark.parametrize("python_version", ["3.11", "3.12"])
def test_every_dependency_is_pinned(python_version):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    groups = ("test", "lint", "export", "fonts", "serve", "slurm", "tensorboard", "tune")
    needed = [*project["dependencies"], *(name for group in groups for name in extras[group])]
    names = {re.split(r"[<>=\[]", name)[0].lower().replace("_", "-") for name in needed} - {"s2s-jax"}
    assert names - set(pinned(python_version)) == set()
    assert pinned("3.11")["jax"] < pinned("3.12")["jax"]


def imported(code: str) -> set[str]:
    """The top-level modules that are loaded after a piece of code."""
    return set(python("-c", f"import sys\n{code}\nprint(*{{name.split('.')[0] for name in sys.modules}})").split())


def test_benchmarks_import_no_heavy_library():
    assert HEAVY & imported("import s2s_jax.bench.workloads") == set()


def test_translation_imports_no_heavy_library(tmp_path):
    small = tmp_path / "small.py"
    small.write_text(f"import sys\nsys.path.insert(0, {str(ROOT / 'tests')!r})\nfrom tiny import experiment\n")
    run, lines = tmp_path / "run", tmp_path / "lines"
    lines.write_text("a b\n")
    python("-m", "s2s_jax", "train", str(small), "--run", str(run), "--steps", "1", "--validation.sentences", "2")
    words = ["translate", str(run), "--input", str(lines)]
    output = imported(f"from s2s_jax.cli import main\nassert main({words!r}) == 0")
    assert HEAVY & output == set()
