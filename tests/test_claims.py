"""The experiments of claims run, and write their pictures and tables."""

import dataclasses
import re
from pathlib import Path
from types import SimpleNamespace

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
from s2s_jax.sweep.significance import seeds_needed
from s2s_jax.sweep.sweep import grid_points, grid_trials
from s2s_jax.sweep.trial import run_trial
from s2s_jax.text.example import Example

FOLDER = Path(__file__).parent.parent / "experiments"
# by the name that the command takes
FILES = {path.stem: path for path in sorted(FOLDER.glob("claims/[!_]*.py"))}
FILES |= {f"published/{path.stem}": path for path in sorted(FOLDER.glob("published/[!_]*.py"))}


def loaded(name):
    return vars(import_once(str(FILES[name])))


@pytest.mark.parametrize("name", FILES)
def test_every_file_documents_its_claim_and_command(name):
    text = FILES[name].read_text()
    published = ("Source: ", "May differ: ") if name.startswith("published/") else ()
    for part in ("Claim: ", *published, "Hardware and time: ", "Expect: ", "Seen: "):
        assert f"\n{part}" in text
    command = f"s2s sweep run {name}" if "def sweep()" in text else f"python experiments/claims/{name}.py"
    assert f"\nCommand: {command}" in text


SWEEPS = [
    (name, function)
    for name, path in FILES.items()
    for function in re.findall(r"^def (\w+)\(\) -> (?:s2s\.)?Sweep:", path.read_text(), re.MULTILINE)
]
LARGE = [("scores", function) for function in ("dates", "sounds", "luong")]  # of one kind with scores' sweep
WORDS = ("tokenizer.source.type=word", "tokenizer.target.type=word", "evaluation.bleu-tokenizer=auto",
         "model.decoder.size=12")  # fmt: skip
SMALL = ("steps=2", "data.train_size=60", "data.eval-size=20", "validation.every=2", "batch.size=4", "batch.buckets=1",
         "device.cache=", "model.embedding=8", "model.encoder.size=6", "model.attention.size=5",
         "record.log_every=1")  # fmt: skip


def test_the_sweeps_are_found():
    of_claims = {"bottleneck", "forcing", "init_and_order", "scores", "sequence_level", "translation"}
    assert {name for name, _ in SWEEPS} == of_claims | {name for name in FILES if name.startswith("published/")}


@pytest.mark.parametrize(
    ("name", "function"), [pytest.param(*one, marks=pytest.mark.wide if one in LARGE else ()) for one in SWEEPS]
)
def test_every_sweep_has_enough_seeds_and_valid_trials(name, function):
    made = loaded(name)[function]()
    assert len(list(grid_trials(made))) == len(grid_points(made)) * len(made.seeds)
    if not made.published:  # then means are told, and nothing is compared
        labels = len(made.labels()[made.compare])
        assert len(made.seeds) >= seeds_needed((labels - 1) * len(grid_points(made)) // labels)


@pytest.mark.parametrize(
    ("name", "function", "label"),
    [
        pytest.param("bottleneck", "sweep", "attention", marks=pytest.mark.wide),
        ("forcing", "sweep", "linear, Gumbel"),
        ("init_and_order", "sweep", "source reversed"),
        pytest.param("scores", "dates", "location-aware", marks=pytest.mark.wide),
        ("translation", "search", "source reversed"),
        ("published/cmudict", "sweep", "LSTM 2x256"),
        pytest.param("published/cogs", "sweep", "LSTM 2x256", marks=pytest.mark.wide),
        ("published/enja", "sweep", "en-ja"),
        ("published/scan", "sweep", "turn left"),
    ],
)
def test_sweeps_run_two_steps(name, function, label, tmp_path, monkeypatch):
    """On letters to be reversed where the data would be downloaded; a published number stands beside the result."""
    made = loaded(name)[function]()
    changes = ("data.train=task:reverse", *WORDS) if made.base.data.train.startswith("tfds:") else ()
    small = dataclasses.replace(
        made,
        base=override(made.base, *SMALL, *changes),
        axes={axis: without_data(values) for axis, values in made.axes.items()} if changes else made.axes,
        seeds=(0,),
        keep=lambda point: point[made.compare] in (label, made.baseline),
    )
    trial_dirs = assign_dirs(list(grid_trials(small)), tmp_path)
    chosen = [trial_dir for trial_dir in trial_dirs if trial_dir.trial.point[made.compare] == label]
    ((spec,),) = trial_groups(small, chosen)
    assert run_trial(spec) == "done"
    result = read_result(chosen[0])
    assert np.isfinite(result.metrics[made.metrics[0]])
    if not made.published:
        return
    results = import_once(str(FOLDER.parent / "scripts" / "results.py"))
    monkeypatch.setattr(results, "RECORDS", tmp_path / "records")
    for _ in range(2):  # what is recorded again replaces what was recorded
        results.write_record(name, tmp_path)
    page = results.page()
    (published,) = [one for one in made.published if (one.label, one.metric) == (label, made.metrics[0])] or [None]
    row = f"| {label} | {results.number(result.metrics[made.metrics[0]])}"
    assert row + (f" (published {results.number(published.value)}: " if published else " |") in page
    assert f"| {label} | 0 | {result.parameters:,} | 2 | `" in page


def test_a_published_number_is_reached_or_the_distance_is_told():
    cell, published = (
        import_once(str(FOLDER.parent / "scripts" / "results.py")).cell,
        s2s.Published("a", "wer", 0.2, aim=0.19),
    )
    trials = [{"metrics": {"wer": value, "bleu": 37.1}} for value in (0.18, 0.2)]
    assert cell(trials, "wer", published) == "0.1900 ± 0.0141 (published 0.2000: reached)"
    assert cell(trials[1:], "wer", published) == "0.2000 (published 0.2000: not reached, 0.01 short of 0.19)"
    assert cell(trials[1:], "bleu", s2s.Published("a", "bleu", 37)) == "37.10 (published 37.00: reached)"
    assert cell(trials, "per", None) == "–"
    with pytest.raises(ValueError, match=r"published\.metric"):
        dataclasses.replace(loaded("bottleneck")["sweep"](), published=[s2s.Published("attention", "bleu", 1.0)])


def without_data(values):
    return {label: {name: value for name, value in settings.items() if name != "data.train"}
            for label, settings in values.items()}  # fmt: skip


def test_gradients_by_distance(tmp_path):
    file = loaded("gradients")
    budget = file["Budget"](steps=2, length=4, seeds=2, size=6, sentences=4)
    found = file["curves"](budget, "rnn", "with attention")
    assert [curve.stage for curve in found] == list(file["STAGES"])
    assert all(curve.norms.shape == (2, 4) and (curve.norms > 0).all() for curve in found)
    file["draw"](tmp_path / "gradients.png", found)
    assert imread(tmp_path / "gradients.png").std() > 0.01
    assert len(file["table"](found).splitlines()) == 2 + len(found)
    ratio, low, high = found[0]._replace(norms=np.array([[4.0, 1.0], [1.0, 1.0]])).far_to_near
    assert ratio == pytest.approx(0.5)
    # two logarithms, log(1/4) and 0: standard error log 2, and Student's t of one degree of freedom is 12.706
    assert [low, high] == pytest.approx([0.5 * 2**-12.706, 0.5 * 2**12.706], rel=1e-3)
    with pytest.raises(ValueError, match="steps must be at least 2, got 1"):
        file["Budget"](steps=1)


class Copier:
    """Stands in for a run: continues a prefix rightly, unless its last token is wrong and the source has a `b`."""

    def translate(self, lines, *, beam):
        lines = [s2s.ConstrainedLine.of(line) for line in lines]
        assert beam == 1
        return [SimpleNamespace(text=self.continued(line.line.split(" "), line.prefix.split())) for line in lines]

    def continued(self, words, prefix):
        lost = prefix != words[: len(prefix)] and "b" in words
        return " ".join(prefix + (["x"] if lost else words[len(prefix) :]))


def test_errors_by_position_and_after_a_wrong_token(tmp_path):
    file = loaded("recovery")
    by_position = file["errors_by_position"]([["a", "x"], ["b"], ["c", "d", "e"]], [["a", "b"], ["b", "c"], ["c", "d"]])
    assert by_position.tolist() == pytest.approx([0, 2 / 3])
    lines = ["a b c d", "a c d e", "a c"]  # the last has no rest behind its middle
    errors = file["errors_of"](Copier(), [Example(line, line) for line in lines], label="x", seed=0)
    assert (errors.after_right, errors.after_wrong, errors.recovered) == (1.0, 0.5, 0.5)
    assert errors.by_position.tolist() == [0, 0, 0, 0]
    file["draw"](tmp_path / "recovery.png", [errors])
    assert imread(tmp_path / "recovery.png").std() > 0.01
    assert file["table"]([errors]).splitlines()[2] == "| x | 1 | 1.000 | 0.500 | 0.500 |"
    (tmp_path / "trials").mkdir()
    with pytest.raises(SystemExit, match="has no finished trial"):
        file["main"](tmp_path / "out", tmp_path)


def test_methods_are_compared_where_gold_links_are():
    file = loaded("alignment")
    attention = np.array([[0.2, 0.5, 0.3], [1.0, 0.0, 0.0], [0.1, 0.2, 0.7]])
    matrices = {"attention": attention, "saliency": attention[:, ::-1], "occlusion": attention - 1.0}
    pair = ScoredPair(Example("ab", "cd"), ("a", "b", "</s>"), ("c", "d", "</s>"), np.zeros(3), attention, 3, 0.0)
    analyses = [file["Analysis"](pair, {(1, 0), (0, 1)}, matrices)]
    assert file["compare_methods"](analyses, "attention", "occlusion") == pytest.approx((1.0, 1.0))
    assert file["forced_error"](analyses, "attention", kind="number") is None
    assert [file["forced_error"](analyses, method, kind="noun") for method in ("attention", "saliency")] == [0, 0.5]
    form = ["*", "cake", "(", "x", "_", "4", ")", ";", "eat", ".", "agent", "(", "x", "_", "1", ",", "Emma", ")"]
    kinds = [file["token_kind"](form, form.index(word)) for word in ("cake", "4", "eat", "Emma")]
    assert kinds == ["noun", "number", "verb", "name"]
    # two values: a standard error of 0.1, and Student's t of one degree of freedom is 12.706
    cells = [file["mean_with_interval"](values) for values in ([None], [0.5, None], [0.4, 0.6])]
    assert cells == ["-", "0.500", "0.500 (-0.771 to 1.771)"]
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
    run = s2s.load(tmp_path / "run")
    table = file["main"](tmp_path, {"tiny": [run, run]}).splitlines()
    assert table[0] == "| | tiny, 2 seeds |"
    rows = dict(line.strip("| ").split(" | ") for line in table[2:])
    assert re.fullmatch(r"(\d\.\d{3}) \(\1 to \1\)", rows["AER of attention"])  # of two equal runs
    assert imread(tmp_path / "alignment.png").std() > 0.01
