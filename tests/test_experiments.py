"""Every experiment file builds, and those whose data needs no network run two steps and answer a line."""

import runpy
from pathlib import Path

import jax
import pytest
from rich.console import Console

from s2s_jax import run
from s2s_jax.config import override
from s2s_jax.model.seq2seq import build

FOLDER = Path(__file__).parent.parent / "experiments"
FILES = sorted(FOLDER.glob("[!_]*.py"))
SMALL = ("steps=2", "data.train_size=60", "data.eval_size=20", "validation.sentences=4", "batch.buckets=1",
         "batch.size=4", "model.encoder.size=6", "model.decoder.size=12", "model.attention.size=5",
         "model.embedding=8",
         "device.cache=")  # fmt: skip


def load(path: Path):
    return runpy.run_path(str(path))["experiment"]()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_experiment_builds(path):
    experiment = load(path)
    model = build(experiment.model, source_vocabulary=20, target_vocabulary=30)
    assert jax.eval_shape(model.init, jax.random.key(0))
    text = path.read_text()
    assert "Claim:" in text or path.stem in ("parallel_text", "wmt14")
    assert f"Command: s2s train {path.stem}" in text


@pytest.mark.parametrize("name", [pytest.param("dates", marks=pytest.mark.wide), "reverse", "parallel_text"])
def test_experiments_run_two_steps(name, tmp_path):
    experiment = load(FOLDER / f"{name}.py")
    changes = list(SMALL)
    if name == "parallel_text":
        (tmp_path / "a").write_text("ein Haus\nzwei Häuser\nein Baum\n" * 4)
        (tmp_path / "b").write_text("a house\ntwo houses\na tree\n" * 4)
        files = f"{tmp_path / 'a'},{tmp_path / 'b'}"
        changes += [f"data.train={files}", f"data.validation={files}", "tokenizer.source.type=word",
                    "tokenizer.target.type=unigram", "tokenizer.target.size=280"]  # fmt: skip
    run.train(override(experiment, *changes), tmp_path / "run", Console(quiet=True))
    assert len(run.load(tmp_path / "run").translate(["x", ""])) == 2
