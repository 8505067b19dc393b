"""The experiments of claims run, and write their pictures and tables."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import tiny
from matplotlib.image import imread
from rich.console import Console

import s2s_jax as s2s
from s2s_jax.config import override
from s2s_jax.decode.forced_decoding import ScoredPair
from s2s_jax.imports import import_once
from s2s_jax.sweep.fingerprint import assign_dirs
from s2s_jax.sweep.plan import trial_groups
from s2s_jax.sweep.results import read_result
from s2s_jax.sweep.statistics import seeds_needed
from s2s_jax.sweep.sweep import grid_points, grid_trials
from s2s_jax.sweep.trial import run_trial
from s2s_jax.text.example import Example

FOLDER = Path(__file__).parent.parent / "experiments" / "claims"


def loaded(name):
    return vars(import_once(str(FOLDER / f"{name}.py")))


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("[!_]*.py")))
def test_every_file_documents_its_claim_and_command(name):
    text = (FOLDER / f"{name}.py").read_text()
    for part in ("Claim: ", "Hardware and time: ", "Expect: ", "Seen: "):
        assert f"\n{part}" in text
    command = f"s2s sweep run {name}" if "def sweep()" in text else f"python experiments/claims/{name}.py"
    assert f"\nCommand: {command}" in text


SWEEPS = [
    (path.stem, function)
    for path in sorted(FOLDER.glob("[!_]*.py"))
    for function in re.findall(r"^def (\w+)\(\) -> (?:s2s\.)?Sweep:", path.read_text(), re.MULTILINE)
]
LARGE = [("scores", function) for function in ("dates", "sounds", "luong")]  # of one kind with scores' sweep
SMALL = ("steps=2", "data.train_size=60", "data.eval-size=20", "validation.every=2", "batch.size=4", "device.cache=",
         "model.embedding=8", "model.encoder.size=6", "model.attention.size=5", "record.log_every=1")  # fmt: skip


def test_the_sweeps_are_found():
    assert {name for name, _ in SWEEPS} == {"bottleneck", "forcing", "init_and_order", "scores", "sequence_level"}


@pytest.mark.parametrize(
    ("name", "function"), [pytest.param(*one, marks=pytest.mark.wide if one in LARGE else ()) for one in SWEEPS]
)
def test_every_sweep_has_enough_seeds_and_valid_trials(name, function):
    made = loaded(name)[function]()
    assert len(list(grid_trials(made))) == len(grid_points(made)) * len(made.seeds)
    comparisons = (len(made.labels()[made.compare]) - 1) * len(grid_points(made)) // len(made.labels()[made.compare])
    assert len(made.seeds) >= seeds_needed(comparisons)


@pytest.mark.parametrize(
    ("name", "function", "label"),
    [
        ("bottleneck", "sweep", "attention"),
        ("forcing", "sweep", "linear, Gumbel"),
        ("init_and_order", "sweep", "source reversed"),
        ("scores", "dates", "location-aware"),
    ],
)
def test_sweeps_run_two_steps(name, function, label, tmp_path):
    made = loaded(name)[function]()
    small = dataclasses.replace(
        made,
        base=override(made.base, *SMALL),
        seeds=(0,),
        keep=lambda point: point[made.compare] in (label, made.baseline),
    )
    trial_dirs = assign_dirs(list(grid_trials(small)), tmp_path)
    chosen = [trial_dir for trial_dir in trial_dirs if trial_dir.trial.point[made.compare] == label]
    ((spec,),) = trial_groups(small, chosen)
    assert run_trial(spec) == "done"
    assert np.isfinite(read_result(chosen[0]).metrics[made.metrics[0]])


def test_gradients_by_distance(tmp_path):
    file = loaded("gradients")
    budget = file["Budget"](steps=2, length=4, seeds=2, size=6, sentences=4)
    found = file["curves"](budget, "rnn", "with attention")
    assert [curve.stage for curve in found] == list(file["STAGES"])
    assert all(curve.norms.shape == (2, 4) and (curve.norms > 0).all() for curve in found)
    file["draw"](tmp_path / "gradients.png", found)
    assert imread(tmp_path / "gradients.png").std() > 0.01
    assert len(file["table"](found).splitlines()) == 2 + len(found)
    assert found[0]._replace(norms=np.array([[4.0, 1.0], [1.0, 1.0]])).far_to_near == pytest.approx(0.5)
    with pytest.raises(ValueError, match="steps must be at least 2, got 1"):
        file["Budget"](steps=1)


def test_methods_are_compared_where_gold_links_are():
    file = loaded("alignment")
    attention = np.array([[0.2, 0.5, 0.3], [1.0, 0.0, 0.0], [0.1, 0.2, 0.7]])
    matrices = {"attention": attention, "saliency": attention[:, ::-1], "occlusion": attention - 1.0}
    pair = ScoredPair(Example("ab", "cd"), ("a", "b", "</s>"), ("c", "d", "</s>"), np.zeros(3), attention, 3, 0.0)
    analyses = [file["Analysis"](pair, {(1, 0), (0, 1)}, matrices)]
    assert file["compare_methods"](analyses, "attention", "occlusion") == pytest.approx((1.0, 1.0))
    assert file["forced_error"](analyses, "attention", numbers=True) is None
    assert [file["forced_error"](analyses, method, numbers=False) for method in ("attention", "saliency")] == [0, 0.5]
    tau, top = file["compare_methods"](analyses, "attention", "saliency")
    assert top == 0.5
    assert tau == pytest.approx((1 / 3 - 0.5) / 2)
    assert file["chance_agreement"](analyses) == pytest.approx(1 / 3)
    shown = file["pictures"]("x", analyses[0])
    assert [picture.title for picture in shown] == ["x: attention", "x: saliency", "x: occlusion"]
    assert [picture.alignment.max(1).tolist() for picture in shown[:2]] == [[1.0] * 3] * 2
    assert (shown[2].alignment == 0).all()  # negative values are not drawn


def test_attention_against_gold_saliency_and_occlusion(tmp_path):
    file = loaded("alignment")
    s2s.train(
        tiny.experiment("steps=2", "data.train_size=100", "model.encoder.size=4"), tmp_path / "run", Console(quiet=True)
    )
    table = file["main"](tmp_path, {"tiny": s2s.load(tmp_path / "run")}).splitlines()
    assert table[0].count("|") == table[1].count("|") == table[2].count("|") == len(file["HEAD"]) + 1
    assert imread(tmp_path / "alignment.png").std() > 0.01
