"""`experiments/bench/gpu.py`, tried on the CPU with tiny sizes: it must not fail where a GPU is at hand for minutes."""

import json
import os
import subprocess
import sys

import pytest

from s2s_jax.shipped import EXPERIMENTS

SCRIPT = EXPERIMENTS / "bench" / "gpu.py"
# packages that a machine with a GPU need not have; torch is there, but not here
ABSENT = ("grain", "array_record", "tensorflow_datasets", "babel", "rapidfuzz", "immutabledict", "tree", "promise")
ABSENT += ("tensorflow_metadata", "toml", "matplotlib", "sacrebleu", "torch")


def run(folder, *options):
    """The lines that the script writes where the absent packages cannot be imported."""
    blocked = "\n".join(["import sys", *(f"sys.modules[{name!r}] = None" for name in ABSENT)])
    (folder / "sitecustomize.py").write_text(blocked, encoding="utf-8")
    lines, environment = folder / "gpu.jsonl", {**os.environ, "PYTHONPATH": str(folder), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, str(SCRIPT), str(lines), "--tiny", *options]
    subprocess.run(command, env=environment, cwd=folder, check=True, capture_output=True, timeout=900)
    return lines, [json.loads(line) for line in lines.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """The lines of a few measurements, among them one that needs PyTorch."""
    names = ("machine", "losses", "bare loops, graphs unrolled", "W1 train float32, graphs unrolled")
    return run(tmp_path_factory.mktemp("gpu"), *(f"--only={name}" for name in (*names, "W1 greedy")))


def test_each_measurement_leaves_its_lines(measured):
    _, rows = measured
    assert next(row for row in rows if "versions" in row)["versions"]["jax"]
    losses = next(row for row in rows if "losses" in row)["losses"]["cpu"]
    assert len(losses) == 5
    assert losses[-1] < losses[0]
    assert {(row["loop"], row["kernels"]) for row in rows if "microseconds_per_turn" in row} == {
        (loop, kernels) for loop in ("scan", "while") for kernels in (1, 5, 27)
    }
    (row,) = [row for row in rows if "milliseconds" in row]
    assert set(row["milliseconds"]) == {"default", "unrolled"}
    assert len(row["times_as_fast"]["unrolled"]) == 3


def test_a_measurement_that_fails_says_why_and_the_next_goes_on(measured):
    _, rows = measured
    (error,) = [row for row in rows if "error" in row]
    assert error["measurement"].startswith("W1 greedy")
    assert "torch" in error["error"]


def test_the_page_has_all_lines(measured):
    lines, _ = measured
    page = lines.with_suffix(".md")
    subprocess.run([sys.executable, str(SCRIPT), str(lines), "--page", str(page)], check=True, timeout=60)
    text = page.read_text(encoding="utf-8")
    for wanted in (
        "## A turn of a bare loop",
        "| unrolled | while | 27 |",
        "W1 train float32, graphs unrolled",
        "torch",
    ):
        assert wanted in text


def test_time_that_is_over_ends_the_run_and_keeps_its_lines(tmp_path):
    _, rows = run(tmp_path, "--minutes=0.001", "--only=machine")
    assert "minutes were over" in rows[-1]["error"]


def test_a_process_that_dies_is_named_and_the_next_measurement_is_begun(tmp_path):
    dying = "import s2s_jax.bench.measure as m, os\nm.describe_machine = lambda: os._exit(9)\n"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    script = tmp_path / "bench" / "x" / "gpu.py"
    script.parent.mkdir(parents=True)
    text = SCRIPT.read_text(encoding="utf-8").replace("parents[2]", f"parents[2] and Path({str(SCRIPT.parents[2])!r})")
    script.write_text(text.replace("def bare_loops(", dying + "\n\ndef bare_loops("), encoding="utf-8")
    lines = tmp_path / "gpu.jsonl"
    command = [sys.executable, str(script), str(lines), "--tiny", "--only=machine", "--only=bare loops, graphs none"]
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=300)
    rows = [json.loads(line) for line in lines.read_text(encoding="utf-8").splitlines()]
    assert {"measurement": "machine", "error": "the process ended with status 9"} in rows
    assert any("microseconds_per_turn" in row for row in rows)


@pytest.mark.wide
def test_all_measurements(tmp_path):
    _, rows = run(tmp_path, "--minutes=30")
    assert all("torch" in row["error"] for row in rows if "error" in row)
