"""What is to be installed for an optional feature: packages that an index knows, from pyproject.toml alone."""

import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import tiny

from s2s_jax.evaluate.glyphs import FONT_PACKAGES
from s2s_jax.export.exported import _parameters
from s2s_jax.export.exporter import _save
from s2s_jax.extras import needs_extra, packages_of
from s2s_jax.sweep.executors import ray, slurm
from s2s_jax.sweep.executors.interface import ExecutorConfig, Progress
from s2s_jax.sweep.tune import Tuning, tune
from s2s_jax.training.trackers import TRACKERS

TUNING = Tuning(base=tiny.experiment(), ranges={"seed": [0, 1]})
SILENT = Progress(finished=lambda *_: None, note=print)
ROOT = Path(__file__).parent.parent
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
REQUIRES = ["jax>=0.10.2", *(f'{each}; extra == "{name}"' for name, group in EXTRAS.items() for each in group)]


@pytest.fixture(autouse=True)
def installed(monkeypatch):
    """The metadata that an installation of this source tree has."""
    monkeypatch.setattr(metadata, "requires", lambda name: REQUIRES)


@pytest.mark.parametrize("extra", sorted(EXTRAS))
def test_the_packages_of_an_extra_are_those_of_pyproject(extra):
    assert packages_of(extra) == EXTRAS[extra]
    named = " ".join(f"'{package}'" for package in EXTRAS[extra])
    assert needs_extra("x", extra) == f"x needs packages that are not installed; pip install {named}."


def test_without_metadata_the_extra_is_named(monkeypatch):
    def absent(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", absent)
    assert needs_extra("x", "ray").endswith("install those that pyproject.toml lists for the extra ray.")


@pytest.mark.parametrize(
    ("module", "extra", "feature", "use"),
    [
        ("tensorboardX", "tensorboard", "record.trackers=tensorboard", lambda: TRACKERS["tensorboard"](Path(), {})),
        ("wandb", "wandb", "record.trackers=wandb", lambda: TRACKERS["wandb"](Path(), {})),
        ("mlflow", "mlflow", "record.trackers=mlflow", lambda: TRACKERS["mlflow"](Path(), {})),
        ("safetensors.numpy", "export", "an export", lambda: _save({}, Path())),
        ("safetensors.numpy", "export", "an exported run", lambda: _parameters(Path())),
        ("optuna", "tune", "a tuning", lambda: tune(TUNING, Path(), print)),
        ("ray", "ray", "--executor ray", lambda: ray.run_on_ray([], SILENT, ExecutorConfig(name="ray"), retries=0)),
        ("submitit", "slurm", "--executor slurm", lambda: slurm.run_on_slurm([], SILENT, ExecutorConfig(), retries=0)),
    ],
)
def test_a_feature_without_its_packages_names_what_an_index_knows(monkeypatch, module, extra, feature, use):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ValueError) as refused:
        use()
    assert str(refused.value) == needs_extra(feature, extra)


def test_no_text_tells_to_install_a_name_that_is_not_ours_on_an_index():
    texts = [*ROOT.glob("s2s_jax/**/*.py"), *ROOT.glob("docs/**/*.md"), ROOT / "README.md"]
    assert [path for path in texts if re.search(r"install\W+s2s_jax\[", path.read_text(encoding="utf-8"))] == []


def test_the_fonts_that_a_hint_names_are_those_of_the_extra():
    assert sorted(FONT_PACKAGES.values()) == sorted(re.split("[<>=]", each)[0] for each in EXTRAS["fonts"])
