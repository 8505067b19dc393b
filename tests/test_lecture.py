"""Do the lecture's experiments run, and say what they saw in a picture and a table?"""

import runpy
from pathlib import Path

import numpy as np
import pytest
import tiny
from matplotlib.image import imread
from rich.console import Console

from s2s_jax import run
from s2s_jax.text.examples import Example

FOLDER = Path(__file__).parent.parent / "experiments" / "lecture"


def loaded(name):
    return runpy.run_path(str(FOLDER / f"{name}.py"))


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.py")))
def test_every_file_says_what_it_claims_and_how_to_see_it(name):
    text = (FOLDER / f"{name}.py").read_text()
    for part in (
        "Claim: ",
        f"Command: python experiments/lecture/{name}.py",
        "Hardware and time: ",
        "Expect: ",
        "Seen: ",
    ):
        assert part in text
    assert "PLACE_" not in text


def test_slopes_by_distance(tmp_path):
    file = loaded("gradients")
    plan = file["Plan"](steps=2, length=4, seeds=2, size=6, sentences=4)
    found = file["curves"](plan, "rnn", "with attention")
    assert [curve.point for curve in found] == list(file["POINTS"])
    assert all(curve.norms.shape == (2, 4) and (curve.norms > 0).all() for curve in found)
    file["draw"](tmp_path / "gradients.png", found)
    assert imread(tmp_path / "gradients.png").std() > 0.01
    assert len(file["table"](found).splitlines()) == 2 + len(found)
    assert found[0]._replace(norms=np.array([[4.0, 1.0], [1.0, 1.0]])).kept == pytest.approx(0.5)
    with pytest.raises(ValueError, match="steps must be at least 2, got 1"):
        file["Plan"](steps=1)


def test_ways_of_looking_are_compared_where_gold_links_are():
    file = loaded("explanation")
    looks = np.array([[0.2, 0.5, 0.3], [1.0, 0.0, 0.0], [0.1, 0.2, 0.7]])
    others = {"attention": looks, "saliency": looks[:, ::-1], "occlusion": looks - 1.0}
    pair = run.ScoredPair(Example("ab", "cd"), ("a", "b", "</s>"), ("c", "d", "</s>"), np.zeros(3), looks, 3)
    seen = [file["Seen"](pair, {(1, 0), (0, 1)}, others)]
    assert file["agreed"](seen, "attention", "occlusion") == pytest.approx((1.0, 1.0))
    tau, top = file["agreed"](seen, "attention", "saliency")
    assert top == 0.5
    assert tau == pytest.approx((1 / 3 - 0.5) / 2)
    assert file["by_chance"](seen) == pytest.approx(1 / 3)
    shown = file["pictures"]("x", seen[0])
    assert [picture.title for picture in shown] == ["x: attention", "x: saliency", "x: occlusion"]
    assert [picture.alignment.max(1).tolist() for picture in shown[:2]] == [[1.0] * 3] * 2
    assert (shown[2].alignment == 0).all()  # what falls below 0 is not drawn


@pytest.mark.wide
def test_attention_against_gold_slopes_and_removal(tmp_path):
    file = loaded("explanation")
    run.train(
        tiny.experiment("steps=2", "data.count=100", "model.encoder.size=4"), tmp_path / "run", Console(quiet=True)
    )
    said = file["main"](tmp_path, {"tiny": run.load(tmp_path / "run")}).splitlines()
    assert said[0].count("|") == said[1].count("|") == said[2].count("|") == len(file["HEAD"]) + 1
    assert imread(tmp_path / "explanation.png").std() > 0.01
